"""SIGKILL at random moments: nothing published ever lacks its key and audit entry, and a rerun loses and doubles nothing."""

import contextlib
import functools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keys.audit.log import AuditLog
from keys.audit.segments import AuditSegments
from keys.keyfile import KeyFile
from keys.store import KeyStore
from pipelines.commit import segment_id
from pipelines.config import JobConfig
from pipelines.ray_driver import run
from tests.pipelines.conftest import Keyring, commit_records, published, waiting_source
from tests.pipelines.datasets import encoded, gradient, group, sample, small_shards, write_shards

SEED = random.SystemRandom().randrange(1 << 32)  # printed on failure, so that a failing moment can be looked at again


def kill_shards() -> dict[str, Any]:
    """Twelve shards, so that there are many moments: the small ones, and copies of one with faces and one without."""
    extra = {f"x-{number}.tar": sample(f"x{number}/a", 0, encoded(group(), "JPEG")) for number in range(4)}
    extra |= {f"y-{number}.tar": sample(f"y{number}/a", 0, encoded(gradient(number), "JPEG")) for number in range(4)}
    return small_shards() | extra


def start(job: Path, derived: Any, keyring: Keyring) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.pipelines.run_job", str(job), derived.args[0], str(keyring.files.log_key)]
    with job.with_suffix(".log").open("wb") as told:
        return subprocess.Popen(command, stdout=told, stderr=told, env={**os.environ, "RAY_ADDRESS": ""})


def watch_and_kill(process: subprocess.Popen[bytes], config: JobConfig, chance: random.Random) -> str:
    """Kill the driver some random moment after a random number of commits (0: at any time, from its start on)."""
    commits = Path(config.dst) / "_diffpriv/commits"
    before = len(list(commits.glob("*.json")))
    wanted = before + chance.choice([0, 0, 1, 2, 3])
    while process.poll() is None and len(list(commits.glob("*.json"))) < wanted:
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 20 if wanted == before else 0.4))
    process.send_signal(signal.SIGKILL)
    status = process.wait()
    told = (Path(config.dst).parents[1] / "job.log").read_text(errors="replace")[-2000:]
    assert status in (-signal.SIGKILL, 0), f"the driver failed by itself: {told}"
    return f"after {len(list(commits.glob('*.json'))) - before} commits" if status else "too late"


def kill_a_worker(process: subprocess.Popen[bytes], chance: random.Random) -> str:
    """Kill some process of the engine, at some moment after the first actor is there; the driver must see it through."""
    import psutil  # comes with Ray

    driver = psutil.Process(process.pid)
    victims: list[Any] = []
    while process.poll() is None and not victims:
        time.sleep(0.05)
        with contextlib.suppress(psutil.Error):
            victims = [one for one in driver.children(recursive=True) if one.name().startswith("ray::")]
    time.sleep(chance.uniform(0, 5))
    with contextlib.suppress(psutil.Error, IndexError):
        victims = [one for one in driver.children(recursive=True) if one.name().startswith("ray::")]
        victim = chance.choice(victims)
        name = victim.name()
        victim.kill()
        process.wait()
        return f"{name}, driver ended with {process.returncode}"
    process.wait()
    return "too late"


def assert_every_published_face_has_key_and_audit_entry(config: JobConfig, src: dict[str, Any]) -> None:
    store, segments = KeyStore(config.keys or ""), AuditSegments(f"{config.audit}/segments")
    for shard in published(config.dst):
        assert shard in src, f"{shard} was never a shard"
        file = KeyFile.parse(store.get("faces", shard), dataset="faces", shard=shard)
        committed = [e for e in segments.get(segment_id("faces", shard)).events() if e.kind == "shard committed"]
        assert len(committed) == 1, f"{shard} has {len(committed)} commit events"
        assert committed[0].facts["faces"] == len(file)


