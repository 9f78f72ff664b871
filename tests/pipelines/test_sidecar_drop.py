"""Rule "drop": what tells who is in a picture is left out of the published dataset, everything else stays byte for byte."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.engines.ray_driver import run
from tests.pipelines.conftest import Keyring, published
from tests.pipelines.datasets import encoded, gradient, read_tar, write_shards
from tests.pipelines.killing import prepare_all

PICTURE = encoded(gradient(1, 48), "PNG")
TELLING = json.dumps({"label": 3, "faces": [{"bbox": [1, 2, 3, 4], "age": 5}], "v": [0.5] * 128, "who": "A. Person"}).encode()
LEFT = {"label": 3, "faces": [{"age": 5}], "who": "A. Person"}
ORDINARY = b'{ "label":  3 }'
LINES = [ORDINARY, TELLING + b"\r", b"no JSON", json.dumps([0.5] * 64).encode(), b"", ORDINARY, b""]


def array() -> bytes:
    out = io.BytesIO()
    np.save(out, np.zeros(512, np.float32))
    return out.getvalue()


def protected(config: JobConfig, keyring: Keyring, derived: Any) -> Any:
    """The whole job without an engine: all shards prepared, then committed."""
    prepare_all(config, derived.args[0], keyring.log_key)
    report = run(config, key_source=derived, log_key=keyring.log_key)
    assert report.ok
    return report


def test_members_and_keys_of_an_archive(
    tmp_path: Path, config_for: Callable[..., JobConfig], keyring: Keyring, derived: Any
) -> None:
    members = [("a.png", PICTURE), ("a.json", TELLING), ("a.vec.npy", array()), ("a.txt", b"text")]
    members += [
        ("b.png", PICTURE),
        ("b.json", ORDINARY),
        ("c.mp4", b"\0\0\0\x20ftypmp42" + bytes(16)),
        ("c.png", PICTURE),
        ("c.jsonl", b"\n".join(LINES)),
    ]
    config = config_for(write_shards(tmp_path / "src", {"a.tar": members}), sidecars="drop")
    report = protected(config, keyring, derived)
    out = dict(read_tar(Path(config.dst) / "a.tar"))
    assert list(out) == ["a.png", "a.json", "a.txt", "b.png", "b.json", "c.png", "c.jsonl"]
    assert json.loads(out.pop("a.json")) == LEFT
    lines = out.pop("c.jsonl").split(b"\n")
    assert json.loads(lines[1]) == LEFT
    assert lines == [ORDINARY, lines[1].rstrip() + b"\r", b"no JSON", b"", ORDINARY, b""]
    assert out.items() <= dict(members).items()
    assert ("beside the pictures: embedding in vec.npy", "1, left out") in report.rows()


def test_columns_of_a_parquet_file(
    tmp_path: Path, config_for: Callable[..., JobConfig], keyring: Keyring, derived: Any
) -> None:
    columns = {
        "image": pa.array([PICTURE] * 2, pa.binary()),
        "arcface": pa.array([[0.5] * 4] * 2),
        "vector": pa.array([[0.5] * 70] * 2, pa.list_(pa.float32())),
        "name": pa.array(["x", "y"]),
        "n": pa.array([1, 2]),
    }
    features = {"info": {"features": {name: {} for name in columns}}}
    table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(features), "mine": "kept"})
    (tmp_path / "src").mkdir()
    pq.write_table(table, tmp_path / "src/p.parquet", row_group_size=1)
    config = config_for(tmp_path / "src", sidecars="drop")
    protected(config, keyring, derived)
    out = pq.read_table(Path(config.dst) / "p.parquet")
    assert out.column_names == ["image", "name", "n"]
    assert out.to_pylist() == table.select(["image", "name", "n"]).to_pylist()
    assert json.loads(out.schema.metadata[b"huggingface"])["info"]["features"].keys() == {"image", "name", "n"}
    assert out.schema.metadata[b"mine"] == b"kept"


def test_files_of_a_folder(tmp_path: Path, config_for: Callable[..., JobConfig], keyring: Keyring, derived: Any) -> None:
    files = {
        "x/p.png": PICTURE,
        "x/p.json": TELLING,
        "x/v.npy": array(),
        "labels.csv": b"a,b\n",
        "all.zip": b"PK\3\4" + bytes(30),
    }
    for name, data in files.items():
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / name).write_bytes(data)
    config = config_for(tmp_path / "src", sidecars="drop")
    report = protected(config, keyring, derived)
    out = published(config.dst)
    assert out.keys() == {"x/p.png", "x/p.json", "labels.csv"}
    assert json.loads(out.pop("x/p.json")) == LEFT
    assert out.items() <= files.items()
    assert report.counts["samples_out"] == 5
