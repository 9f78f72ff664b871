"""Small real datasets for tests: photos that ship inside dependencies, pictures without a face, and ways to pack them."""

import functools
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

Member = tuple[str, bytes]


def encoded(pixels: np.ndarray, format: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format=format, **options)
    return out.getvalue()


@functools.cache
def astronaut(size: int = 256) -> np.ndarray:
    """One face."""
    from skimage import data

    return np.asarray(Image.fromarray(data.astronaut()).resize((size, size), Image.Resampling.LANCZOS))


@functools.cache
def group() -> np.ndarray:
    """Six faces, 640 pixels wide."""
    from insightface.data import get_image

    picture = Image.fromarray(get_image("t1")[:, :, ::-1])
    return np.asarray(picture.resize((640, 640 * picture.height // picture.width), Image.Resampling.LANCZOS))


@functools.cache
def coffee(width: int = 240) -> np.ndarray:
    """A photo without a face."""
    from skimage import data

    return np.asarray(Image.fromarray(data.coffee()).resize((width, width * 2 // 3), Image.Resampling.LANCZOS))


def gradient(seed: int, size: int = 96) -> np.ndarray:
    """A synthetic picture without a face, another for every seed."""
    ramp = np.linspace(0, 255, size)
    channels = [np.roll(np.add.outer(ramp, ramp[::-1]) / 2, 7 * seed * step) for step in (1, 2, 3)]
    return np.stack(channels, axis=2).astype(np.uint8)


def tar_bytes(members: Sequence[Member], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=tarfile.GNU_FORMAT) as archive:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode, info.uname = len(data), 1_600_000_000, 0o640, "someone"
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def read_tar(path: Path) -> list[Member]:
    with tarfile.open(path) as archive:
        return [(info.name, archive.extractfile(info).read()) for info in archive if info.isreg()]  # type: ignore[union-attr]


def sample(key: str, number: int, picture: bytes, extension: str = "jpg") -> list[Member]:
    return [
        (f"{key}.{extension}", picture),
        (f"{key}.json", json.dumps({"label": number, "text": "naïve"}).encode()),
        (f"{key}.cls", str(number).encode()),
    ]


def small_shards() -> dict[str, list[Member]]:
    """Four shards, 14 samples: 4 astronauts, 1 group, 9 pictures without a face; one bad sample (truncated JPEG)."""
    face = [encoded(astronaut(size), "JPEG", quality=88) for size in (256, 320)]
    nobody = [encoded(gradient(seed), "JPEG") for seed in range(4)] + [encoded(coffee(), "PNG")]
    shards = {
        "shard-000.tar": sample("000/a", 0, face[0]) + sample("000/b", 1, nobody[0]) + sample("000/c", 2, nobody[4], "png"),
        "shard-001.tar": sample("001/a", 3, nobody[1]) + sample("001/b", 4, nobody[2]) + sample("001/c", 5, nobody[3]),
        "sub/shard-002.tar": sample("002/a", 6, face[1])
        + sample("002/bad", 7, face[0][: len(face[0]) // 2])
        + sample("002/c", 8, encoded(astronaut(256), "PNG"), "png")
        + sample("002/d", 9, encoded(group(), "JPEG", quality=90, subsampling=0)),
        "sub/shard-003.tar": [
            *sample("003/a", 10, nobody[0]),
            ("003/two.left.jpg", nobody[1]),
            ("003/two.right.webp", encoded(astronaut(256), "WEBP", quality=90)),
            *sample("003/z", 12, nobody[2]),
            ("003/README", b"a member without an extension"),
        ],
    }
    return shards


def write_shards(folder: Path, shards: Mapping[str, Sequence[Member]]) -> Path:
    for name, members in shards.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tar_bytes(members, "w:gz" if name.endswith("gz") else "w"))
    return folder
