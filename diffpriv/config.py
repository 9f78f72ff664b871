"""What to do with a face: the settings that decide the result, and a digest that names them.

Everything here changes the output's pixels or what is kept for recovery; batch sizes, devices and paths of the job do not
belong here. Light on purpose: the command line reads it before anything heavy is imported.
"""

import dataclasses
import difflib
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffpriv.errors import MisuseError

DIGEST_VERSION = 7  # enters the digest: bump it when the same settings come to mean something else

CHOICES: dict[str, tuple[str, ...]] = {
    "transform": ("diffprivacy", "blur", "mosaic", "fill"),
    "task": ("anonymize", "hide"),
    "recovery": ("none", "image", "keys", "exact"),
    "preset": ("quality", "fast", "paper"),
    "arithmetic": ("auto", "float32", "bfloat16"),
    "cover": ("head", "face", "square"),
}
MOST_KEEP = 8  # bits
RECOGNIZERS = '"builtin", "dlib", human:FOLDER, insightface:FOLDER, or a model folder'  # what `check_recognizer` lets pass
WITH_FOLDER = ("human", "insightface")


def check_recognizer(spec: str) -> tuple[str, str]:
    """(kind, folder) of a recogniser's name; no colon, no folder. Loads nothing.

    Raises:
        MisuseError: a kind that nobody knows, or one that needs a folder and has none.
    """
    kind, colon, folder = spec.partition(":")
    if kind in WITH_FOLDER and not folder:
        raise MisuseError(f"{spec!r} names no weights.", advice=f"Give {kind}:FOLDER.")
    if colon and kind.isidentifier() and kind not in WITH_FOLDER:
        raise MisuseError(f"{spec!r} is not a recogniser.", advice=f"Give {RECOGNIZERS}.")
    return kind, folder


@dataclass(frozen=True)
class TransformConfig:
    """Settings of one face transformation.

    Attributes:
        transform: "diffprivacy" (the method), or a baseline: "blur", "mosaic", "fill".
        task: "anonymize" (no recogniser knows the face) or "hide" (the chosen recogniser still does, people do not).
        recovery: the tier of the design, section 5. Baselines know "none" and "exact" only.
        model: "builtin", a folder, or a name that the loader understands.
        recognizer: "builtin", "dlib", "human:FOLDER", "insightface:FOLDER", or a model folder. One that is not the builtin
            judges every result too: `anonymize` must be no match for it. If it is differentiable (human, a model folder) it
            guides as well, in `anonymize` beside the model's own; in `hide` it is the one that shall still know the face.
        preset: "quality", "fast", or "paper" (the reference settings).
        similarity_limit: highest similarity to the original that an anonymised face may have, in [-1, 1]; None is the
            recogniser's own limit.
        arithmetic: of protection: "float32", "bfloat16" (about twice as fast where the processor has it), or "auto", bfloat16
            where it is fast. Bits differ between the two; recovery is float32 always.
        max_attempts: tries before a face is filled, 1 to 16.
        cover: what of the picture is replaced: "head" (hair, ears and outline too), "face" (contour to hair line, own hair
        stays),
            or "square" (the head's surroundings too).
        keep: bits of the face's coarse looks (apparent gender and age, hair, beard) that may reach the new one, 0 to 8.
    Raises:
        MisuseError: a value outside these, or a combination that cannot be kept.
    """

    transform: str = "diffprivacy"
    task: str = "anonymize"
    recovery: str = "keys"
    model: str = "builtin"
    recognizer: str = "builtin"
    preset: str = "quality"
    arithmetic: str = "auto"
    similarity_limit: float | None = None
    max_attempts: int = 3
    cover: str = "head"
    keep: int = 6

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise MisuseError(f"{name} is {value!r}.", advice=f"Choose one of: {', '.join(allowed)}.")
        for name in ("model", "recognizer"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise MisuseError(f"{name} is {value!r}.", advice='Give "builtin", a folder or a name.')
        check_recognizer(self.recognizer)
        self._check_similarity_limit()
        if isinstance(self.max_attempts, bool) or not isinstance(self.max_attempts, int) or not 1 <= self.max_attempts <= 16:
            raise MisuseError(f"max_attempts is {self.max_attempts!r}.", advice="Give a whole number from 1 to 16.")
        if isinstance(self.keep, bool) or not isinstance(self.keep, int) or not 0 <= self.keep <= MOST_KEEP:
            raise MisuseError(f"keep is {self.keep!r}.", advice=f"Give a whole number of bits from 0 to {MOST_KEEP}.")
        if self.transform != "diffprivacy":
            self._check_baseline()

    def _check_similarity_limit(self) -> None:
        limit = self.similarity_limit
        if limit is None:
            return
        if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not math.isfinite(limit) or not -1 <= limit <= 1:
            raise MisuseError(f"similarity_limit is {limit!r}.", advice="Give a cosine from -1 to 1, or leave it out.")
        # 0 and 0.0 are one setting and must have one digest; so must -0.0.
        object.__setattr__(self, "similarity_limit", float(limit) + 0.0)

    def _check_baseline(self) -> None:
        if self.recovery not in ("none", "exact"):
            raise MisuseError(
                f'The transform "{self.transform}" has no embeddings or noise map to recover from, so it cannot keep the tier '
                f'"{self.recovery}".',
                advice='Choose recovery "none" or "exact", or transform "diffprivacy".',
            )
        if self.task != "anonymize":
            raise MisuseError(
                f'The transform "{self.transform}" leaves nothing for a recogniser, so it cannot do the task "{self.task}".',
                advice='Choose task "anonymize", or transform "diffprivacy".',
            )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "TransformConfig":
        """Settings from a parsed file or command line; missing keys keep their defaults.

        Raises:
            MisuseError: a key that is no setting (with the nearest one that is), or a bad value.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                hint = f'Did you mean "{near[0]}"?' if near else f"Settings are: {', '.join(known)}."
                raise MisuseError(f"{key!r} is not a setting of the transform.", advice=hint)
        return cls(**values)

    def to_mapping(self) -> dict[str, Any]:
        """The settings as plain values; `from_mapping` gives back an equal object."""
        return dataclasses.asdict(self)

    def digest(self) -> str:
        """Hex SHA-256 of the canonical JSON (sorted keys, no spaces, UTF-8) of every setting and DIGEST_VERSION."""
        document = {"version": DIGEST_VERSION, **self.to_mapping()}
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return hashlib.sha256(text.encode("utf-8")).hexdigest()
