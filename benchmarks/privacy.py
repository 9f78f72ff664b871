"""Privacy and recovery on labelled photos: who still matches whom, is there still a face, what comes back.

`python -m benchmarks.privacy PHOTOS --task anonymize --preset quality --limit 120` prints a table and, with --json, writes it.
Judges: the builtin recogniser (used by guidance: an upper bound of the success), dlib's where it is installed (the same network
on its own alignment), and those named with --judge, such as human:FOLDER, which guidance never sees.
Faces are what would be published: blended, tried again where their landmarks moved, but under no similarity limit.
Verification is at the thresholds of false-accept rates 1e-2 and 1e-3 on clean impostor pairs of the same photos.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch

from benchmarks.photos import LabelledCrops, load_photos, publish_crops, verification_rate
from diffpriv.config import TransformConfig
from diffpriv.crops import to_pixels, to_tensor
from diffpriv.detectors import load_detector
from diffpriv.errors import ModelError
from diffpriv.faces.alignment import CANONICAL_LANDMARKS
from diffpriv.faces.compositing import face_mask
from diffpriv.recognizers import load_recognizer
from diffpriv.recovery import psnr
from diffpriv.transforms.diffprivacy import DiffPrivacyTransform, load_diffprivacy_transform
from diffpriv.transforms.payloads import pack_key_i, unpack_key_i

NO_LIMIT = {"anonymize": 1.0, "hide": None}  # `similarity_limit`, by task: hide draws until the recogniser knows the person
MIDDLE = CANONICAL_LANDMARKS.mean(0) + 64  # of the face in a crop with a margin of 64 pixels
Embed = Callable[[np.ndarray], np.ndarray]
SEEDS = (b"benchmark seed 1".ljust(24, b"."), b"benchmark seed 2".ljust(24, b"."))


def judges(transform: DiffPrivacyTransform, specs: Sequence[str] = ()) -> dict[str, Embed]:
    """Embedders of (n, 128, 128, 3) uint8 crops to unit vectors."""

    def builtin(crops: np.ndarray) -> np.ndarray:
        parts = []
        for start in range(0, len(crops), 64):
            with torch.no_grad():
                batch = to_tensor(list(crops[start : start + 64]), transform.pipeline.device)
                parts.append(transform.pipeline.recognizer.embed_canonical(batch).cpu().numpy())
        return np.concatenate(parts)

    found: dict[str, Embed] = {"builtin": builtin}
    for spec in ("dlib", *specs):
        try:
            found[spec.partition(":")[0]] = load_recognizer(spec).embed
        except ModelError:
            if spec != "dlib":  # an extra; what was asked for by name must be there
                raise
    return found


def similarity_matrix(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Minus the Euclidean distance: dlib's measure, and for unit vectors in the same order as the cosine."""
    return -np.linalg.norm(first[:, None] - second[None], axis=2)


