"""Cost of the audit log and of sealing, on one core: python -m benchmarks.keys_bench [--entries N] [--faces N] [--record].

Bars: 10^6 log entries appended and verified whole in <= 60 s and <= 500 MB; an inclusion proof in <= 10 ms; 10^6 face records
sealed at >= 20,000 a second, with <= 120 bytes each beyond their payload; for 5 custodians a shard's lock made in <= 150 ms,
with <= 1.5 KB a custodian, and a case of 20 shards approved in <= 3 s. Each measurement runs in a process of its own, pinned to
one core, so that its peak memory is its own. Times are seconds of that core (user + system), which other work on the machine
does not change much; the wall clock stands beside them.
"""

import argparse
import json
import multiprocessing
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, record
from diffpriv.keys.audit.verify import verify_log

CONFIG = "c0" * 32
NOW = 1_790_000_000
SEGMENT = 1000  # events per segment: about one shard's


def log_entries(entries: int) -> dict[str, Any]:
    """Segments of 1,000 events (one commit, else quarantined samples and runs), integrated, verified, proven."""
    from diffpriv.keys.audit.events import AuditEvent, run_started, sample_quarantined
    from diffpriv.keys.audit.log import AuditLog
    from diffpriv.keys.audit.proofs import prove_inclusion
    from diffpriv.keys.context import ShardContext
    from diffpriv.keys.notes import NoteKey

    with tempfile.TemporaryDirectory() as folder:
        log = AuditLog(folder, NoteKey.create("bench.local/audit"))
        context = ShardContext("bench", "shard", CONFIG)

        def events() -> Any:
            for number in range(entries):
                if number % SEGMENT == 0:
                    facts = {
                        "run": "r",
                        "dataset": "bench",
                        "shard": f"shard-{number:07d}",
                        "config_digest": CONFIG,
                        "faces": 900,
                    }
                    digests = {"key_file_sha256": f"{number:064x}", "data_sha256": f"{number + 1:064x}"}
                    yield AuditEvent("shard committed", NOW + number, facts | digests)
                elif number % 2:
                    yield run_started(NOW + number, f"run-{number}", "bench", CONFIG)
                else:
                    yield sample_quarantined(NOW + number, "r", context, f"{number:064x}", "truncated")

        wall, start = time.perf_counter(), time.process_time()
        log.append(events())
        appended = time.process_time()
        report = verify_log(log)
        verified, wall = time.process_time(), time.perf_counter() - wall
        if not report.ok or report.size != entries:
            raise RuntimeError(f"the log does not verify: {report.problems[:3]}")
        proofs = []
        rng = random.Random(1)
        for _ in range(50):
            index = rng.randrange(entries)
            begin = time.process_time()
            prove_inclusion(log, index)
            proofs.append(time.process_time() - begin)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return {
        "entries": entries,
        "append_s": appended - start,
        "verify_s": verified - appended,
        "append_and_verify_s": verified - start,
        "append_and_verify_wall_s": wall,
        "peak_mb": peak_mb(),
        "proof_median_ms": 1000 * statistics.median(proofs),
        "proof_worst_ms": 1000 * max(proofs),
        "log_bytes_per_entry": size / entries,
    }


