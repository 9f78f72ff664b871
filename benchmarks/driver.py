"""What a job of very many shards costs its driver: listing, planning and resuming, with tiny files in place of shards.

    python -m benchmarks.driver WORK --shards 100000             on this disk; records the figures with --record
    python -m benchmarks.driver WORK --s3 --shards 1000          on a moto server; counts the requests of a resume

The files are made by a writer of this benchmark, records as a job writes them; what is measured is `open_job` and
`Job.finish` as they are. Three times: every record on its own ("first"), which writes the pages; a resume from pages; the same
with a page's worth of shards to do.
"""

import argparse
import json
import logging
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, record
from diffpriv.pipelines import layout
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.destination.record import CommitRecord, PublishedFace, PublishedFile
from diffpriv.pipelines.formats.base import Shard
from diffpriv.pipelines.formats.source import open_source
from diffpriv.pipelines.run.job import open_job
from diffpriv.pipelines.run.report import COUNTS

FACES = 8  # in each record: with its samples' names, what makes a record large
CONTENT = b"tiny"


def config_for(work: str) -> JobConfig:
    places = {"src": f"{work}/in", "dst": f"{work}/out", "audit": f"{work}/audit"}
    transform = {"transform": "fill", "recovery": "none"}
    return JobConfig.from_mapping({**places, "dataset": "many", "transform": transform})


def tiny_record(config: JobConfig, digest: str, shard: Shard) -> CommitRecord:
    faces = tuple(PublishedFace(f"sample-{n:06d}", 0, "jpg", "filled", False, (1.0, 2.0, 3.0, 4.0)) for n in range(FACES))
    counted = ("samples_in", "samples_out", "pictures", "pictures_changed", "faces", "faces_filled")
    return CommitRecord(
        dataset=config.dataset,
        shard=shard.name,
        attempt="0" * 32,
        run="made",
        config_digest=digest,
        format=shard.format,
        made_by={"device": "cpu"},
        source_files=tuple((one.name, one.size, one.version) for one in shard.files),
        source_sha256="0" * 64,
        counts=dict.fromkeys(COUNTS, 0) | dict.fromkeys(counted, FACES),
        reasons={"quarantined": {}, "filled": {"asked for": FACES}, "left": {}},
        quarantined=(),
        sidecars={},
        sidecar_rule="report",
        decisions="",
        highest_similarity=None,
        faces=faces,
        files=(PublishedFile(shard.name, "0" * 64, len(CONTENT)),),
        segment_id=f"shard/{config.dataset}/{shard.name}",
        segment_sha256="0" * 64,
    )


def make(config: JobConfig, shards: int) -> None:
    """SRC, DST and its records, as a job would have left them."""
    source, target = Path(config.src), Path(config.dst)
    for folder in (source, target / layout.COMMITS):
        folder.mkdir(parents=True)
    for number in range(shards):
        (source / f"shard-{number:06d}.tar").write_bytes(CONTENT)
    with open_job(config) as job:
        digest = job.digest
        for shard in job.shards:
            (target / shard.name).write_bytes(CONTENT)
            (target / layout.commit_record(shard.name)).write_bytes(tiny_record(config, digest, shard).encode())


def make_remote(config: JobConfig, shards: int) -> None:
    """The same on an object store, whose versions are known only afterwards."""
    import fsspec

    store, _ = fsspec.core.url_to_fs(config.src)
    for number in range(shards):
        for place in (config.src, config.dst):
            store.pipe_file(f"{place}/shard-{number:06d}.tar", CONTENT)
    store.pipe_file(f"{config.dst}/{layout.JOB}", b"{}")
    with open_job(config) as job:
        for shard in open_source(config.src).shards(1):
            store.pipe_file(f"{config.dst}/{layout.commit_record(shard.name)}", tiny_record(config, job.digest, shard).encode())


def resume(config: JobConfig, *, finish: bool) -> dict[str, Any]:
    """Open the job, and close it; in a process of its own, for its memory."""
    began, cpu = time.monotonic(), time.process_time()
    with open_job(config) as job:
        planned = time.monotonic() - began
        found = {"shards": len(job.shards), "done": len(job.committed), "pending": len(job.pending)}
        if finish:
            job.finish()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    return {**found, "planned": planned, "seconds": seconds, "cpu": cpu, "peak_mb": peak / 1024}


def child(work: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.driver", work, "--child"], check=True, capture_output=True, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def local(work: str, shards: int, *, keep: bool) -> None:
    config = config_for(work)
    make(config, shards)
    figures = []
    for how in ("each record read on its own, and pages written", "from pages"):
        found = child(work)
        print(json.dumps({"what": how, **found}))
        figure = f"{found['seconds']:.0f} s ({found['cpu']:.0f} s of CPU), {found['peak_mb']:.0f} MB"
        what = f"a job of {shards:,} published shards opened and closed, {how}"
        figures.append(Figure("Speed and memory", what, figure, f"python -m benchmarks.driver WORK --shards {shards}"))
    if keep:
        record("driver", *figures)


class Requests(logging.Handler):
    """Counts what a moto server answers."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, entry: logging.LogRecord) -> None:
        self.count += '"' in entry.getMessage()


def remote(shards: int, *, keep: bool) -> None:
    import os

    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    key = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ.update(key, AWS_ENDPOINT_URL=f"http://{host}:{port}")
    s3fs.S3FileSystem(use_listings_cache=False).mkdir("many")
    requests, log = Requests(), logging.getLogger("werkzeug")
    log.setLevel(logging.INFO)
    log.handlers, log.propagate = [requests], False
    config = config_for("s3://many")
    make_remote(config, shards)
    figures = []
    for how in ("each record read on its own", "from pages"):
        before = requests.count
        found = resume(config, finish=True)
        asked = requests.count - before
        print(json.dumps({"what": how, "requests": asked, **found}))
        what = f"requests to S3 of the same with {shards:,} shards, {how}"
        command = f"python -m benchmarks.driver WORK --s3 --shards {shards}"
        figures.append(Figure("Speed and memory", what, f"{asked:,}", command))
    if keep:
        record("driver", *figures)
    server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", help="an empty folder")
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--s3", action="store_true")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(resume(config_for(given.work), finish=True)))
    elif given.s3:
        remote(given.shards, keep=given.record)
    else:
        local(given.work, given.shards, keep=given.record)


if __name__ == "__main__":
    main()
