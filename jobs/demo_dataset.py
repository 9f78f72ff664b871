"""The demo's dataset: photos that ship inside a dependency, people that the model made up, and what a real dataset also has.

Two WebDataset shards. No photo of a person is in this repository, and nothing is downloaded.
"""

import importlib.util
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from diffpriv.keys.errors import MisuseError

GENERATED_SEED = b"faces of nobody, for diffpriv demo"[:32]
GROUP_SEED = b"a group of nobody, diffpriv demo"
GROUP, GROUP_ROWS = 6, 2  # people in one picture, as in a video call


@dataclass(frozen=True)
class Original:
    """A picture of the dataset and where it is."""

    shard: str
    field: str
    pixels: np.ndarray  # RGB, as it will be decoded


def build(folder: Path, generated: int) -> dict[str, Original]:
    """Write the shards; every readable picture by its sample's key.

    Args:
        generated: how many pictures of one made-up person there are beside the group.
    """
    astronaut = Image.open(_shipped("skimage", "data/astronaut.png")).convert("RGB")
    group = _group(_generate(GROUP, GROUP_SEED))
    coffee = Image.open(_shipped("skimage", "data/coffee.png")).convert("RGB")
    cut = _encode(astronaut, "JPEG")
    shards = [
        [("astronaut", "png", _encode(astronaut, "PNG")), ("coffee", "jpg", _encode(coffee, "JPEG"))],
        [("group", "jpg", _encode(group, "JPEG")), ("cut-short", "jpg", cut[: len(cut) // 3])],
    ]
    if generated:
        # In one shard with the astronaut: faces of a shard are protected together, and two full batches take less than three.
        made = [Image.fromarray(portrait) for portrait in _generate(generated)]
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
    if spec is None or spec.origin is None:
        raise MisuseError(f"the demo's photos are part of {package}, which is not installed.", advice="Install diffpriv again.")
    return Path(spec.origin).parent / name


def _group(portraits: np.ndarray) -> Image.Image:
    """Several people in one picture."""
    rows = [np.concatenate(list(row), axis=1) for row in np.split(portraits, GROUP_ROWS)]
    return Image.fromarray(np.concatenate(rows, axis=0))


def _generate(count: int, seed: bytes = GENERATED_SEED) -> np.ndarray:
    import torch

    from diffpriv.generation import generate_portraits

    # Small kernels: a second thread gains little here, and stalls where another program has the other core.
    torch.set_num_threads(1)
    return generate_portraits(count, seed)


def _encode(picture: Image.Image, format: str) -> bytes:
    out = io.BytesIO()
    picture.save(out, format, **({"quality": 92} if format == "JPEG" else {}))
    return out.getvalue()
