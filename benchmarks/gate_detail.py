"""How sure the release gate's comparison of detail is: likeness of copies, of strangers, and of protected faces to their
originals.

`python -m benchmarks.gate_detail PHOTOS` prints JSON; the gate's limit is `pipelines.gate.copies.SAME_DETAIL`.
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.photos import load_photos, publish_crops, read_pixels
from benchmarks.privacy import SEEDS
from diffpriv.config import TransformConfig
from diffpriv.pipelines.gate.copies import CHIP, SAME_DETAIL, likeness
from diffpriv.transforms.diffprivacy import load_diffprivacy_transform


def chip(crop: np.ndarray) -> np.ndarray:
    return cv2.resize(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), (CHIP, CHIP), interpolation=cv2.INTER_AREA)


def re_encoded(crop: np.ndarray, quality: int, scale: float) -> np.ndarray:
    small = cv2.resize(crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    stored = cv2.imencode(".jpg", small[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.resize(read_pixels(stored.tobytes()), crop.shape[1::-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--protected", type=int, default=48)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = load_photos(arguments.photos, cache=arguments.cache)
    chips = [chip(crop) for crop in data.crops]
    drawn = np.random.default_rng(0).integers(0, len(chips), (3000, 2))
    strangers = [likeness(chips[i], chips[j]) for i, j in drawn if data.person[i] != data.person[j]]
    copies = [likeness(chips[i], chip(re_encoded(data.crops[i], 40, 0.5))) for i in range(0, len(chips), 4)]
    rows = np.sort(np.random.default_rng(7).permutation(len(chips))[: arguments.protected])
    transform = load_diffprivacy_transform(TransformConfig(preset="fast", recovery="none", similarity_limit=1.0))
    protected, _ = publish_crops(transform, data.take(rows), SEEDS[0])
    own = [likeness(chips[row], chip(crop)) for row, crop in zip(rows, protected, strict=True)]
    result = {
        "limit": SAME_DETAIL,
        "strangers": {"pairs": len(strangers), "median": np.median(strangers), "highest": max(strangers)},
        "copies at half size, JPEG quality 40": {"faces": len(copies), "lowest": min(copies)},
        "protected against own original": {"faces": len(own), "median": np.median(own), "highest": max(own)},
    }
    print(json.dumps(result, indent=1, default=lambda value: round(float(value), 3)))


if __name__ == "__main__":
    main()
