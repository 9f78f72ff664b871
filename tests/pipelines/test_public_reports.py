"""Cases that people reported about other tools, tried on this one: each kind is mended, and the right value is checked here."""

import io
import os
import socket
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from diffpriv.config import TransformConfig
from diffpriv.keys.context import ShardContext
from diffpriv.keys.sources import RandomKeySource
from diffpriv.pipelines.errors import MisuseError
from diffpriv.pipelines.face_settings import BoxSettings
from diffpriv.pipelines.formats.base import Shard
from diffpriv.pipelines.formats.preview import refuse_unknown
from diffpriv.pipelines.formats.registry import shard_format
from diffpriv.pipelines.formats.sidecars import SidecarCount
from diffpriv.pipelines.formats.source import open_source
from diffpriv.pipelines.pictures.codec import PictureLimits, decode
from diffpriv.pipelines.records.samples import Picture, ProtectedSample, QuarantinedSample, Sample, ShardEnd
from diffpriv.pipelines.steps.detect import detect
from diffpriv.pipelines.steps.policy import FacePolicy
from diffpriv.pipelines.steps.protect import protect
from diffpriv.pipelines.storage import Folder
from diffpriv.transforms import load_transform
from examples.unpack_recordio import HEADER, MAGIC
from examples.unpack_recordio import main as unpack_recordio
from tests.pipelines.datasets import encoded, gradient, sample, tar_bytes
from tests.pipelines.test_formats import Case, Edits, parquet_case

JPEG = encoded(gradient(1), "JPEG")


def filled(data: bytes, box: list[float]) -> bytes:
    """The picture after a job with own boxes and no detector."""
    one = Sample("s", 0, "k", (Picture("tiff", data),), {"box": box})
    policy = FacePolicy(BoxSettings(field="box", detect="never"))
    (found,) = detect([one], None, PictureLimits(), policy)
    transform = load_transform(TransformConfig("fill", recovery="none"))
    ((outcome,), _) = protect([found], transform, RandomKeySource(), ShardContext("d", "s", "0" * 64))  # type: ignore[list-item]
    assert isinstance(outcome, ProtectedSample)
    return outcome.changed[0].data


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_a_box_on_the_stored_grid_is_filled_there_whatever_the_orientation(format: str, orientation: int) -> None:
    pixels = np.full((60, 100, 3), 200, np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    tagged = {"exif": exif.tobytes()} if format == "JPEG" else {"tiffinfo": {0x0112: orientation}}
    data = filled(encoded(pixels, format, **tagged), [10, 10, 40, 40])
    with Image.open(io.BytesIO(data)) as image:
        assert image.getexif().get(0x0112, 1) == orientation
    stored = np.asarray(decode(data).stored)
    assert stored.shape == (60, 100, 3)
    assert abs(stored[25, 25].astype(int) - 200).max() > 20, "the box was not filled"
    assert abs(stored[50, 90].astype(int) - 200).max() <= 2, "something else was filled"


def test_pages_that_go_are_counted() -> None:
    pages = [Image.fromarray(gradient(seed)) for seed in (1, 2, 3)]
    out = io.BytesIO()
    pages[0].save(out, "TIFF", save_all=True, append_images=pages[1:])
    one = Sample("s", 0, "k", (Picture("tiff", out.getvalue()),), {"box": [10, 10, 40, 40]})
    (found,) = detect([one], None, PictureLimits(), FacePolicy(BoxSettings(field="box", detect="never")))
    transform = load_transform(TransformConfig("fill", recovery="none"))
    ((outcome,), _) = protect([found], transform, RandomKeySource(), ShardContext("d", "s", "0" * 64))  # type: ignore[list-item]
    assert isinstance(outcome, ProtectedSample)
    assert outcome.frames_dropped == 2


def tar_case(tmp_path: Path, data: bytes, name: str = "a.tar") -> Case:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / name).write_bytes(data)
    return Case(tmp_path / "src", "webdataset", name)


def test_a_tar_made_on_macos_loses_its_appledouble_halves_and_nothing_else(tmp_path: Path) -> None:
    half = b"\0\5\x16\7" + bytes(60)
    members = [("./._0.jpg", half), ("./0.jpg", JPEG), ("./._0.json", half), ("./0.json", b'{"label": 1}'), ("./._1.jpg", half)]
    case = tar_case(tmp_path, tar_bytes([*members, ("./1.jpg", JPEG), ("__MACOSX/0.jpg", half)]))
    records, end = case.read()
    assert [type(record) for record in records] == [Sample, Sample]
    assert {what: count for what, count in end.sidecars if "left out" in what} == {
        "file left out in ._*": 3,
        "file left out in __MACOSX": 1,
    }
    with tarfile.open(case.rewritten(Edits())) as archive:
        assert archive.getnames() == ["./0.jpg", "./0.json", "./1.jpg"]


