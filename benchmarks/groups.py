"""Failure rates by apparent gender, age band and race, on labelled photos that no model of ours was trained on.

`python -m benchmarks.groups SHARDS CROPS.npz --judge human:FOLDER` protects the held-out faces of the training shards
(`diffpriv.training.dataset` made CROPS.npz from SHARDS) and prints JSON and a table. Labels are the estimator's of UTKFace's
makers: what faces look like, not what people are. There are no labels of skin tone; race stands in. Per group, as shares:
    first too alike   over the similarity limit after one attempt (what retries cost)
    filled            still over it after all attempts: a solid fill stands in
    not found         protected, but a detector sees no face where there was one
    judge matches     (--judge) the judge still takes the output for the original's person, at its threshold of a
                      false-accept rate of 1e-2 on pairs of these originals
    gender flips      (--judge with attributes) the output is seen as the other gender than the original was
A share's interval is Wilson's at 95 %. `worst / mean` is the highest group's share over the share of all, among groups of
at least 20 faces; `beyond twice the mean` says whether the worst group's whole interval lies above twice the share of all.
"""

import argparse
import hashlib
import io
import json
import tarfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.photos import verification_rate
from diffpriv.config import TransformConfig
from diffpriv.detectors import load_detector
from diffpriv.faces.alignment import face_to_crop_matrix, warp_to_crop
from diffpriv.faces.compositing import apply_patches
from diffpriv.faces.types import Face, overlap
from diffpriv.recognizers import load_recognizer
from diffpriv.training.dataset import TrainingCrops
from diffpriv.transforms import FaceRequest, load_transform

JUDGE_RATE = 1e-2
SAME_PLACE = 0.3  # overlap of boxes from which a face found is the face that was there
SMALLEST_GROUP = 20
AGE_BANDS = ((0, 19), (20, 34), (35, 54), (55, 200))


@dataclass(frozen=True)
class LabelledFace:
    image: np.ndarray
    face: Face
    groups: dict[str, str]  # attribute -> group


def held_out_rows(crops: Path) -> np.ndarray:
    """Rows of the training crops that no model was trained on; reads no pixels."""
    with np.load(crops) as stored:
        identity, held_out = stored["identity"], int(stored["held_out"])
    nothing = np.empty((len(identity), 0))
    return TrainingCrops(nothing, nothing, nothing, identity, held_out).split()[1]


