"""Options that commands share, as dataclasses: a command takes one as a parameter, and the command line shows its fields.

    @flattened
    def scrub(job: JobOptions, faces: FaceOptions, ...): ...

A field's annotation says what Typer shows; its order and default count as if it stood in the command's own signature.
"""

import dataclasses
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from diffpriv.jobs.passphrases import PassphraseFile
from diffpriv.keys.errors import MisuseError


def flattened(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the fields of its dataclass parameters in their place."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, tuple[type, list[str]]] = {}
    parameters = []
    for name, parameter in inspect.signature(command).parameters.items():
        kind = hints[name]
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            inner = get_type_hints(kind, include_extras=True)
            fields = dataclasses.fields(kind)
            groups[name] = kind, [field.name for field in fields]
            parameters += [(field.name, field.default, inner[field.name]) for field in fields]
        else:
            parameters.append((name, parameter.default, hints[name]))

    def flat(**given: Any) -> None:
        made = {name: kind(**{field: given.pop(field) for field in fields}) for name, (kind, fields) in groups.items()}
        command(**made, **given)

    keyword = inspect.Parameter.KEYWORD_ONLY
    shown = [inspect.Parameter(name, keyword, default=default, annotation=hint) for name, default, hint in parameters]
    flat.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    flat.__annotations__ = {name: hint for name, _, hint in parameters}
    flat.__name__, flat.__doc__ = command.__name__, command.__doc__
    return flat


def only_given(**values: Any) -> dict[str, Any]:
    """The settings that were given: neither None nor empty."""
    return {name: value for name, value in values.items() if value is not None and value != {}}


@dataclass(frozen=True)
class JobOptions:
    """What is protected, where it goes, by what, and on how many workers."""

    src: Annotated[str | None, typer.Argument(metavar="SRC", help="Shards, or a folder of shards or pictures.")] = None
    dst: Annotated[str | None, typer.Argument(metavar="DST", help="Where the protected dataset goes.")] = None
    audit: Annotated[str | None, typer.Option(help="Audit log.")] = None
    log_key: Annotated[
        Path | None, typer.Option(help="Key that signs the audit log; without it the log's segments wait to be integrated.")
    ] = None
    dataset: Annotated[str | None, typer.Option(help="The dataset's name; by default the last part of DST.")] = None
    format: Annotated[str | None, typer.Option(help="auto, webdataset, parquet or folder.")] = None
    transform: Annotated[str | None, typer.Option(help="diffprivacy, or a baseline: blur, mosaic, fill.")] = None
    model: Annotated[str | None, typer.Option(help="builtin, a model folder, or a name.")] = None
    detector: Annotated[str | None, typer.Option(help="centerface or insightface:FOLDER.")] = None
    recognizer: Annotated[
        str | None,
        typer.Option(help="One more that new faces must not match: dlib, human:FOLDER, insightface:FOLDER, a model folder."),
    ] = None
    preset: Annotated[str | None, typer.Option(help="quality, fast or paper.")] = None
    cover: Annotated[
        str | None,
        typer.Option(
            help="What is replaced: head (with hair and ears), face (up to the hair line), or square (surroundings too)."
        ),
    ] = None
    keep: Annotated[
        int | None,
        typer.Option(metavar="BITS", help="0 to 8: bits of a face's coarse looks that its new one may keep; 0 keeps none."),
    ] = None
    thorough: Annotated[
        bool | None, typer.Option("--thorough", help="Look for faces at half and double size and turned too: slower.")
    ] = None
    strip_metadata: Annotated[
        str | None, typer.Option(help="Whose EXIF, XMP, comments and thumbnails go: changed pictures', or all.")
    ] = None
    keep_metadata: Annotated[
        str | None, typer.Option(help="camera: keep make, lens and exposure, never places, dates or serial numbers.")
    ] = None
    mark: Annotated[str | None, typer.Option(help="xmp: pictures with a replaced face say so (IPTC's DigitalSourceType).")] = (
        None
    )
    others: Annotated[
        str | None, typer.Option(help="What is no picture, text or known document: stop (the default), copy or drop.")
    ] = None
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Names to leave out, in place of the default ones (._*, @eaDir …). Repeatable."),
    ] = None
    allow_empty: Annotated[bool, typer.Option("--allow-empty", help="A dataset without any picture is no mistake.")] = False
    engine: Annotated[str | None, typer.Option(help="ray or beam.")] = None
    actors: Annotated[int | None, typer.Option(min=0, help="Actors per stage; 0 fits them to the machine.")] = None
    gpus: Annotated[float | None, typer.Option(min=0, help="GPU share per protecting actor: 0, 1/n or a whole number.")] = None
    config: Annotated[Path | None, typer.Option(help="job.yaml with any of these settings; options win over it.")] = None
    passphrase_file: PassphraseFile = None

    def settings(self, **transform: Any) -> dict[str, Any]:
        """As settings of a job; what was not given is left out.

        Args:
            transform: more settings of the transformation.
        """
        return only_given(
            src=self.src,
            dst=self.dst,
            audit=self.audit,
            log_key=str(self.log_key) if self.log_key else None,
            dataset=self.dataset,
            format=self.format,
            detector=self.detector,
            thorough=self.thorough,
            strip_metadata=self.strip_metadata,
            keep_metadata=self.keep_metadata,
            mark=self.mark,
            others=self.others,
            ignore=tuple(self.ignore) if self.ignore else None,
            engine=self.engine,
            transform=only_given(
                transform=self.transform,
                model=self.model,
                recognizer=self.recognizer,
                preset=self.preset,
                cover=self.cover,
                keep=self.keep,
                **transform,
            ),
            workers=only_given(detect_actors=self.actors, protect_actors=self.actors, protect_gpus=self.gpus),
        )


