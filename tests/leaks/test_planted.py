"""Nothing passes unseen: faces planted in every place, encoding and container we could think of, and data that must pass."""

import base64
import gzip
import io
import json
import tarfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffpriv.keys.notes import NoteKey
from diffpriv.pipelines.gate.findings import GateReport, GateSettings
from diffpriv.pipelines.gate.manifest import check_copy, write_manifest
from diffpriv.pipelines.gate.run import check_release
from diffpriv.pipelines.pictures.codec import decode, written_anew
from tests.leaks.planted import SIDE, face, files, jpeg, nobody, pictures, saved, texts
from tests.leaks.shards import Release, column, odd_tar
from tests.pipelines.datasets import tar_bytes

BY_REGION = GateSettings(recognizer="")


def plant_fields(release: Release) -> None:
    """Every file and text, as a member of a tar, a file of a folder, and a value of a column."""
    fields = [(name, extension, data) for name, extension, data in files()]
    fields += [(name, extension, text.encode()) for name, extension, text in texts()]
    for number, (name, extension, data) in enumerate(fields):
        title = f"{number:03d} {name}"
        release.tar(f"{title} in a tar.tar", {"a": [(extension, data), ("cls", b"3")]})
        release.folder(f"{title} in a folder", {f"a.{extension}" if extension else "a": data})
        release.parquet(f"{title} in a column.parquet", pa.table({"label": [3], "field": column(data)}))


def plant_pictures(release: Release) -> None:
    for number, (name, extension, data) in enumerate(pictures()):
        title = f"{number:03d} {name}"
        release.tar(f"{title} in a tar.tar", {"a": [(extension, data)]})
        release.parquet(f"{title} in a list.parquet", pa.table({"images": pa.array([[data]], pa.list_(pa.binary()))}))


