"""The whole path on real photos: everything that a release rests on, seen once on a folder of labelled photos.

`python -m benchmarks.whole_path PHOTOS WORK` packs the photos (manifest.csv names them) into 8 WebDataset shards with JSON
sidecars and one odd field, protects them, and checks, in this order:
    counts      every sample is out or in quarantine; order, names and other fields are unchanged byte for byte
    pictures    every picture with a detected face is changed, every picture without one is byte-identical
    limit       no protected face is over the similarity limit; what could not be made so is filled and counted
    again       the same face keys, other batch sizes, another number of actors, three SIGKILLs of the driver and a rerun: the
                same shards byte for byte, the same keys and audit entries as the unbroken run
    keys        tier keys brings crops back (PSNR), from the key files, by the recipient's private key
    exact       tier exact brings crops back bit for bit (on the first shards)
WORK holds photos of real people afterwards: keep it out of the repository. Run again with the same WORK it goes on where it
stopped; for new figures give a new one. Prints each result as it comes and JSON; exits 1 if a check fails.
"""

import argparse
import csv
import io
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import webdataset

from diffpriv.faces.alignment import warp_to_crop
from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.audit.verify import verify_log
from diffpriv.keys.cleartext import reveal
from diffpriv.keys.init import init_keys
from diffpriv.keys.keyfile import KeyFile
from diffpriv.keys.notes import NoteKey
from diffpriv.keys.recipients import RecipientKey
from diffpriv.keys.sources import DerivedKeySource
from diffpriv.keys.store import KeyStore
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.destination.published import measure, records
from diffpriv.pipelines.engines.ray_driver import run
from diffpriv.pipelines.pictures.codec import decode
from diffpriv.pipelines.run.report import RunReport
from diffpriv.pipelines.steps.protect import TRANSFORM_LABEL
from diffpriv.recovery import psnr, recover_face
from diffpriv.transforms.payloads import decode_payload

SHARDS = 8
OTHER_WORKERS = {
    "detect_actors": 2,
    "protect_actors": 1,
    "detect_batch": 5,
    "protect_batch": 7,
    "detect_cpus": 0.5,
    "protect_cpus": 1,
}
PASSPHRASE = "whole path"
ROOT = b"whole path benchmark, not secret"[:32].ljust(32, b".")


def derived() -> DerivedKeySource:
    """Fixed face keys: for comparing runs, never for real data."""
    return DerivedKeySource(ROOT)


def pack(photos: Path, out: Path) -> int:
    """The photos as 8 shards, one sample each, with a JSON sidecar and a field that is no picture."""
    with (photos / "manifest.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    out.mkdir(parents=True)
    for shard in range(SHARDS):
        with webdataset.TarWriter(str(out / f"photos-{shard:03d}.tar"), mtime=0) as writer:
            for number in range(shard, len(rows), SHARDS):
                row = rows[number]
                suffix = Path(row["file"]).suffix.lstrip(".").lower()
                facts = json.dumps({"group": row["group"], "width": row["width"]}).encode()
                writer.write(
                    {
                        "__key__": f"{number:05d}",
                        suffix: (photos / row["file"]).read_bytes(),
                        "json": facts,
                        "raw": os.urandom(9),
                    }
                )
    return len(rows)


def job(work: Path, name: str, **changes: object) -> JobConfig:
    keyring = work / "keyring"
    values: dict = {
        "src": str(changes.pop("src", work / "src")),
        "dst": str(work / name / "data"),
        "keys": str(work / name / "keys"),
        "audit": str(work / name / "audit"),
        "recipients": (str(keyring / "recipient.json"),),
        "dataset": "photos",
        "transform": {"preset": "fast", "recovery": "keys"},
        "workers": {"detect_actors": 1, "protect_actors": 2, "detect_cpus": 0.5, "protect_cpus": 1},
    }
    values |= changes
    return JobConfig.from_mapping(values)


def protect(work: Path, name: str, **changes: object) -> tuple[JobConfig, RunReport]:
    config = job(work, name, **changes)
    report = run(config, key_source=derived, log_key=NoteKey.load(work / "keyring/log.key", PASSPHRASE))
    report.check()
    return config, report


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


def compare_with_source(work: Path, config: JobConfig) -> dict:
    """Counts of pictures and fields that are as they should be, and of those that are not."""
    faces: dict[tuple[str, str], int] = {}
    for record in records(config.dst):
        for face in record.faces:
            faces[record.shard, face.sample] = faces.get((record.shard, face.sample), 0) + 1
    result = {"changed": 0, "identical": 0, "wrong": 0, "fields identical": 0, "order kept": 0}
    for source in sorted((work / "src").glob("*.tar")):
        before, after = members(source), members(Path(config.dst) / source.name)
        lost = {name.split(".")[0] for name in before.keys() - after.keys()}
        kept = [name for name in before if name.split(".")[0] not in lost]
        result["order kept"] += kept == list(after)
        for name in kept:
            same = before[name] == after[name]
            if name.endswith((".json", ".raw")):
                result["fields identical" if same else "wrong"] += 1
            elif ((source.name, name.split(".")[0]) in faces) == same:
                result["wrong"] += 1
            else:
                result["identical" if same else "changed"] += 1
    return result


def content_of(config: JobConfig, key: RecipientKey, log: AuditLog) -> dict:
    """What must be equal between an unbroken and a broken run: shards, opened keys and payloads, shard events."""
    opened = {}
    store = KeyStore(config.keys or "")
    for record in records(config.dst):
        file = KeyFile.parse(store.get("photos", record.shard))
        for one in record.faces:
            if one.recoverable:
                face = file.open_face(one.sample, one.face_index, key)
                opened[record.shard, one.sample, one.face_index] = (reveal(face.key), face.payload)
    events = sorted(event.facts["shard"] for _, event in log.events() if event.kind == "shard committed")
    return {"data": measure(config.dst), "keys": opened, "events": events}


def run_with_kills(work: Path, kills: int, after: tuple[float, float], chance: random.Random) -> int:
    """Start, kill and restart the driver; returns how many kills hit a running driver."""
    hits = 0
    command = [sys.executable, "-m", "benchmarks.whole_path", "--run", str(work)]
    for _ in range(kills):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(*after))
        hits += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return hits