@dataclass(frozen=True)
class FaceOptions:
    """Which faces there are, which of them are left, and whose pseudonym they get."""

    boxes: Annotated[str | None, typer.Option(help="The dataset's own boxes: a JSON sidecar's key or a Parquet column.")] = None
    box_format: Annotated[str | None, typer.Option(help="xyxy, xywh, cxcywh (pixels) or albumentations (xyxy as shares).")] = (
        None
    )
    landmarks: Annotated[str | None, typer.Option(help="Field with five points per box, in the order of the boxes.")] = None
    detect: Annotated[
        str | None, typer.Option(help="With own boxes: also (united with the detector's) or never (trusted alone).")
    ] = None
    aligned: Annotated[
        bool | None, typer.Option("--aligned", help="Every picture is one aligned face crop; none is detected.")
    ] = None
    pseudonym: Annotated[
        str | None,
        typer.Option(
            help='per-face, or "per-identity FIELD|folder|MAPPING.csv": one synthetic face for all photos of a person.'
        ),
    ] = None
    identity_root: Annotated[
        Path | None, typer.Option(help='Secret of the release that identities are drawn from ("diffpriv keys identity-root").')
    ] = None
    min_size: Annotated[
        float | None, typer.Option(min=0, help="Leave faces whose box has fewer pixels on its shorter side.")
    ] = None
    min_score: Annotated[float | None, typer.Option(min=0, max=1, help="Leave faces of which the detector is less sure.")] = (
        None
    )
    leave: Annotated[
        list[str] | None,
        typer.Option(help="Leave faces in this region: X0,Y0,X1,Y1 as shares of width and height. Repeatable."),
    ] = None
    treat: Annotated[list[str] | None, typer.Option(help="Always treat this region, as --leave. Repeatable.")] = None
    consent: Annotated[str | None, typer.Option(help="FIELD=VALUE: leave the faces of samples whose field has this value.")] = (
        None
    )
    gallery: Annotated[
        Path | None, typer.Option(help="Leave faces that match a photo of this folder (people who consented).")
    ] = None
    gallery_similarity: Annotated[float | None, typer.Option(help="Similarity from which a face is one of the gallery's.")] = (
        None
    )
    faces_table: Annotated[
        bool | None,
        typer.Option("--faces-table", help="Write the fate of every face beside each shard (Parquet, no embeddings)."),
    ] = None

    def settings(self) -> dict[str, Any]:
        """As settings of a job; what was not given is left out.

        Raises:
            MisuseError: a region or a pseudonym that is written wrong.
        """
        return only_given(
            boxes=only_given(field=self.boxes, format=self.box_format, landmarks=self.landmarks, detect=self.detect),
            aligned=self.aligned,
            pseudonym=_pseudonym(self.pseudonym, self.identity_root),
            rules=only_given(
                min_size=self.min_size,
                min_score=self.min_score,
                leave=[_region(one) for one in self.leave] if self.leave else None,
                treat=[_region(one) for one in self.treat] if self.treat else None,
                consent=self.consent,
                gallery=str(self.gallery) if self.gallery else None,
                gallery_similarity=self.gallery_similarity,
            ),
            faces_table=self.faces_table,
        )


def _pseudonym(text: str | None, root: Path | None) -> dict[str, Any]:
    kind, _, source = re.sub(r"[\s:]+", " ", (text or "").strip(), count=1).partition(" ")
    given = only_given(root=str(root) if root else None)
    if text is None or (kind == "per-face" and not source):
        return given
    if kind != "per-identity" or not source:
        raise MisuseError(
            f"--pseudonym {text!r} is no pseudonym.", advice='Write per-face, or "per-identity FIELD", "per-identity folder" …'
        )
    return {"source": source, **given}


def _region(text: str) -> list[float]:
    try:
        region = [float(part) for part in text.split(",")]
    except ValueError:
        region = []
    if len(region) != 4:
        raise MisuseError(f"{text!r} is no region.", advice="Write it as 0,0,0.5,1: left, top, right, bottom as shares.")
    return region
