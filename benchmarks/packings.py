"""False alarms of the release gate: ordinary datasets of real photos, packed in three ways, should pass `scrub` as they are.

    python -m benchmarks.packings PHOTOS WORK [--part K/N] [--packing tar parquet folder] [--record]

PHOTOS holds manifest.csv (file, group, person, …). Packed beside the photos is what people have: in tars a JSON label for each,
in Parquet labels and captions as Hugging Face writes them, in a folder one CSV. Faces are filled, which costs least; what is
tried is the gate, without any `--allow`. Parts make it fit into minutes: each appends a line to WORK/packings.jsonl, and
`--record` sums the lines up. WORK holds photos afterwards: keep it out of the repository.
"""

import argparse
import csv
import io
import json
import resource
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, record

PER_SHARD = 64
COMMAND = "python -m benchmarks.packings PHOTOS WORK"
CAPTIONS = (
    "A portrait of a person, seen from the front.",
    "Somebody looks into the camera.",
    "A photo taken outdoors, in daylight.",
)
Row = dict[str, Any]


def rows_of(photos: Path, part: int, parts: int) -> list[Row]:
    """The photos of a part, with labels that a dataset may have."""
    with open(photos / "manifest.csv", newline="") as handle:
        rows = [row for number, row in enumerate(csv.DictReader(handle)) if number % parts == part - 1]
    groups = sorted({row["group"] for row in rows})
    return [
        {
            "file": row["file"],
            "data": (photos / row["file"]).read_bytes(),
            "label": groups.index(row["group"]),
            "width": int(row["width"]),
            "height": int(row["height"]),
            "caption": CAPTIONS[number % len(CAPTIONS)],
        }
        for number, row in enumerate(rows)
    ]


def as_tars(rows: list[Row], src: Path) -> None:
    for start in range(0, len(rows), PER_SHARD):
        with tarfile.open(src / f"{start // PER_SHARD:05d}.tar", "w") as archive:
            for number, row in enumerate(rows[start : start + PER_SHARD]):
                label = {name: row[name] for name in ("label", "width", "height", "caption")}
                for extension, content in (("jpg", row["data"]), ("json", json.dumps(label).encode())):
                    info = tarfile.TarInfo(f"{start + number:06d}.{extension}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))


def as_parquet(rows: list[Row], src: Path) -> None:
    import datasets

    names = [str(number) for number in range(1 + max(row["label"] for row in rows))]
    features = {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=names),
        "caption": datasets.Value("string"),
    }
    columns = {
        "image": [{"bytes": row["data"], "path": None} for row in rows],
        "label": [row["label"] for row in rows],
        "caption": [row["caption"] for row in rows],
    }
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    table.to_parquet(src / "train-00000-of-00001.parquet", batch_size=PER_SHARD)


def as_folder(rows: list[Row], src: Path) -> None:
    with open(src / "metadata.csv", "w", newline="") as handle:
        lines = csv.writer(handle)
        lines.writerow(["file_name", "label", "width", "height", "caption"])
        for number, row in enumerate(rows):
            name = f"{row['label']}/{number:06d}.jpg"
            (src / name).parent.mkdir(exist_ok=True)
            (src / name).write_bytes(row["data"])
            lines.writerow([name, row["label"], row["width"], row["height"], row["caption"]])


PACKINGS: dict[str, Callable[[list[Row], Path], None]] = {"tar": as_tars, "parquet": as_parquet, "folder": as_folder}


def scrubbed(packing: str, rows: list[Row], work: Path) -> Row:
    """Pack, scrub by the program, and say what the gate found."""
    place = work / packing
    shutil.rmtree(place, ignore_errors=True)
    (place / "src").mkdir(parents=True)
    PACKINGS[packing](rows, place / "src")
    keys = place / "keys"  # of this log alone: a key that has seen a longer log refuses a new one as cut back
    program = [sys.executable, "-m", "diffpriv.jobs.cli"]
    passphrase = place / "passphrase"
    passphrase.touch(0o600)
    passphrase.write_text("guards nothing\n")
    subprocess.run([*program, "keys", "init", str(keys), "--passphrase-file", str(passphrase)], check=True, capture_output=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [*program, "--json", "scrub", str(place / "src"), str(place / "dst"), "--audit", str(place / "audit")]
    command += ["--log-key", str(keys / "log.key"), "--release-key", str(keys / "release.key"), "--transform", "fill"]
    done = subprocess.run([*command, "--actors", "1"], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    answer = json.loads(done.stdout)
    if "gate" not in answer:
        raise RuntimeError(f"scrub of {packing} ended before the gate: {answer.get('error', done.stderr[-500:])}")
    gate = answer["gate"]
    return {
        "packing": packing,
        "photos": len(rows),
        "quarantined": answer["counts"]["samples_quarantined"],
        "clean": gate["clean"],
        "over": gate["over"],
        "findings": [one for one in gate["findings"] if one["kind"] in gate["over"]][:20],
        "cpu seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--part", default="1/1")
    parser.add_argument("--packing", nargs="+", choices=PACKINGS, default=list(PACKINGS))
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    results = arguments.work / "packings.jsonl"
    if not arguments.record:
        part, _, parts = arguments.part.partition("/")
        rows = rows_of(arguments.photos, int(part), int(parts))
        for packing in arguments.packing:
            line = json.dumps({"part": arguments.part, **scrubbed(packing, rows, arguments.work)})
            print(line)
            with open(results, "a") as handle:
                handle.write(line + "\n")
        return
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    made = []
    for packing in PACKINGS:
        mine = [line for line in lines if line["packing"] == packing]
        photos, clean = sum(line["photos"] for line in mine), all(line["clean"] for line in mine)
        what = f"`scrub` of photos of PHOTOS, filled, packed as {packing}, without --allow"
        over = sorted({kind for line in mine for kind in line["over"]})
        said = f"{photos} photos, {'no finding over its limit' if clean else 'OVER: ' + ', '.join(over)}"
        made.append(Figure("Robustness", what, said, COMMAND))
    print(record("packings", *made))


if __name__ == "__main__":
    main()