def recover_all(config: JobConfig, work: Path, key: RecipientKey, limit: int) -> tuple[list[float], int, int]:
    """(PSNR of each crop, how many are bit-exact, how many were tried)."""
    store, exact = KeyStore(config.keys or ""), 0
    values: list[float] = []
    for record in records(config.dst):
        before, after = members(work / "src" / record.shard), members(Path(config.dst) / record.shard)
        file = KeyFile.parse(store.get("photos", record.shard))
        for one in record.faces:
            if not one.recoverable or len(values) >= limit:
                continue
            face = file.open_face(one.sample, one.face_index, key)
            published = decode(after[f"{one.sample}.{one.field}"]).pixels
            original = decode(before[f"{one.sample}.{one.field}"]).pixels
            recovered = recover_face(face.payload, face.key.derive(TRANSFORM_LABEL), published)
            crop = warp_to_crop(original, decode_payload(face.payload, face.key.derive(TRANSFORM_LABEL)).matrix)
            values.append(psnr(recovered.crop, crop))
            exact += recovered.bit_exact and np.array_equal(recovered.crop, crop)
    return values, exact, len(values)


def check(work: Path, photos: Path, recoveries: int, after: tuple[float, float], seed: int) -> dict:
    if not (work / "keyring").exists():
        pack(photos, work / "src")
        init_keys(work / "keyring", PASSPHRASE, iterations=1, lanes=1, memory_kib=64)
    key = RecipientKey.load(next((work / "keyring").glob("recipient*.key")), PASSPHRASE)
    result: dict = {
        "photos": sum(name.endswith(".json") for source in (work / "src").glob("*.tar") for name in members(source)),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "seed": seed,
    }

    def log(name: str) -> AuditLog:
        return AuditLog(str(work / name / "audit"), key=NoteKey.load(work / "keyring/log.key", PASSPHRASE))

    def show(title: str, facts: object) -> None:
        result[title] = facts
        print(title, json.dumps(facts, default=str), flush=True)

    started = time.perf_counter()
    config, report = protect(work, "first")
    seconds = time.perf_counter() - started
    show("counts", report.counts | {"seconds": round(seconds), "faces per second": round(report.counts["faces"] / seconds, 2)})
    show("pictures", compare_with_source(work, config))
    show("limit", {"highest similarity": report.highest_similarity, "filled": report.filled, "quarantined": report.quarantined})
    verified = verify_log(log("first"), key_store=KeyStore(config.keys or ""), data=measure(config.dst))
    show("audit", {"ok": verified.ok, "problems": list(verified.problems)})
    nothing = protect(work, "first")[1]
    show("rerun does nothing", nothing.nothing_to_do)
    hits = run_with_kills(work, 3, after, random.Random(seed))
    broken = job(work, "killed", workers=OTHER_WORKERS)
    first, second = content_of(config, key, log("first")), content_of(broken, key, log("killed"))
    show("again", {"kills that hit": hits} | {part: first[part] == second[part] for part in first})
    values, _, tried = recover_all(config, work, key, recoveries)
    show("keys", {"recovered": tried, "mean PSNR dB": round(float(np.mean(values)), 2), "worst": round(min(values), 2)})
    some = work / "some"
    some.mkdir(exist_ok=True)
    for name in ("photos-000.tar", "photos-001.tar"):
        shutil.copy(work / "src" / name, some / name)
    exact_config, _ = protect(work, "exact", src=some, transform={"preset": "fast", "recovery": "exact"})
    _, exact, tried = recover_all(exact_config, work, key, recoveries)
    show("exact", {"recovered": tried, "bit-exact": exact})
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)  # the driver that gets killed
    parser.add_argument("photos", type=Path, nargs="?")
    parser.add_argument("work", type=Path, nargs="?")
    parser.add_argument("--recoveries", type=int, default=60)
    parser.add_argument("--kill-after", type=float, nargs=2, default=(25, 75), metavar=("FROM", "TO"), help="seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.run is not None:
        protect(arguments.run, "killed", workers=OTHER_WORKERS)
        return
    if arguments.photos is None or arguments.work is None:
        parser.error("give PHOTOS and WORK")
    result = check(arguments.work, arguments.photos, arguments.recoveries, arguments.kill_after, arguments.seed)
    text = io.StringIO()
    json.dump(result, text, indent=1, default=str)
    if arguments.json:
        arguments.json.write_text(text.getvalue() + "\n")
    good = (
        result["pictures"]["wrong"] == 0
        and result["pictures"]["order kept"] == SHARDS
        and result["audit"]["ok"]
        and result["rerun does nothing"]
        and all(result["again"].values())
        and result["keys"]["mean PSNR dB"] >= 28
        and result["exact"]["recovered"] == result["exact"]["bit-exact"]
    )
    print("all checks passed" if good else "a check failed")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
