"""Fields that may tell who is in a picture are found by name and by type, and ordinary ones are not."""

import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from diffpriv.pipelines.errors import UnknownContentError
from diffpriv.pipelines.formats.sidecars import (
    MAX_SIDECAR_BYTES,
    SidecarCount,
    kinds_of_name,
    refusal,
    scan_file,
    scan_schema,
    scan_values,
)


def array(values: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, values)
    return out.getvalue()


TELLING = {
    "box by name": ("json", json.dumps({"face_bbox": [1, 2, 3, 4]}).encode(), "box in json: face_bbox"),
    "nested": ("json", json.dumps({"faces": [{"kps": [[1, 2]]}]}).encode(), "landmarks in json: kps"),
    "camel case": ("json", json.dumps({"faceEmbedding": "x"}).encode(), "embedding in json: faceEmbedding"),
    "embedding by type": ("json", json.dumps({"v": [0.5] * 128}).encode(), "embedding in json: v"),
    "picture in base64": ("json", json.dumps({"img": "/9j/" + "A" * 200}).encode(), "picture in json: img"),
    "second line": ("jsonl", b'{"label": 3}\n\n{"faces": [{"kps": [[1, 2]]}]}\n', "landmarks in jsonl: kps"),
    "line after a damaged one": ("ndjson", b'{"label"\r\n{"v": [' + b"0.5, " * 99 + b"0.5]}", "embedding in ndjson: v"),
    "over several lines": ("jsonl", json.dumps([{"box": [1, 2]}], indent=1).encode(), "box in jsonl: box"),
    "embedding file": ("vec.npy", array(np.zeros(512, np.float32)), "embedding in vec.npy"),
    "embedding row": ("v.npy", array(np.zeros((1, 512), np.float16)), "embedding in v.npy"),
    "landmark file": ("p.npy", array(np.zeros((68, 2))), "landmarks in p.npy"),
    "picture file": ("p.npy", array(np.zeros((64, 64, 3), np.uint8)), "picture in p.npy"),
    "field name": ("landmarks.txt", b"1 2", "landmarks in landmarks.txt"),
    "heading of a CSV": ("*.csv", b"file,face_bbox,label\na.jpg,1,2\n", "box in *.csv: face_bbox"),
    "heading of a TSV": ("meta.tsv", b"\xef\xbb\xbf'image'\t\"arcface\"\n", "embedding in meta.tsv: arcface"),
    "CelebA's landmarks": (
        "*.txt",
        b"2\nlefteye_x lefteye_y nose_x\n1.jpg 69 109 106\n",
        "landmarks in *.txt: lefteye_x",
    ),
    "large": ("json", None, "file not looked into in json"),
}


@pytest.mark.parametrize(("field", "data", "finding"), TELLING.values(), ids=TELLING)
def test_telling_fields_are_found(field: str, data: bytes | None, finding: str) -> None:
    assert finding in scan_file(field, data)


def test_words_in_a_caption_are_no_headings() -> None:
    assert scan_file("txt", b"a photo of a person with a box\nand a portrait, age 7 8 9\n") == []
    assert scan_file("csv", b"file,label,caption\na.jpg,3,a photo of a box\n") == []


def test_the_headings_of_a_table_of_any_length_are_found() -> None:
    count = SidecarCount("copy")
    count.member(0, "k", "csv", io.BytesIO(b"file,bbox\n" + b"a.jpg,7\n" * (MAX_SIDECAR_BYTES // 8)).read)
    assert count.items() == (("box in csv: bbox", 1),)


UNKNOWN = {
    "a video under its name": ("mp4", b"\0\0\0\x20ftypisom" + bytes(32), "a video"),
    "a video under another": ("txt", b"\0\0\0\x20ftypisom" + bytes(32), "a video"),
    "a damaged array": ("x.npy", b"\x93NUMPY", "binary"),
    "an array of objects": ("x.npy", array(np.array([{}, 1], object)), "binary"),
    "an Arrow file": ("arrow", b"ARROW1\0\0", "Arrow"),
    "text in UTF-16": ("txt", "words".encode("utf-16"), "binary"),
}


@pytest.mark.parametrize(("field", "data", "said"), UNKNOWN.values(), ids=UNKNOWN)
def test_what_nobody_can_look_into_stops_is_counted_or_left_out(field: str, data: bytes, said: str) -> None:
    with pytest.raises(UnknownContentError, match=said):
        SidecarCount("stop").member(3, "k", field, io.BytesIO(data).read)
    copied, dropped = SidecarCount("copy"), SidecarCount("drop")
    for one in (copied, dropped):
        one.member(3, "k", field, io.BytesIO(data).read)
    assert copied.items() == ((f"file not looked into in {field}", 1),)
    assert (dropped.items(), dropped.left_out) == (((f"file left out in {field}", 1),), [(3, field)])


@pytest.mark.parametrize(
    ("field", "data"),
    [
        ("mp4", b"a text under a video's name"),
        ("json", b'{"label": 3, "caption": "a box"}'),
        ("cls", b"4"),
        ("txt", b"x"),
        ("json", b"[" * 100_000),
        ("jsonl", b'{"n": 1}\n{"n": 2}\n'),
    ],
)
def test_ordinary_fields_are_not(field: str, data: bytes) -> None:
    assert scan_file(field, data) == []


def test_a_refused_shard_says_what_it_holds_and_names_alone_refuse_none() -> None:
    assert refusal([("embedding in json: v", 3), ("identity in json: name", 3)]) == "it holds embedding in json: v"
    assert refusal([("identity in json: name", 3)]) == ""


def test_columns_are_found_by_value_where_the_type_is_open() -> None:
    vectors = pa.array([[0.1], [0.5] * 70], pa.list_(pa.float32()))
    assert scan_values("v", vectors.type, vectors) == ["embedding in v"]
    short = pa.array([[0.5] * 10], pa.list_(pa.float32()))
    assert scan_values("v", short.type, short) == []
    text = pa.array(["a caption", json.dumps({"bbox": [1, 2]}), "/9j/" + "A" * 200, None])
    assert scan_values("t", text.type, text) == ["box in t: bbox", "picture in t"]


def test_words_are_whole_words() -> None:
    assert kinds_of_name("inbox_size") == set()
    assert kinds_of_name("FaceBBox2") == {"box"} or kinds_of_name("face_bbox2") == {"box"}


def test_parquet_columns_are_found_by_name_and_type() -> None:
    schema = pa.schema(
        [
            ("image", pa.binary()),
            ("label", pa.int32()),
            ("v", pa.list_(pa.float32(), 512)),
            ("bbox", pa.list_(pa.float32(), 4)),
            ("face", pa.struct([("landmarks", pa.list_(pa.float32()))])),
        ]
    )
    assert scan_schema(schema, ["image"]) == ["box in bbox", "embedding in v", "landmarks in face.landmarks"]