def micro_batches(count: int, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """(rows, how many of them count): all faces in batches of one size, the last one filled up with the last face."""
    for start in range(0, count, size):
        yield np.arange(start, start + size).clip(max=count - 1), min(size, count - start)


def recover_crops(transform: DiffPrivacyTransform, data: LabelledCrops) -> tuple[np.ndarray, float, float]:
    """Tier keys through its stored precision: (recovered crops, worst inversion residual, seconds per face of inversion)."""
    pipeline, preset = transform.pipeline, transform.preset
    recovered, worst, spent = [], 0.0, 0.0
    for rows, real in micro_batches(len(data.crops), preset.micro_batch):
        part = data.crops[rows]
        started = time.perf_counter()
        key = pipeline.create_key(to_tensor(part, pipeline.device), preset)
        spent += time.perf_counter() - started
        stored = np.stack([unpack_key_i(pack_key_i(noise), noise.shape) for noise in key.key_i.cpu().numpy()])  # type: ignore[union-attr]
        key_i = torch.from_numpy(stored).to(pipeline.device)
        crops = pipeline.recover(key.key_e, key_i, steps=preset.inversion_steps, detail=key.detail)
        recovered.append(to_pixels(crops)[:real])
        worst = max(worst, float(key.residual[:real].max()))  # type: ignore[index]
    return np.concatenate(recovered), worst, spent / len(data.crops)


def structural_similarity(first: np.ndarray, second: np.ndarray) -> float:
    from skimage.metrics import structural_similarity as ssim

    mask = face_mask() > 0.5
    values = []
    for one, two in zip(first, second, strict=True):
        _, full = ssim(one, two, channel_axis=2, full=True)
        values.append(full.mean(2)[mask].mean())
    return float(np.mean(values))


def detection(crops: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """(share of crops with a face, share with all landmarks within 10 % of the eye distance of the original's)."""
    detector = load_detector("centerface")

    def landmarks(batch: np.ndarray) -> list[np.ndarray | None]:
        padded = [np.pad(crop, ((64, 64), (64, 64), (0, 0)), mode="edge") for crop in batch]
        found = []
        for start in range(0, len(padded), 16):
            for faces in detector.detect(padded[start : start + 16]):
                # The background may show others.
                nearest = min(faces, key=lambda face: np.linalg.norm(face.landmarks.mean(0) - MIDDLE), default=None)
                found.append(nearest.landmarks if nearest else None)
        return found

    before, after = landmarks(reference), landmarks(crops)
    seen = [now is not None for now in after]
    close: list[bool] = []
    for then, now in zip(before, after, strict=True):
        if then is not None:
            eyes = np.linalg.norm(then[0] - then[1])
            close.append(bool(now is not None and float(np.linalg.norm(now - then, axis=1).mean()) <= 0.1 * eyes))
    return float(np.mean(seen)), float(np.mean(close))


def choose_pairs(person: np.ndarray, limit: int) -> np.ndarray:
    """Rows of about `limit` photos, two of each person, people drawn at random (seed 7) among those who have two."""
    random = np.random.default_rng(7)
    rows: list[int] = []
    for name in random.permutation(sorted(set(person))):
        photos = np.nonzero(person == name)[0]
        if len(photos) > 1 and len(rows) + 1 < limit:
            rows += random.choice(photos, 2, replace=False).tolist()
    return np.sort(np.array(rows))


def measure(
    folder: Path,
    task: str,
    preset: str,
    limit: int,
    cache: Path | None = None,
    model: str = "builtin",
    sheet: Path | None = None,
    specs: Sequence[str] = (),
    recognizer: str = "builtin",
) -> dict:
    data = load_photos(folder, cache=cache)
    chosen = choose_pairs(data.person, limit)
    part = data.take(chosen)
    config = TransformConfig(task=task, preset=preset, model=model, recognizer=recognizer, similarity_limit=NO_LIMIT[task])
    transform = load_diffprivacy_transform(config)
    started = time.perf_counter()
    protected, results = publish_crops(transform, part, SEEDS[0])
    seconds = (time.perf_counter() - started) / len(part.crops)
    second, _ = publish_crops(transform, part, SEEDS[1])
    similar = np.array([one.similarity for one in results])
    recovered, residual, inversion_seconds = recover_crops(transform, part)
    found, near = detection(protected, part.crops)
    through_autoencoder = to_pixels(
        torch.cat([transform.pipeline.vae(to_tensor([crop], transform.pipeline.device)) for crop in part.crops[:64]])
    )
    result: dict = {
        "task": task,
        "preset": preset,
        "transform": transform.identity,
        "faces": len(part.crops),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "seconds_per_face": round(seconds, 3),
        "inversion_seconds_per_face": round(inversion_seconds, 3),
        "similarity_mean": round(float(similar.mean()), 3),
        "similarity_95": round(float(np.quantile(similar, 0.95)), 3),
        "detected": round(found, 4),
        "landmarks_near": round(near, 4),
        "ssim_in_mask": round(structural_similarity(protected, part.crops), 3),
        "recovery_psnr_db": round(float(np.mean([psnr(a, b) for a, b in zip(recovered, part.crops, strict=True)])), 2),
        "autoencoder_psnr_db": round(
            float(np.mean([psnr(a, b) for a, b in zip(through_autoencoder, part.crops, strict=False)])), 2
        ),
        "worst_residual": round(residual, 5),
    }
    one_person = (part.person[:, None] == part.person[None]) & ~np.eye(len(part.person), dtype=bool)
    for name, embed in judges(transform, specs).items():
        clean = embed(data.crops)
        same, different = data.pairs()
        everything = similarity_matrix(clean, clean)
        after, again, back = embed(protected), embed(second), embed(recovered)
        to_original, _to_again, to_back = (similarity_matrix(part_, clean) for part_ in (after, again, back))
        linked = similarity_matrix(after, again)
        others = [(row, other) for row, index in enumerate(chosen) for other in range(len(clean)) if other != index]
        mates = [(row, other) for row, other in others if part.person[row] == data.person[other]]
        rows, columns = np.array(mates).T
        for rate in (1e-2, 1e-3):
            tar, threshold = verification_rate(everything, same, different, rate)
            own = to_original[np.arange(len(chosen)), chosen]
            # The photos chosen are few: what is left of a TAR is a share of the TAR of these very pairs.
            before = max(float((everything[chosen[rows], columns] > threshold).mean()), 1e-9)
            other, returned = (float((scores[rows, columns] > threshold).mean()) for scores in (to_original, to_back))
            result[f"{name} FAR {rate:g}"] = {
                "clean TAR": round(tar, 4),
                "own original": round(float((own > threshold).mean()), 4),
                "other photo": round(other, 4),
                "other photo, share of clean": round(other / before, 4),
                "two photos, two keys": round(float((linked[one_person] > threshold).mean()), 4),
                "one photo, two keys": round(float((np.diag(linked) > threshold).mean()), 4),
                "recovered, other photo": round(returned, 4),
                "recovered, share of clean": round(returned / before, 4),
                "threshold": round(-threshold, 4),
            }
    if sheet is not None:
        import cv2

        columns_ = 16
        rows_ = [np.concatenate(list(block[:columns_]), 1) for block in (part.crops, protected, second, recovered)]
        cv2.imwrite(str(sheet), cv2.cvtColor(np.concatenate(rows_), cv2.COLOR_RGB2BGR))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--task", default="anonymize", choices=("anonymize", "hide"))
    parser.add_argument("--preset", default="quality")
    parser.add_argument("--limit", type=int, default=120)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--recognizer", default="builtin", help="one more that guides: no independent judge any more")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sheet", type=Path, help="a picture of photos, outputs and recoveries: real people, keep it private")
    parser.add_argument("--judge", action="append", default=[], help="a recogniser's spec; may be repeated")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    options = (arguments.limit, arguments.cache, arguments.model, arguments.sheet, arguments.judge, arguments.recognizer)
    result = measure(arguments.photos, arguments.task, arguments.preset, *options)
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
