"""The page for a person: one HTML file that loads nothing, with faces before and after, filters, and decisions to save.

Its content security policy names the digests of its own script and style, so that nothing else in it can run or load. Small
pictures share a fixed number of bytes: a page of 20,000 faces is as large as one of 500, its pictures are smaller.
"""

import base64
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from diffpriv.pipelines.review.entries import FaceEntry
from diffpriv.pipelines.review.looking import SamplePair, by_picture, cut_face, picture_of, thumbnail

PAGE_BYTES = 27 << 20  # of a page's pictures as text; the rest of a page is small beside it
MOST_CROP, MOST_PICTURE, LEAST_PICTURE = 20_000, 90_000, 4_000  # bytes of one small picture
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class PageFacts:
    """What the page says about itself.

    Attributes:
        mode: "gallery"; "review": opened where a decision is needed; "published": outputs only, nothing of the job's state.
        faces, samples: in the dataset. looked: faces whose pictures were opened to choose these.
    """

    title: str
    mode: Literal["gallery", "review", "published"]
    dataset: str
    faces: int
    samples: int
    looked: int
    group: str = ""
    limit: float | None = None


def page_data(facts: PageFacts, faces: Sequence[FaceEntry], pairs: Iterable[SamplePair]) -> dict[str, Any]:
    """The page's document, small pictures included. Reads `pairs` once."""
    wanted = by_picture(faces)
    crop_bytes, picture_bytes = _shares(len(faces), len(wanted), 1 if facts.mode == "published" else 2)
    places = {face: number for number, face in enumerate(faces)}
    entries: list[dict[str, Any] | None] = [None] * len(faces)
    pictures: list[dict[str, Any]] = []
    for pair in pairs:
        for field in {picture.field for picture in pair.after.pictures}:
            here = wanted.get((pair.shard, pair.key, field), [])
            if not here:
                continue
            sides = [picture_of(side, field) for side in (pair.before, pair.after)]
            if picture_bytes:
                pictures.append(_picture(sides, picture_bytes))
            for face in here:
                cut = cut_face(sides, face, crop_bytes)
                entries[places[face]] = {
                    **(_published(face) if facts.mode == "published" else _entry(face)),
                    "before": _data_url(cut.before),
                    "after": _data_url(cut.after),
                    "frame": [round(value, 4) for value in cut.frame],
                    "picture": len(pictures) - 1 if picture_bytes else None,
                }
    return {**vars(facts), "entries": [one for one in entries if one is not None], "pictures": pictures}


def _shares(faces: int, pictures: int, sides: int) -> tuple[int, int]:
    """Bytes for each crop and for each whole picture, 0 where whole pictures would be too small to be of use."""
    raw = PAGE_BYTES * 3 // 4 - 600 * faces  # base64, and the words beside each face
    crop, picture = int(raw * 0.35) // max(1, sides * faces), int(raw * 0.65) // max(1, sides * pictures)
    if picture < LEAST_PICTURE:
        crop, picture = raw // max(1, sides * faces), 0
    return min(crop, MOST_CROP), min(picture, MOST_PICTURE)


def _picture(sides: Sequence[np.ndarray | None], most_bytes: int) -> dict[str, Any]:
    small: dict[str, Any] = {}
    for name, pixels in zip(("before", "after"), sides, strict=True):
        small[name] = "" if pixels is None else _data_url(thumbnail(pixels, most_bytes))
        if pixels is not None:
            small["height"], small["width"] = pixels.shape[:2]
    return small


def _published(face: FaceEntry) -> dict[str, Any]:
    return {"shard": face.shard, "sample": face.sample, "field": face.field, "kind": face.kind, "box": _rounded(face.box)}


def _entry(face: FaceEntry) -> dict[str, Any]:
    measures = face.measures
    return {
        **_published(face),
        "index": face.face_index,
        "score": _finite(face.score),
        "similarity": _finite(face.similarity),
        "reason": face.reason,
        "group": face.group,
        "uncertain": list(face.uncertain),
        "landmarks": _finite(measures.landmarks),
        "tone": _finite(measures.tone),
        "sharpness": _finite(measures.sharpness),
        "found": measures.found,
    }


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 2) for value in values]


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 4)


def _data_url(picture: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(picture).decode()}" if picture else ""


def kinds(faces: Sequence[FaceEntry]) -> dict[str, int]:
    """How many there are of each kind, and how many are uncertain."""
    counts = Counter(face.kind for face in faces)
    return {**dict(sorted(counts.items())), "uncertain": sum(bool(face.uncertain) for face in faces)}


def render(document: dict[str, Any]) -> str:
    """The page as text. Names come from the dataset: the template escapes them, and the script never makes HTML of them."""
    import jinja2
    import markupsafe

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    safe = markupsafe.Markup
    data = json.dumps(document, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    for char in "<>&":  # else a name could end the element that holds the data
        data = data.replace(char, f"\\u{ord(char):04x}")
    template = environment.from_string((_HERE / "page.html").read_text(encoding="utf-8"))
    return template.render(document=document, policy=policy, style=safe(style), script=safe(script), data=safe(data))


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
