"""The demo's dataset: photos that ship inside dependencies, faces that the model made up, and what a real dataset also has.

Two WebDataset shards. No photo of a person is in this repository, and nothing is downloaded.
"""

import importlib.util
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

GENERATED_SEED = b"faces of nobody, for diffpriv demo"[:32]
GROUP_WIDTH = 960
_BACKGROUNDS = ((196, 208, 214), (222, 214, 200), (186, 196, 180), (206, 196, 212), (214, 206, 190), (180, 190, 204))


@dataclass(frozen=True)
class Original:
    """A picture of the dataset and where it is."""

    shard: str
    field: str
    pixels: np.ndarray  # RGB, as it will be decoded


def build(folder: Path, generated: int) -> dict[str, Original]:
    """Write the shards; every readable picture by its sample's key.

    Args:
        generated: how many faces the builtin model makes up; 0 needs no model.
    """
    astronaut = Image.open(_shipped("skimage", "data/astronaut.png")).convert("RGB")
    group = Image.open(_shipped("insightface", "data/images/t1.jpg")).convert("RGB")
    group = group.resize((GROUP_WIDTH, GROUP_WIDTH * group.height // group.width), Image.Resampling.LANCZOS)
    coffee = Image.open(_shipped("skimage", "data/coffee.png")).convert("RGB")
    cut = _encode(astronaut, "JPEG")
    shards = [
        [("astronaut", "png", _encode(astronaut, "PNG")), ("coffee", "jpg", _encode(coffee, "JPEG"))],
        [("group", "jpg", _encode(group, "JPEG")), ("cut-short", "jpg", cut[: len(cut) // 3])],
    ]
    if generated:
        # In one shard with the astronaut: faces of a shard are protected together, and two full batches take less than three.
        made = [portrait(face, number) for number, face in enumerate(_generate(generated))]
        shards[0] += [(f"made-up-{number}", "jpg", _encode(picture, "JPEG")) for number, picture in enumerate(made)]
    _write(folder, shards)
    return {
        key: Original(_name(number), field, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
        for number, shard in enumerate(shards)
        for key, field, data in shard
        if key != "cut-short"
    }


def _name(shard: int) -> str:
    return f"shard-{shard:03d}.tar"


def _write(folder: Path, shards: list[list[tuple[str, str, bytes]]]) -> None:
    import webdataset

    folder.mkdir(parents=True)
    for number, samples in enumerate(shards):
        with webdataset.TarWriter(str(folder / _name(number)), mtime=0) as tar:
            for key, extension, picture in samples:
                caption = json.dumps({"caption": f"demo picture {key}"}).encode()
                tar.write({"__key__": key, extension: picture, "json": caption})


def _shipped(package: str, name: str) -> Path:
    """A file inside an installed package, without importing that package."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / name


def _generate(count: int) -> np.ndarray:
    import torch

    from diffpriv.generation import generate_faces

    # Small kernels: a second thread gains little here, and stalls where another program has the other core.
    torch.set_num_threads(1)
    return generate_faces(count, GENERATED_SEED)


def portrait(face: np.ndarray, number: int) -> Image.Image:
    """A made-up face (128 px) twice as large on a plain background, its edges faded into it."""
    size = 2 * face.shape[0]
    picture = Image.new("RGB", (size + 160, size + 120), _BACKGROUNDS[number % len(_BACKGROUNDS)])
    large = Image.fromarray(face).resize((size, size), Image.Resampling.LANCZOS)
    edge = np.minimum.outer(*[np.minimum(np.arange(size), np.arange(size)[::-1])] * 2)
    fade = Image.fromarray(np.clip(edge * 255 // 24, 0, 255).astype(np.uint8))
    picture.paste(large, (80, 60), fade)
    return picture


def _encode(picture: Image.Image, format: str) -> bytes:
    out = io.BytesIO()
    picture.save(out, format, **({"quality": 92} if format == "JPEG" else {}))
    return out.getvalue()
