"""Keys and jobs for the tests of the job. Everything is real: key files, audit log, Ray, the detector, the baselines."""

import functools
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from diffpriv.keys.init import InitializedKeys, init_keys
from diffpriv.keys.notes import NoteKey
from diffpriv.keys.recipients import RecipientKey
from diffpriv.keys.secrets import FaceKey
from diffpriv.keys.sources import DerivedKeySource
from diffpriv.pipelines.config import JobConfig

PASSPHRASE = "for tests only"


@dataclass(frozen=True)
class Keyring:
    files: InitializedKeys
    log_key: NoteKey
    recipient_key: RecipientKey


@pytest.fixture(scope="session")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    files = init_keys(tmp_path_factory.mktemp("keyring"), PASSPHRASE, iterations=1, lanes=1, memory_kib=64)
    return Keyring(files, NoteKey.load(files.log_key, PASSPHRASE), RecipientKey.load(files.recipient_key, PASSPHRASE))


def derived_source(root: str) -> DerivedKeySource:
    """Made inside each worker from a file, so that the root travels nowhere."""
    return DerivedKeySource(Path(root).read_bytes())


@pytest.fixture(scope="session")
def derived(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], DerivedKeySource]:
    path = tmp_path_factory.mktemp("root") / "root"
    path.write_bytes(b"a fixed root for tests".ljust(32))
    return functools.partial(derived_source, str(path))


class KillingSource(DerivedKeySource):
    """Ends its process when it is asked about one sample: what a picture does that makes a native library crash."""

    def __init__(self, root: bytes, sample: str) -> None:
        super().__init__(root)
        self._sample = sample

    def face_key(self, context: Any, sample: str, face_index: int) -> FaceKey:
        if sample == self._sample:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().face_key(context, sample, face_index)


def killing_source(root: str, sample: str) -> KillingSource:
    return KillingSource(Path(root).read_bytes(), sample)


class WaitingSource(DerivedKeySource):
    """Says that it is at work (by a file) and waits, the first time, until somebody lets it go on."""

    def __init__(self, root: bytes, folder: Path) -> None:
        super().__init__(root)
        self._here, self._go_on = folder / "here", folder / "go-on"

    def face_key(self, context: Any, sample: str, face_index: int) -> FaceKey:
        self._here.touch()
        give_up = time.monotonic() + 120
        while not self._go_on.exists() and time.monotonic() < give_up:
            time.sleep(0.02)
        return super().face_key(context, sample, face_index)


def waiting_source(root: str, folder: Path) -> WaitingSource:
    return WaitingSource(Path(root).read_bytes(), folder)


@pytest.fixture
def config_for(tmp_path: Path, keyring: Keyring) -> Callable[..., JobConfig]:
    """A job under tmp_path: config_for(src, name="out", **settings)."""
    return functools.partial(make_config, tmp_path, keyring)


def make_config(base: Path, keyring: Keyring, src: Path | str, name: str = "out", **settings: Any) -> JobConfig:
    values = {
        "src": str(src),
        "dst": str(base / name / "data"),
        "keys": str(base / name / "keys"),
        "audit": str(base / name / "audit"),
        "recipients": [str(keyring.files.recipient)],
        "dataset": "faces",
        "transform": {"transform": "blur", "recovery": "exact"},
    }
    return JobConfig.from_mapping(values | settings)


def published(dst: str | Path) -> dict[str, bytes]:
    """Every published file, state left out."""
    root = Path(dst)
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files if ".diffpriv" not in path.parts}


def commit_records(dst: str | Path) -> dict[str, dict[str, Any]]:
    records = [json.loads(path.read_text()) for path in sorted((Path(dst) / ".diffpriv/commits").glob("*.json"))]
    return {record["shard"]: record for record in records}
