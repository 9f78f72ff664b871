"""Samples that workers were busy with when they died: one of them may be a picture that makes a native library crash.

While a worker works on samples it leaves a note that names them; if it is killed, the note stays. What is made of the notes is
the engine's choice, which it gives to the job as its `Suspects`:

    Suspects               The driver outlives its workers (Ray). It tries the suspects one by one and condemns those that kill.
    RememberedSuspects     The driver dies with its workers (Beam's runners on one machine), and every rerun would die too. So a
                           rerun reads the notes of dead runs, works on each sample that they name alone, and condemns one that
                           was alone in the notes of ALONE_DEATHS dead runs. A run killed from outside blames nobody unless it
                           is killed that often at the very same sample.

State of the second: DST/.diffpriv/suspects.json, a list of [shard, sample index, times it was there when a run died, times it
was alone]; entries go when their shard is committed.
"""

import contextlib
import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from diffpriv.pipelines import layout
from diffpriv.pipelines.records.samples import DetectedSample, Sample
from diffpriv.pipelines.run_context import Place
from diffpriv.pipelines.storage import Folder

ALONE_DEATHS = 2


@contextlib.contextmanager
def working_on(target: Folder, run_id: str, samples: Sequence[Sample | DetectedSample]) -> Iterator[None]:
    """Leave a note of what this process is working on, for the length of the block."""
    if not samples:
        yield
        return
    name = f"{layout.working_notes(run_id)}/{uuid.uuid4().hex}.json"
    target.small.write(name, json.dumps([[sample.shard, sample.index] for sample in samples]).encode())
    try:
        yield
    finally:
        target.small.delete(name)


def take_notes(target: Folder, run_id: str) -> list[Place]:
    """Samples that workers of this run were busy with when they died; the notes are removed."""
    named: set[Place] = set()
    for name in target.names(layout.working_notes(run_id)):
        named |= set(_read_note(target, name))
        target.small.delete(name)
    return sorted(named)


def _read_note(target: Folder, name: str) -> list[Place]:
    try:
        return [(str(shard), int(index)) for shard, index in json.loads(target.small.read_if_there(name) or b"")]
    except (ValueError, TypeError):
        return []  # written only in part: its worker had not begun


_AnySample = TypeVar("_AnySample", Sample, DetectedSample)


def suspects_alone(samples: Sequence[_AnySample], suspects: frozenset[Place]) -> list[Sequence[_AnySample]]:
    """All together, but each suspect by itself."""
    if not suspects:
        return [samples]
    groups: list[Sequence[_AnySample]] = [[one for one in samples if (one.shard, one.index) not in suspects]]
    return groups + [[one] for one in samples if (one.shard, one.index) in suspects]


class Suspects:
    """Of one run: what its driver found out about samples that kill."""

    def __init__(self) -> None:
        self._condemned: frozenset[Place] = frozenset()

    @property
    def poison(self) -> frozenset[Place]:
        """Samples that must not be touched again; they go to quarantine."""
        return self._condemned

    @property
    def alone(self) -> frozenset[Place]:
        """Samples that are worked on alone."""
        return frozenset()

    def condemn(self, places: Iterable[Place]) -> None:
        self._condemned |= frozenset(places)

    def open(self, target: Folder) -> None:
        """Called once, when the run holds DST and before it clears staging."""

    def forget(self, shards: Iterable[str]) -> None:
        """These shards are committed."""


class RememberedSuspects(Suspects):
    """Kept in DST from run to run."""

    def __init__(self) -> None:
        super().__init__()
        self._target: Folder | None = None
        self._deaths: dict[Place, tuple[int, int]] = {}  # -> (times it was there, times it was alone)

    @property
    def poison(self) -> frozenset[Place]:
        return super().poison | {place for place, (_, alone) in self._deaths.items() if alone >= ALONE_DEATHS}

    @property
    def alone(self) -> frozenset[Place]:
        return frozenset(self._deaths) - self.poison

    def open(self, target: Folder) -> None:
        self._target = target
        written = target.small.read_if_there(layout.SUSPECTS)
        self._deaths = {(shard, index): (there, alone) for shard, index, there, alone in json.loads(written or b"[]")}
        before = dict(self._deaths)
        for name in target.names(layout.STAGING):
            if "/working/" not in name:
                continue
            named = _read_note(target, name)
            for place in named:
                there, alone = self._deaths.get(place, (0, 0))
                self._deaths[place] = there + 1, alone + (len(named) == 1)
        if self._deaths != before:
            self._write()

    def forget(self, shards: Iterable[str]) -> None:
        done = set(shards)
        left = {place: deaths for place, deaths in self._deaths.items() if place[0] not in done}
        if left != self._deaths:
            self._deaths = left
            self._write()

    def _write(self) -> None:
        assert self._target is not None
        if self._deaths:
            entries = [[*place, *deaths] for place, deaths in sorted(self._deaths.items())]
            self._target.small.write(layout.SUSPECTS, json.dumps(entries).encode())
        else:
            self._target.small.delete(layout.SUSPECTS)
