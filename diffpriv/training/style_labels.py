"""Step 3 of `make train-styles`: what drawn heads, and photos, look like, as numbers to learn from.

    python -m diffpriv.training.style_labels drawn PICTURES OUT --parts PARTS --human FOLDER
    python -m diffpriv.training.style_labels photos SHARDS OUT --parts PARTS --human FOLDER [--count N]

PARTS holds the networks that `tflite_export` converted: face_landmark.onnx, selfie_segmentation.onnx, and hair.onnx, which
labels and is not shipped. FOLDER is the npm package @vladmandic/human, for apparent age and gender. One file a chunk; what is
there already is left. Labels of photos hold embeddings and miniatures of real people: keep them out of the repository.
"""

import argparse
import io
import json
import os
import random
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from diffpriv.crops import to_tensor
from diffpriv.faces.alignment import face_to_crop_matrix, warp_to_crop
from diffpriv.faces.appearance import measure_appearance
from diffpriv.faces.mesh import FaceMesh, Mesh, sample_square, square_matrix
from diffpriv.generator.style_generator import DRAWN_LANDMARKS
from diffpriv.onnx_sessions import open_session
from diffpriv.presets import load_preset
from diffpriv.recognizers.builtin_recognizer import BuiltinRecognizer
from diffpriv.recognizers.human_recognizer import HumanRecognizer
from diffpriv.training.style_pictures import read_picture
from diffpriv.weights import load_pipeline, resolve_model

HAIR_WIDTH, HAIR_EYES = 6.0, 0.42  # of the square in which hair is read: eye distances, and the height of the eyes
MAP_SIDE, HAIR_SIDE = 32, 128
SOURCES = {"celeba": 2600, "lfw176": 600, "scut": 400, "omi": 400, "faker": 188}  # photos a source, of 4,188
PHOTO_CHUNK = 50


@dataclass(frozen=True, eq=False)
class HairSquare:
    """hair, person: (512, 512) float32 in [0, 1]. square: (512, 512, 3) uint8 RGB. matrix: (2, 3), picture to square."""

    hair: np.ndarray
    person: np.ndarray
    square: np.ndarray
    matrix: np.ndarray


