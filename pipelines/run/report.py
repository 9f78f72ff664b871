"""What a run did, in counts that add up; summed over the commit records, so that a resumed run reports the whole dataset."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from diffpriv.pipelines.destination.record import CommitRecord
from diffpriv.pipelines.errors import JobError
from diffpriv.pipelines.formats.ignoring import IGNORED, ignored_by
from diffpriv.pipelines.formats.sidecars import LEFT_OUT, is_telling

COUNTS = (
    "samples_in",
    "samples_out",
    "samples_quarantined",
    "pictures",
    "pictures_changed",
    "faces",
    "faces_protected",
    "faces_filled",
    "faces_left",
    "faces_recoverable",
    "frames_dropped",
    "gain_maps_dropped",
)


@dataclass
class RunReport:
    """The closing table.

    Attributes:
        shards: in the dataset; each is done now, done before, or failed.
        shards_failed: shard -> reason. Nothing of these is published; a rerun tries them again.
        counts: of all committed shards, keys COUNTS.
        quarantined, filled, left: reason -> how many. otherwise: the same of faces protected, but not as was asked.
        sidecars: what was found beside the pictures that may tell who is in them -> how often.
        sidecars_dropped: whether that was left out, but for names that only sound like it (rule "drop").
        highest_similarity: of any protected face to its original, where the transformation measures it.
        nothing_to_do: everything was committed before; the run wrote nothing.
        rolled_forward: shards that a dead run had prepared and this one committed.
        audit: "integrated", or "waiting" where no log key was given and the segments wait for one.
    """

    run_id: str
    dataset: str
    config_digest: str
    shards: int = 0
    shards_done: int = 0
    shards_done_before: int = 0
    shards_failed: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    quarantined: dict[str, int] = field(default_factory=dict)
    filled: dict[str, int] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    otherwise: dict[str, int] = field(default_factory=dict)
    sidecars: dict[str, int] = field(default_factory=dict)
    sidecars_dropped: bool = False
    highest_similarity: float | None = None
    nothing_to_do: bool = False
    rolled_forward: int = 0
    audit: str = "waiting"
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Every shard of the dataset is published."""
        return not self.shards_failed and self.shards == self.shards_done + self.shards_done_before

    @property
    def saw_nothing(self) -> bool:
        """Not one picture was found, readable or not: perhaps not the dataset that was meant."""
        return not self.counts["pictures"] and not self.counts["samples_quarantined"] and not self.shards_failed

    def add_record(self, record: CommitRecord) -> None:
        """Count one shard in. The order of shards makes no difference, so none has to be kept until the end."""
        for name in COUNTS:
            self.counts[name] += record.counts.get(name, 0)  # records from before a count have none of it
        self.quarantined = _sum(self.quarantined, record.reasons["quarantined"])
        self.filled = _sum(self.filled, record.reasons["filled"])
        self.left = _sum(self.left, record.reasons.get("left", {}))
        self.otherwise = _sum(self.otherwise, record.reasons.get("covered otherwise", {}))
        self.sidecars = _sum(self.sidecars, record.sidecars)
        self.sidecars_dropped |= record.sidecar_rule == "drop"
        highest = record.highest_similarity
        if highest is not None:
            self.highest_similarity = max(highest, self.highest_similarity if self.highest_similarity is not None else -1.0)

    def add_litter(self, names: Iterable[str], patterns: Sequence[str] = IGNORED) -> None:
        """Count files of SRC that no shard has, since their names fit one of the patterns."""
        self.sidecars = _sum(self.sidecars, Counter(f"{LEFT_OUT} in {ignored_by(name, patterns)}" for name in names))

    def _fate(self, finding: str) -> str:
        if finding.startswith(LEFT_OUT):
            return "left out"
        return "left out" if self.sidecars_dropped and is_telling([finding]) else "published as it was"

    def check(self) -> None:
        """Raises: JobError if the counts do not add up; then something was lost, and the output must not be used."""
        c = self.counts
        sums = {
            "samples": c["samples_in"] == c["samples_out"] + c["samples_quarantined"],
            "quarantined samples": c["samples_quarantined"] == sum(self.quarantined.values()),
            "faces": c["faces"] == c["faces_protected"] + c["faces_filled"] + c["faces_left"],
            "left faces": c["faces_left"] == sum(self.left.values()),
            "filled faces": c["faces_filled"] == sum(self.filled.values()),
            "pictures": c["pictures_changed"] <= c["pictures"],
            "shards": self.shards == self.shards_done + self.shards_done_before + len(self.shards_failed),
        }
        wrong = [name for name, right in sums.items() if not right]
        if wrong:
            raise JobError(f"the counts of {', '.join(wrong)} do not add up: {c}, shards {self.shards}.")

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}

    def rows(self) -> list[tuple[str, str]]:
        """The table a person reads, label and value."""
        c = self.counts
        done = f"{self.shards_done + self.shards_done_before} of {self.shards}"
        rows = [
            ("shards published", done + (f" ({self.shards_done_before} before this run)" if self.shards_done_before else "")),
            ("samples in", f"{c['samples_in']:,}"),
            ("  = published", f"{c['samples_out']:,}"),
            ("  + quarantined", f"{c['samples_quarantined']:,}"),
            ("pictures", f"{c['pictures']:,}"),
            ("  changed", f"{c['pictures_changed']:,}"),
            ("faces", f"{c['faces']:,}"),
            ("  = protected", f"{c['faces_protected']:,}"),
            ("  + filled", f"{c['faces_filled']:,}"),
            ("  with a sealed record", f"{c['faces_recoverable']:,}"),
        ]
        if c["faces_left"]:
            rows.insert(-1, ("  + left as they are", f"{c['faces_left']:,}"))
        if c["frames_dropped"]:
            rows.append(("frames and pages left out", f"{c['frames_dropped']:,}"))
        if c["gain_maps_dropped"]:
            rows.append(("gain maps (HDR) left out", f"{c['gain_maps_dropped']:,}"))
        if self.highest_similarity is not None:
            rows.append(("highest similarity", f"{self.highest_similarity:.3f}"))
        rows += [(f"beside the pictures: {what}", f"{count:,}, {self._fate(what)}") for what, count in self.sidecars.items()]
        rows += [(f"failed: {shard}", reason) for shard, reason in sorted(self.shards_failed.items())]
        return rows


def _sum(counts: dict[str, int], more: dict[str, int]) -> dict[str, int]:
    return dict(sorted((Counter(counts) + Counter(more)).items()))
