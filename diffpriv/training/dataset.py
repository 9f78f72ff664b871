"""Training crops: WebDataset shards of photos with landmarks -> aligned 128 px crops held in memory.

`python -m diffpriv.training.dataset SHARD_FOLDER OUT.npz` aligns every photo once and stores the crops uncompressed, so
that the training scripts start in a second; `--size 512` makes them as large as Stable Diffusion's. The file holds photographs
of real people: keep it out of the repository.
"""

import argparse
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from diffpriv.errors import MisuseError
from diffpriv.faces.alignment import CANONICAL_SIZE, face_to_crop_matrix, map_points, valid_mask, warp_to_crop


@dataclass(frozen=True)
class TrainingCrops:
    """Aligned photos. The last `held_out` of the shuffled order are never trained on."""

    crops: np.ndarray  # (n, size, size, 3) uint8 RGB
    valid: np.ndarray  # (n, 128, 128) uint8, 255 where the pixel really was in the photo
    landmarks: np.ndarray  # (n, 5, 2) float32, pixels of the 128 px square
    identity: np.ndarray  # (n,) int32, -1 where the source names nobody
    held_out: int

    def split(self) -> tuple[np.ndarray, np.ndarray]:
        """Indices (training, held-out), a fixed permutation whatever the caller's seed."""
        order = np.random.default_rng(20_251_124).permutation(len(self.crops))
        return np.sort(order[: -self.held_out]), np.sort(order[-self.held_out :])


def align_shards(folder: Path, size: int = CANONICAL_SIZE) -> TrainingCrops:
    """Align every sample of every `*.tar` in the folder, in name order; crops of `size`, their `valid` always of 128.

    Raises:
        MisuseError: the folder holds no shards.
    """
    crops, valid, landmarks, names = [], [], [], []
    shards = sorted(folder.glob("*.tar"))
    if not shards:
        raise MisuseError(f"No .tar shards in {folder}.", advice="Point at a folder of WebDataset shards with landmarks.")
    for shard in shards:
        with tarfile.open(shard) as archive:
            members = {member.name: member for member in archive if member.isfile()}
            for name in sorted(key for key in members if key.endswith(".json")):
                facts = json.load(archive.extractfile(members[name]))  # type: ignore[arg-type]
                encoded = archive.extractfile(members[name[: -len(".json")] + ".jpg"]).read()  # type: ignore[union-attr]
                image = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
                points = np.array(facts["landmarks"], np.float64)
                matrix = face_to_crop_matrix(points)
                crops.append(warp_to_crop(image, matrix * (size / CANONICAL_SIZE), size))
                valid.append(np.round(valid_mask(image.shape[0], image.shape[1], matrix) * 255).astype(np.uint8))
                landmarks.append(map_points(points, matrix).astype(np.float32))
                names.append(facts.get("identity", ""))
    people = {name: number for number, name in enumerate(sorted(set(names) - {""}))}
    identity = np.array([people.get(name, -1) for name in names], np.int32)
    return TrainingCrops(np.stack(crops), np.stack(valid), np.stack(landmarks), identity, held_out=min(512, len(crops) // 10))


def save_crops(path: Path, data: TrainingCrops) -> None:
    np.savez(path, crops=data.crops, valid=data.valid, landmarks=data.landmarks, identity=data.identity, held_out=data.held_out)


def load_crops(path: Path) -> TrainingCrops:
    with np.load(path) as stored:
        return TrainingCrops(
            crops=stored["crops"],
            valid=stored["valid"],
            landmarks=stored["landmarks"],
            identity=stored["identity"],
            held_out=int(stored["held_out"]),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=CANONICAL_SIZE)
    arguments = parser.parse_args()
    data = align_shards(arguments.shards, arguments.size)
    save_crops(arguments.out, data)
    people = len(np.unique(data.identity)) - 1
    print(f"{len(data.crops)} crops, {people} named people, {data.held_out} held out -> {arguments.out}")


if __name__ == "__main__":
    main()
