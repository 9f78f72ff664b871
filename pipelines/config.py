"""What a job is: where from, where to, with which settings. From `job.yaml` or the command line; never holds a secret.

Two kinds of settings: those that decide what comes out (they enter `digest()`, which stands in every commit record, key file
and audit event), and those that only say where things are and how fast to go.
"""

import dataclasses
import difflib
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any, Literal

import pydantic
from pydantic import Field

from diffpriv.config import CHOICES, TransformConfig
from diffpriv.config import DIGEST_VERSION as METHOD_VERSION
from diffpriv.pipelines.errors import MisuseError
from diffpriv.pipelines.face_settings import BoxSettings, PseudonymSettings, RuleSettings, Strict
from diffpriv.pipelines.formats.ignoring import IGNORED
from diffpriv.pipelines.formats.sidecars import SidecarCount
from diffpriv.pipelines.pictures.codec import PictureLimits

BASELINES = tuple(name for name in CHOICES["transform"] if name != "diffprivacy")
DIGEST_VERSION = 2  # bump when the same settings of a job come to mean something else; the method has a version of its own


class Workers(Strict):
    """How the work is spread. Nothing here may change a byte of the output.

    Attributes:
        detect_actors, protect_actors: size of each pool; 0 is as many as the machine or cluster and the work have use for.
        detect_gpus, protect_gpus: share of a GPU per actor, an exact fraction 1/n or a whole number; 0 runs on the CPU.
        detect_cpus, protect_cpus: logical CPUs per actor.
        detect_batch, protect_batch: samples handed to an actor at once. The method runs faces in padded micro-batches of 8 or
            16, so a batch of few samples would be half padding.
        restarts: how often a pool's dead actors are replaced before the job looks for the sample that kills them.
    """

    detect_actors: int = Field(1, ge=0)
    protect_actors: int = Field(0, ge=0)
    detect_gpus: float = Field(0, ge=0)
    protect_gpus: float = Field(0, ge=0)
    detect_cpus: float = Field(0.5, ge=0)
    protect_cpus: float = Field(1, ge=0)
    detect_batch: int = Field(16, ge=1)
    protect_batch: int = Field(64, ge=1)
    restarts: int = Field(2, ge=0)

    @pydantic.field_validator("detect_gpus", "protect_gpus")
    @classmethod
    def _exact_share(cls, value: float) -> float:
        if 0 < value < 1 and abs(1 / value - round(1 / value)) > 1e-9:
            raise ValueError(f"{value} of a GPU is no exact fraction 1/n; actors would not fill the device")
        if value > 1 and value != int(value):
            raise ValueError(f"{value} GPUs is no whole number")
        return value