def read_faces(shards: Path, rows: np.ndarray) -> list[LabelledFace]:
    """The labelled ones among these rows, counted as `align_shards` does: shards, then samples, in name order."""
    wanted, row, faces = set(rows.tolist()), 0, []
    for shard in sorted(shards.glob("*.tar")):
        with tarfile.open(shard) as archive:
            members = {member.name: member for member in archive if member.isfile()}
            for name in sorted(key for key in members if key.endswith(".json")):
                row += 1
                if row - 1 not in wanted:
                    continue
                facts = json.load(archive.extractfile(members[name]))  # type: ignore[arg-type]
                if "race" not in facts:
                    continue
                encoded = archive.extractfile(members[name[: -len(".json")] + ".jpg"]).read()  # type: ignore[union-attr]
                left, top, width, height = facts["box_xywh"]
                face = Face((left, top, left + width, top + height), np.array(facts["landmarks"]), float(facts["score"]))
                band = next(f"{low}-{high}" for low, high in AGE_BANDS if low <= facts["age"] <= high)
                groups = {"gender": facts["gender"], "age": band, "race": facts["race"]}
                faces.append(LabelledFace(np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")), face, groups))
    return faces


def wilson(count: int, total: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    z, share = 1.96, count / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * np.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def still_found(pictures: list[np.ndarray], faces: list[LabelledFace]) -> np.ndarray:
    detector = load_detector("centerface")
    found = []
    for start in range(0, len(pictures), 16):
        for face, seen in zip(faces[start : start + 16], detector.detect(pictures[start : start + 16]), strict=True):
            found.append(any(overlap(face.face.box, one.box) >= SAME_PLACE for one in seen))
    return np.array(found)


def protect(faces: list[LabelledFace], model: str, preset: str) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """(failures by kind, (n,) bool each; published pictures)."""
    config = TransformConfig(recovery="none", preset=preset, model=model)
    seeds = [hashlib.sha256(b"benchmarks.groups %d" % index).digest() for index in range(len(faces))]
    requests = [FaceRequest(one.image, one.face, seed) for one, seed in zip(faces, seeds, strict=True)]
    results = load_transform(replace(config, max_attempts=1)).protect(requests)
    first = np.array([result.status == "filled" for result in results])
    again = np.flatnonzero(first)
    if len(again):  # the first attempt is the same with more allowed: only its failures need the rest
        redone = load_transform(config).protect([requests[row] for row in again])
        for row, result in zip(again, redone, strict=True):
            results[row] = result
    filled = np.array([result.status == "filled" for result in results])
    pictures = [apply_patches(one.image, [result.patch]) for one, result in zip(faces, results, strict=True)]
    not_found = ~filled & ~still_found(pictures, faces)
    return {"first too alike": first, "filled": filled, "not found": not_found}, pictures


def judged(spec: str, faces: list[LabelledFace], pictures: list[np.ndarray]) -> dict[str, np.ndarray]:
    judge = load_recognizer(spec)
    matrices = [face_to_crop_matrix(one.face.landmarks) for one in faces]
    before = np.stack([warp_to_crop(one.image, matrix) for one, matrix in zip(faces, matrices, strict=True)])
    after = np.stack([warp_to_crop(picture, matrix) for picture, matrix in zip(pictures, matrices, strict=True)])
    clean, made = judge.embed(before), judge.embed(after)
    different = np.stack(np.triu_indices(len(faces), 1), 1)
    _, threshold = verification_rate(clean @ clean.T, different[:1], different, JUDGE_RATE)
    found = {"judge matches": (clean * made).sum(1) > threshold}
    if hasattr(judge, "attributes"):
        found["gender flips"] = (judge.attributes(before).male > 0.5) != (judge.attributes(after).male > 0.5)
    return found


def by_group(failed: np.ndarray, faces: list[LabelledFace]) -> dict[str, Any]:
    """Shares of all and of each group, with intervals."""
    everybody = _share(failed)
    table: dict[str, Any] = {"all": everybody}
    for attribute in faces[0].groups:
        names = np.array([one.groups[attribute] for one in faces])
        rows = {name: _share(failed[names == name]) for name in sorted(set(names.tolist()))}
        table[attribute] = {"groups": rows, "worst": None, "worst / mean": None, "beyond twice the mean": False}
        large = [name for name in rows if rows[name]["faces"] >= SMALLEST_GROUP]
        if large and everybody["share"]:
            worst = max(large, key=lambda name: rows[name]["share"])
            ratio = round(rows[worst]["share"] / everybody["share"], 2)
            beyond = rows[worst]["interval"][0] > 2 * everybody["share"]
            table[attribute] |= {"worst": worst, "worst / mean": ratio, "beyond twice the mean": beyond}
    return table


def _share(failed: np.ndarray) -> dict[str, Any]:
    interval = [round(value, 4) for value in wilson(int(failed.sum()), len(failed))]
    return {"faces": len(failed), "share": round(float(failed.mean()), 4), "interval": interval}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("crops", type=Path)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--judge", help="a recogniser's spec, such as human:FOLDER")
    parser.add_argument("--limit", type=int, default=400)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    faces = read_faces(arguments.shards, held_out_rows(arguments.crops))[: arguments.limit]
    present = still_found([one.image for one in faces], faces)
    faces = [one for one, seen in zip(faces, present, strict=True) if seen]
    started = time.process_time()
    failures, pictures = protect(faces, arguments.model, arguments.preset)
    if arguments.judge:
        failures |= judged(arguments.judge, faces, pictures)
    report: dict = {
        "preset": arguments.preset,
        "faces": len(faces),
        "not detected before protection, left out": int((~present).sum()),
        "core seconds": round(time.process_time() - started, 1),
        "failures": {name: by_group(failed, faces) for name, failed in failures.items()},
    }
    print(json.dumps(report, indent=1))
    for name, table in report["failures"].items():
        ratios = ", ".join(f"{key} {table[key]['worst / mean']} ({table[key]['worst']})" for key in faces[0].groups)
        print(f"{name}: {table['all']['share']:.1%} of {len(faces)}; worst / mean: {ratios}")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