def face_records(faces: int, payload: int = 64, shard: int = 10_000, part: int = 512) -> dict[str, Any]:
    """Seal `faces` records, as 10,000 faces a shard in parts of 512 to one recipient; write and read back the key files."""
    from diffpriv.keys.context import ShardContext
    from diffpriv.keys.keyfile import KeyFile, build_key_file
    from diffpriv.keys.recipients import RecipientKey
    from diffpriv.keys.sealing import FaceSecret, seal_part
    from diffpriv.keys.sources import RandomKeySource

    key = RecipientKey.generate()
    source = RandomKeySource()
    body = os.urandom(payload)
    sealing = building = opening = 0.0
    wall = time.perf_counter()
    size = 0
    for first in range(0, faces, shard):
        context = ShardContext("bench", f"shard-{first // shard:06d}.tar", CONFIG)
        count = min(shard, faces - first)
        parts = []
        begin = time.process_time()
        for at in range(0, count, part):
            batch = range(first + at, first + min(at + part, count))
            secrets = [FaceSecret(f"{number:09d}", 0, source.face_key(context, f"{number:09d}", 0), body) for number in batch]
            parts.append(seal_part(context, [key.recipient], secrets))
        sealed = time.process_time()
        data = build_key_file(context, parts)
        built = time.process_time()
        file = KeyFile.parse(data)
        file.open_face(f"{first + count // 2:09d}", 0, key)
        sealing, building, opening = sealing + sealed - begin, building + built - sealed, opening + time.process_time() - built
        size += len(data)
    shards = -(-faces // shard)
    return {
        "faces": faces,
        "payload_bytes": payload,
        "seal_per_s": faces / sealing,
        "wall_s": time.perf_counter() - wall,
        "seal_and_build_per_s": faces / (sealing + building),
        "bytes_beyond_payload": size / faces - payload,
        "open_one_face_ms": 1000 * opening / shards,
        "peak_mb": peak_mb(),
    }


def shard_locks(shards: int = 20, custodians: int = 5, quorum: int = 3) -> dict[str, Any]:
    """A custody policy's cost: making locks, their bytes in key files, a custodian's approval of a case of all shards."""
    from diffpriv.keys.context import ShardContext
    from diffpriv.keys.custodians import CustodianKey, CustodyPolicy
    from diffpriv.keys.keyfile import KeyFile, build_key_file
    from diffpriv.keys.quorum import ShardLock
    from diffpriv.keys.recipients import RecipientKey
    from diffpriv.keys.requests import CaseLock, Decision, FaceRef, RecoveryRequest
    from diffpriv.keys.sealing import FaceSecret, seal_part
    from diffpriv.keys.secrets import FaceKey

    people = [CustodianKey.create(f"custodian {number}") for number in range(custodians)]
    requester, recipient, run_key = CustodianKey.create("requester"), RecipientKey.generate(), RecipientKey.generate()
    policy = CustodyPolicy(quorum, tuple(one.custodian for one in people), (requester.custodian,))
    fewer = CustodyPolicy(quorum, policy.custodians[1:], policy.requesters)
    locking, faces, locks, sizes = [], [], [], []
    for number in range(shards):
        context = ShardContext("bench", f"shard-{number:06d}.tar", CONFIG)
        begin = time.process_time()
        lock = ShardLock.make(context, policy)
        locking.append(time.process_time() - begin)
        secrets = [FaceSecret("face", 0, FaceKey.generate(), b"")]
        locked, smaller, plain = (
            build_key_file(context, [seal_part(context, [recipient.recipient], secrets, one)])
            for one in (lock, ShardLock.make(context, fewer), None)
        )
        sizes.append((len(locked) - len(smaller), len(locked) - len(plain)))
        faces.append(FaceRef("bench", context.shard, "face", 0, KeyFile.parse(locked).record_digest("face", 0)))
        locks.append(CaseLock(context, lock))
    options: dict[str, Any] = {"now": NOW, "expires_at": NOW + 60, "run_key": run_key.recipient, "locks": locks}
    asked = RecoveryRequest.make(faces, "a measurement", requester, policy, **options)
    begin = time.process_time()
    Decision.make(asked, people[0], "approve", now=NOW)
    return {
        "shards": shards,
        "custodians": custodians,
        "lock_ms": 1000 * statistics.median(locking),
        "lock_worst_ms": 1000 * max(locking),
        "bytes_per_custodian": statistics.mean(one for one, _ in sizes),
        "bytes_in_all": statistics.mean(whole for _, whole in sizes),
        "approval_s": time.process_time() - begin,
    }


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _in_child(measure: str, arguments: dict[str, Any], results: Any) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    results.put(globals()[measure](**arguments))


def measured(measure: str, **arguments: Any) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    child = context.Process(target=_in_child, args=(measure, arguments, results))
    child.start()
    while child.is_alive() and results.empty():
        child.join(0.2)
    if child.exitcode:
        sys.exit(f"{measure} failed")
    found = results.get()
    child.join()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--faces", type=int, default=1_000_000)
    parser.add_argument("--record", action="store_true", help="keep the figures for docs/figures.md")
    parser.add_argument("--json", help="write the figures there too")
    options = parser.parse_args()
    log = measured("log_entries", entries=options.entries)
    seal = measured("face_records", faces=options.faces)
    locks = measured("shard_locks")
    both, proof = log["append_and_verify_s"], log["proof_median_ms"]
    extra = seal["bytes_beyond_payload"]
    rows = [
        (f"{log['entries']:,} entries appended and verified", f"{both:.1f} s", "<= 60 s", both <= 60),
        ("  append / verify", f"{log['append_s']:.1f} / {log['verify_s']:.1f} s", "", True),
        ("  wall clock", f"{log['append_and_verify_wall_s']:.1f} s", "", True),
        ("  peak memory", f"{log['peak_mb']:.0f} MB", "<= 500 MB", log["peak_mb"] <= 500),
        ("inclusion proof, median / worst of 50", f"{proof:.1f} / {log['proof_worst_ms']:.1f} ms", "<= 10 ms", proof <= 10),
        (
            f"{seal['faces']:,} face records sealed",
            f"{seal['seal_per_s']:,.0f} /s",
            ">= 20,000 /s",
            seal["seal_per_s"] >= 20_000,
        ),
        ("  with the key files written", f"{seal['seal_and_build_per_s']:,.0f} /s", "", True),
        ("bytes per record beyond its payload", f"{extra:.1f}", "<= 120", extra <= 120),
        ("one face opened out of its shard's file", f"{seal['open_one_face_ms']:.1f} ms", "", True),
        (
            f"a shard's lock for {locks['custodians']} custodians made, median / worst",
            f"{locks['lock_ms']:.1f} / {locks['lock_worst_ms']:.1f} ms",
            "<= 150 ms",
            locks["lock_ms"] <= 150,
        ),
        (
            f"key file of a shard locked for {locks['custodians']} custodians: more bytes for each custodian / in all",
            f"{locks['bytes_per_custodian']:,.0f} / {locks['bytes_in_all']:,.0f}",
            "<= 1,536",
            locks["bytes_per_custodian"] <= 1536,
        ),
        (
            f"a custodian approves a case of {locks['shards']} locked shards",
            f"{locks['approval_s']:.2f} s",
            "<= 3 s",
            locks["approval_s"] <= 3,
        ),
    ]
    for name, value, bar, good in rows:
        print(f"{name:46} {value:>18}  {bar:14} {'' if good else 'MISSED'}")
    figures = json.dumps({"log": log, "sealing": seal, "locks": locks, "load_average": os.getloadavg()}, indent=2)
    print(figures)
    if options.record:
        command = "python -m benchmarks.keys_bench --record"
        record(
            "keys_bench",
            *(
                Figure("Speed and memory", name.strip(), value, command)
                for name, value, _, _ in rows
                if not name.startswith("  ")
            ),
        )
    if options.json:
        Path(options.json).write_text(figures + "\n", encoding="utf-8")
    return 0 if all(good for *_, good in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
