"""Are the faces that the builtin model makes like photos of faces, as a distribution? And does a detector find faces in them?

`python -m benchmarks.generation PHOTOS --judge human:FOLDER` prints JSON; with --sheet it writes a picture of faces that the
model makes alone (no photo's surroundings, nobody's features: fit to be shown). Two sets of --count faces:
    alone       `diffpriv.generation.generate_faces`
    protected   real crops as the job would publish them, whose hair and background stay
Each is compared with as many real crops in the judge's features (unit length): Fréchet distance, and kernel distance (cubic,
gamma 1). "floor" is the same between two real sets of that size, with no photo in both; a person may be in both. The Fréchet
distance of small sets is biased upwards: read it beside the floor only.
"""

import argparse
import hashlib
import json
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.photos import LabelledCrops, load_photos, publish_crops
from diffpriv.config import TransformConfig
from diffpriv.detectors import load_detector
from diffpriv.generation import generate_faces
from diffpriv.metrics.distribution import frechet_distance, kernel_distance
from diffpriv.recognizers import load_recognizer
from diffpriv.transforms.diffprivacy import load_diffprivacy_transform

MARGIN = 64  # detectors look for faces with something around them
SHEET_COLUMNS = 8
SALT = b"benchmarks.generation".ljust(24, b".")


def share_detected(crops: np.ndarray) -> float:
    """Share of crops in which the offline detector sees a face, borders repeated outwards."""
    detector, found = load_detector("centerface"), 0
    padded = [np.pad(crop, ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), mode="edge") for crop in crops]
    for start in range(0, len(padded), 16):
        found += sum(bool(faces) for faces in detector.detect(padded[start : start + 16]))
    return found / len(crops)


def distances(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    return {
        "frechet": round(frechet_distance(first, second), 4),
        "kernel": round(kernel_distance(first, second, gamma=1.0), 5),
    }


def save_sheet(path: Path, faces: np.ndarray) -> None:
    rows = [np.concatenate(list(faces[start : start + SHEET_COLUMNS]), 1) for start in range(0, len(faces), SHEET_COLUMNS)]
    sheet = np.concatenate([row for row in rows if row.shape[1] == rows[0].shape[1]])
    cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])


def measure(data: LabelledCrops, model: str, preset: str, spec: str, count: int, seed: int) -> tuple[dict, np.ndarray]:
    """(report, faces made alone)."""
    order = np.random.default_rng(seed).permutation(len(data.crops))
    count = min(count, len(order) // 2)
    reference, other = order[:count], order[count : 2 * count]
    started = time.process_time()
    alone = generate_faces(count, hashlib.sha256(b"benchmarks.generation %d" % seed).digest())
    alone_seconds = time.process_time() - started
    transform = load_diffprivacy_transform(TransformConfig(preset=preset, model=model, recovery="none"))
    protected, _ = publish_crops(transform, data.take(other), SALT)
    judge = load_recognizer(spec)
    real, floor = judge.embed(data.crops[reference]), judge.embed(data.crops[other])
    report: dict = {
        "faces": count,
        "judge": judge.identity,
        "preset of protected": preset,
        "core seconds for a face alone": round(alone_seconds / count, 3),
        "detected": {
            "alone": round(share_detected(alone), 4),
            "protected": round(share_detected(protected), 4),
            "real": round(share_detected(data.crops[other]), 4),
        },
        "distance to real": {
            "floor": distances(real, floor),
            "alone": distances(real, judge.embed(alone)),
            "protected": distances(real, judge.embed(protected)),
        },
    }
    return report, alone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--judge", required=True, help="a recogniser's spec, such as human:FOLDER or dlib")
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--count", type=int, default=96)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cache", type=Path, help="keep the photos' crops in this .npz (real people: not in the repository)")
    parser.add_argument("--sheet", type=Path, help="a JPEG or PNG of 40 faces made alone")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = load_photos(arguments.photos, cache=arguments.cache)
    settings = (arguments.model, arguments.preset, arguments.judge, arguments.count, arguments.seed)
    report, alone = measure(data, *settings)
    print(json.dumps(report, indent=1))
    if arguments.sheet:
        save_sheet(arguments.sheet, alone[:40])
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
