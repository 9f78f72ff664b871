"""Which samples dead runs were busy with, for engines whose workers die with their driver.

Under Ray the driver outlives its workers and tries suspects one by one. Under Beam's runners on one machine a picture that
makes a native library crash ends the whole run, and would end every rerun. So a rerun reads the notes that dead workers left
(`workers.working_on`), works on each sample that they name alone, and quarantines one that was alone in the note of
ALONE_DEATHS dead runs. A run killed from outside blames nobody unless it is killed that often at the very same sample.

State: DST/_diffpriv/suspects.json, a list of [shard, sample index, times it was there when a run died, times it was alone];
entries go when their shard is committed.
"""

import json
from collections.abc import Iterable

from pipelines.sources import STATE_FOLDER
from pipelines.staging import STAGING
from pipelines.storage import Folder

ALONE_DEATHS = 2
JOURNAL = f"{STATE_FOLDER}/suspects.json"

Place = tuple[str, int]


class Journal:
    """Read when a job opens, before staging is cleared."""

    def __init__(self, target: Folder) -> None:
        self._target = target
        written = target.small.read_if_there(JOURNAL)
        entries = json.loads(written) if written else []
        self._deaths: dict[Place, tuple[int, int]] = {(shard, index): (all_, alone) for shard, index, all_, alone in entries}

    def add_dead_runs(self) -> None:
        """Take the notes that lie in staging into account."""
        before = dict(self._deaths)
        for name in self._target.names(STAGING):
            if "/working/" not in name:
                continue
            try:
                named = [(str(shard), int(index)) for shard, index in json.loads(self._target.small.read(name))]
            except (ValueError, TypeError):
                continue  # written only in part: its worker had not begun
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

    @property
    def poison(self) -> frozenset[Place]:
        return frozenset(place for place, (_, alone) in self._deaths.items() if alone >= ALONE_DEATHS)

    @property
    def suspects(self) -> frozenset[Place]:
        return frozenset(self._deaths) - self.poison

    def _write(self) -> None:
        if self._deaths:
            entries = [[*place, *deaths] for place, deaths in sorted(self._deaths.items())]
            self._target.small.write(JOURNAL, json.dumps(entries).encode())
        else:
            self._target.small.delete(JOURNAL)
