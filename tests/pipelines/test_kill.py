"""SIGKILL at random moments: nothing published ever lacks its key and audit entry, and a rerun loses and doubles nothing.

`pytest tests/pipelines/test_kill.py --kills 200` does 200 in episodes of a few, each with a target and random numbers of its
own: `--kill-seed` repeats them, `-k engine-07` one of them. Two kinds of episode:
    engine   drivers, readers, actors and assembling tasks of a whole job on Ray
    writer   a process that only commits: shards lie prepared, half of them replace shards that are published already
Unbroken runs, which give the same bytes on every engine (test_beam_job.py), are done in this process.
"""

import functools
import itertools
import random
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.audit.verify import verify_log
from diffpriv.keys.keyfile import KeyFile
from diffpriv.keys.store import KeyStore
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.engines.beam_driver import run as run_here
from diffpriv.pipelines.engines.ray_driver import run
from diffpriv.pipelines.run.report import RunReport
from tests.pipelines.conftest import Keyring, commit_records, make_config, published, waiting_source
from tests.pipelines.datasets import Member, astronaut, encoded, gradient, sample, small_shards, write_shards
from tests.pipelines.killing import (
    REFUSED,
    Driver,
    assert_every_published_face_has_key_and_audit_entry,
    commits,
    kill_driver,
    kill_worker,
    kill_writer,
    prepare_all,
)

