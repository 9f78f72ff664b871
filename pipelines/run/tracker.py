"""Which samples of which shards have come back; tells the driver when a shard is complete. No engine, no files."""

from dataclasses import dataclass, field

from diffpriv.pipelines.errors import JobError
from diffpriv.pipelines.records.results import SampleResult
from diffpriv.pipelines.records.samples import QuarantinedSample, ShardEnd


@dataclass
class _State:
    results: dict[int, SampleResult] = field(default_factory=dict)
    end: ShardEnd | None = None


class ShardTracker:
    """Collects results in any order. A shard is complete when its end has come and as many results as the end counts."""

    def __init__(self) -> None:
        self._states: dict[str, _State] = {}

    def add(self, record: SampleResult | QuarantinedSample | ShardEnd) -> tuple[ShardEnd, list[SampleResult]] | None:
        """Returns the shard's end and its results when `record` made it complete, and forgets it.

        Raises:
            JobError: a sample came twice; the engine broke its promise.
        """
        state = self._states.setdefault(record.shard, _State())
        if isinstance(record, ShardEnd):
            state.end = record
        else:
            if isinstance(record, QuarantinedSample):
                record = SampleResult.quarantined(record)
            if record.index in state.results:
                raise JobError(f"sample {record.index} of {record.shard} came back twice.")
            state.results[record.index] = record
        if state.end is None or len(state.results) < state.end.samples:
            return None
        del self._states[record.shard]
        return state.end, list(state.results.values())

    @property
    def incomplete(self) -> list[str]:
        return sorted(self._states)
