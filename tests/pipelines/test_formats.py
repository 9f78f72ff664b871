"""Shards in and out: what is read, what is refused, and that everything but the edits keeps its bytes."""

import gzip
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffpriv.pipelines.errors import ShardError, SourceChangedError
from diffpriv.pipelines.formats.base import Assembled, Shard
from diffpriv.pipelines.formats.registry import shard_format
from diffpriv.pipelines.records.samples import QuarantinedSample, Sample, ShardEnd
from diffpriv.pipelines.storage import Folder
from tests.pipelines.datasets import coffee, encoded, gradient, read_tar, sample, tar_bytes

JPEG = encoded(gradient(1), "JPEG")
PNG = encoded(coffee(90), "PNG")
NEW = b"new bytes of a picture"


@dataclass
class Edits:
    """The edits a test wants."""

    new: Mapping[tuple[int, str], bytes] = field(default_factory=dict)
    dropped: frozenset[int] = frozenset()
    drop_sidecars: bool = False
    left_out: frozenset[tuple[int, str]] = frozenset()
    anew: bool = False

    @property
    def changed(self) -> frozenset[tuple[int, str]]:
        return frozenset(self.new)

    def picture(self, index: int, field: str) -> bytes:
        return self.new[index, field]


class Case:
    """One shard in a folder of its own."""

    def __init__(self, folder: Path, format: str, *names: str) -> None:
        self.source, self.target = Folder(str(folder)), Folder(str(folder.parent / "target"))
        self.shard = Shard(names[0] if format != "folder" else "files-00000", format, tuple(map(self.source.facts, names)))

    def read(self) -> tuple[list[Sample | QuarantinedSample], ShardEnd]:
        *records, end = shard_format(self.shard.format).read(self.source, self.shard)
        assert isinstance(end, ShardEnd)
        assert end.samples == len(records)
        return records, end  # type: ignore[return-value]

    def assemble(self, edits: Edits) -> Assembled:
        return shard_format(self.shard.format).assemble(self.source, self.shard, edits, self.target, "staging")

    def output(self, number: int = 0) -> Path:
        return Path(self.target.path(self.assembled.files[number].staged))

    def rewritten(self, edits: Edits) -> Path:
        self.assembled = self.assemble(edits)
        return self.output()


@pytest.fixture
def tar_case(tmp_path: Path) -> Any:
    def make(data: bytes, name: str = "a.tar") -> Case:
        (tmp_path / "src").mkdir(exist_ok=True)
        (tmp_path / "src" / name).write_bytes(data)
        return Case(tmp_path / "src", "webdataset", name)

    return make


# --- WebDataset --------------------------------------------------------------------------------------------------------


def test_a_sample_is_a_run_of_members_with_one_key(tar_case: Any) -> None:
    members = [
        ("a/1.left.jpg", JPEG),
        ("a/1.right.png", PNG),
        ("a/1.json", b"{}"),
        *sample("a/2", 2, JPEG),
        ("LICENSE", b"text"),
    ]
    records, end = tar_case(tar_bytes(members)).read()
    assert [record.key for record in records] == ["a/1", "a/2", "LICENSE"]
    assert [picture.field for picture in records[0].pictures] == ["left.jpg", "right.png"]
    assert records[0].pictures[1].data == PNG
    assert records[2].pictures == ()
    assert not end.problem


def test_a_picture_under_another_name_is_seen_and_a_text_called_jpg_is_a_picture_too(tar_case: Any) -> None:
    records, _ = tar_case(tar_bytes([("a.bin", JPEG), ("b", PNG), ("c.jpg", b"some text"), ("d.JPG", b"")])).read()
    assert [[picture.field for picture in record.pictures] for record in records] == [["bin"], [""], ["jpg"], ["JPG"]]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_without_edits_a_tar_is_copied_to_the_last_byte(tar_case: Any, format: int) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for name in ("a.jpg", "long/" * 15 + "ü" * 30 + ".jpg" if format != tarfile.USTAR_FORMAT else "b.jpg"):
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uid = len(JPEG), 1_234_567_890.25 if format == tarfile.PAX_FORMAT else 1, 77
            archive.addfile(info, io.BytesIO(JPEG))
    case = tar_case(out.getvalue())
    assert case.rewritten(Edits()).read_bytes() == out.getvalue()


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_edits_change_what_they_name_and_nothing_else(tar_case: Any, name: str) -> None:
    members = [*sample("1", 1, JPEG), *sample("2", 2, JPEG), *sample("3", 3, PNG, "png")]
    case = tar_case(tar_bytes(members, "w:gz" if name.endswith("gz") else "w"), name)
    edits = Edits({(2, "png"): NEW}, frozenset({0}))
    path = case.rewritten(edits)
    data = path.read_bytes()
    named = path.with_name(name)
    named.write_bytes(data)
    assert read_tar(named) == [(member, NEW if member == "3.png" else old) for member, old in members[3:]]
    assert case.assembled.samples == 2
    case.assemble(edits)
    assert path.read_bytes() == data, "the same edits gave other bytes"
    with tarfile.open(named) as archive:
        assert {(info.mtime, info.mode, info.uname) for info in archive} == {(1_600_000_000, 0o640, "someone")}