def test_folders_of_a_tar_are_ignored_by_name_like_files_and_go_where_all_is_written_anew(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("data", "__MACOSX", "data/@eaDir"):
            info = tarfile.TarInfo(name)
            info.type, info.pax_headers = tarfile.DIRTYPE, {"SCHILY.xattr.user.note": "of the original"}
            archive.addfile(info)
        info = tarfile.TarInfo("data/0.jpg")
        info.size = len(JPEG)
        archive.addfile(info, io.BytesIO(JPEG))
    case = tar_case(tmp_path, out.getvalue())
    assert dict(case.read()[1].sidecars) == {"file left out in __MACOSX": 1, "file left out in @eaDir": 1}
    for edits, names in ((Edits(), ["data", "data/0.jpg"]), (Edits(anew=True), ["data/0.jpg"])):
        with tarfile.open(case.rewritten(edits)) as archive:
            assert archive.getnames() == names


def test_members_that_lie_apart_make_one_sample_within_a_window(tmp_path: Path) -> None:
    members = [("a.jpg", JPEG), ("b.jpg", JPEG), ("README", b"text"), ("b.json", b"{}"), ("a.json", b"{}")]
    case = tar_case(tmp_path, tar_bytes(members))
    records, end = case.read()
    assert [(one.key, type(one)) for one in records] == [("a", Sample), ("b", Sample), ("README", Sample)]
    assert not end.problem
    with tarfile.open(case.rewritten(Edits(dropped=frozenset({0})))) as archive:
        assert archive.getnames() == ["b.jpg", "README", "b.json"]


def test_a_sample_that_is_scattered_further_is_quarantined_whole(tmp_path: Path) -> None:
    many = [(f"{number:04d}.txt", b"x") for number in range(300)]
    case = tar_case(tmp_path, tar_bytes([("a.jpg", JPEG), *many, ("a.json", b"{}"), ("b.jpg", JPEG)]))
    records, _ = case.read()
    bad = [record for record in records if isinstance(record, QuarantinedSample)]
    assert [(one.key, one.index) for one in bad] == [("a", 0)]
    assert "tar --sort=name" in bad[0].problem.text
    with tarfile.open(case.rewritten(Edits(dropped=frozenset({0})))) as archive:
        assert not [name for name in archive.getnames() if name.startswith("a.")]


@pytest.mark.parametrize("name", ["a.tar.zst", "a.tar.bz2", "a.tar.xz", "a.tgz"])
def test_compressed_tars_are_read_and_written_the_same_every_time(tmp_path: Path, name: str) -> None:
    import bz2
    import gzip
    import lzma

    whole = tar_bytes([*sample("1", 1, JPEG), *sample("2", 2, JPEG)])
    packed = {
        "a.tar.zst": lambda: pa.compress(whole, "zstd", asbytes=True),
        "a.tar.bz2": lambda: bz2.compress(whole),
        "a.tar.xz": lambda: lzma.compress(whole),
        "a.tgz": lambda: gzip.compress(whole),
    }[name]()
    case = tar_case(tmp_path, packed, name)
    records, end = case.read()
    assert ([record.key for record in records], end.problem) == (["1", "2"], "")
    written = case.rewritten(Edits(dropped=frozenset({0}))).read_bytes()
    assert case.rewritten(Edits(dropped=frozenset({0}))).read_bytes() == written
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / name).write_bytes(written)
    again, _ = Case(tmp_path / "again", "webdataset", name).read()
    assert [record.key for record in again] == ["2"]
    (tmp_path / "again" / name).write_bytes(packed[: len(packed) // 2])
    assert Case(tmp_path / "again", "webdataset", name).read()[1].problem


def test_links_fifos_and_sockets_of_a_folder_are_not_followed_and_a_backslash_is_one_files_problem(tmp_path: Path) -> None:
    src = tmp_path / "src"
    src.mkdir()
    (tmp_path / "secret.key").write_bytes(JPEG)
    (src / "readme.txt").symlink_to(tmp_path / "secret.key")
    (src / "nowhere.txt").symlink_to("nowhere")
    (src / "loop.txt").symlink_to("loop.txt")
    os.mkfifo(src / "pipe.jpg")
    (src / "a\\b.jpg").write_bytes(JPEG)
    (src / "good.jpg").write_bytes(JPEG)
    with socket.socket(socket.AF_UNIX) as one:
        here = os.getcwd()
        os.chdir(src)
        try:
            one.bind("socket.jpg")
        finally:
            os.chdir(here)
        (shard,) = open_source(str(src)).shards(100)
        source, target = Folder(str(src)), Folder(str(tmp_path / "dst"))
        refuse_unknown(source, [shard])
        *records, end = shard_format("folder").read(source, shard)
        assert isinstance(end, ShardEnd)
        assert [record.key for record in records if isinstance(record, Sample)] == ["good.jpg"]  # type: ignore[union-attr]
        bad = frozenset(record.index for record in records if isinstance(record, QuarantinedSample))
        assert (len(bad), end.problem) == (6, "")
        made = shard_format("folder").assemble(source, shard, Edits(dropped=bad), target, "staging")
    assert [file.name for file in made.files] == ["good.jpg"]
    assert made.source_sha256 == end.source_sha256


def test_the_bytes_that_were_looked_at_have_a_digest_that_assembling_must_meet(tmp_path: Path) -> None:
    case = tar_case(tmp_path, tar_bytes(sample("1", 1, JPEG)))
    _, end = case.read()
    assert end.source_sha256 == case.source.sha256("a.tar") == case.assemble(Edits()).source_sha256


def test_a_parquet_file_without_rows_is_a_shard_of_nothing(tmp_path: Path) -> None:
    empty = pa.table({"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())})
    case = parquet_case(tmp_path, empty)
    records, end = case.read()
    assert (records, end.problem) == ([], "")
    for anew in (False, True):
        assert pq.read_table(case.rewritten(Edits(anew=anew))).equals(empty)


def test_lists_and_dictionaries_of_pictures_are_found_and_put_back(tmp_path: Path) -> None:
    structs = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    columns = {
        "images": pa.array([[{"bytes": JPEG, "path": "a"}, {"bytes": JPEG, "path": None}], []], structs),
        "crops": pa.array([[JPEG, None, JPEG], None], pa.list_(pa.binary())),
        "same": pa.array([JPEG, JPEG], pa.binary()).dictionary_encode(),
        "fixed": pa.array([JPEG, JPEG], pa.binary(len(JPEG))),
    }
    case = parquet_case(tmp_path, pa.table(columns))
    records, end = case.read()
    assert not end.problem
    fields = ["images[0]", "images[1]", "crops[0]", "crops[2]", "same", "fixed"]
    assert [picture.field for picture in records[0].pictures] == fields  # type: ignore[union-attr]
    new = b"new".ljust(len(JPEG))
    rows = pq.read_table(case.rewritten(Edits({(0, "images[1]"): new, (0, "crops[2]"): new, (1, "same"): new}))).to_pylist()
    assert rows[0]["images"] == [{"bytes": JPEG, "path": "a"}, {"bytes": new, "path": None}]
    assert (rows[0]["crops"], rows[1]["crops"]) == ([JPEG, None, new], None)
    assert (rows[0]["same"], rows[1]["same"]) == (JPEG, new)


def tensors() -> dict[str, Any]:
    """Pictures as numbers, as Ray, Arrow and Hugging Face write them."""
    pixels = np.stack([gradient(1, 48), gradient(2, 48)])
    flat = pa.array([one.reshape(-1).tolist() for one in pixels], pa.large_list(pa.uint8()))
    named = {b"ARROW:extension:name": b"ray.data.arrow_tensor_v2", b"ARROW:extension:metadata": b"[48, 48, 3]"}
    shaped = [{"data": one.reshape(-1).tolist(), "shape": [48, 48, 3]} for one in pixels]
    variable = pa.struct([("data", pa.large_list(pa.uint8())), ("shape", pa.list_(pa.int64()))])
    return {
        "Ray": pa.table([flat], pa.schema([pa.field("image", flat.type, metadata=named)])),
        "Ray, of any shape": pa.table({"image": pa.array(shaped, variable)}),
        "Arrow": pa.table({"image": pa.FixedShapeTensorArray.from_numpy_ndarray(pixels)}),
        "Hugging Face": pa.table({"image": pa.array(pixels.tolist(), pa.list_(pa.list_(pa.list_(pa.uint8()))))}),
        "channels first": pa.table({"image": pa.array(np.moveaxis(pixels, 3, 1).tolist())}),
    }


@pytest.mark.parametrize("kind", tensors())
def test_pictures_written_as_numbers_are_pictures(tmp_path: Path, kind: str) -> None:
    case = parquet_case(tmp_path, tensors()[kind])
    records, end = case.read()
    assert not end.problem
    (picture,) = records[1].pictures  # type: ignore[union-attr]
    assert np.array_equal(decode(picture.data).pixels, gradient(2, 48))
    black = encoded(np.zeros((48, 48, 3), np.uint8), "PNG")
    made = pq.read_table(case.rewritten(Edits({(1, "image"): black})))
    assert made.schema.equals(pq.read_table(case.source.path("a.parquet")).schema, check_metadata=True)
    (tmp_path / "again").mkdir()
    pq.write_table(made, tmp_path / "again/b.parquet")
    again, _ = Case(tmp_path / "again", "parquet", "b.parquet").read()
    shown = [decode(one.pictures[0].data).pixels for one in again]  # type: ignore[union-attr]
    assert np.array_equal(shown[0], gradient(1, 48))
    assert not shown[1].any()


def test_numbers_that_may_be_a_picture_stop_a_job_or_are_left_out(tmp_path: Path) -> None:
    floats = pa.table({"n": [1], "x": pa.array([(gradient(1, 48) / 255).tolist()])})
    case = parquet_case(tmp_path, floats)
    with pytest.raises(MisuseError, match=r"may be a picture.*--others") as refused:
        refuse_unknown(case.source, [case.shard])
    assert "--others drop" in refused.value.advice
    beside = SidecarCount("drop")
    *_, end = shard_format("parquet").read(case.source, case.shard, beside=beside)
    assert isinstance(end, ShardEnd)
    assert end.left_out == ((0, "x"),)
    rows = pq.read_table(case.rewritten(Edits(left_out=frozenset(end.left_out)))).to_pylist()
    assert rows == [{"n": 1, "x": None}]


@pytest.mark.parametrize("name", ["train.arrow", "photos.zip", "clip.mp4", "data.rec"])
def test_a_folder_with_what_nobody_can_look_into_is_refused_before_the_job_starts(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.jpg").write_bytes(JPEG)
    (tmp_path / name).write_bytes(bytes(range(256)) * 4)
    with pytest.raises(MisuseError, match=name):
        refuse_unknown(Folder(str(tmp_path)), open_source(str(tmp_path)).shards(10))


def test_mxnets_records_are_refused_by_name_and_unpacked_by_an_example(tmp_path: Path) -> None:
    """A whole that holds the magic number is cut there, and a record without a picture is a range of insightface's."""
    odd = JPEG + MAGIC + b"behind"
    header = HEADER.pack(0, 7.0, 1, 0)
    wholes = [HEADER.pack(2, 0.0, 0, 0) + struct.pack("<2f", 1, 2), header + JPEG, HEADER.pack(2, 0.0, 2, 0) + bytes(8) + odd]
    with open(tmp_path / "train.rec", "wb") as file:
        for whole in wholes:
            parts = whole.split(MAGIC)
            for place, part in enumerate(parts):
                kind = 0 if len(parts) == 1 else 1 if place == 0 else 3 if place == len(parts) - 1 else 2
                file.write(MAGIC + struct.pack("<I", kind << 29 | len(part)) + part + bytes(-len(part) % 4))
    (tmp_path / "train.idx").write_text("0\t0\n1\t44\n")
    with pytest.raises(MisuseError, match=r"train\.rec: an MXNet RecordIO file") as refused:
        refuse_unknown(Folder(str(tmp_path)), open_source(str(tmp_path)).shards(10))
    assert "unpack_recordio.py" in refused.value.advice
    unpack_recordio(str(tmp_path / "train.rec"), str(tmp_path / "out"))
    with tarfile.open(tmp_path / "out/00000.tar") as archive:
        read = {name: archive.extractfile(name).read() for name in archive.getnames()}  # type: ignore[union-attr]
    assert read == {"000000001.jpg": JPEG, "000000001.cls": b"7", "000000002.jpg": odd, "000000002.cls": b"0 0"}


def test_tools_that_read_folders_pass_the_jobs_state_over(tmp_path: Path) -> None:
    import pyarrow.dataset

    (tmp_path / ".diffpriv/faces").mkdir(parents=True)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "s.parquet")
    pq.write_table(pa.table({"other": ["x"]}), tmp_path / ".diffpriv/faces/s.parquet")
    assert pyarrow.dataset.dataset(tmp_path).files == [str(tmp_path / "s.parquet")]
    assert [one.name for one in open_source(str(tmp_path)).shards(10)] == ["s.parquet"]


def test_shards_of_one_dataset_may_be_of_several_formats(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(tar_bytes(sample("1", 1, JPEG)))
    pq.write_table(pa.table({"caption": ["a cup"]}), tmp_path / "0.parquet")
    (tmp_path / "0_stats.json").write_bytes(b"{}")
    shards = open_source(str(tmp_path)).shards(10)
    ends = [list(shard_format(shard.format).read(Folder(str(tmp_path)), shard))[-1] for shard in shards]
    assert [(end.samples, end.problem) for end in ends] == [(1, "")] * 3  # type: ignore[union-attr]
    assert isinstance(shards[0], Shard)
