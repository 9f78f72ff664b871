"""Recall of the detector on faces that lie, fill a huge picture or are half hidden: as jobs look, and with `--thorough`.

    python -m benchmarks.extremes PHOTOS [--limit 60] [--seed 0] [--record]

Each case is generated from the same labelled photos, whose subject a detector finds as they are: turned about the middle on
grey, enlarged until the face is 1,500 px high (8,000 px pictures), the lower half of the face painted over as by a mask, the
eyes painted over as by dark glasses, and drawn as a pencil sketch. A case counts as found where a box overlaps the true one by
at least 0.3. Statues, real masks and children are not in PHOTOS: no figure is given for them. Never names or shows a photo.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from benchmarks.figures import Figure, record
from benchmarks.photos import Photo, find_subjects
from diffpriv.detectors import load_detector
from diffpriv.faces.types import Face, overlap
from diffpriv.pipelines.steps.lookout import Lookout
from diffpriv.pipelines.threads import fix_threads

Box = tuple[float, float, float, float]
Case = Callable[[np.ndarray, Face], tuple[np.ndarray, Box]]
LONGEST = 1000  # pixels: of the photos that are changed
TALL = 1500  # pixels: of the enlarged face
LARGEST = 8000
FOUND = 0.3


def turned(degrees: float) -> Case:
    """About the picture's middle, on a canvas that holds all of it."""

    def make(image: np.ndarray, face: Face) -> tuple[np.ndarray, Box]:
        height, width = image.shape[:2]
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
        cosine, sine = abs(matrix[0, 0]), abs(matrix[0, 1])
        columns, rows = round(height * sine + width * cosine), round(height * cosine + width * sine)
        matrix[:, 2] += (columns - width) / 2, (rows - height) / 2
        x0, y0, x1, y1 = face.box
        corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]) @ matrix[:, :2].T + matrix[:, 2]
        canvas = cv2.warpAffine(image, matrix, (columns, rows), borderValue=(128, 128, 128))
        (left, top), (right, bottom) = corners.min(0), corners.max(0)
        return canvas, (float(left), float(top), float(right), float(bottom))

    return make


def huge(image: np.ndarray, face: Face) -> tuple[np.ndarray, Box]:
    """The face as high as TALL, in a picture cut to LARGEST."""
    scale = TALL / face.height
    x0, y0, x1, y1 = face.box
    half = LARGEST / scale / 2
    left, top = (max(0, round(middle - half)) for middle in ((x0 + x1) / 2, (y0 + y1) / 2))
    part = image[top : top + round(2 * half), left : left + round(2 * half)]
    whole = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    return whole, ((x0 - left) * scale, (y0 - top) * scale, (x1 - left) * scale, (y1 - top) * scale)


def painted(first: float, last: float, colour: tuple[int, int, int]) -> Case:
    """A band across the face: heights as shares of its box."""

    def make(image: np.ndarray, face: Face) -> tuple[np.ndarray, Box]:
        x0, y0, x1, y1 = face.box
        canvas = image.copy()
        top, bottom = (round(y0 + share * (y1 - y0)) for share in (first, last))
        canvas[max(top, 0) : max(bottom, 0), max(round(x0), 0) : max(round(x1), 0)] = colour
        return canvas, face.box

    return make


def drawn(image: np.ndarray, face: Face) -> tuple[np.ndarray, Box]:
    """A pencil sketch: grey divided by its own blur."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    blurred = cv2.GaussianBlur(grey, (0, 0), max(2.0, face.height / 30))
    sketch = np.clip(256.0 * grey / np.maximum(blurred, 1), 0, 255).astype(np.uint8)
    return cv2.cvtColor(sketch, cv2.COLOR_GRAY2RGB), face.box


CASES: dict[str, Case] = {
    **{f"turned by {degrees}°": turned(degrees) for degrees in (0, 30, 45, 60, 90, 135, 180)},
    f"{TALL:,} px high in {LARGEST:,} px": huge,
    "lower half painted over (a mask)": painted(0.5, 1.0, (200, 210, 220)),
    "eyes painted over (dark glasses)": painted(0.25, 0.45, (20, 20, 20)),
    "a pencil sketch": drawn,
}


def shrink(photo: Photo) -> tuple[np.ndarray, Face]:
    """The picture at LONGEST pixels or less, and its subject there."""
    image = photo.read()
    scale = min(1.0, LONGEST / max(image.shape[:2]))
    if scale == 1:
        return image, photo.face
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    x0, y0, x1, y1 = (scale * value for value in photo.face.box)
    return small, Face((x0, y0, x1, y1), (photo.face.landmarks + 0.5) * scale - 0.5, photo.face.score)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--limit", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, help="an .npz of where faces are; keep it out of the repository")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    fix_threads()
    detector = load_detector("centerface")
    lookout = Lookout([detector])
    everything = find_subjects(arguments.photos, arguments.cache)
    rows = np.random.default_rng(arguments.seed).permutation(len(everything))[: arguments.limit]
    photos = [shrink(everything[row]) for row in rows]
    figures = []
    print(f"{len(photos)} faces, share found: as jobs look / --thorough")
    for name, make in CASES.items():
        plain = thorough = 0
        for image, face in photos:
            picture, box = make(image, face)
            plain += any(overlap(box, one.box) >= FOUND for one in detector.detect([picture])[0])
            thorough += any(overlap(box, one.box) >= FOUND for one in lookout.faces(picture))
        share = f"{100 * plain / len(photos):.0f} / {100 * thorough / len(photos):.0f} %"
        print(f"{name:40s} {share}", flush=True)
        command = f"python -m benchmarks.extremes PHOTOS --limit {arguments.limit} --record"
        what = f"faces {name}, {len(photos)} photos: found as jobs look / with `--thorough`"
        figures.append(Figure("Detection", what, share, command, arguments.seed))
    if arguments.record:
        record("extremes", *figures)


if __name__ == "__main__":
    main()