def plant_columns(release: Release) -> None:
    """Faces in columns whose types say something else, and in what a Parquet file holds beside its rows."""
    data, pixels = jpeg(), face(48)
    numbers = {
        "list of uint8": pa.array([list(data)], pa.list_(pa.uint8())),
        "nested lists of uint8": pa.array([pixels.tolist()], pa.list_(pa.list_(pa.list_(pa.uint8())))),
        "nested lists of floats": pa.array([(pixels / 255).tolist()], pa.list_(pa.list_(pa.list_(pa.float32())))),
        "flat list of pixels": pa.array([pixels.reshape(-1).tolist()], pa.large_list(pa.int64())),
        "dictionary of binary": pa.array([data], pa.binary()).dictionary_encode(),
        "dictionary of strings": pa.array([base64.b64encode(data).decode()]).dictionary_encode(),
        "large binary": pa.array([saved(face(), "PCX")], pa.large_binary()),
        "struct": pa.array([{"a": {"b": base64.b64encode(data).decode()}}]),
        "list of strings": pa.array([[base64.b64encode(data[s : s + 30]).decode() for s in range(0, len(data), 30)]]),
        "map": pa.array([[("k", base64.b64encode(data).decode())]], pa.map_(pa.string(), pa.string())),
        "struct of numbers": pa.array([{f"p{n}": int(v) for n, v in enumerate(pixels[..., 1].reshape(-1)[:1200])}]),
    }
    whole = np.frombuffer(data + bytes(-len(data) % 8), np.uint8)
    numbers |= {
        "64-bit integers": pa.array(whole.view(np.int64)),
        "16-bit integers": pa.array(whole.view(np.uint16)),
        "integers of the other order": pa.array(whole.view(">i4").astype(np.int32)),
        "floats made of bytes": pa.array(whole.view(np.float64)),
        "times": pa.array(whole.view(np.int64), pa.timestamp("ns")),
        "durations": pa.array(whole.view(np.int64), pa.duration("us")),
        "dates": pa.array(whole.view(np.int32), pa.date32()),
        "times of day": pa.array([int(one) for one in data], pa.time64("us")),
        "decimals": pa.array([int.from_bytes(data[s : s + 12], "big") for s in range(0, len(data), 12)], pa.decimal128(38)),
        "booleans": pa.array(np.unpackbits(whole).astype(bool)),
        "empty values": pa.array([None if bit else 1 for bit in np.unpackbits(whole)]),
        "short lists of bytes": pa.array([list(data[s : s + 100]) for s in range(0, len(data), 100)], pa.list_(pa.int16())),
        "short lists of wide numbers": pa.array(whole.view(np.int64)[: len(whole) // 80 * 10].reshape(-1, 10).tolist()),
        "lengths of lists": pa.array([[0] * one for one in data], pa.list_(pa.int8())),
        "packed integers": pa.array(whole.view(np.int64) ^ 0x5A5A5A5A5A5A5A5A).take(pa.array(list(range(len(whole) // 8)) * 2)),
    }
    for name, values in numbers.items():
        release.parquet(f"column {name}.parquet", pa.table({"field": values}))
    encoded = base64.b64encode(data).decode()
    names = [encoded[s : s + 60] for s in range(0, len(encoded), 60)]
    release.parquet("names of columns.parquet", pa.table({name: ["a"] for name in names}))
    release.tar("names of samples.tar", {name.replace("/", "_"): [("txt", b"a caption")] for name in names})
    release.tar("names of members.tar", {"a": [(name.replace("/", "_"), b"a caption") for name in names]})
    wide = [int.from_bytes(data[s : s + 8], "big") for s in range(0, len(data), 8)]
    release.tar("wide numbers of JSON.tar", {f"{n:04d}": [("json", json.dumps({"v": v}).encode())] for n, v in enumerate(wide)})
    release.tar("wide numbers of a text.tar", {"a": [("csv", "\n".join(f"row {v}" for v in wide).encode())]})
    release.parquet("column of pixels.parquet", pa.table({"v": pa.array(pixels[..., 1].reshape(-1), pa.uint8())}))
    release.parquet("column of bytes.parquet", pa.table({"v": pa.array(np.frombuffer(data, np.uint8).astype(np.float64))}))
    for rows in (40, 60):  # characters of base64 a row
        text = base64.b64encode(data).decode()
        parts = [text[s : s + rows] for s in range(0, len(text), rows)]
        release.parquet(f"column of {rows} characters.parquet", pa.table({"id": parts}))
        release.tar(f"members of {rows} characters.tar", {f"{n:04d}": [("id", one.encode())] for n, one in enumerate(parts)})
    release.tar("members of a number.tar", {f"{n:05d}": [("cls", b"%d" % v)] for n, v in enumerate(face(32)[..., 1].flat)})


def tar_of_folders(names: list[str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
        info = tarfile.TarInfo("a.txt")
        info.size = 9
        archive.addfile(info, io.BytesIO(b"a caption"))
    return out.getvalue()


def plant_containers(release: Release) -> None:
    """Faces in what surrounds the samples."""
    text, data = b"a caption", jpeg()
    encoded = base64.b64encode(data).decode()
    whole = odd_tar(text)
    end = whole.rstrip(b"\0")
    padded = end + bytes(-len(end) % 512)
    archives = {
        "attribute of a member": odd_tar(text, pax={"SCHILY.xattr.user.p": encoded}),
        "comment of a tar": odd_tar(text, comment=encoded),
        "owner of a member": odd_tar(text, uname=encoded[:31]),
        "padding of a member": end + data[: -len(end) % 512] + bytes(1024),
        "behind the end of a tar": padded + bytes(1024) + data,
        "names of folders": tar_of_folders([encoded[s : s + 60].replace("/", "_") for s in range(0, len(encoded), 60)]),
        "AppleDouble half": tar_bytes([("a.txt", text), ("._a.jpg", data)]),
        "between two ends": padded + bytes(512) + data[:512].ljust(512, b"\1") + bytes(1024),
    }
    for name, archive in archives.items():
        release.put(f"{name}.tar", "webdataset", {f"{name}.tar": archive}, plain=False)
    header = b"\x1f\x8b\x08\x10" + bytes(4) + b"\0\xff" + encoded.encode() + b"\0"
    zipped = {
        "comment of a gzip": header + gzip.compress(whole, mtime=0)[10:],
        "second gzip": gzip.compress(whole) + gzip.compress(data),
    }
    for name, archive in zipped.items():
        release.put(f"{name}.tar.gz", "webdataset", {f"{name}.tar.gz": archive}, plain=False)
    table = pa.table({"t": ["a caption"]})
    footers = {
        "metadata of a Parquet file": table.replace_schema_metadata({"note": encoded}),
        "Hugging Face's metadata": table.replace_schema_metadata({"huggingface": json.dumps({"info": encoded})}),
        "metadata of a field": pa.table(
            {"t": ["a caption"]}, schema=pa.schema([pa.field("t", pa.string(), metadata={"note": encoded})])
        ),
        "unused word of a dictionary": pa.table({"t": pa.DictionaryArray.from_arrays(pa.array([0]), ["a", encoded])}),
    }
    for name, made in footers.items():
        out = io.BytesIO()
        pq.write_table(made, out)
        release.put(f"{name}.parquet", "parquet", {f"{name}.parquet": out.getvalue()}, plain=False)
    out = io.BytesIO()
    pq.write_table(table, out)
    gap = out.getvalue()[:4] + data + out.getvalue()[4:]
    release.put("before a Parquet file's pages.parquet", "parquet", {"before a Parquet file's pages.parquet": gap}, plain=False)


def missed(release: Release) -> tuple[list[str], int, GateReport]:
    """(shards about which nothing over its limit was found, how many there are, the report)."""
    report = check_release(str(release.src), str(release.dst), BY_REGION, format="webdataset")
    found = defaultdict(list)
    for one in report.findings:
        if report.settings.limit(one.kind) == 0:
            found[one.shard].append(one)
    shards = [json.loads(path.read_text())["shard"] for path in (release.dst / ".diffpriv/commits").iterdir()]
    return sorted(set(shards) - set(found)), len(shards), report


@pytest.mark.parametrize("plant", [plant_fields, plant_pictures, plant_columns, plant_containers])
def test_every_planted_face_keeps_a_release_from_being_signed(plant: object, tmp_path: Path) -> None:
    release = Release(tmp_path)
    plant(release)  # type: ignore[operator]
    passed, planted, report = missed(release)
    assert planted >= {plant_fields: 260, plant_pictures: 60, plant_columns: 38, plant_containers: 14}[plant]  # type: ignore[index]
    assert passed == [], f"{len(passed)} of {planted} passed"
    assert not report.clean


def test_a_field_that_is_allowed_by_name_passes_and_the_manifest_names_it(tmp_path: Path) -> None:
    release = Release(tmp_path)
    release.tar("a.tar", {"a": [("ids", base64.b64encode(jpeg())), ("txt", b"a caption")]})
    settings = GateSettings(recognizer="", allowed_fields=frozenset({"ids"}))
    report = check_release(str(release.src), str(release.dst), settings)
    assert report.clean
    assert report.found["allowed field"] >= 1
    key = NoteKey.create("log")
    note = (release.dst / write_manifest(str(release.dst), report, key, now=1_800_000_000)).read_bytes()
    assert check_copy(str(release.dst), note, key.verifier).allowed_fields == ("ids",)


def test_ordinary_data_passes(tmp_path: Path) -> None:
    """No false alarm on what datasets hold beside pictures."""
    release = Release(tmp_path)
    words = [
        "A cup of coffee on a wooden table, seen from above.",
        "Ein Becher Kaffee, größer als die Untertasse.",
        "一杯咖啡放在木桌上",
    ]
    chance = np.random.default_rng(3)
    picture = written_anew(decode(saved(nobody(), "JPEG")))
    rows = range(300)
    table = pa.table(
        {
            "image": pa.array([picture] + [None] * 299, pa.binary()),
            "label": pa.array(chance.integers(0, 10, 300), pa.int64()),
            "score": pa.array(chance.random(300), pa.float32()),
            "caption": [words[row % 3] for row in rows],
            "file_name": [f"train/{row:06d}.jpg" for row in rows],
            "tags": pa.array([["cup", "table"]] * 300),
            "split": pa.array(["train", "val"] * 150).dictionary_encode(),
            "taken": pa.array([row * 86_400_000 for row in rows], pa.timestamp("ms")),
            "size": pa.array([{"width": 640, "height": 480}] * 300),
            "good": pa.array([True, False] * 150),
        }
    )
    release.parquet("labels.parquet", table)
    labels = {f"{row:06d}": [("json", json.dumps({"label": row % 7, "caption": words[row % 3]}).encode())] for row in rows}
    release.tar("labels.tar.gz", {"000000": [("jpg", picture), ("cls", b"4")], **{f"x{k}": v for k, v in labels.items()}})
    attributes = ",".join(f"attribute_{number}" for number in range(40))
    lines = [f"{row:06d}.jpg," + ",".join(map(str, chance.choice([-1, 1], 40))) for row in range(400)]
    release.folder(
        "files",
        {
            "a/1.jpg": picture,
            "list_attr.csv": "\n".join([f"file,{attributes}", *lines]).encode(),
            "labels.csv": "\n".join(["file,age", *(f"{row:06d}.jpg,{chance.integers(1, 90)}" for row in range(2000))]).encode(),
            "README.md": ("# A dataset\n\n" + " ".join(words[:2]) * 40).encode(),
            "classes.txt": b"\n".join(b"class number %d" % row for row in range(1000)),
        },
    )
    _, _, report = missed(release)
    assert report.clean, [vars(one) for one in report.findings if report.settings.limit(one.kind) == 0]


def test_released_files_are_read_by_the_tools_they_are_meant_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features, fields and order as before; the job's own folder is taken for data by neither."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets
    import webdataset

    parquet, tars = Release(tmp_path / "p"), Release(tmp_path / "t")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])})
    rows = {"image": [{"bytes": jpeg(), "path": f"{n}.jpg"} for n in range(3)], "label": [2, 0, 1]}
    table = datasets.Dataset.from_dict(rows, features=features).data.table
    parquet.parquet("a.parquet", table.replace_schema_metadata({**(table.schema.metadata or {}), b"mine": b"x"}))
    loaded = datasets.load_dataset(str(parquet.dst), cache_dir=str(tmp_path / "cache"))["train"]
    assert loaded.features == features
    assert loaded["label"] == [2, 0, 1]
    assert loaded[0]["image"].size == (SIDE, SIDE)
    assert b"mine" not in pq.read_schema(parquet.dst / "a.parquet").metadata
    tars.tar("b.tar", {f"dir/{n}": [("jpg", jpeg()), ("json", b'{"label": %d}' % n), ("cls", b"%d" % n)] for n in range(3)})
    samples = list(webdataset.WebDataset(str(tars.dst / "b.tar"), shardshuffle=False))
    assert [(one["__key__"], one["cls"]) for one in samples] == [(f"dir/{n}", b"%d" % n) for n in range(3)]
    assert all(one["jpg"] == jpeg() for one in samples)
    with tarfile.open(tars.dst / "b.tar") as archive:
        assert {(one.uid, one.gid, one.uname, one.gname, one.type) for one in archive} == {(0, 0, "", "", tarfile.REGTYPE)}
