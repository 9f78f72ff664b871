"""Does cost per sample or memory grow with the dataset? Whole jobs on Ray over datasets of several sizes, one after another.

    python -m benchmarks.growth WORK [PHOTOS] [--sizes 1000 2000 20000] [--transform blur] [--side 200] [--json FILE]

Each dataset is made from the photos in PHOTOS (any JPEGs below it; without it, pictures that ship with scikit-image and
insightface), reduced to SIDE pixels, each sample cropped, lit and compressed a little differently so that no two are
byte-identical, 250 to a shard. The job runs in a process of its own, and this one watches its processes:
    memory     anonymous resident memory at its peak, of the driver and of the largest process of each kind: what they allocate
               themselves. The object store and the pages of libraries are left out: all processes share them, so that unique
               set size would jump up for whoever ends last.
    CPU        seconds of all its processes (engine included) for a further sample: the slope of CPU time over committed
               samples, in stretches of one run (from 1,000 to 2,000 samples, from there to the middle, and so on), and from one
               run to the next larger one. What starting costs is in neither.
Prints both, and exits 1 if peak memory at the largest size is over 1.2 times that at the middle one, or if a further sample
costs over 1.1 times as much in the last stretch of the largest run as in its first after the smallest size. WORK holds photos
of people afterwards: keep it out of the repository.
"""

import argparse
import itertools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.environment import environment
from diffpriv.pipelines.config import JobConfig

PER_SHARD = 250
TICK = 1.0  # seconds between two looks at the processes
MEMORY_LIMIT, CPU_LIMIT = 1.2, 1.1
ROLES = {"_Detect": "detect actor", "_Protect": "protect actor", "_assemble": "assembling task", "_read": "reading task"}


