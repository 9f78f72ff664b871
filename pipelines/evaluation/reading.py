"""Pictures of ORIGINAL and of PROTECTED that belong together, from any format, a sample of them where there are many.

Paired by shard and sample key, for image folders by path, for Parquet by row (rows that went to quarantine are counted back in
from the commit record). What has no partner is counted and told, never guessed.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffpriv.pipelines.destination.record import read_record
from diffpriv.pipelines.errors import MisuseError
from diffpriv.pipelines.evaluation.labels import Labels
from diffpriv.pipelines.formats.base import Shard
from diffpriv.pipelines.formats.registry import shard_format
from diffpriv.pipelines.formats.source import Source, open_source
from diffpriv.pipelines.records.samples import Sample, ShardEnd
from diffpriv.pipelines.storage import Folder

FOLDER_FILES = 64  # files of an image folder that are read at a time


@dataclass(frozen=True, eq=False)
class PicturePair:
    """One picture before and after. `facts`: fields of the original sample that the labels want."""

    shard: str
    key: str
    field: str
    original: bytes = dataclasses.field(repr=False)
    protected: bytes = dataclasses.field(repr=False)
    facts: dict[str, Any] = dataclasses.field(repr=False)


class PairedPictures:
    """Iterate once; afterwards `unpaired` says what had no partner, by reason, and `read` how many pairs there were.

    Raises:
        MisuseError: either side holds no dataset, or they are of different formats.
    """

    def __init__(self, original: str, protected: str, labels: Labels, *, sample: int, seed: int, format: str = "auto") -> None:
        self._first, self._second = open_source(original, format), open_source(protected, format)
        if self._first.format != self._second.format:
            raise MisuseError(
                f"ORIGINAL is {self._first.format} and PROTECTED is {self._second.format}.", advice="Give the two of one job."
            )
        self._labels, self._sample = labels, sample
        self._random = np.random.default_rng(seed)
        self.unpaired: Counter[str] = Counter()
        self.read = 0

    def __iter__(self) -> Iterator[PicturePair]:
        source, target = Folder(self._first.url), Folder(self._second.url)
        there = set(self._second.names)
        for shard in self._shards():
            if self._sample and self.read >= self._sample:
                return
            yield from self._pairs(source, target, shard, there)

    def _shards(self) -> Iterator[Shard]:
        """In random order where a sample is wanted. Image folders in bundles, the photos of one person together."""
        folder = Folder(self._first.url)
        if self._first.format != "folder":
            names = list(self._first.names)
            order = self._random.permutation(len(names)) if self._sample else range(len(names))
            for number in order:
                yield Shard(names[number], self._first.format, (folder.facts(names[number]),))
            return
        for names in _bundles(self._first, self._labels, self._random if self._sample else None):
            yield Shard("", "folder", tuple(folder.facts(name) for name in names))

    def _pairs(self, source: Folder, target: Folder, shard: Shard, there: set[str]) -> Iterator[PicturePair]:
        wanted = []
        reader = shard_format(shard.format)
        for one in reader.read(source, shard, self._labels.fields):
            if isinstance(one, ShardEnd) and one.problem:
                self.unpaired[f"originals of a shard that can't be read: {one.problem}"] += 1
            if isinstance(one, Sample) and one.pictures:
                wanted.append(one)
                if self._sample and self.read + len(wanted) >= self._sample:
                    break
        protected = self._protected(target, shard, there, [one.key for one in wanted])
        for sample in wanted:
            pictures = protected.get(sample.key)
            if pictures is None:
                self.unpaired["samples of ORIGINAL that are not in PROTECTED (quarantined, or another dataset)"] += 1
                continue
            for picture in sample.pictures:
                if picture.field not in pictures:
                    self.unpaired["pictures of ORIGINAL whose sample in PROTECTED lacks them"] += 1
                    continue
                self.read += 1
                yield PicturePair(
                    shard.name, sample.key, picture.field, picture.data, pictures[picture.field], dict(sample.facts)
                )

    def _protected(self, target: Folder, shard: Shard, there: set[str], keys: list[str]) -> dict[str, dict[str, bytes]]:
        """The original's key -> field -> bytes."""
        if shard.format == "folder":
            other = Shard("", "folder", tuple(target.facts(key) for key in keys if key in there))
        elif shard.name in there:
            other = Shard(shard.name, shard.format, (target.facts(shard.name),))
        else:
            return {}
        record = read_record(target, shard.name) if shard.format == "parquet" else None
        names = {key: record.published_key(key) if record else key for key in keys}
        called = {name: key for key, name in names.items() if name is not None}
        found: dict[str, dict[str, bytes]] = {}
        for one in shard_format(shard.format).read(target, other):
            if isinstance(one, Sample) and one.key in called:
                found[called[one.key]] = {picture.field: picture.data for picture in one.pictures}
                if len(found) == len(called):
                    break
        return found


def _bundles(source: Source, labels: Labels, random: np.random.Generator | None) -> Iterator[list[str]]:
    """Files of an image folder, in bundles; sampled by person, so that people keep their photos."""
    people: defaultdict[str, list[str]] = defaultdict(list)
    for name in source.names:
        if labels.knows(name):
            people[labels.person("", name, {}) or name].append(name)
    names = sorted(people)
    order = random.permutation(len(names)) if random is not None else range(len(names))
    bundle: list[str] = []
    for number in order:
        bundle += people[names[number]]
        if len(bundle) >= FOLDER_FILES:
            yield bundle
            bundle = []
    if bundle:
        yield bundle