ENGINE_KILLS, WRITER_KILLS = 8, 10  # per episode


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "episode" not in metafunc.fixturenames:
        return
    option = metafunc.config.getoption
    seed = option("--kill-seed") or random.SystemRandom().randrange(1 << 32)
    kills = option("--kills")
    writer = max(1, kills * 2 // 5)
    writers = [("writer", min(WRITER_KILLS, writer - done)) for done in range(0, writer, WRITER_KILLS)]
    engines = [("engine", min(ENGINE_KILLS, kills - done)) for done in range(writer, kills, ENGINE_KILLS)]
    pairs = itertools.zip_longest(engines, writers)
    wanted = [one for pair in pairs for one in pair if one is not None]
    episodes = [(kind, count, f"{seed}/{number}") for number, (kind, count) in enumerate(wanted)]
    ids = [f"{kind}-{number:02d}" for number, (kind, _, _) in enumerate(episodes)]
    metafunc.parametrize("episode", episodes, ids=ids)


@dataclass(frozen=True)
class Bench:
    """What the episodes share: sources, and what an unbroken run makes of them."""

    base: Path
    keyring: Keyring
    derived: Any
    unbroken: JobConfig
    again: JobConfig  # where sources have changed since the first commit, and all is prepared to commit the new ones
    replaced: JobConfig  # what an unbroken run makes of those

    def driver(self, config: JobConfig, ray_address: str = "") -> Driver:
        return Driver(config, self.derived.args[0], self.keyring.files.log_key, ray_address)

    def config(self, like: JobConfig, name: str) -> JobConfig:
        return make_config(self.base, self.keyring, like.src, name)

    def finish(self, config: JobConfig, engine: Callable[..., RunReport] = run_here) -> RunReport:
        return engine(config, key_source=self.derived, log_key=self.keyring.log_key)


def engine_shards() -> dict[str, list[Member]]:
    """Small pictures, so that kills are what takes time: a bad sample, samples of two pictures, shards with nobody."""
    face, other, nobody = (encoded(picture, "JPEG") for picture in (astronaut(128), astronaut(144), gradient(3, 64)))
    shards = {f"f-{n}.tar": sample(f"{n}/a", n, (face, other)[n % 2]) + sample(f"{n}/b", n, nobody) for n in range(8)}
    return shards | {
        "bad.tar": sample("a", 0, face) + sample("bad", 1, face[: len(face) // 2]) + sample("z", 2, other),
        "sub/two.tar": [("a.left.jpg", face), ("a.right.jpg", other), *sample("b", 1, nobody)],
        "nobody.tar": sample("a", 0, nobody),
        "nobody-2.tar": sample("a", 0, nobody) + sample("b", 0, nobody),
    }


def writer_shards(change: int) -> dict[str, list[Member]]:
    """8 shards, and after the change 16: the first 8 are others, and 8 are new."""
    face = encoded(astronaut((128, 144)[change]), "JPEG")
    return {f"w-{n:02d}.tar": sample(f"{n}/a", n, face) for n in range(8 + 8 * change)}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, keyring: Keyring, derived: Any, ray_session: None) -> Bench:
    base = tmp_path_factory.mktemp("kills")
    changing = write_shards(base / "changing", writer_shards(0))
    unbroken = make_config(base, keyring, write_shards(base / "src", engine_shards()), "unbroken")
    replaced, again = (make_config(base, keyring, changing, name) for name in ("replaced", "again"))
    made = Bench(base, keyring, derived, unbroken, again, replaced)
    made.finish(unbroken)
    for config in (replaced, again):
        prepare_all(config, derived.args[0], keyring.log_key)
        made.finish(config)
    write_shards(changing, writer_shards(1))
    for config in (replaced, again):
        prepare_all(config, derived.args[0], keyring.log_key)
    made.finish(replaced)
    return made


def test_a_killed_job_run_again_ends_as_if_nothing_had_happened(episode: tuple[str, int, str], bench: Bench) -> None:
    kind, kills, seed = episode
    play = play_engine if kind == "engine" else play_writer
    moments: list[str] = []
    try:
        play(bench, kills, random.Random(seed), seed.replace("/", "-"), moments)
    finally:
        print(f"seed {seed}: killed {len(moments)}: {moments}")


def play_engine(bench: Bench, kills: int, chance: random.Random, name: str, moments: list[str]) -> None:
    import ray

    there = ray.get_runtime_context().gcs_address
    config = bench.config(bench.unbroken, f"engine-{name}")
    while len(moments) < kills:
        driver = bench.driver(config, "" if chance.random() < 0.1 else there)
        workers = 0
        for _ in range(chance.randint(0, 4)):
            if len(moments) < kills and (what := kill_worker(driver, chance)):
                moments.append(what)
                workers += 1
                assert_every_published_face_has_key_and_audit_entry(config)
        if len(moments) < kills and chance.random() < 0.7:
            if what := kill_driver(driver, config, chance):
                moments.append(what)
        else:
            assert driver.wait() != REFUSED or workers, driver.told
        assert_every_published_face_has_key_and_audit_entry(config)
        if commits(config) == len(engine_shards()) and len(moments) < kills:  # late kills would find little left to break
            assert_equal_to_unbroken(bench, config, bench.unbroken, run)
            config = bench.config(bench.unbroken, f"engine-{name}-{len(moments)}")
    assert_equal_to_unbroken(bench, config, bench.unbroken, run)


def play_writer(bench: Bench, kills: int, chance: random.Random, name: str, moments: list[str]) -> None:
    copies = 0
    while len(moments) < kills:
        config = bench.config(bench.again, f"writer-{name}-{copies}")
        copies += 1
        shutil.copytree(Path(bench.again.dst).parent, Path(config.dst).parent, symlinks=True)
        hit = True
        while hit and len(moments) < kills:
            (Path(config.dst) / ".diffpriv/lease").unlink()  # a new one shows when the next process has begun
            driver = bench.driver(config)
            what = kill_writer(driver, config, chance)
            assert_every_published_face_has_key_and_audit_entry(config)
            hit = bool(what)
            moments += [what] * hit
        assert_equal_to_unbroken(bench, config, bench.replaced)


def assert_equal_to_unbroken(
    bench: Bench, config: JobConfig, unbroken: JobConfig, engine: Callable[..., RunReport] = run_here
) -> None:
    report = bench.finish(config, engine)
    assert report.ok
    assert published(config.dst) == published(unbroken.dst)
    records, expected = commit_records(config.dst), commit_records(unbroken.dst)
    for fact in ("faces", "counts", "files", "quarantined"):
        assert {name: one[fact] for name, one in records.items()} == {name: one[fact] for name, one in expected.items()}
    store, other = KeyStore(config.keys or ""), KeyStore(unbroken.keys or "")
    assert store.list() == other.list()
    for dataset, shard in store.list():
        mine, theirs = (KeyFile.parse(place.get(dataset, shard)) for place in (store, other))
        assert mine.faces() == theirs.faces()
        for face in mine.faces():
            one, two = (file.open_face(*face, bench.keyring.recipient_key) for file in (mine, theirs))
            assert one.key.same_as(two.key)
            assert one.payload == two.payload
    logs = [AuditLog(one.audit, bench.keyring.log_key) for one in (config, unbroken)]
    assert verify_log(logs[0], key_store=store, recipient_key=bench.keyring.recipient_key).problems == []
    committed = [sorted(e.facts["shard"] for _, e in log.events() if e.kind == "shard committed") for log in logs]
    assert committed[0] == committed[1], "a shard was logged twice or not at all"
    assert not (Path(config.dst) / ".diffpriv/staging").exists()


def test_a_sample_that_kills_its_worker_is_found_and_the_job_finishes(
    tmp_path: Path, config_for: Callable[..., JobConfig], derived: Any, keyring: Keyring, ray_session: None
) -> None:
    from tests.pipelines.conftest import killing_source

    shards = small_shards()
    src = write_shards(tmp_path / "src", {name: shards[name] for name in ("shard-000.tar", "sub/shard-002.tar")})
    config = config_for(src, workers={"restarts": 1})
    poisoned = functools.partial(killing_source, derived.args[0], "002/c")
    report = run(config, key_source=poisoned, log_key=keyring.log_key)
    assert report.ok
    assert report.counts["samples_quarantined"] == 2
    assert report.quarantined["it ended the process that worked on it"] == 1
    assert "002/c" in (Path(config.dst) / ".diffpriv/quarantine/sub%2Fshard-002.tar.jsonl").read_text()
    assert verify_log(AuditLog(config.audit, keyring.log_key), key_store=KeyStore(config.keys or "")).problems == []


def test_a_lost_worker_costs_nothing(
    tmp_path: Path, config_for: Callable[..., JobConfig], derived: Any, keyring: Keyring, ray_session: None
) -> None:
    """Workers killed from outside are replaced, and no sample is blamed for it."""
    import psutil  # comes with Ray

    src = write_shards(tmp_path / "src", small_shards())
    unbroken = config_for(src, "unbroken")
    run_here(unbroken, key_source=derived)
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
