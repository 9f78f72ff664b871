"""What a job would meet and cost, from a measured part of the dataset; writes nothing, keeps nothing.

Samples are read, looked at and protected in memory, from shards spread over the dataset, until the time is spent; what the rest
holds is estimated by bytes. A dataset that is done before is not estimated but counted.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from diffpriv.keys.context import ShardContext
from diffpriv.keys.keyfile import build_key_file
from diffpriv.keys.recipients import Recipient, check_recipients
from diffpriv.keys.sealing import SealedPart
from diffpriv.keys.sources import RandomKeySource
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.formats.base import SNIFF_BYTES, Shard
from diffpriv.pipelines.formats.source import open_source, refuse_overlaps
from diffpriv.pipelines.pictures.codec import sniff_format
from diffpriv.pipelines.records.samples import DetectedSample, QuarantinedSample, Sample, ShardEnd
from diffpriv.pipelines.run.checks import check_policy, check_serving_policy, with_root_id
from diffpriv.pipelines.run.worker import read_shard
from diffpriv.pipelines.run_context import RunContext
from diffpriv.pipelines.steps.finder import Finder
from diffpriv.pipelines.steps.transformer import Replacer

SIZES = (32, 64, 128, 256)  # pixels of a face box's longer side, limits between the classes


@dataclass
class Plan:
    """Attributes:
    shards, bytes: of the dataset, counted. measured: share of its bytes that was looked at, 0 to 1.
    samples, faces: of the whole dataset; exact when measured is 1.
    formats: picture format -> pictures. sizes: class -> faces, longer side of the box in pixels. left, quarantined: reason ->
        how many. These four count what was looked at.
    seconds: for the whole dataset, by one worker as fast as this process.
    key_bytes: of the key store afterwards.
    problems: shard -> why it cannot be used as a whole.
    """

    shards: int
    bytes: int
    measured: float = 0.0
    samples: int = 0
    faces: int = 0
    seconds: float = 0.0
    key_bytes: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    quarantined: Counter[str] = field(default_factory=Counter)
    problems: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        counts = {name: dict(getattr(self, name)) for name in ("formats", "sizes", "left", "quarantined")}
        return {**asdict(self), **counts}


def make_plan(config: JobConfig, seconds: float = 60.0) -> Plan:
    """Measure for about `seconds` after the models are loaded; at least one block of samples.

    Raises:
        MisuseError: as the job itself would, before it starts.
    """
    config = with_root_id(config)
    source = open_source(config.src, config.format, config.ignore)
    refuse_overlaps(source.url, config.dst, config.keys or "", config.audit)
    if config.keeps_keys:
        check_recipients([Recipient.load(path) for path in config.recipients])
        check_serving_policy(config, check_policy(config), None)
    shards = source.shards(config.files_per_shard, {})
    plan = Plan(len(shards), sum(_size(shard) for shard in shards))
    measure = _Measure(RunContext(config, source.url, "plan"), plan)
    for shard in _spread(shards):
        measure.shard(shard, seconds)
        if measure.spent >= seconds:
            break
    measure.extrapolate()
    return plan


class _Measure:
    def __init__(self, run: RunContext, plan: Plan) -> None:
        self._run, self._plan = run, plan
        self._finder = Finder(run.config)
        self._replacer = Replacer(run.config, RandomKeySource)
        self.spent = 0.0
        self._bytes = 0.0
        self._key_bytes = 0

    def shard(self, shard: Shard, limit: float) -> None:
        """Look at one shard, or at as much of it as the time allows."""
        context = self._run.shard(shard.name)
        parts: list[SealedPart] = []
        seen = 0
        ended = False
        started = time.monotonic()
        before = self.spent
        for block in read_shard(self._run, shard):
            samples = [one for one in block if isinstance(one, Sample)]
            seen += sum(len(picture.data) for one in samples for picture in one.pictures)
            for one in block:
                ended = ended or isinstance(one, ShardEnd)
                if isinstance(one, ShardEnd) and one.problem:
                    self._plan.problems[shard.name] = one.problem
            parts += self._block([one for one in block if not isinstance(one, ShardEnd)], context)
            self.spent = before + time.monotonic() - started
            if self.spent >= limit:
                break
        self._bytes += _size(shard) if ended else min(seen, _size(shard))
        self._key_bytes += len(build_key_file(context, parts)) if parts else 0

    def _block(self, records: Sequence[Sample | QuarantinedSample], context: ShardContext) -> Iterator[SealedPart]:
        plan = self._plan
        samples = [one for one in records if isinstance(one, Sample)]
        for one in samples:
            plan.formats.update(sniff_format(picture.data[:SNIFF_BYTES]) or "unknown" for picture in one.pictures)
        looked = self._finder.detect(samples)
        found = [one for one in looked if isinstance(one, DetectedSample)]
        done, sealed = self._replacer.replace(found, context) if found else ([], None)
        for bad in (*records, *looked, *done):
            if isinstance(bad, QuarantinedSample):
                plan.quarantined[bad.problem.text] += 1
        for sample in found:
            for picture in sample.found:
                plan.faces += len(picture.faces)
                plan.sizes.update(_class(max(face.width, face.height)) for face in picture.faces)
                plan.left.update(reason for reason in picture.left if reason)
        plan.samples += len(records)
        if sealed is not None:
            yield sealed

    def extrapolate(self) -> None:
        plan = self._plan
        plan.measured = min(1.0, self._bytes / plan.bytes) if plan.bytes else 1.0
        factor = 1 / plan.measured if plan.measured else 0.0
        plan.samples, plan.faces = round(plan.samples * factor), round(plan.faces * factor)
        plan.seconds, plan.key_bytes = self.spent * factor, round(self._key_bytes * factor)


def _size(shard: Shard) -> int:
    return sum(facts.size for facts in shard.files)


def _spread(shards: Sequence[Shard]) -> list[Shard]:
    """Every eighth first, then those between: neighbours resemble each other."""
    return [shard for offset in (0, 4, 2, 6, 1, 3, 5, 7) for shard in shards[offset::8]]


def _class(pixels: float) -> str:
    for low, high in zip((0, *SIZES), SIZES, strict=False):
        if pixels < high:
            return f"{low} to {high}"
    return f"{SIZES[-1]} and more"
