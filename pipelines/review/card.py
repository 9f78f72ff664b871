"""What was done to a published dataset, for whoever gets it: a dataset card in Markdown, and all faces as COCO detections.

Both are made of the commit records, which hold counts and boxes and nothing of a face; the COCO file also of the sizes of the
published pictures. Neither is part of DST, whose files are those that its runs committed.
"""

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

from diffpriv.pipelines.destination.published import records
from diffpriv.pipelines.destination.record import CommitRecord
from diffpriv.pipelines.errors import MisuseError
from diffpriv.pipelines.formats.registry import shard_format
from diffpriv.pipelines.pictures.codec import upright_size
from diffpriv.pipelines.records.samples import Sample
from diffpriv.pipelines.run.report import COUNTS
from diffpriv.pipelines.storage import Folder

_LIMITS = """\
- A face that the detector did not find is as it was. Bodies, clothes, tattoos, rooms and places, and words beside the pictures
  are as they were, too.
- Labels that speak of looks (age, hair, expression) may not fit the new faces."""
_RECOVERABLE = """\
Sealed records of {recoverable:,} faces exist, apart from this dataset: whoever holds the keys, under the quorum that guards
them, can bring these faces back. The data is pseudonymised, not more."""
_GONE = "No key was kept: the faces were irreversibly transformed by this tool."


def dataset_card(dst: str | os.PathLike[str]) -> str:
    """The card. Raises: MisuseError: nothing is published there."""
    published = _published(dst)
    counts: Counter[str] = Counter()
    for record in published:
        counts.update({name: record.counts.get(name, 0) for name in COUNTS})
    rows = [
        ("samples published", counts["samples_out"]),
        ("samples left out, since something of them could not be looked at or written", counts["samples_quarantined"]),
        ("pictures", counts["pictures"]),
        ("pictures changed", counts["pictures_changed"]),
        ("faces replaced", counts["faces_protected"]),
        ("faces covered by a flat colour", counts["faces_filled"]),
        ("faces left as they were, on purpose", counts["faces_left"]),
        ("frames and pages left out", counts["frames_dropped"]),
    ]
    table = "\n".join(f"| {what} | {count:,} |" for what, count in rows if count or what.startswith(("samples p", "faces r")))
    recoverable = counts["faces_recoverable"]
    return "\n".join(
        [
            f"# {published[0].dataset}\n",
            "Faces in this dataset were replaced by diffpriv before it was published.\n",
            f"| what | how many |\n| --- | --- |\n{table}\n",
            _RECOVERABLE.format(recoverable=recoverable) if recoverable else _GONE,
            "\n## How\n",
            *(f"- {stage}: {', '.join(sorted(used))}" for stage, used in _tools(published).items()),
            f"- settings: SHA-256 {', '.join(sorted({record.config_digest for record in published}))}",
            "\n## Limits\n",
            f"{_LIMITS}\n",
        ]
    )


def coco_detections(dst: str | os.PathLike[str]) -> dict[str, Any]:
    """All faces of DST as a COCO detection dataset; boxes are [x, y, width, height] in upright pixels.

    Raises:
        MisuseError: nothing is published there.
        ShardError: a published shard cannot be read.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record in _published(dst):
        faces: dict[tuple[str, str], list[Any]] = {}
        for face in record.faces:
            faces.setdefault((str(record.published_key(face.sample)), face.field), []).append(face)
        for sample, field, size in _pictures(Folder(os.fspath(dst)), record):
            image = {"id": len(images) + 1, "file_name": _name(record, sample, field), "width": size[0], "height": size[1]}
            images.append({**image, "shard": record.shard, "sample": sample, "field": field})
            for face in faces.get((sample, field), []):
                x0, y0, x1, y1 = face.box
                box = [round(value, 1) for value in (x0, y0, x1 - x0, y1 - y0)]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image["id"],
                        "category_id": 1,
                        "bbox": box,
                        "area": round(box[2] * box[3], 1),
                        "iscrowd": 0,
                        "attributes": {"status": face.status},
                    }
                )
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "face", "supercategory": "person"}]}


def _published(dst: str | os.PathLike[str]) -> list[CommitRecord]:
    found = list(records(dst))
    if not found:
        raise MisuseError(f"{os.fspath(dst)} holds no published shard.", advice='Give the DST of a "diffpriv sanitize" run.')
    return found


def _tools(published: list[CommitRecord]) -> dict[str, set[str]]:
    tools: dict[str, set[str]] = {}
    for record in published:
        for stage, used in sorted(record.made_by.items()):
            tools.setdefault(stage, set()).add(used)
    return tools


def _pictures(target: Folder, record: CommitRecord) -> Iterator[tuple[str, str, tuple[int, int]]]:
    """(sample, field, (width, height)) of every published picture, in order."""
    for one in shard_format(record.format).read(target, record.published(target)):
        if isinstance(one, Sample):
            for picture in one.pictures:
                yield one.key, picture.field, upright_size(picture.data)


def _name(record: CommitRecord, sample: str, field: str) -> str:
    """A folder's file by its path; else a name that tells shard, sample and field."""
    return sample if record.format == "folder" else f"{record.shard}/{sample}.{field}"
