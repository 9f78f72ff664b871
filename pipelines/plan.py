"""What a job would meet and cost, from a measured part of the dataset; writes nothing, keeps nothing.

Samples are read, looked at and protected in memory, from shards spread over the dataset, until the time is spent; what the rest
holds is estimated by bytes. A dataset that is done before is not estimated but counted.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from keys.context import ShardContext
from keys.keyfile import build_key_file
from keys.recipients import Recipient, check_recipients
from keys.sealing import SealedPart, seal_part
from keys.sources import RandomKeySource
from pipelines.config import JobConfig
from pipelines.finding import Finder
from pipelines.formats import SNIFF_BYTES, Shard
from pipelines.images import sniff_format
from pipelines.job import with_root_id
from pipelines.pseudonyms import load_identities
from pipelines.samples import DetectedSample, QuarantinedSample, Sample, ShardEnd
from pipelines.sources import open_source, refuse_overlaps
from pipelines.steps import protect
from pipelines.storage import Folder
from pipelines.workers import WorkerSettings, fix_threads, read_shard

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
    source = open_source(config.src, config.format)
    refuse_overlaps(source.url, config.dst, config.keys or "", config.audit)
    keeps = config.transform.recovery != "none"
    recipients = [Recipient.load(path) for path in config.recipients] if keeps else []
    if keeps:
        check_recipients(recipients)
    shards = source.shards(config.files_per_shard, {})
    plan = Plan(len(shards), sum(_size(shard) for shard in shards))
    measure = _Measure(config, source.url, recipients, plan)
    for shard in _spread(shards):
        measure.shard(shard, seconds)
        if measure.spent >= seconds:
            break
    measure.extrapolate()
    return plan


class _Measure:
    def __init__(self, config: JobConfig, source_url: str, recipients: Sequence[Recipient], plan: Plan) -> None:
        from diffpriv.transforms import load_transform

        fix_threads()
        self._config, self._recipients, self._plan = config, recipients, plan
        self._settings = WorkerSettings(config, source_url, "plan")
        self._source = Folder(source_url)
        self._finder = Finder(config)
        self._transform = load_transform(config.transform)
        self._identities = load_identities(config)
        fix_threads()
        self.spent = 0.0
        self._bytes = 0.0
        self._key_bytes = 0

    def shard(self, shard: Shard, limit: float) -> None:
        """Look at one shard, or at as much of it as the time allows."""
        context = ShardContext(self._config.dataset, shard.name, self._config.digest())
        parts: list[SealedPart] = []
        seen = 0
        ended = False
        started = time.monotonic()
        before = self.spent
        for block in read_shard(self._settings, shard):
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
        done, secrets = protect(found, self._transform, RandomKeySource(), context, self._identities)
        for bad in (*records, *looked, *done):
            if isinstance(bad, QuarantinedSample):
                plan.quarantined[bad.reason] += 1
        for sample in found:
            for picture in sample.found:
                plan.faces += len(picture.faces)
                plan.sizes.update(_class(max(face.width, face.height)) for face in picture.faces)
                plan.left.update(reason for reason in picture.left if reason)
        plan.samples += len(records)
        if secrets and self._recipients:
            yield seal_part(context, self._recipients, secrets)

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