class JobConfig(Strict):
    """One sanitisation job.

    Attributes:
        src, dst: see `pipelines.formats.source`; a local path or an fsspec URL.
        keys: URL of the key store; not needed with recovery "none".
        audit: URL of the audit log.
        log_key: file of the key that signs the audit log's checkpoint; how it is opened is `keys`' business.
        recipients: files of the public keys that shard keys are wrapped to.
        policy: file of the custody policy whose quorum shards are locked under (`keys.quorum`); without one the recipient's key
            opens alone, and only the program asks for approvals.
        dataset: the dataset's name in key files and audit log; by default the last part of DST.
        files_per_shard: for image folders.
        ignore: patterns (`*`, `?`, `[…]`) of names of files, folders and tar members that are left out, and counted.
        transform: what happens to a face.
        detector, detector_options: see `diffpriv.detectors.load_detector`.
        thorough: look for faces at half and double size and turned by quarters too, as the release gate does.
        max_pixels, max_frames: `pipelines.pictures.codec.PictureLimits`.
        sidecars: what happens to fields that hold boxes, landmarks, embeddings or pictures, or cannot be looked into: "report"
            counts and publishes them as they were, "drop" leaves them out, "refuse" publishes no shard that has one
            (see `pipelines.formats.sidecars`).
        others: what happens to what is no picture, no text and no known document (archives, video, Arrow, unknown binary):
            "stop" names it and publishes nothing of its shard, "copy" publishes it unseen, "drop" leaves it out.
        strip_metadata: whose EXIF, XMP, IPTC, comments and thumbnails go: those of "changed" pictures, or of "all". With "all",
            every picture is written anew from its pixels (`pipelines.pictures.rewrite`), and so are headers and footers of tar
            and Parquet files.
        keep_metadata: "camera" keeps make, model, lens and exposure in the EXIF of pictures that are changed or written anew
            (`pipelines.pictures.camera`), of JPEG, PNG and WebP.
        mark: "xmp" writes into JPEG, PNG and WebP with a replaced face that a program made part of them
            (`pipelines.pictures.mark`).
        boxes, aligned: faces that the dataset brings, or every picture being one aligned face crop (`pipelines.steps.boxes`).
        pseudonym: whether all faces of one person get one synthetic face (`pipelines.steps.people`).
        rules: faces that are left as they are (`pipelines.steps.policy`).
        decisions: file of what a reviewer decided (`diffpriv review`); kept in DST for later runs.
        faces_table: write a table of every face's fate beside each shard (`pipelines.destination.face_table`).
    Raises:
        MisuseError: through `from_mapping` and `load`, for unknown keys and bad values.
    """

    src: str
    dst: str
    keys: str | None = None
    audit: str
    log_key: str | None = None
    recipients: tuple[str, ...] = ()
    policy: str | None = None
    dataset: str = ""
    format: Literal["auto", "webdataset", "parquet", "folder"] = "auto"
    files_per_shard: int = Field(1000, ge=1)
    ignore: tuple[str, ...] = IGNORED
    transform: TransformConfig = TransformConfig()
    detector: str = "centerface"
    detector_options: dict[str, Any] = Field(default_factory=dict)
    thorough: bool = False
    max_pixels: int = Field(PictureLimits.max_pixels, ge=1, le=PictureLimits.max_pixels)
    max_frames: int = Field(PictureLimits.max_frames, ge=1)
    sidecars: Literal["report", "drop", "refuse"] = "report"
    others: Literal["stop", "copy", "drop"] = "stop"
    strip_metadata: Literal["changed", "all"] = "changed"
    keep_metadata: Literal["none", "camera"] = "none"
    mark: Literal["none", "xmp"] = "none"
    boxes: BoxSettings | None = None
    aligned: bool = False
    pseudonym: PseudonymSettings = PseudonymSettings()
    rules: RuleSettings = RuleSettings()
    faces_table: bool = False
    decisions: str | None = None
    engine: Literal["ray", "beam"] = "ray"
    workers: Workers = Workers()

    @pydantic.field_validator("ignore")
    @classmethod
    def _names_only(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        if bad := next((one for one in patterns if not one or "/" in one), None):
            raise ValueError(f"{bad!r} fits no name; a pattern is compared with each part of a path, without its slashes")
        return patterns

    @pydantic.field_validator("transform", mode="before")
    @classmethod
    def _transform(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("transform") in BASELINES:
            value = {"recovery": "none", **value}  # the default tier is one that they can't keep
        return TransformConfig.from_mapping(value) if isinstance(value, dict) else value

    @pydantic.model_validator(mode="after")
    def _complete(self) -> "JobConfig":
        if not self.dataset:
            object.__setattr__(self, "dataset", self.dst.rstrip("/").rpartition("/")[2])
        if not self.dataset or "\0" in self.dataset or self.dataset in (".", ".."):
            raise ValueError("the dataset has no name: give one with `dataset`")
        if self.transform.recovery != "none":
            if not self.keys:
                raise ValueError(f'recovery "{self.transform.recovery}" needs a key store: give `keys`, or recovery "none"')
            if not self.recipients:
                raise ValueError(f'recovery "{self.transform.recovery}" needs at least one recipient')
        if self.aligned and self.boxes is not None:
            raise ValueError("a picture that is one aligned crop has no boxes: give `aligned` or `boxes`, not both")
        if self.rules.gallery and self.rules.gallery_similarity is None:
            raise ValueError("a consent gallery needs a similarity: give `gallery_similarity`")
        if self.pseudonym.source and (self.transform.transform, self.transform.task) != ("diffprivacy", "anonymize"):
            raise ValueError("a pseudonym per identity needs a synthetic face: transform diffprivacy, task anonymize")
        return self

    @classmethod
    def from_mapping(cls, values: dict[str, Any]) -> "JobConfig":
        """Settings from a parsed file or command line."""
        try:
            return cls(**values)
        except pydantic.ValidationError as error:
            raise MisuseError(_explain(error)) from None

    @property
    def keeps_keys(self) -> bool:
        return self.transform.recovery != "none"

    @property
    def limits(self) -> PictureLimits:
        return PictureLimits(self.max_pixels, self.max_frames)

    @property
    def beside(self) -> SidecarCount:
        """What a reader shows the rest of a shard to. Sidecars that are dropped include what cannot be looked into."""
        return SidecarCount("drop" if self.sidecars == "drop" and self.others == "stop" else self.others)

    @property
    def wanted(self) -> frozenset[str]:
        """Fields of a sample that the job itself reads."""
        fields = [self.rules.consent_field, self.pseudonym.field]
        if self.boxes is not None:
            fields += [self.boxes.field, self.boxes.landmarks or ""]
        return frozenset(fields) - {""}

    def digest(self) -> str:
        """Hex SHA-256 of the canonical JSON (sorted keys, no spaces, UTF-8) of everything that decides the output's bytes: the
        settings, and the version of the method, so that no DST mixes the faces of two methods under one digest."""
        document = {
            "version": DIGEST_VERSION,
            "method_version": METHOD_VERSION,
            "transform": self.transform.to_mapping(),
            "detector": self.detector,
            "detector_options": self.detector_options,
            "max_pixels": self.max_pixels,
            "max_frames": self.max_frames,
        }
        if self.sidecars != "report":  # left out at its default, so that digests from before this setting stay
            document["sidecars"] = self.sidecars
        if self.thorough:
            document["thorough"] = True
        if self.others != "stop":
            document["others"] = self.others
        if self.strip_metadata != "changed":
            document["strip_metadata"] = self.strip_metadata
        if self.mark != "none":
            document["mark"] = self.mark
        if self.keep_metadata != "none":
            document["keep_metadata"] = self.keep_metadata
        if self.ignore != IGNORED:
            document["ignore"] = list(self.ignore)
        if self.aligned:
            document["aligned"] = True
        for name, part, default in (
            ("boxes", self.boxes, None),
            ("pseudonym", self.pseudonym, PseudonymSettings()),
            ("rules", self.rules, RuleSettings()),
        ):
            if part is not None and part != default:
                document[name] = part.model_dump(mode="json", exclude={"root"})
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def load_job(path: str | os.PathLike[str], known: Mapping[str, Any] | None = None, **overrides: Any) -> JobConfig:
    """A job from a YAML file; `overrides` (None: not given) come from the command line and win.

    Args:
        known: settings that hold where neither says anything.
    Raises:
        MisuseError: the file cannot be read, is no mapping, or holds a wrong setting; says which.
    """
    import yaml

    try:
        with open(path, encoding="utf-8") as handle:
            values = yaml.safe_load(handle)
    except (OSError, UnicodeDecodeError) as error:
        raise MisuseError(f"{os.fspath(path)} cannot be read: {error}.") from None
    except yaml.YAMLError as error:
        raise MisuseError(f"{os.fspath(path)} is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise MisuseError(f"{os.fspath(path)} holds no settings.", advice='Write it as "src: ...", "dst: ..." and so on.')
    try:
        return JobConfig.from_mapping({**(known or {}), **_overridden(values, overrides)})
    except MisuseError as error:
        raise MisuseError(f"{os.fspath(path)}: {error.message}", advice=error.advice) from None


def _overridden(values: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Overrides win; a mapping (transform, workers) wins setting by setting, not as a whole."""
    merged = dict(values)
    for name, value in overrides.items():
        if isinstance(value, dict) and isinstance(values.get(name), dict):
            merged[name] = {**values[name], **value}
        elif value is not None:
            merged[name] = value
    return merged


_BLOCKS: dict[str, type[pydantic.BaseModel]] = {
    "workers": Workers,
    "boxes": BoxSettings,
    "pseudonym": PseudonymSettings,
    "rules": RuleSettings,
}


def _unknown(place: str) -> str:
    """A setting that nobody knows, and the block that has one of that name; else the nearest one in the same block."""
    block, _, name = place.rpartition(".")
    names = _BLOCKS[block].model_fields if block in _BLOCKS else JobConfig.model_fields
    inside = [f"{one}.{name}" for one, model in _BLOCKS.items() if name in model.model_fields]
    inside += [f"transform.{name}"] if name in {field.name for field in dataclasses.fields(TransformConfig)} else []
    near = [f"{block}.{one}" if block else one for one in difflib.get_close_matches(name, names, n=1)]
    known = f"{block} has: {', '.join(names)}" if block else "see docs/operations.md for a whole job file"
    meant = (inside + near)[:1]
    return f"{place!r} is not a setting of a job; " + (f'did you mean "{meant[0]}"?' if meant else f"{known}.")


def _explain(error: pydantic.ValidationError) -> str:
    """Pydantic's findings as sentences, without its links and without the values, which may be anything."""
    lines = []
    for found in error.errors(include_url=False, include_input=False):
        place = ".".join(str(part) for part in found["loc"])
        if found["type"] == "extra_forbidden":
            lines.append(_unknown(place))
        elif found["type"] == "missing":
            lines.append(f"{place!r} is missing.")
        else:
            lines.append(f"{place + ': ' if place else ''}{found['msg'].removeprefix('Value error, ')}.")
    return " ".join(lines)
