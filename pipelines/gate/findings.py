"""What the gate finds and how much of it may be there. A finding names a place and a kind, never a picture or an embedding."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diffpriv.pipelines.errors import MisuseError

# kind -> (limit, what it means). None: reported, never over its limit.
KINDS: dict[str, tuple[int | None, str]] = {
    "unprotected face": (0, "a face of the original is still there"),
    "face left on purpose": (0, "a rule of the job left it as it is: consent, region, size or score, or a reviewer dropped it"),
    "unexplained face": (0, "a face where the original has none"),
    "copy of an original": (0, "a face or picture of another original, perhaps resized or encoded again"),
    "similar to its original": (0, "a recogniser still knows the face"),
    "similar to another original": (0, "a recogniser takes it for another original of the shard"),
    "thumbnail": (0, "a second picture inside a picture's file that shows a face or what was changed"),
    "metadata": (0, "EXIF, XMP, IPTC or a comment that may name a person or place, or of a changed picture"),
    "sidecar: embedding": (0, "a field that looks like an embedding"),
    "sidecar: landmarks": (0, "a field that looks like landmarks"),
    "sidecar: box": (0, "a field that looks like boxes"),
    "sidecar: picture": (0, "a field that looks like a picture"),
    "sidecar: origin": (0, "a field that names the original: its digest, its address, where it was taken"),
    "sidecar: file not looked into": (0, "a file this tool does not open"),
    "sidecar: file left out": (0, "a file that the reader passes over by its name"),
    "sidecar: identity": (None, "a field whose name speaks of persons; names in text are reported, not rewritten"),
    "not checked": (0, "something could not be looked at, or is not proved to be what may be published"),
    "allowed field": (None, "a field that could not be checked, and that somebody let pass by name"),
    "added": (0, "a sample, picture or file that the original does not have"),
    "altered": (0, "a file that is not what its run committed, or originals that are not those it was made from"),
    "recoverable face": (0, "a sealed record of it exists, so whoever opens the keys can bring it back"),
    "missing": (0, "a shard of SRC that is not published"),
}


@dataclass(frozen=True)
class GateFinding:
    """One thing found.

    Attributes:
        kind: one of KINDS.
        shard, sample, field: where; empty where the finding is about more than one of them.
        detail: numbers and words that say why, safe to print.
    """

    kind: str
    shard: str
    sample: str = ""
    field: str = ""
    detail: str = ""
    times: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind!r} is no kind of finding")

    @property
    def place(self) -> str:
        return " / ".join(part for part in (self.shard, self.sample, self.field) if part)


@dataclass(frozen=True)
class GateSettings:
    """How the gate looks.

    Attributes:
        detector, detector_options, second_detector: specs of `diffpriv.detectors.load_detector`; "" is no second one.
        recognizer: as of `load_recognizer`; "" compares faces by region only, which is enough for a
            transformation that leaves no face (fill, blur, mosaic) and fails the gate for any other.
        similarity_limit: highest similarity to an original; None is the recogniser's own limit.
        camera: changed pictures may say which camera took them and how, as `keep_metadata: camera` keeps it.
        allowed: kind -> limit, in place of that of KINDS; None lifts it. Stands in the manifest.
        allowed_fields: fields that pass without being checked. Stand in the manifest.
    Raises:
        MisuseError: `allowed` names no kind.
    """

    detector: str = "centerface"
    detector_options: Mapping[str, Any] = field(default_factory=dict)
    second_detector: str = ""
    recognizer: str = "builtin"
    similarity_limit: float | None = None
    camera: bool = False
    allowed: Mapping[str, int | None] = field(default_factory=dict)
    allowed_fields: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for kind in self.allowed:
            if kind not in KINDS:
                raise MisuseError(f"{kind!r} is nothing the gate looks for.", advice=f"Kinds are: {', '.join(KINDS)}.")

    def limit(self, kind: str) -> int | None:
        return self.allowed[kind] if kind in self.allowed else KINDS[kind][0]


@dataclass
class GateReport:
    """The gate's answer.

    Attributes:
        counts: shards, samples, pictures, faces in the output, faces of the originals: what was looked at.
        tools: identities of detectors and recogniser, and of what made the data.
        highest_similarity: of an output face to its original, and to any other original of its shard.
    """

    dataset: str
    settings: GateSettings
    findings: list[GateFinding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    tools: dict[str, str] = field(default_factory=dict)
    highest_similarity: dict[str, float] = field(default_factory=dict)

    def add(self, other: "GateReport") -> None:
        """Take in what was found elsewhere in the same dataset."""
        self.findings += other.findings
        self.counts.update(other.counts)
        self.tools |= other.tools
        for which, value in other.highest_similarity.items():
            self.highest_similarity[which] = max(value, self.highest_similarity.get(which, -1.0))

    @property
    def found(self) -> dict[str, int]:
        """How often each kind was found, all kinds named."""
        totals: Counter[str] = Counter()
        for finding in self.findings:
            totals[finding.kind] += finding.times
        return {kind: totals[kind] for kind in KINDS}

    @property
    def over(self) -> list[str]:
        """Kinds over their limit."""
        limits = {kind: self.settings.limit(kind) for kind in KINDS}
        return [kind for kind, count in self.found.items() if (limit := limits[kind]) is not None and count > limit]

    @property
    def clean(self) -> bool:
        return not self.over

    def rows(self) -> list[tuple[str, str, str, str]]:
        """(what, found, limit, verdict) of every kind."""
        rows = []
        over = self.over
        for kind, count in self.found.items():
            limit = self.settings.limit(kind)
            verdict = "OVER" if kind in over else "ok" if limit is not None else "reported"
            rows.append((kind, str(count), "-" if limit is None else str(limit), verdict))
        return rows

    def to_json(self) -> dict[str, Any]:
        return {
            "clean": self.clean,
            "over": self.over,
            "found": self.found,
            "limits": {kind: self.settings.limit(kind) for kind in KINDS},
            "allowed_fields": sorted(self.settings.allowed_fields),
            "counts": dict(self.counts),
            "tools": self.tools,
            "highest_similarity": self.highest_similarity,
            "findings": [vars(finding) for finding in self.findings],
        }
