"""What every worker of a run has to know. Plain values, so that it can be sent anywhere: no secrets, no weights, no handles."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from diffpriv.keys.context import ShardContext
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.steps.policy import Decision
from diffpriv.pipelines.storage import Folder

Place = tuple[str, int]  # (shard, index) of a sample


@dataclass(frozen=True)
class RunContext:
    """One run, as its workers see it.

    Attributes:
        source_url: the folder that shard names are relative to.
        decisions: shard -> what reviewers decided about its pictures.
        poison: samples that must not be touched again: they killed a worker.
        suspects: samples that are worked on alone (`pipelines.destination.worker_deaths`).
    """

    config: JobConfig
    source_url: str
    run_id: str
    decisions: Mapping[str, tuple[Decision, ...]] = field(default_factory=dict)
    poison: frozenset[Place] = frozenset()
    suspects: frozenset[Place] = frozenset()

    @cached_property
    def digest(self) -> str:
        return self.config.digest()

    @property
    def source(self) -> Folder:
        return Folder(self.source_url)

    @property
    def target(self) -> Folder:
        return Folder(self.config.dst)

    def shard(self, name: str) -> ShardContext:
        """What the records of this shard are sealed under."""
        return ShardContext(self.config.dataset, name, self.digest)