@pytest.mark.parametrize("kills", [3, pytest.param(4, marks=pytest.mark.slow), pytest.param(60, marks=pytest.mark.slow)])
def test_a_killed_job_run_again_ends_as_if_nothing_had_happened(
    kills: int, tmp_path: Path, config_for: Callable[..., JobConfig], derived: Any, keyring: Keyring, ray_session: None
) -> None:
    chance = random.Random(SEED)
    shards = kill_shards()
    src = write_shards(tmp_path / "src", shards)
    unbroken = config_for(src, "unbroken")
    whole = run(unbroken, key_source=derived, log_key=keyring.log_key)

    config = config_for(src, "broken")
    job = tmp_path / "job.json"
    job.write_text(config.model_dump_json())
    moments = []
    for number in range(kills):
        if number % 3 == 0 and number:  # a fresh target after every third kill: late kills find little left to break
            assert_equal_to_unbroken(config, unbroken, whole, derived, keyring, moments)
            config = config_for(src, f"broken-{number}")
            job.write_text(config.model_dump_json())
        process = start(job, derived, keyring)
        if number % 3 == 2 and kills > 3:
            moments.append(kill_a_worker(process, chance))
        else:
            moments.append(watch_and_kill(process, config, chance))
        assert_every_published_face_has_key_and_audit_entry(config, shards)
    assert_equal_to_unbroken(config, unbroken, whole, derived, keyring, moments)
    print(f"seed {SEED}, killed {moments}")
    assert set(moments) != {"too late"}


def assert_equal_to_unbroken(
    config: JobConfig, unbroken: JobConfig, whole: Any, derived: Any, keyring: Keyring, moments: list[str]
) -> None:
    told = f"seed {SEED}, killed {moments}"
    report = run(config, key_source=derived, log_key=keyring.log_key)
    assert report.ok, told
    assert report.counts == whole.counts, told
    assert published(config.dst) == published(unbroken.dst), told
    records, expected = commit_records(config.dst), commit_records(unbroken.dst)
    assert {name: record["faces"] for name, record in records.items()} == {n: r["faces"] for n, r in expected.items()}, told
    store, other = KeyStore(config.keys or ""), KeyStore(unbroken.keys or "")
    assert store.list() == other.list(), told
    for dataset, shard in store.list():
        mine, theirs = (KeyFile.parse(place.get(dataset, shard)) for place in (store, other))
        assert mine.faces() == theirs.faces(), told
        for face in mine.faces():
            one, two = mine.open_face(*face, keyring.recipient_key), theirs.open_face(*face, keyring.recipient_key)
            assert one.key.same_as(two.key), told
            assert one.payload == two.payload, told
    log = AuditLog(config.audit, keyring.log_key)
    assert log.verify(key_store=store, recipient_key=keyring.recipient_key).problems == [], told
    committed = [event.facts["shard"] for _, event in log.events() if event.kind == "shard committed"]
    assert sorted(committed) == sorted(expected), f"a shard was logged twice or not at all; {told}"
    assert not (Path(config.dst) / "_diffpriv/staging").exists(), told


def test_a_sample_that_kills_its_worker_is_found_and_the_job_finishes(
    tmp_path: Path, config_for: Callable[..., JobConfig], derived: Any, keyring: Keyring, ray_session: None
) -> None:
    from tests.pipelines.conftest import killing_source

    src = write_shards(tmp_path / "src", small_shards())
    config = config_for(src, workers={"restarts": 1})
    poisoned = functools.partial(killing_source, derived.args[0], "002/c")
    report = run(config, key_source=poisoned, log_key=keyring.log_key)
    assert report.ok
    assert report.counts["samples_quarantined"] == 2
    assert report.quarantined["it ended the process that worked on it"] == 1
    assert "002/c" in (Path(config.dst) / "_diffpriv/quarantine/sub%2Fshard-002.tar.jsonl").read_text()
    assert AuditLog(config.audit, keyring.log_key).verify(key_store=KeyStore(config.keys or "")).problems == []


def test_a_lost_worker_costs_nothing(
    tmp_path: Path, config_for: Callable[..., JobConfig], derived: Any, keyring: Keyring, ray_session: None
) -> None:
    """Workers killed from outside are replaced, and no sample is blamed for it."""
    import psutil  # comes with Ray

    src = write_shards(tmp_path / "src", small_shards())
    unbroken = config_for(src, "unbroken")
    run(unbroken, key_source=derived)
    config = config_for(src, "broken")
    killed: list[int] = []

    def kill_workers() -> None:
        """Once the protecting worker is at a face, so that both kinds are there and busy."""
        while not (tmp_path / "here").exists():
            time.sleep(0.02)
        for process in psutil.Process().children(recursive=True):
            if any("_Protect" in part or "_Detect" in part for part in process.cmdline()):
                process.kill()
                killed.append(process.pid)
        (tmp_path / "go-on").touch()

    killer = threading.Thread(target=kill_workers, daemon=True)
    killer.start()
    report = run(config, key_source=functools.partial(waiting_source, derived.args[0], tmp_path))
    killer.join(timeout=60)
    assert len(killed) >= 2, "no worker was killed: the test tested nothing"
    assert report.ok
    assert published(config.dst) == published(unbroken.dst)
