"""Shards and pictures damaged at random places: each is refused, quarantined or harmless, and nothing leaves its folder."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffpriv.config import TransformConfig
from diffpriv.keys.context import ShardContext
from diffpriv.keys.sources import RandomKeySource
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.errors import BadImageError
from diffpriv.pipelines.formats.arrays import read_arrays
from diffpriv.pipelines.formats.base import Shard
from diffpriv.pipelines.pictures.codec import PictureLimits, decode
from diffpriv.pipelines.records.samples import DetectedSample, QuarantinedSample, Sample, ShardEnd
from diffpriv.pipelines.run.worker import read_shard
from diffpriv.pipelines.run_context import RunContext
from diffpriv.pipelines.steps.detect import detect
from diffpriv.pipelines.steps.protect import protect
from diffpriv.pipelines.storage import Folder
from diffpriv.transforms import load_transform
from tests.pipelines.datasets import astronaut, encoded, gradient, sample, tar_bytes


def mutated(data: bytes, chance: np.random.Generator) -> bytes:
    """One of: bytes overwritten, a stretch cut out, doubled or zeroed, the end cut off."""
    damaged = bytearray(data)
    start, length = int(chance.integers(len(data))), int(chance.integers(1, 600))
    match int(chance.integers(5)):
        case 0:
            for _ in range(int(chance.integers(1, 12))):
                damaged[int(chance.integers(len(damaged)))] = int(chance.integers(256))
        case 1:
            del damaged[start : start + length]
        case 2:
            damaged[start:start] = damaged[start : start + length]
        case 3:
            damaged[start : start + length] = bytes(len(damaged[start : start + length]))
        case _:
            del damaged[start:]
    return bytes(damaged)


def read(folder: Path, name: str, format: str) -> list[Sample | QuarantinedSample | ShardEnd]:
    source = Folder(str(folder))
    config = JobConfig.from_mapping(
        {"src": "/s", "dst": "/d/x", "audit": "/a", "transform": {"transform": "fill", "recovery": "none"}}
    )
    shard = Shard(name, format, (source.facts(name),))
    records = [record for block in read_shard(RunContext(config, source.url, "run"), shard) for record in block]
    ends = [record for record in records if isinstance(record, ShardEnd)]
    assert len(ends) == 1, "every shard ends exactly once"
    assert ends[0].samples == len(records) - 1, "every sample is accounted for"
    return records


TAR = tar_bytes(sample("a/1", 1, encoded(gradient(1, 48), "JPEG")) + sample("a/2", 2, encoded(gradient(2, 48), "PNG"), "png"))


def parquet() -> bytes:
    out = io.BytesIO()
    pictures = [encoded(gradient(seed, 48), "JPEG") for seed in range(6)]
    pq.write_table(pa.table({"image": pa.array(pictures, pa.binary()), "n": range(6)}), out, row_group_size=3)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "format", "data"),
    [("x.tar", "webdataset", TAR), ("x.tar.gz", "webdataset", gzip.compress(TAR)), ("x.parquet", "parquet", parquet())],
)
def test_damaged_shards_are_accounted_for(tmp_path: Path, name: str, format: str, data: bytes) -> None:
    chance = np.random.default_rng(11)
    for _ in range(100):
        (tmp_path / name).write_bytes(mutated(data, chance))
        for record in read(tmp_path, name, format):
            if not isinstance(record, ShardEnd):
                record.key.encode()  # a name that cannot be written down would break the report
                assert ".." not in record.key.split("/") or isinstance(record, QuarantinedSample)


def test_damaged_pictures_end_in_quarantine_or_in_the_output() -> None:
    """Through detection and protection: a picture that a decoder half accepts must not break a worker."""
    chance = np.random.default_rng(12)
    detector, transform = OneFace(), load_transform(TransformConfig("fill", recovery="none"))
    seen = {QuarantinedSample: 0, DetectedSample: 0}
    for format in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"):
        data = encoded(astronaut(64), format)
        for number in range(50):
            picture = mutated(data, chance)
            one = Sample("s", number, "k", (_picture(picture),))
            (found,) = detect([one], detector, PictureLimits())
            seen[type(found)] += 1
            if isinstance(found, DetectedSample):
                (outcome,), _ = protect([found], transform, RandomKeySource(), ShardContext("d", "s", "0" * 64))
                assert outcome.index == number
    assert min(seen.values()) > 20, f"the damage was too small or too large to test anything: {seen}"


class OneFace:
    """Says that every picture holds a face in its middle."""

    identity = "one-face/1"

    def detect(self, images: Any) -> Any:
        from diffpriv.faces.types import Face

        found = []
        for image in images:
            height, width = image.shape[:2]
            points = np.array([[0.4, 0.4], [0.6, 0.4], [0.5, 0.5], [0.4, 0.6], [0.6, 0.6]]) * (width, height)
            found.append([Face((0.3 * width, 0.3 * height, 0.7 * width, 0.7 * height), points, 0.9)])
        return found


def _picture(data: bytes) -> Any:
    from diffpriv.pipelines.records.samples import Picture

    return Picture("jpg", data)


def tiff_of_pages(pages: int) -> bytes:
    """A TIFF whose directories follow one another; each has its own, all show one pixel."""
    entries = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (278, 3, 1, 1), (279, 4, 1, 1)]
    size = 2 + 12 * len(entries) + 4
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    body = b"".join(directory + struct.pack("<I", 12 + size * (page + 1) if page + 1 < pages else 0) for page in range(pages))
    return b"II*\0" + struct.pack("<I", 12) + b"\x80\0\0\0" + body


@pytest.mark.parametrize("pages", [101, 65_535])
def test_a_tiff_of_more_pages_than_the_limit_is_refused_before_they_are_read(pages: int) -> None:
    with pytest.raises(BadImageError, match="101 frames or more"):
        decode(tiff_of_pages(pages))
    assert decode(tiff_of_pages(3)).frames == 3


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tar.bz2", "x.tar.xz", "x.tar.zst"])
def test_a_compression_bomb_ends_its_shard_and_nothing_else(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffpriv.pipelines.formats.compression.BOMB_SIZE", 8 << 20)
    whole = tar_bytes([("a.txt", b"a" * (20 << 20))])
    packers = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
    pack = packers.get(name.rpartition(".")[2], lambda data: pa.compress(data, "zstd", asbytes=True))
    (tmp_path / name).write_bytes(pack(whole))
    *_, end = read(tmp_path, name, "webdataset")
    assert "times its size" in end.problem  # type: ignore[union-attr]


def test_a_zip_bomb_that_says_it_is_arrays_is_not_opened() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(20):
            archive.writestr(f"{number}.npy", bytes(10 << 20))
    assert read_arrays(out.getvalue()) is None


NAMES = [
    "../../x.jpg",
    "/abs.jpg",
    "a/../../x.jpg",
    "..",
    ".",
    "",
    "a\\..\\x.jpg",
    "ü.jpg",
    "😀/1.jpg",
    "a" * 300 + ".jpg",
    "a//b.jpg",
    "-rf.jpg",
    "a\nb.jpg",
]


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_are_accounted_for(tmp_path: Path, name: str) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo(name)
        info.size = 4
        archive.addfile(info, io.BytesIO(b"text"))
        archive.addfile(tarfile.TarInfo("good.txt"))
    (tmp_path / "x.tar").write_bytes(out.getvalue())
    *records, end = read(tmp_path, "x.tar", "webdataset")
    assert len(records) == 2 or end.problem  # type: ignore[union-attr]
    if "/../" in f"/{name}/".replace("\\", "/") or name.startswith("/"):
        assert isinstance(records[0], QuarantinedSample)
