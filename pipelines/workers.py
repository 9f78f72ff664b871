"""What runs inside an engine's workers, written once for all engines: read a shard, find faces, replace faces.

A worker is made from plain settings, loads its models itself, and takes and gives records. Secrets are made and sealed inside
`ProtectWorker.protect` and never leave it.
"""

import contextlib
import json
import os
import sys
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from keys.context import ShardContext
from keys.recipients import Recipient
from keys.sealing import SealedPart, seal_part
from keys.sources import KeySource
from pipelines.config import JobConfig
from pipelines.finding import Finder
from pipelines.formats import Shard, shard_format
from pipelines.policy import Decision
from pipelines.pseudonyms import load_identities
from pipelines.samples import DetectedSample, ProtectedSample, QuarantinedSample, Sample, ShardEnd
from pipelines.staging import STAGING, SampleResult, write_part
from pipelines.steps import protect
from pipelines.storage import Folder

KeySourceFactory = Callable[[], KeySource]
READ_SAMPLES = 16  # per block that a reader hands on
READ_BYTES = 16 << 20
POISON = "it ended the process that worked on it"


@dataclass(frozen=True)
class WorkerSettings:
    """Everything a worker needs to know; picklable, no secrets, no weights.

    Attributes:
        poison: (shard, index) of samples that must not be touched again: they killed a worker.
        suspects: (shard, index) of samples that are worked on alone (`pipelines.journal`).
        decisions: shard -> what reviewers decided about its pictures.
    """

    config: JobConfig
    source_url: str
    run_id: str
    poison: frozenset[tuple[str, int]] = frozenset()
    decisions: dict[str, tuple[Decision, ...]] = field(default_factory=dict)
    suspects: frozenset[tuple[str, int]] = frozenset()

    @property
    def digest(self) -> str:
        return self.config.digest()


def read_shard(settings: WorkerSettings, shard: Shard) -> Iterator[list[Sample | QuarantinedSample | ShardEnd]]:
    """The shard's samples in small blocks; the last block ends with its ShardEnd."""
    block: list[Sample | QuarantinedSample | ShardEnd] = []
    size = 0
    for record in _all_records(Folder(settings.source_url), shard, settings.config.wanted):
        if isinstance(record, Sample) and (record.shard, record.index) in settings.poison:
            record = QuarantinedSample(record.shard, record.index, record.key, POISON)  # noqa: PLW2901
        block.append(record)
        size += sum(len(picture.data) for picture in record.pictures) if isinstance(record, Sample) else 0
        if len(block) >= READ_SAMPLES or size >= READ_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def _all_records(source: Folder, shard: Shard, wanted: frozenset[str]) -> Iterator[Sample | QuarantinedSample | ShardEnd]:
    """What the format reads; whatever hostile bytes make a library raise is the shard's problem, never the job's."""
    samples = 0
    try:
        for record in shard_format(shard.format).read(source, shard, wanted):
            samples += not isinstance(record, ShardEnd)
            yield record
    except Exception as error:
        yield ShardEnd(shard.name, samples, f"its reader failed ({type(error).__name__}).")


class DetectWorker:
    """Finds faces. One per process."""

    def __init__(self, settings: WorkerSettings) -> None:
        fix_threads()
        self._target = Folder(settings.config.dst)
        self._run_id, self._suspects = settings.run_id, settings.suspects
        self._finder = Finder(settings.config, settings.decisions)
        fix_threads()
        note_identity(self._target, self._run_id, "detector", self._finder.identity)

    def detect(self, samples: Sequence[Sample]) -> list[DetectedSample | QuarantinedSample]:
        found: list[DetectedSample | QuarantinedSample] = []
        for group in _suspects_alone(samples, self._suspects):
            with working_on(self._target, self._run_id, group):
                found += self._finder.detect(group)
        return found


