"""Processes to be killed, moments to kill them at, and what must be true right afterwards.

A driver is forked from a server that has imported everything, so that a start costs little. It works on the tests' Ray or, if
asked, on a Ray of its own.
"""

import contextlib
import functools
import hashlib
import multiprocessing
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from diffpriv.keys.audit.segments import AuditSegments
from diffpriv.keys.errors import DiffPrivError
from diffpriv.keys.keyfile import KeyFile
from diffpriv.keys.notes import NoteKey
from diffpriv.keys.secrets import FaceKey
from diffpriv.keys.sources import DerivedKeySource
from diffpriv.keys.store import KeyStore
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.destination.assemble import assemble_shard
from diffpriv.pipelines.destination.commit import segment_id
from diffpriv.pipelines.formats.base import data_digest
from diffpriv.pipelines.records.samples import DetectedSample, Sample
from diffpriv.pipelines.run.job import open_job
from diffpriv.pipelines.run.tracker import ShardTracker
from diffpriv.pipelines.run.worker import DetectWorker, ProtectWorker, read_shard
from tests.pipelines.conftest import PASSPHRASE, derived_source, published

REFUSED = 3  # exit code of a driver that ended with an error of ours: a clear state
BUSY = ("ray::MapWorker", "ray::MapBatches", "ray::_assemble")  # actors, readers, and the tasks that write prepared shards
FACE_SECONDS = 0.1  # per face, so that there is something to interrupt that costs no processor time


class SlowSource(DerivedKeySource):
    """Takes its time."""

    def face_key(self, context: Any, sample: str, face_index: int) -> FaceKey:
        time.sleep(FACE_SECONDS)
        return super().face_key(context, sample, face_index)


def slow_source(root: str) -> SlowSource:
    return SlowSource(Path(root).read_bytes())


def _drive(job: str, root: str, log_key: str, ray_address: str, told: str) -> None:
    with open(told, "wb") as handle:
        os.dup2(handle.fileno(), 1)
        os.dup2(handle.fileno(), 2)
    os.environ["RAY_ADDRESS"] = ray_address
    from diffpriv.pipelines.engines.ray_driver import run

    config = JobConfig.model_validate_json(Path(job).read_text())
    try:
        run(config, key_source=functools.partial(slow_source, root), log_key=NoteKey.load(log_key, PASSPHRASE))
    except DiffPrivError as error:
        print(error)
        sys.exit(REFUSED)
    except Exception:
        traceback.print_exc()
        sys.exit(1)


class Driver:
    """A job in a process of its own. `told` is what it printed."""

    def __init__(self, config: JobConfig, root: str, log_key: Path, ray_address: str = "") -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__, "diffpriv.pipelines.engines.ray_driver", "ray.data", "numpy", "cv2"])
        base = Path(config.dst).parent
        base.mkdir(parents=True, exist_ok=True)
        job, self._told = base / "job.json", base / "job.log"
        job.write_text(config.model_dump_json())
        self.process = context.Process(target=_drive, args=(str(job), root, str(log_key), ray_address, str(self._told)))
        self.process.start()

    @property
    def running(self) -> bool:
        return self.process.is_alive()

    def kill(self) -> bool:
        """Whether it was still running."""
        self.process.kill()
        return self.wait() == -signal.SIGKILL

    def wait(self) -> int:
        self.process.join()
        code = self.process.exitcode
        assert code in (0, REFUSED, -signal.SIGKILL), f"the driver failed by itself: {self.told}"
        return code or 0

    @property
    def told(self) -> str:
        return self._told.read_text(errors="replace")[-2000:] if self._told.exists() else ""


def commits(config: JobConfig) -> int:
    return len(list((Path(config.dst) / ".diffpriv/commits").glob("*.json")))


def kill_driver(driver: Driver, config: JobConfig, chance: random.Random) -> str:
    """At some moment of its life, or shortly after some commit. What was hit; empty if it was too late."""
    before = commits(config)
    wanted = before + chance.choice([0, 0, 1, 2, 3])
    while driver.running and commits(config) < wanted:
        time.sleep(0.01)
    end = time.monotonic() + chance.uniform(0, 12 if wanted == before else 0.4)
    while driver.running and time.monotonic() < end:
        time.sleep(0.05)
    return f"driver after {commits(config) - before} commits" if driver.kill() else ""


def kill_worker(driver: Driver, chance: random.Random) -> str:
    """Some busy process of the engine, which the driver must see through. What was hit; empty if the driver ended before."""
    import psutil  # comes with Ray

    patience = time.monotonic() + chance.uniform(0, 2.5)
    while driver.running:
        time.sleep(0.15)
        busy = []
        for one in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if one.name().startswith(BUSY):
                    busy.append((one.name(), one))
        if busy and time.monotonic() > patience:
            name, victim = chance.choice(busy)
            with contextlib.suppress(psutil.Error):
                victim.kill()
                victim.wait(10)
                return name
    return ""


def kill_writer(driver: Driver, config: JobConfig, chance: random.Random) -> str:
    """While it commits prepared shards, after some number of them. What was hit; empty if it was too late."""
    lease = Path(config.dst) / ".diffpriv/lease"  # there once the process is about to write; an old one must be gone
    before = prepared(config)
    wanted = max(0, before - chance.choice([1, 1, 2, 3, 4, 6]))
    while driver.running and (prepared(config) > wanted or not lease.exists()):
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.05 if before else 1))
    return f"writer, {prepared(config)} of {before} still prepared" if driver.kill() else ""


def prepared(config: JobConfig) -> int:
    return len(list((Path(config.audit) / "prepared").glob("*/*/*.json")))


def prepare_all(config: JobConfig, root: str, log_key: NoteKey) -> None:
    """Everything up to the commit, in this process: all pending shards lie prepared in staging afterwards."""
    with open_job(config, log_key) as job:
        job.begin()
        context = job.context
        detector, protector = DetectWorker(context), ProtectWorker(context, functools.partial(derived_source, root))
        for shard in job.pending:
            tracker, complete = ShardTracker(), None
            for block in read_shard(context, shard):
                looked: list[Any] = detector.detect([one for one in block if isinstance(one, Sample)])
                looked += [one for one in block if not isinstance(one, Sample)]
                results: list[Any] = protector.protect([one for one in looked if isinstance(one, DetectedSample)])
                for record in results + [one for one in looked if not isinstance(one, DetectedSample)]:
                    complete = tracker.add(record) or complete
            assert complete is not None
            assemble_shard(context, shard, complete[1], complete[0])


def assert_every_published_face_has_key_and_audit_entry(config: JobConfig) -> None:
    """What is published of a shard is what its audit entry names, to the byte, and its key file holds as many faces."""
    store, segments = KeyStore(config.keys or ""), AuditSegments(f"{config.audit}/segments")
    for shard, data in published(config.dst).items():
        keys = store.get(config.dataset, shard)
        events = segments.get(segment_id(config.dataset, shard)).events()
        (entry,) = [event.facts for event in events if event.kind == "shard committed"]
        digest = data_digest("webdataset", [(shard, hashlib.sha256(data).hexdigest())])
        assert entry["data_sha256"] == digest, f"{shard} was published before its audit entry"
        assert entry["key_file_sha256"] == hashlib.sha256(keys).hexdigest(), f"{shard} was published before its keys"
        assert len(KeyFile.parse(keys, dataset=config.dataset, shard=shard)) == entry["faces"]
