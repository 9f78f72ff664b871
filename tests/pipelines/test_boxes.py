"""Own boxes: the faces are those of a detector run, whatever the layout; boxes that cannot be meant keep their sample back."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from diffpriv.detectors import load_detector
from diffpriv.faces.types import Face
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.engines.beam_driver import run
from diffpriv.pipelines.errors import MisuseError
from tests.pipelines.conftest import commit_records, published
from tests.pipelines.datasets import astronaut, coffee, encoded, group, sample, write_shards

HEIGHT, WIDTH = group().shape[:2]
SCALE = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT])


@pytest.fixture(scope="module")
def photo() -> bytes:
    return encoded(group(), "PNG")


@pytest.fixture(scope="module")
def faces() -> list[Face]:
    (found,) = load_detector("centerface").detect([group()])
    assert len(found) == 6
    return found


def written(face: Face, format: str) -> list[float]:
    x0, y0, x1, y1 = face.box
    layouts = {
        "xyxy": [x0, y0, x1, y1],
        "xywh": [x0, y0, x1 - x0, y1 - y0],
        "cxcywh": [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0],
        "albumentations": [x0 / WIDTH, y0 / HEIGHT, x1 / WIDTH, y1 / HEIGHT],
    }
    return layouts[format]


def shard(tmp_path: Path, photo: bytes, **document: Any) -> Path:
    return write_shards(tmp_path / "src", {"s.tar": [("a.png", photo), ("a.json", json.dumps(document).encode())]})


def test_with_the_detector_off_its_own_faces_written_as_fields_give_the_same_bytes(
    tmp_path: Path, photo: bytes, faces: list[Face], derived: Callable[[], Any], config_for: Callable[..., JobConfig]
) -> None:
    told = [{"box": list(face.box), "landmarks": face.landmarks.tolist(), "score": face.score} for face in reversed(faces)]
    src = shard(tmp_path, photo, faces=told)
    transform = {"transform": "mosaic", "recovery": "exact"}
    looked = config_for(src, "looked", transform=transform)
    given = config_for(src, "given", transform=transform, boxes={"field": "faces", "detect": "never"})
    for job in (looked, given):
        assert run(job, key_source=derived).counts["faces_protected"] == 6
    assert published(given.dst) == published(looked.dst)
    assert looked.digest() != given.digest()
    assert commit_records(given.dst)["s.tar"]["made_by"]["detector"] == "own boxes/1 xyxy"


@pytest.mark.parametrize("format", ["xywh", "cxcywh", "albumentations"])
def test_every_box_format_in_json_and_parquet_covers_the_same_faces(
    format: str, tmp_path: Path, photo: bytes, faces: list[Face], config_for: Callable[..., JobConfig]
) -> None:
    """Flat lists of four numbers, as img2dataset and DataComp write them; landmarks follow from the boxes."""
    told = [written(face, format) for face in faces]
    tar = shard(tmp_path, photo, meta={"face_bboxes": told})
    table = pa.table({"image": [photo, photo], "face_bboxes": [told, []]})
    (tmp_path / "parquet").mkdir()
    pq.write_table(table, tmp_path / "parquet/part.parquet")
    fill = {"transform": "fill", "recovery": "exact"}
    pictures = []
    for name, src, field in (("tar", tar, "meta.face_bboxes"), ("rows", tmp_path / "parquet", "face_bboxes")):
        job = config_for(src, name, transform=fill, boxes={"field": field, "format": format, "detect": "never"})
        assert run(job).counts["faces"] == 6
        (data,) = published(job.dst).values()
        if name == "tar":
            import tarfile

            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                pictures.append(archive.extractfile("a.png").read())  # type: ignore[union-attr]
        else:
            rows = pq.read_table(io.BytesIO(data)).column("image").to_pylist()
            pictures.append(rows[0])
            assert rows[1] == photo, "a row with an empty list has no face"
    assert pictures[0] == pictures[1]
    grey = np.asarray(Image.open(io.BytesIO(pictures[0])))
    for face in faces:
        x0, y0, x1, y1 = (int(value) for value in face.box)
        assert (grey[max(0, y0) + 1 : y1 - 1, x0 + 1 : x1 - 1] == 128).all(), "a given face was not covered"


BAD = {
    "outside": [[WIDTH + 5, 10, WIDTH + 50, 60]],
    "positive width": [[60, 60, 20, 90]],
    "finite": [[10, 10, float("nan"), 60]],
    "4 numbers": [[10, 10, 60]],
    "finite number": [[10, 10, "60", 60]],
    "smaller than a pixel": [[0.1, 0.1, 0.4, 0.4]],
    "no list of boxes": 7,
    "no boxes in": None,
}


def test_a_box_that_cannot_be_meant_keeps_its_sample_back_with_the_reason(
    tmp_path: Path, photo: bytes, config_for: Callable[..., JobConfig]
) -> None:
    members = [("good.png", photo), ("good.json", b'{"boxes": [10, 10, 60, 60]}')]
    for number, value in enumerate(BAD.values()):
        members += [(f"bad{number}.png", photo), (f"bad{number}.json", json.dumps({"boxes": value}).encode())]
    src = write_shards(tmp_path / "src", {"s.tar": members})
    job = config_for(src, transform={"transform": "fill", "recovery": "exact"}, boxes={"field": "boxes", "detect": "never"})
    report = run(job)
    assert (report.counts["samples_out"], report.counts["samples_quarantined"]) == (1, len(BAD))
    lines = (Path(job.dst) / ".diffpriv/quarantine/s.tar.jsonl").read_text().splitlines()
    reasons = {line["sample"]: line["reason"] for line in map(json.loads, lines)}
    for number, words in enumerate(BAD):
        assert words in reasons[f"bad{number}"], reasons[f"bad{number}"]


def test_united_with_the_detector_the_wider_box_wins_and_nothing_is_lost(
    tmp_path: Path, photo: bytes, faces: list[Face], config_for: Callable[..., JobConfig]
) -> None:
    x0, y0, x1, y1 = faces[0].box
    wider = [x0 - 0.2 * (x1 - x0), y0, x1, y1 + 0.2 * (y1 - y0)]
    elsewhere = [2.0, 2.0, 42.0, 42.0]
    src = shard(tmp_path, photo, boxes=[wider, elsewhere])
    job = config_for(src, transform={"transform": "fill", "recovery": "exact"}, boxes={"field": "boxes"}, faces_table=True)
    assert run(job).counts["faces"] == 7
    table = pq.read_table(Path(job.dst) / ".diffpriv/faces/s.tar.parquet").to_pylist()
    boxes = [row["box"] for row in table]
    assert wider in boxes
    assert elsewhere in boxes
    assert len(boxes) == 7


def test_boxes_of_a_picture_that_lies_on_its_side_follow_it(tmp_path: Path, config_for: Callable[..., JobConfig]) -> None:
    """EXIF orientations 1 to 8, boxes and landmarks counted in the stored pixels: the same place is covered in all."""
    exif = Image.Exif()
    nobody = np.asarray(Image.fromarray(coffee()).resize((200, 120)))
    members = []
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        points = [[52, 50], [88, 50], [70, 71], [55, 92], [85, 92]]
        document = json.dumps({"boxes": [{"box": [40, 30, 100, 110], "landmarks": points}]}).encode()
        picture = encoded(nobody, "PNG", exif=exif.tobytes())
        members += [(f"{orientation}.png", picture), (f"{orientation}.json", document)]
    src = write_shards(tmp_path / "src", {"s.tar": members})
    fill = {"transform": "fill", "recovery": "exact"}
    job = config_for(src, transform=fill, boxes={"field": "boxes", "detect": "never"})
    assert run(job).counts["faces_protected"] == 8
    import tarfile

    with tarfile.open(Path(job.dst) / "s.tar") as archive:
        stored = [
            np.asarray(Image.open(archive.extractfile(f"{number}.png")))  # type: ignore[arg-type]
            for number in range(1, 9)
        ]
    for turned in stored:
        assert np.array_equal(turned, stored[0])
    assert (stored[0][30:110, 40:100] == 128).all()


def test_aligned_crops_need_no_detector_and_others_are_kept_back(tmp_path: Path, config_for: Callable[..., JobConfig]) -> None:
    crop = encoded(astronaut(256)[20:132, 60:172], "PNG")
    members = [*sample("a", 0, crop, "png"), *sample("b", 1, encoded(coffee(), "PNG"), "png")]
    job = config_for(write_shards(tmp_path / "src", {"s.tar": members}), aligned=True)
    report = run(job)
    assert report.counts["faces"] == 1
    assert [reason for reason in report.quarantined if "no aligned face crop" in reason]
    with pytest.raises(MisuseError, match="not both"):
        config_for(tmp_path, aligned=True, boxes={"field": "boxes"})
