"""Under Beam a sample that kills its worker kills the run; reruns find it, quarantine it and finish."""

import functools
import multiprocessing
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.audit.verify import verify_log
from diffpriv.keys.store import KeyStore
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.layout import SUSPECTS
from tests.pipelines.conftest import Keyring, killing_source, published
from tests.pipelines.datasets import astronaut, encoded, gradient, sample, write_shards

beam_driver = pytest.importorskip("diffpriv.pipelines.engines.beam_driver", reason="needs the extra beam")


def attempt(config: JobConfig, root: str, victim: str) -> None:
    beam_driver.run(config, key_source=functools.partial(killing_source, root, victim))


def test_a_sample_that_kills_beam_runs_is_found_by_reruns(
    tmp_path: Path, config_for: Callable[..., JobConfig], derived: Any, keyring: Keyring
) -> None:
    face, nobody = encoded(astronaut(128), "JPEG"), encoded(gradient(1, 64), "JPEG")
    shards = {"a.tar": sample("a", 0, face) + sample("b", 1, face) + sample("c", 2, nobody), "b.tar": sample("d", 0, face)}
    config = config_for(write_shards(tmp_path / "src", shards), engine="beam")
    root = derived.args[0]
    codes = []
    while signal.SIGKILL not in codes or codes[-1]:
        process = multiprocessing.get_context("fork").Process(target=attempt, args=(config, root, "b"))
        process.start()
        process.join()
        codes.append(process.exitcode and -process.exitcode)
        assert len(codes) <= 4, f"no end of it: {codes}"
    assert codes == [signal.SIGKILL] * 3 + [0]
    report = beam_driver.run(config, key_source=derived, log_key=keyring.log_key)
    assert report.ok
    assert report.quarantined == {"it ended the process that worked on it": 1}
    assert report.counts["samples_out"] == 3
    assert not (Path(config.dst) / SUSPECTS).exists()
    assert published(config.dst).keys() == {"a.tar", "b.tar"}
    assert verify_log(AuditLog(config.audit, keyring.log_key), key_store=KeyStore(config.keys or "")).problems == []
