"""Options of `sanitize` and `scrub` that say which faces there are, which are left, and whose pseudonym they get."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from keys.errors import MisuseError

Boxes = Annotated[str | None, typer.Option(help="The dataset's own boxes: a JSON sidecar's key or a Parquet column.")]
BoxFormat = Annotated[str | None, typer.Option(help="xyxy, xywh, cxcywh (pixels) or albumentations (xyxy as shares).")]
Landmarks = Annotated[str | None, typer.Option(help="Field with five points per box, in the order of the boxes.")]
Detect = Annotated[str | None, typer.Option(help="With own boxes: also (united with the detector's) or never (trusted alone).")]
Aligned = Annotated[bool | None, typer.Option("--aligned", help="Every picture is one aligned face crop; none is detected.")]
Pseudonym = Annotated[
    str | None,
    typer.Option(help='per-face, or "per-identity FIELD|folder|MAPPING.csv": one synthetic face for all photos of a person.'),
]
IdentityRootFile = Annotated[
    Path | None, typer.Option(help='Secret of the release that identities are drawn from ("diffpriv keys identity-root").')
]
MinSize = Annotated[float | None, typer.Option(min=0, help="Leave faces whose box has fewer pixels on its shorter side.")]
MinScore = Annotated[float | None, typer.Option(min=0, max=1, help="Leave faces of which the detector is less sure.")]
Leave = Annotated[
    list[str] | None, typer.Option(help="Leave faces in this region: X0,Y0,X1,Y1 as shares of width and height. Repeatable.")
]
Treat = Annotated[list[str] | None, typer.Option(help="Always treat this region, as --leave. Repeatable.")]
Consent = Annotated[str | None, typer.Option(help="FIELD=VALUE: leave the faces of samples whose field has this value.")]
Gallery = Annotated[Path | None, typer.Option(help="Leave faces that match a photo of this folder (people who consented).")]
GallerySimilarity = Annotated[float | None, typer.Option(help="Similarity from which a face is one of the gallery's.")]
FacesTable = Annotated[
    bool | None, typer.Option("--faces-table", help="Write the fate of every face beside each shard (Parquet, no embeddings).")
]


def face_settings(
    *,
    boxes: str | None = None,
    box_format: str | None = None,
    landmarks: str | None = None,
    detect: str | None = None,
    aligned: bool | None = None,
    pseudonym: str | None = None,
    identity_root: Path | None = None,
    min_size: float | None = None,
    min_score: float | None = None,
    leave: list[str] | None = None,
    treat: list[str] | None = None,
    consent: str | None = None,
    gallery: Path | None = None,
    gallery_similarity: float | None = None,
    faces_table: bool | None = None,
) -> dict[str, Any]:
    """The options as settings of a job; what was not given is left out.

    Raises:
        MisuseError: a region or a pseudonym that is written wrong.
    """
    values: dict[str, Any] = {
        "boxes": {"field": boxes, "format": box_format, "landmarks": landmarks, "detect": detect},
        "aligned": aligned,
        "pseudonym": _pseudonym(pseudonym, identity_root),
        "rules": {
            "min_size": min_size,
            "min_score": min_score,
            "leave": [_region(one) for one in leave] if leave else None,
            "treat": [_region(one) for one in treat] if treat else None,
            "consent": consent,
            "gallery": str(gallery) if gallery else None,
            "gallery_similarity": gallery_similarity,
        },
        "faces_table": faces_table,
    }
    given = {name: _without_none(value) if isinstance(value, dict) else value for name, value in values.items()}
    return {name: value for name, value in given.items() if value is not None and value != {}}


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _pseudonym(text: str | None, root: Path | None) -> dict[str, Any]:
    kind, _, source = re.sub(r"[\s:]+", " ", (text or "").strip(), count=1).partition(" ")
    if text is None or (kind == "per-face" and not source):
        return {"root": str(root) if root else None}
    if kind != "per-identity" or not source:
        raise MisuseError(
            f"--pseudonym {text!r} is no pseudonym.", advice='Write per-face, or "per-identity FIELD", "per-identity folder" …'
        )
    return {"source": source, "root": str(root) if root else None}


def _region(text: str) -> list[float]:
    try:
        region = [float(part) for part in text.split(",")]
    except ValueError:
        region = []
    if len(region) != 4:
        raise MisuseError(f"{text!r} is no region.", advice="Write it as 0,0,0.5,1: left, top, right, bottom as shares.")
    return region