def pool(photos: Path | None, side: int, most: int, seed: int) -> list[np.ndarray]:
    """BGR pictures, a quarter larger than `side` so that there is room to crop differently."""
    if photos is None:
        from insightface.data import get_image
        from skimage import data

        group = get_image("t1")
        pictures = [data.astronaut()[:300, 100:400, ::-1], group[:, : group.shape[1] // 2], group[:, group.shape[1] // 2 :]]
    else:
        paths = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        chosen = np.random.default_rng(seed).permutation(len(paths))[:most]
        pictures = [picture for place in chosen if (picture := cv2.imread(str(paths[place]))) is not None]
    scaled = []
    for picture in pictures:
        scale = 1.25 * side / max(picture.shape[:2])
        size = (max(32, round(picture.shape[1] * scale)), max(32, round(picture.shape[0] * scale)))
        scaled.append(cv2.resize(np.ascontiguousarray(picture), size, interpolation=cv2.INTER_AREA))
    return scaled


def variations(pictures: list[np.ndarray], count: int, seed: int) -> Iterator[bytes]:
    """JPEG files, no two alike; the first n are the same whatever `count` is."""
    chance = np.random.default_rng(seed)
    for number in range(count):
        picture = pictures[number % len(pictures)]
        rows, columns = (int(length * chance.uniform(0.8, 0.9)) for length in picture.shape[:2])
        top, left = (int(chance.integers(0, whole - part)) for whole, part in zip(picture.shape, (rows, columns), strict=False))
        lit = cv2.convertScaleAbs(picture[top : top + rows, left : left + columns], alpha=chance.uniform(0.85, 1.15))
        yield cv2.imencode(".jpg", lit, [cv2.IMWRITE_JPEG_QUALITY, int(chance.integers(80, 96))])[1].tobytes()


def make_dataset(folder: Path, pictures: list[np.ndarray], samples: int, seed: int, per_shard: int = PER_SHARD) -> Path:
    """WebDataset shards; kept from an earlier call of the same size."""
    import webdataset

    if folder.exists():
        return folder
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    data = variations(pictures, samples, seed)
    for shard in range(-(-samples // per_shard)):
        with webdataset.TarWriter(str(partial / f"s-{shard:05d}.tar"), mtime=0) as writer:
            for number in range(shard * per_shard, min(samples, (shard + 1) * per_shard)):
                writer.write({"__key__": f"{number:08d}", "jpg": next(data), "json": json.dumps({"number": number}).encode()})
    partial.rename(folder)
    return folder


def job_mapping(work: Path, name: str, src: Path, transform: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A job's settings; its recipient is made at the first call."""
    from diffpriv.keys.init import init_keys

    keyring = work / "keyring"
    if not keyring.exists():
        init_keys(keyring, "benchmark", iterations=1, lanes=1, memory_kib=64)
    place = work / name
    shutil.rmtree(place, ignore_errors=True)
    values: dict[str, Any] = {
        "src": str(src),
        "dst": str(place / "data"),
        "keys": str(place / "keys"),
        "audit": str(place / "audit"),
        "recipients": [str(keyring / "recipient.json")],
        "dataset": "growth",
        "transform": transform,
    }
    return values | changes


def drive(job: Path, told: Path) -> None:
    """In the job's own process: run it and write down after each shard how far it is."""
    from diffpriv.pipelines.engines.ray_driver import run

    config = JobConfig.from_mapping(json.loads(job.read_text()))
    with told.open("w", buffering=1) as out:
        report = run(config, progress=lambda p: print(p.samples_done, file=out))
    told.with_suffix(".report").write_text(json.dumps(report.to_json()))
    if not report.ok:
        sys.exit(1)


def measure(work: Path, name: str, job: dict[str, Any]) -> dict[str, Any]:
    """Run a job and watch it.

    Returns:
        counts; peak_mb: role -> largest anonymous memory of one process; points: [samples committed, CPU seconds so far].
    Raises:
        SystemExit: the job failed.
    """
    import ray  # brings psutil

    assert ray
    import psutil

    place = work / name
    place.mkdir(parents=True, exist_ok=True)
    (place / "job.json").write_text(json.dumps(job))
    told = place / "progress"
    command = [sys.executable, "-m", "benchmarks.growth", "--drive", str(place / "job.json"), str(told)]
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    peak: dict[str, float] = {}
    cpu: dict[tuple[int, float], float] = {}  # a process is its number and when it began
    points: list[list[float]] = []
    while process.poll() is None:
        time.sleep(TICK)
        for one in _tree(psutil, process.pid):
            try:
                with one.oneshot():
                    used, role = one.cpu_times(), _role(one, process.pid)
                    cpu[one.pid, one.create_time()] = used.user + used.system
                peak[role] = max(peak.get(role, 0.0), _own_memory(one) / 1e6)
            except (psutil.Error, OSError):
                continue
        lines = told.read_text().splitlines() if told.exists() else []
        if lines:
            samples = int(lines[-1])
            if samples and (not points or samples > points[-1][0]):
                points.append([samples, round(sum(cpu.values()), 2)])
    if process.returncode:
        raise SystemExit(f"the job {name} failed: {(place / 'log').read_text(errors='replace')[-2000:]}")
    if not points:
        raise SystemExit(f"the job {name} was over before it could be watched: give it more samples")
    report = json.loads(told.with_suffix(".report").read_text())
    return {
        "samples": report["counts"]["samples_in"],
        "faces": report["counts"]["faces"],
        "seconds": round(report["seconds"], 1),
        "cpu_s": round(sum(cpu.values()), 1),
        "peak_mb": {role: round(value, 1) for role, value in sorted(peak.items())},
        "points": points,
    }


def _tree(psutil: Any, root: int) -> list[Any]:
    try:
        top = psutil.Process(root)
        return [top, *top.children(recursive=True)]
    except psutil.Error:
        return []


def _role(process: Any, driver: int) -> str:
    if process.pid == driver:
        return "driver"
    name = process.name()
    return next((role for part, role in ROLES.items() if part in name), "engine")


def _own_memory(process: Any) -> int:
    """Bytes of anonymous resident memory; unique set size where the system does not tell."""
    status = Path(f"/proc/{process.pid}/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    return int(process.memory_full_info().uss)


def slopes(points: list[list[float]], edges: list[int]) -> dict[str, float]:
    """CPU seconds of a further sample between neighbouring edges, by least squares; without two points in between, nothing."""
    found = {}
    for low, high in itertools.pairwise(edges):
        inside = np.array([point for point in points if low <= point[0] <= high], float)
        if len(inside) >= 2:
            found[f"{low} to {high}"] = float(np.polyfit(inside[:, 0], inside[:, 1], 1)[0])
    return found


def stretches(sizes: list[int]) -> list[int]:
    """Edges from the smallest size to the largest; the last stretch, mostly by far the longest, is cut in two."""
    return sorted({*sizes, (sorted(sizes)[-2] + max(sizes)) // 2})


def compare(
    work: Path,
    photos: Path | None,
    sizes: list[int],
    *,
    transform: str = "blur",
    side: int = 200,
    seed: int = 1,
    per_shard: int = PER_SHARD,
) -> dict[str, Any]:
    """Run all sizes and set each beside the one before the largest."""
    pictures = pool(photos, side, 1000, seed)
    runs: dict[int, dict[str, Any]] = {}
    for size in sorted(sizes):
        src = make_dataset(work / f"src-{size}-{side}-{per_shard}-{seed}", pictures, size, seed, per_shard)
        values = {"transform": transform, "recovery": "keys" if transform == "diffprivacy" else "exact"}
        runs[size] = measure(work, f"run-{size}", job_mapping(work, f"run-{size}", src, values))
        shutil.rmtree(work / f"run-{size}/data", ignore_errors=True)
        shown = runs[size]
        print(
            f"{size:7,d} samples {shown['faces']:7,d} faces {shown['seconds']:7.0f} s, CPU {shown['cpu_s']:6.0f} s  peak MB "
            + ", ".join(f"{role} {value:.0f}" for role, value in shown["peak_mb"].items()),
            flush=True,
        )
    small, large = sorted(runs)[-2:]
    within = slopes(runs[large]["points"], stretches(sizes))
    if len(within) < 2:
        raise SystemExit("the largest job was over before its cost could be watched: give it more samples")
    between = {
        f"{low} to {high}": (runs[high]["cpu_s"] - runs[low]["cpu_s"]) / (high - low)
        for low, high in itertools.pairwise(sorted(runs))
    }
    watched = [role for role in ("driver", "detect actor", "protect actor") if role in runs[small]["peak_mb"]]
    ratios = {
        "cpu per sample": list(within.values())[-1] / next(iter(within.values())),
        "memory": {role: runs[large]["peak_mb"].get(role, 0.0) / runs[small]["peak_mb"][role] for role in watched},
    }
    return {
        "sizes": [small, large],
        "transform": transform,
        "side": side,
        "runs": runs,
        "cpu_s_of_a_further_sample": {"within the largest run": within, "from run to run": between},
        "ratios": ratios,
    }


def flat(ratios: dict[str, Any]) -> bool:
    return ratios["cpu per sample"] <= CPU_LIMIT and all(one <= MEMORY_LIMIT for one in ratios["memory"].values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drive", type=Path, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("work", type=Path, nargs="?")
    parser.add_argument("photos", type=Path, nargs="?")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 2000, 20000])
    parser.add_argument("--transform", default="blur", choices=["blur", "mosaic", "fill", "diffprivacy"])
    parser.add_argument("--side", type=int, default=200)
    parser.add_argument("--per-shard", type=int, default=PER_SHARD)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.drive:
        drive(*arguments.drive)
        return
    if arguments.work is None or len(set(arguments.sizes)) < 2:
        parser.error("give WORK, and at least two sizes")
    result = compare(
        arguments.work,
        arguments.photos,
        arguments.sizes,
        transform=arguments.transform,
        side=arguments.side,
        seed=arguments.seed,
        per_shard=arguments.per_shard,
    )
    ratios = result["ratios"]
    for where, found in result["cpu_s_of_a_further_sample"].items():
        shown = ", ".join(f"{stretch}: {1000 * seconds:.1f} ms" for stretch, seconds in found.items())
        print(f"CPU of a further sample {where}, {shown}")
    print(f"  last stretch against first: {ratios['cpu per sample']:.3f} times")
    for role, ratio in ratios["memory"].items():
        print(f"peak memory of the {role}, {result['sizes'][1]:,} samples against {result['sizes'][0]:,}: {ratio:.3f} times")
    if arguments.json:
        arguments.json.write_text(json.dumps({"environment": environment(arguments.seed)} | result, indent=1) + "\n")
    sys.exit(0 if flat(ratios) else 1)


if __name__ == "__main__":
    main()