class ProtectWorker:
    """Replaces faces, seals their keys, and leaves a part per shard in staging. One per process."""

    def __init__(self, settings: WorkerSettings, key_source: KeySourceFactory) -> None:
        from diffpriv.transforms import load_transform

        fix_threads()
        config = settings.config
        self._dataset, self._digest, self._run_id = config.dataset, settings.digest, settings.run_id
        self._target, self._suspects = Folder(config.dst), settings.suspects
        keeps = config.transform.recovery != "none"
        self._recipients = [Recipient.load(path) for path in config.recipients] if keeps else []
        self._keys = key_source()
        self._identities = load_identities(config)
        self._transform = load_transform(config.transform)
        fix_threads()
        note_identity(self._target, self._run_id, "transform", self._transform.identity)

    def protect(self, samples: Sequence[DetectedSample]) -> list[SampleResult]:
        """Results in no particular order; those of samples with changed pictures name a part that is in staging."""
        results = [SampleResult(s.shard, s.index, s.key, "", s.pictures) for s in samples if not s.found]
        by_shard: dict[str, list[DetectedSample]] = defaultdict(list)
        for sample in samples:
            if sample.found:
                by_shard[sample.shard].append(sample)
        for shard, many in by_shard.items():
            for group in _suspects_alone(many, self._suspects):
                with working_on(self._target, self._run_id, group):
                    outcomes, sealed = self._one_shard(shard, list(group))
                    results += write_part(self._target, self._run_id, outcomes, sealed)
        return results

    def _one_shard(
        self, shard: str, samples: list[DetectedSample]
    ) -> tuple[list[ProtectedSample | QuarantinedSample], SealedPart | None]:
        context = ShardContext(self._dataset, shard, self._digest)
        outcomes, secrets = protect(samples, self._transform, self._keys, context, self._identities)
        # Without recipients (recovery "none") nothing is kept: the keys end with this frame.
        sealed = seal_part(context, self._recipients, secrets) if secrets and self._recipients else None
        if sealed is None:
            outcomes = [_unrecoverable(one) for one in outcomes]
        return outcomes, sealed


def _unrecoverable(outcome: ProtectedSample | QuarantinedSample) -> ProtectedSample | QuarantinedSample:
    if isinstance(outcome, QuarantinedSample) or not any(face.recoverable for face in outcome.faces):
        return outcome
    faces = tuple(type(face)(**{**vars(face), "recoverable": False}) for face in outcome.faces)
    return ProtectedSample(**{**vars(outcome), "faces": faces})


_AnySample = TypeVar("_AnySample", Sample, DetectedSample)


def _suspects_alone(samples: Sequence[_AnySample], suspects: frozenset[tuple[str, int]]) -> list[Sequence[_AnySample]]:
    """All together, but each suspect by itself."""
    if not suspects:
        return [samples]
    others = [sample for sample in samples if (sample.shard, sample.index) not in suspects]
    groups: list[Sequence[_AnySample]] = [others]
    groups += [[sample] for sample in samples if (sample.shard, sample.index) in suspects]
    return groups


@contextlib.contextmanager
def working_on(target: Folder, run_id: str, samples: Sequence[Sample | DetectedSample]) -> Iterator[None]:
    """Leave a note of what this process is working on while it is: if it is killed, the note stays and names the suspects."""
    if not samples:
        yield
        return
    name = f"{STAGING}/{run_id}/working/{uuid.uuid4().hex}.json"
    target.small.write(name, json.dumps([[sample.shard, sample.index] for sample in samples]).encode())
    try:
        yield
    finally:
        target.small.delete(name)


def take_suspects(target: Folder, run_id: str) -> list[tuple[str, int]]:
    """Samples that workers were busy with when they died; the notes are removed."""
    suspects = set()
    for name in target.names(f"{STAGING}/{run_id}/working"):
        written = target.small.read_if_there(name)
        if written:
            suspects |= {(shard, index) for shard, index in json.loads(written)}
        target.small.delete(name)
    return sorted(suspects)


def note_identity(target: Folder, run_id: str, stage: str, identity: str) -> None:
    """What a worker loaded, for the commit record; every worker of a stage writes the same."""
    target.small.write(f"{STAGING}/{run_id}/made-by/{stage}", identity.encode())


def identities(target: Folder, run_id: str) -> dict[str, str]:
    prefix = f"{STAGING}/{run_id}/made-by"
    return {name.rpartition("/")[2]: target.small.read(name).decode() for name in target.names(prefix)}


def fix_threads() -> None:
    """One thread for every library that computes: other thread counts sum in other orders, and bytes would differ.

    Call before and after loading models: libraries loaded later read the environment, those already loaded must be told.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    if "torch" in sys.modules:  # never imported for its own sake: it takes seconds
        sys.modules["torch"].set_num_threads(1)
    import cv2

    cv2.setNumThreads(1)
