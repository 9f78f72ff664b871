"""What a person should look at after a run: faces perhaps missed, faces near the similarity limit, fills, and faces left.

Missed faces are looked for in the originals, by the detector at a lower threshold: whatever it finds there that no face of the
faces table overlaps is shown. Without the originals only what the table says can be shown, with crops of published pictures.
"""

import dataclasses
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffpriv.detectors import load_detector
from diffpriv.faces.types import overlap
from pipelines.boxes import SAME_FACE
from pipelines.errors import BadImageError, MisuseError
from pipelines.face_table import face_table_name
from pipelines.formats import Shard, shard_format
from pipelines.images import decode
from pipelines.published import records
from pipelines.samples import Sample
from pipelines.sources import open_source
from pipelines.steps import Detector
from pipelines.storage import Folder
from pipelines.workers import fix_threads

CROP_SIDE = 112  # pixels of a crop on the page
MARGIN = 0.5  # of the box's side around it: a face alone is hard to judge
MISSED, SIMILAR, FILLED, LEFT = "perhaps missed", "near the similarity limit", "filled", "left as it is"
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Case:
    """One thing to look at.

    Attributes:
        kind: MISSED, SIMILAR, FILLED or LEFT. detail: score, similarity or reason, for people.
        crop: JPEG of the place and what surrounds it; b"" where no picture could be read.
    """

    shard: str
    sample: str
    field: str
    kind: str
    box: Box
    detail: str
    crop: bytes = dataclasses.field(repr=False)


def find_cases(
    dst: str, originals: str | None, *, format: str = "auto", detector: str = "centerface", lowest: float, similar: float
) -> Iterator[Case]:
    """Cases in the order of shards and samples.

    Args:
        originals: SRC, where the reviewer has it. lowest: detections from this score on may be missed faces.
        similar: similarity from which a protected face is shown.
    Raises:
        MisuseError: a shard has no faces table, or SRC is not what DST was made from.
    """
    fix_threads()
    finder = load_detector(detector, threshold=lowest) if originals is not None else None
    target = Folder(dst)
    source = Folder(open_source(originals, format).url) if originals is not None else None
    for record in records(dst):
        faces = _table(target, record["shard"])
        if source is not None:
            names = [name for name, *_ in record["source"]["files"]]
            samples = _samples(source, record, names, None)
        else:
            samples = _samples(target, record, [name for name, *_ in record["files"]], record)
        for sample in samples:
            yield from _of_sample(record["shard"], sample, faces.get(sample.key, []), finder, similar)


def _table(target: Folder, shard: str) -> dict[str, list[dict[str, Any]]]:
    """The shard's faces by sample."""
    import pyarrow.parquet as pq

    data = target.small.read_if_there(face_table_name(shard))
    if data is None:
        raise MisuseError(f"{shard} has no faces table.", advice='Run "diffpriv sanitize" with --faces-table into a new DST.')
    faces: dict[str, list[dict[str, Any]]] = {}
    for row in pq.read_table(io.BytesIO(data)).to_pylist():
        faces.setdefault(row["sample"], []).append(row)
    return faces


def _samples(
    folder: Folder, record: dict[str, Any], names: Sequence[str], published: dict[str, Any] | None
) -> Iterator[Sample]:
    """Published samples of a shard under the names they have in SRC."""
    dropped = set(record["quarantined"])
    rows = [row for row in range(record["counts"]["samples_in"]) if row not in dropped]
    shard = Shard(record["shard"], record["format"], tuple(folder.facts(name) for name in names))
    for one in shard_format(record["format"]).read(folder, shard):
        if not isinstance(one, Sample):
            continue
        if published is None:
            if one.index not in dropped:
                yield one
        elif record["format"] == "parquet":
            yield Sample(one.shard, one.index, f"{rows[one.index]:09d}", one.pictures)
        else:
            yield one


def _of_sample(
    shard: str, sample: Sample, faces: Sequence[dict[str, Any]], finder: Detector | None, similar: float
) -> Iterator[Case]:
    for picture in sample.pictures:
        here = [face for face in faces if face["field"] == picture.field]
        if finder is None and not any(_uncertain(face, similar) for face in here):
            continue
        try:
            pixels = decode(picture.data).pixels
        except BadImageError:
            continue
        for face in here:
            kind = _uncertain(face, similar)
            if kind:
                box = _box(face["box"])
                yield Case(shard, sample.key, picture.field, kind, box, _detail(face, kind), _crop(pixels, box))
        if finder is not None:
            (found,) = finder.detect([pixels])
            for one in found:
                if all(overlap(one.box, _box(face["box"])) < SAME_FACE for face in here):
                    detail = f"score {one.score:.2f}"
                    yield Case(shard, sample.key, picture.field, MISSED, one.box, detail, _crop(pixels, one.box))


def _uncertain(face: dict[str, Any], similar: float) -> str:
    if face["status"] == "filled":
        return FILLED
    if face["status"] == "left":
        return LEFT
    return SIMILAR if face["similarity"] is not None and face["similarity"] >= similar else ""


def _detail(face: dict[str, Any], kind: str) -> str:
    return f"similarity {face['similarity']:.3f}" if kind == SIMILAR else str(face["reason"])


def _box(values: Sequence[float]) -> Box:
    x0, y0, x1, y1 = values
    return (x0, y0, x1, y1)


def _crop(pixels: np.ndarray, box: Box) -> bytes:
    """A small JPEG of the box and its margin, cut at the picture's edge; the box is drawn."""
    from PIL import Image, ImageDraw

    height, width = pixels.shape[:2]
    margin = MARGIN * max(box[2] - box[0], box[3] - box[1])
    x0, y0 = max(0, int(box[0] - margin)), max(0, int(box[1] - margin))
    x1, y1 = min(width, int(box[2] + margin) + 1), min(height, int(box[3] + margin) + 1)
    if x1 <= x0 or y1 <= y0:
        return b""
    image = Image.fromarray(pixels[y0:y1, x0:x1])
    scale = CROP_SIDE / max(image.size)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.LANCZOS)
    drawn = tuple(round((value - start) * scale) for value, start in zip(box, (x0, y0, x0, y0), strict=True))
    ImageDraw.Draw(image).rectangle(drawn, outline=(255, 200, 0))
    out = io.BytesIO()
    image.save(out, format="JPEG", quality=80)
    return out.getvalue()