class Labeller:
    """Args:
    parts: the folder of converted networks. human: the npm package's folder.
    """

    def __init__(self, parts: Path, human: Path) -> None:
        self.mesh = FaceMesh((parts / "face_landmark.onnx").read_bytes())
        self._hair, self._person = open_session(str(parts / "hair.onnx")), open_session(str(parts / "selfie_segmentation.onnx"))
        self._recognizer, self._human = BuiltinRecognizer(), HumanRecognizer(str(human))

    def hair_square(self, picture: np.ndarray, mesh: Mesh) -> HairSquare:
        matrix = square_matrix(mesh.five_landmarks(), HAIR_WIDTH, 512, HAIR_EYES)
        square = sample_square(picture, matrix, 512)
        scaled = square[None].astype(np.float32) / 255
        before = np.zeros((1, 512, 512, 1), np.float32)
        scores = self._hair.run(None, {self._hair.get_inputs()[0].name: np.concatenate([scaled, before], 3)})[0][0]
        hair = 1 / (1 + np.exp(scores[..., 0] - scores[..., 1]))
        small = cv2.resize(square, (256, 256), interpolation=cv2.INTER_AREA)[None].astype(np.float32) / 255
        person = self._person.run(None, {self._person.get_inputs()[0].name: small})[0][0, ..., 0]
        return HairSquare(hair, cv2.resize(person, (512, 512)), square, matrix)

    def label(self, picture: np.ndarray, landmarks: np.ndarray) -> tuple[dict[str, Any], HairSquare]:
        """Numbers by name.

        Args:
            picture: (h, w, 3) uint8 RGB. landmarks: (5, 2), about.
        """
        mesh = self.mesh.read(picture, landmarks, 3)
        crop = warp_to_crop(picture, face_to_crop_matrix(mesh.five_landmarks()))[None]
        seen = self.hair_square(picture, mesh)
        colours = cv2.cvtColor(seen.square.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        of_hair = colours[seen.hair > 0.6]
        attributes = self._human.attributes(crop)
        return {
            "score": mesh.score,
            "points": mesh.points,
            "depth": mesh.depth,
            "appearance": measure_appearance(picture, mesh).vector(),
            "embedding": self._recognizer.embed(crop)[0],
            "male": attributes.male[0],
            "age": attributes.age[0],
            "hair": _small(seen.hair),
            "person": _small(seen.person),
            "hair_lab": np.median(of_hair, 0) if len(of_hair) > 500 else np.array([50.0, 0.0, 0.0], np.float32),
            "square": cv2.resize(seen.square, (HAIR_SIDE, HAIR_SIDE), interpolation=cv2.INTER_AREA),
            "hair128": _small(seen.hair, HAIR_SIDE),
        }, seen


def _small(plane: np.ndarray, side: int = MAP_SIDE) -> np.ndarray:
    return np.round(cv2.resize(plane, (side, side), interpolation=cv2.INTER_AREA) * 255).astype(np.uint8)


def save_rows(path: Path, rows: list[dict[str, Any]], **more: np.ndarray) -> None:
    """Write one chunk, whole or not at all."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as handle:
        stacked = {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}
        np.savez(handle, **more, **stacked)  # type: ignore[arg-type]
    os.replace(partial, path)


def load_labels(folder: Path) -> dict[str, np.ndarray]:
    """All chunks of a folder, one array a name."""
    chunks = [dict(np.load(path)) for path in sorted(folder.glob("*.npz"))]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def label_drawn(labeller: Labeller, pictures: Path, out: Path) -> None:
    for path in sorted(pictures.glob("*.npz")):
        if (out / path.name).exists():
            continue
        with np.load(path) as stored:
            drawn = [read_picture(stored[name]) for name in stored.files if name.startswith("jpeg256")]
            codes = stored["codes"]
        rows = [labeller.label(picture, DRAWN_LANDMARKS * len(picture))[0] for picture in drawn]
        save_rows(out / path.name, rows, codes=codes)


def _photos(shards: Path, names: list[tuple[Path, str]]) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    opened: dict[Path, Any] = {}
    for shard, name in names:
        if shard not in opened:
            archive = tarfile.open(shard)  # noqa: SIM115
            opened[shard] = archive, {member.name: member for member in archive}
        archive, members = opened[shard]
        facts = json.load(archive.extractfile(members[name]))
        stem = name.removesuffix(".json")
        picture = next(members[stem + end] for end in (".jpg", ".webp", ".png") if stem + end in members)
        yield np.asarray(Image.open(io.BytesIO(archive.extractfile(picture).read())).convert("RGB")), facts


def label_photos(labeller: Labeller, shards: Path, out: Path, count: int) -> None:
    pipeline, preset = load_pipeline(resolve_model("builtin")), load_preset("fast", "anonymize")
    chosen: list[tuple[Path, str]] = []
    for source, share in SOURCES.items():
        found = []
        for shard in sorted(shards.glob(f"{source}*.tar")):
            with tarfile.open(shard) as archive:
                found += [(shard, name) for name in archive.getnames() if name.endswith(".json")]
        random.Random(5).shuffle(found)
        chosen += found[:share]
    random.Random(6).shuffle(chosen)
    chosen = chosen[:count]
    for start in range(0, len(chosen), PHOTO_CHUNK):
        path = out / f"{start:05d}.npz"
        if path.exists():
            continue
        rows = []
        for picture, facts in _photos(shards, chosen[start : start + PHOTO_CHUNK]):
            landmarks = np.array(facts["landmarks"], np.float64)
            row, seen = labeller.label(picture, landmarks)
            crop = to_tensor([warp_to_crop(picture, face_to_crop_matrix(landmarks))])
            inside = cv2.warpAffine(np.ones(picture.shape[:2], np.float32), seen.matrix, (512, 512))
            row |= {"key_e": pipeline.create_key(crop, preset, noise_map=False).key_e[0].numpy(), "source": facts["source"]}
            row |= {"inside": _small(inside, HAIR_SIDE)}
            rows.append(row)
        save_rows(path, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("drawn", "photos"))
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--parts", type=Path, required=True)
    parser.add_argument("--human", type=Path, required=True)
    parser.add_argument("--count", type=int, default=4188)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    labeller = Labeller(given.parts, given.human)
    if given.kind == "drawn":
        label_drawn(labeller, given.source, given.out)
    else:
        label_photos(labeller, given.source, given.out, given.count)


if __name__ == "__main__":
    main()
