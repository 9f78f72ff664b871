"""What runs inside an engine's workers, written once for all engines: read a shard, find faces, replace faces.

A worker is made from the run's context, loads its models itself, and takes and gives records.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from diffpriv.keys.context import ShardContext
from diffpriv.keys.custodians import CustodyPolicy
from diffpriv.keys.quorum import ShardLock
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.destination.staging import note_made_by, write_part
from diffpriv.pipelines.destination.worker_deaths import suspects_alone, working_on
from diffpriv.pipelines.formats.base import Shard
from diffpriv.pipelines.formats.registry import shard_format
from diffpriv.pipelines.quarantine import Code, Problem
from diffpriv.pipelines.records.results import SampleResult
from diffpriv.pipelines.records.samples import DetectedSample, QuarantinedSample, Sample, ShardEnd
from diffpriv.pipelines.run_context import RunContext
from diffpriv.pipelines.steps.finder import Finder
from diffpriv.pipelines.steps.transformer import KeySourceFactory, Replacer
from diffpriv.pipelines.storage import Folder

READ_SAMPLES = 16  # per block that a reader hands on
READ_BYTES = 16 << 20
POISON = Problem(Code.CRASHED, "it ended the process that worked on it")


def read_shard(run: RunContext, shard: Shard) -> Iterator[list[Sample | QuarantinedSample | ShardEnd]]:
    """The shard's samples in small blocks; the last block ends with its ShardEnd.

    Under a custody policy each carries the shard's lock. It is made here, where a shard is in one pair of hands, so that all
    workers that seal its faces use the same.
    """
    lock = make_lock(run.config, run.shard(shard.name))
    block: list[Sample | QuarantinedSample | ShardEnd] = []
    size = 0
    for record in _all_records(run.source, shard, run.config):
        if isinstance(record, Sample) and (record.shard, record.index) in run.poison:
            record = QuarantinedSample(record.shard, record.index, record.key, POISON)  # noqa: PLW2901
        elif lock and isinstance(record, Sample):
            record = replace(record, lock=lock)  # noqa: PLW2901
        block.append(record)
        size += sum(len(picture.data) for picture in record.pictures) if isinstance(record, Sample) else 0
        if len(block) >= READ_SAMPLES or size >= READ_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def make_lock(config: JobConfig, context: ShardContext) -> bytes:
    """A fresh lock for a shard, as its samples carry it; empty without a custody policy."""
    if config.policy is None or not config.keeps_keys:
        return b""
    return ShardLock.make(context, CustodyPolicy.load(config.policy)).encode()


def _all_records(source: Folder, shard: Shard, config: JobConfig) -> Iterator[Sample | QuarantinedSample | ShardEnd]:
    """What the format reads; whatever hostile bytes make a library raise is the shard's problem, never the job's."""
    samples = 0
    try:
        for record in shard_format(shard.format).read(source, shard, config.wanted, config.beside):
            samples += not isinstance(record, ShardEnd)
            yield record
    except Exception as error:
        yield ShardEnd(shard.name, samples, f"its reader failed ({type(error).__name__}).")


class DetectWorker:
    """Finds faces. One per process."""

    def __init__(self, run: RunContext) -> None:
        self._run, self._target = run, run.target
        self._finder = Finder(run.config, run.decisions)
        note_made_by(self._target, run.run_id, "detector", self._finder.fingerprint)

    def detect(self, samples: Sequence[Sample]) -> list[DetectedSample | QuarantinedSample]:
        found: list[DetectedSample | QuarantinedSample] = []
        for group in suspects_alone(samples, self._run.suspects):
            with working_on(self._target, self._run.run_id, group):
                found += self._finder.detect(group)
        return found


class ProtectWorker:
    """Replaces faces, and leaves a part per shard in staging. One per process."""

    def __init__(self, run: RunContext, key_source: KeySourceFactory) -> None:
        self._run, self._target = run, run.target
        self._replacer = Replacer(run.config, key_source)
        note_made_by(self._target, run.run_id, "transform", self._replacer.fingerprint)

    def protect(self, samples: Sequence[DetectedSample]) -> list[SampleResult]:
        """Results in no particular order; those of samples with changed pictures name a part that is in staging."""
        results = [SampleResult(s.shard, s.index, s.key, "", s.pictures) for s in samples if not s.found]
        by_shard: dict[tuple[str, bytes], list[DetectedSample]] = defaultdict(list)
        for sample in samples:
            if sample.found:  # a shard that was read again after a crash has two locks
                by_shard[sample.shard, sample.lock].append(sample)
        for (shard, _), many in by_shard.items():
            for group in suspects_alone(many, self._run.suspects):
                with working_on(self._target, self._run.run_id, group):
                    outcomes, sealed = self._replacer.replace(group, self._run.shard(shard))
                    results += write_part(self._target, self._run.run_id, outcomes, sealed)
        return results
