"""The README's table, privacy beside utility: anonymize, hide, blur, mosaic and solid fill on the same photos.

    python -m benchmarks.tables WORK --photos PHOTOS      labelled photos: PHOTOS/manifest.csv with file, group, person
    python -m benchmarks.tables WORK                      the demo's faces of nobody, a few "photos" of each
    --limit 200 --preset fast --judge human:FOLDER --judge dlib --attacker-minutes 6

Makes WORK/original (an image folder, with WORK/labels.csv), protects it in this process with tier none into WORK/anonymize and
WORK/hide, runs what `diffpriv evaluate` runs on each, and prints a Markdown table. What is there already is used again.
WORK holds real photos where PHOTOS does: keep it out of the repository.
"""

import argparse
import csv
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from diffpriv.config import TransformConfig
from diffpriv.detectors import load_detector
from diffpriv.keys.context import ShardContext
from diffpriv.keys.sources import RandomKeySource
from diffpriv.pipelines.evaluation.report import percent, write_report
from diffpriv.pipelines.evaluation.run import evaluate
from diffpriv.pipelines.evaluation.settings import EvaluationSettings
from diffpriv.pipelines.formats.registry import shard_format
from diffpriv.pipelines.formats.source import open_source
from diffpriv.pipelines.pictures.codec import PictureLimits
from diffpriv.pipelines.records.samples import DetectedSample, ProtectedSample, Sample
from diffpriv.pipelines.steps.detect import detect
from diffpriv.pipelines.steps.protect import protect
from diffpriv.pipelines.storage import Folder
from diffpriv.pipelines.threads import fix_threads
from diffpriv.transforms import load_transform

TASKS = ("anonymize", "hide")
PHOTOS_PER_PERSON = 4
FACES_OF_NOBODY = 24
AT_ONCE = 32  # pictures


def take_photos(photos: Path, original: Path, limit: int, seed: int) -> list[tuple[str, str, str]]:
    """Copy photos of people with at least two; returns (file, person, group)."""
    people: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    with (photos / "manifest.csv").open(newline="", encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            people[row["group"], row["person"]].append(row["file"])
    names = sorted(name for name, files in people.items() if len(files) > 1)
    taken: list[tuple[str, str, str]] = []
    for place in np.random.default_rng(seed).permutation(len(names)):
        group, person = names[place]
        for file in people[group, person][:PHOTOS_PER_PERSON] if len(taken) < limit else []:
            target = original / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(photos / file, target)
            taken.append((file, f"{group}/{person}", group))
    return taken


def make_photos(original: Path, limit: int) -> list[tuple[str, str, str]]:
    """Two "photos" of each face that the model makes up: other light, another size, mirrored."""
    from diffpriv.generation import generate_portraits
    from diffpriv.jobs.demo_dataset import GENERATED_SEED

    made = []
    for number, first in enumerate(generate_portraits(min(FACES_OF_NOBODY, limit // 2), GENERATED_SEED)):
        second = cv2.convertScaleAbs(cv2.resize(first[:, ::-1], None, fx=0.8, fy=0.8), alpha=0.85, beta=12)
        for place, picture in enumerate((first, second)):
            file = f"{number:03d}/{place}.png"
            (original / file).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(original / file)
            made.append((file, f"{number:03d}", "made up"))
    return made


def prepare(work: Path, photos: Path | None, limit: int, seed: int) -> Path:
    """WORK/original and WORK/labels.csv; returns the latter."""
    labels = work / "labels.csv"
    if not labels.exists():
        rows = make_photos(work / "original", limit) if photos is None else take_photos(photos, work / "original", limit, seed)
        with labels.open("w", newline="", encoding="utf-8") as handle:
            csv.writer(handle).writerows([("file", "person", "group"), *rows])
    return labels


def protect_folder(original: Path, target: Path, config: TransformConfig) -> None:
    """The job's own steps, in this process. Tier none: no key outlives the call."""
    if target.exists():
        return
    detector, transform, keys = load_detector("centerface"), load_transform(config), RandomKeySource()
    fix_threads()
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(original, partial)
    source, context = open_source(str(original)), ShardContext(target.name, "all", config.digest())
    for shard in source.shards(AT_ONCE):
        samples = [one for one in shard_format(shard.format).read(Folder(source.url), shard) if isinstance(one, Sample)]
        found = [one for one in detect(samples, detector, PictureLimits()) if isinstance(one, DetectedSample)]
        results, _ = protect(found, transform, keys, context)
        for result in results:
            for picture in result.changed if isinstance(result, ProtectedSample) else ():
                (partial / result.key).write_bytes(picture.data)
        print(f"{target.name}: {shard.name}, {len(samples)} pictures", flush=True)
    partial.rename(target)


def rows(document: dict[str, Any], named: str) -> list[tuple[str, ...]]:
    """One line per variant of one evaluation; of the baselines only in the first."""
    trained = document["adaptive"].get("variants", {})
    lines = []
    for name, used in document["utility"].items():
        if name == "original" or (name != "protected" and named != TASKS[0]):
            continue
        cells = [named if name == "protected" else name]
        for judged in document["privacy"].values():
            tar = judged["variants"][name]["tar"]["0.001"]
            cells.append(f"{percent(tar['naive own photo'])} / {percent(tar['naive other photo'])}")
        attacked = trained[name]["tar"]["0.01"] if name in trained else {}
        cells.append(f"{percent(attacked.get('own photo'))} / {percent(attacked.get('other photo'))}")
        kept = used["downstream"]["kept"]
        cells += [percent(used["detection rate"]["value"]), percent(used["landmarks near"]["value"]), percent(kept)]
        lines.append(tuple(cells))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--limit", type=int, default=200, help="photos")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--judge", action="append", default=[])
    parser.add_argument("--attacker-minutes", type=float, default=3.0)
    parser.add_argument("--recovery-faces", type=int, default=8)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    fix_threads()
    arguments.work.mkdir(parents=True, exist_ok=True)
    labels = prepare(arguments.work, arguments.photos, arguments.limit, arguments.seed)
    lines, judges, faces = [], [], 0
    for task in arguments.tasks.split(","):
        config = TransformConfig(task=task, recovery="none", preset=arguments.preset, model=arguments.model)
        protect_folder(arguments.work / "original", arguments.work / task, config)
        settings = EvaluationSettings(
            sample=0,
            identity=str(labels),
            group="group",
            judges=tuple(arguments.judge),
            attacker_minutes=arguments.attacker_minutes,
            recovery_faces=arguments.recovery_faces if task == TASKS[0] else 0,
            task=task,
            preset=arguments.preset,
            model=arguments.model,
            seed=arguments.seed,
        )
        places = str(arguments.work / "original"), str(arguments.work / task)
        document, _ = evaluate(*places, settings, lambda text: print(text, flush=True))
        page, _ = write_report(str(arguments.work / f"report-{task}"), document)
        print(f"{page}\n" + "\n".join(document["verdict"]["sentences"]), flush=True)
        lines += rows(document, task)
        judges, faces = list(document["privacy"]), document["data"]["faces"]
    head = ["", *(f"{judge}: own / other" for judge in judges), "trained: own / other", "found", "landmarks", "learned"]
    print(f"\n{faces} faces; TAR in % at FAR 0.1 % (trained attackers: FAR 1 %), then utility in %\n")
    print("| " + " | ".join(head) + " |\n" + "| --- " * len(head) + "|")
    for line in lines:
        print("| " + " | ".join(line) + " |")


if __name__ == "__main__":
    main()