BAD_MEMBERS = {
    "climbs": [("../evil.jpg", JPEG)],
    "climbs inside": [("a/../../evil.jpg", JPEG)],
    "absolute": [("/etc/evil.jpg", JPEG)],
    "same key twice": [("k.jpg", JPEG), ("other.jpg", JPEG), ("k.jpg", JPEG)],
    "same field twice": [("k.jpg", JPEG), ("k.jpg", JPEG)],
    "not utf-8": [("\udcff.jpg", JPEG)],
}


@pytest.mark.parametrize("members", BAD_MEMBERS.values(), ids=BAD_MEMBERS)
def test_a_member_that_cannot_be_trusted_puts_its_sample_in_quarantine(tar_case: Any, members: Any) -> None:
    records, end = tar_case(tar_bytes([*members, *sample("good", 1, JPEG)])).read()
    assert sum(isinstance(record, QuarantinedSample) for record in records) == 1
    assert isinstance(records[-1], Sample)
    assert not end.problem


def test_links_and_devices_are_quarantined_and_folders_kept(tar_case: Any) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind in (
            ("dir", tarfile.DIRTYPE),
            ("a.jpg", tarfile.SYMTYPE),
            ("b.jpg", tarfile.LNKTYPE),
            ("c", tarfile.CHRTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    case = tar_case(out.getvalue())
    records, _ = case.read()
    assert [type(record) for record in records] == [QuarantinedSample] * 3
    with tarfile.open(case.rewritten(Edits(dropped=frozenset(range(3))))) as archive:
        assert archive.getnames() == ["dir"]


WHOLE = tar_bytes([*sample("1", 1, JPEG), *sample("2", 2, JPEG)])
BAD_TARS = {
    "empty": b"",
    "no members": bytes(10240),
    "no tar": b"text " * 1000,
    "cut in a member": WHOLE[:2000],
    "cut between members": WHOLE[: 512 + -(-len(JPEG) // 512) * 512],
    "cut before its end": WHOLE.rstrip(b"\0") + bytes(-len(WHOLE.rstrip(b"\0")) % 512),
    "damaged header": WHOLE[:100] + b"9" + WHOLE[101:],
}


@pytest.mark.parametrize("data", BAD_TARS.values(), ids=BAD_TARS)
def test_a_damaged_tar_is_a_problem_of_the_shard(tar_case: Any, data: bytes) -> None:
    case = tar_case(data)
    _, end = case.read()
    assert end.problem
    zipped = tar_case(gzip.compress(data)[:-9], "b.tar.gz")
    assert zipped.read()[1].problem


def test_bytes_behind_the_end_of_a_tar_are_not_passed_on(tar_case: Any) -> None:
    case = tar_case(WHOLE + JPEG)
    assert JPEG[:200] not in case.rewritten(Edits({(0, "jpg"): NEW, (1, "jpg"): NEW})).read_bytes()


def test_an_edit_without_a_place_is_an_error(tar_case: Any) -> None:
    with pytest.raises(ShardError, match="have no place"):
        tar_case(WHOLE).assemble(Edits({(0, "png"): NEW}))


# --- Parquet -----------------------------------------------------------------------------------------------------------


def parquet_case(tmp_path: Path, table: pa.Table, **options: Any) -> Case:
    (tmp_path / "src").mkdir()
    pq.write_table(table, tmp_path / "src/a.parquet", **options)
    return Case(tmp_path / "src", "parquet", "a.parquet")


def table() -> pa.Table:
    structs = [{"bytes": PNG if row % 2 else JPEG, "path": f"{row}.png"} for row in range(9)]
    columns = {
        "id": pa.array(range(9), pa.int16()),
        "image": pa.array(structs, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        "jpg": pa.array([JPEG if row < 5 else None for row in range(9)], pa.large_binary()),
        "mask": pa.array([b"\1\2"] * 9, pa.binary()),
        "words": pa.array([["a", None]] * 9),
        "label": pa.array(["x", "y", "z"] * 3).dictionary_encode(),
    }
    return pa.table(columns).replace_schema_metadata({"huggingface": '{"info": 1}'})


def test_parquet_rows_are_samples_and_their_pictures_are_found(tmp_path: Path) -> None:
    records, end = parquet_case(tmp_path, table()).read()
    assert [record.key for record in records] == [f"{row:09d}" for row in range(9)]
    assert [picture.field for picture in records[0].pictures] == ["image", "jpg"]
    assert [picture.field for picture in records[8].pictures] == ["image"]
    assert not end.problem


def test_parquet_keeps_row_groups_schema_and_every_other_value(tmp_path: Path) -> None:
    case = parquet_case(tmp_path, table(), row_group_size=4, compression={"image.bytes": "zstd", "jpg": "zstd"})
    path = case.rewritten(Edits({(1, "image"): NEW, (2, "jpg"): NEW, (6, "image"): NEW}, frozenset({0, 8})))
    before, after = pq.ParquetFile(case.source.path("a.parquet")), pq.ParquetFile(path)
    groups = [after.metadata.row_group(number).num_rows for number in range(after.metadata.num_row_groups)]
    assert groups == [3, 4]
    assert after.schema_arrow.equals(before.schema_arrow, check_metadata=True)
    rows = [row for row in before.read().to_pylist() if row["id"] not in (0, 8)]
    rows[0]["image"]["bytes"] = rows[1]["jpg"] = rows[5]["image"]["bytes"] = NEW
    assert after.read().to_pylist() == rows
    assert compression(after) == compression(before)
    assert set(compression(after).values()) == {"ZSTD", "UNCOMPRESSED"}


def compression(file: pq.ParquetFile) -> dict[str, str]:
    columns = (file.metadata.row_group(0).column(number) for number in range(file.metadata.num_columns))
    return {column.path_in_schema: column.compression for column in columns}


def test_an_untouched_parquet_file_is_copied_to_the_last_byte(tmp_path: Path) -> None:
    case = parquet_case(tmp_path, table(), row_group_size=2)
    assert case.rewritten(Edits()).read_bytes() == Path(case.source.path("a.parquet")).read_bytes()


def test_parquet_pictures_out_of_sight_are_refused(tmp_path: Path) -> None:
    nested = pa.table({"images": pa.array([[[JPEG]]], pa.list_(pa.list_(pa.binary())))})
    assert "nests binary values" in parquet_case(tmp_path, nested).read()[1].problem


def test_a_picture_that_is_only_a_path_is_quarantined(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    records, _ = parquet_case(tmp_path, pa.table({"image": pa.array([{"bytes": None, "path": "x.jpg"}, None], kind)})).read()
    assert [type(record) for record in records] == [QuarantinedSample, Sample]


@pytest.mark.parametrize("data", [b"", b"PAR1", b"text" * 100])
def test_a_file_that_is_no_parquet_is_a_problem_of_the_shard(tmp_path: Path, data: bytes) -> None:
    case = parquet_case(tmp_path, table())
    Path(case.source.path("a.parquet")).write_bytes(data)
    assert case.read()[1].problem


# --- image folders -----------------------------------------------------------------------------------------------------


def folder_case(tmp_path: Path, files: Mapping[str, bytes]) -> Case:
    for name, data in files.items():
        path = tmp_path / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return Case(tmp_path / "src", "folder", *sorted(files))


def test_a_folder_keeps_its_tree_and_loses_its_thumbnail_database(tmp_path: Path) -> None:
    files = {"a/1.jpg": JPEG, "a/1.txt": b"caption", "b/c/2.PNG": PNG, "b/Thumbs.db": b"pictures", "list.csv": b"1,2"}
    case = folder_case(tmp_path, files)
    records, _ = case.read()
    assert [(record.key, isinstance(record, Sample)) for record in records] == [
        (name, name != "b/Thumbs.db") for name in sorted(files)
    ]
    bad = next(record.index for record in records if isinstance(record, QuarantinedSample))
    assembled = case.assemble(Edits({(0, "image"): NEW}, frozenset({bad})))
    there = {file.name: Path(case.target.path(file.staged)).read_bytes() for file in assembled.files}
    assert there == {**{name: data for name, data in files.items() if name != "b/Thumbs.db"}, "a/1.jpg": NEW}


def test_a_file_that_changed_or_vanished_is_noticed(tmp_path: Path) -> None:
    case = folder_case(tmp_path, {"1.jpg": JPEG, "2.jpg": JPEG})
    Path(case.source.path("2.jpg")).write_bytes(PNG)
    with pytest.raises(SourceChangedError):
        case.assemble(Edits())
    Path(case.source.path("2.jpg")).unlink()
    *_, end = shard_format("folder").read(case.source, case.shard)
    assert isinstance(end, ShardEnd)
    assert "does not exist" in end.problem
