"""The real program in processes of its own, on a small real dataset that is protected once for all tests."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffpriv.keys.init import init_keys
from tests.pipelines.datasets import astronaut, coffee, encoded, group, sample, write_shards

ROOT = Path(__file__).resolve().parents[2]
PASSPHRASE = "for tests only"


@dataclass(frozen=True)
class Answer:
    """What a command gave back."""

    status: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.out)
        return document


@dataclass(frozen=True)
class Program:
    """`diffpriv`, started as a user would: another working folder, passphrases from a file."""

    folder: Path
    always: tuple[tuple[str, str], ...] = ()

    def __call__(self, *arguments: object, expect: int | None = 0, **environment: str | None) -> Answer:
        settings = {**os.environ, "PYTHONPATH": str(ROOT), "DIFFPRIV_PASSPHRASE_FILE": str(self.folder / "passphrase")}
        settings |= dict(self.always)
        for name, value in environment.items():
            settings.pop(name, None)
            if value is not None:
                settings[name] = value
        done = subprocess.run(
            [sys.executable, "-m", "diffpriv.jobs.cli", *map(str, arguments)],
            cwd=self.folder,
            env=settings,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        if expect is not None:
            assert done.returncode == expect, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return Answer(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Place:
    """A protected dataset and everything that belongs to it."""

    run: Program
    src: Path
    dst: Path
    store: Path
    audit: Path
    keys: Path
    report: dict[str, Any]

    @property
    def logged(self) -> tuple[object, ...]:
        """The options that every step of a recovery needs."""
        return ("--policy", self.keys / "policy.json", "--audit", self.audit, "--log-key", self.keys / "log.key")

    def person(self, name: str) -> Path:
        return self.keys / "people" / f"{name}.key"

    def request(self, name: str, shard: str, key: str, *more: object, by: str = "requester") -> Path:
        path = self.run.folder / f"{name}.json"
        asked = ("--shard", shard, "--sample", key, "--purpose", "a test", "--requester-key", self.person(by))
        self.run("recover", "request", path, "--data", self.dst, "--keys", self.store, "--yes", *asked, *self.logged, *more)
        return path

    def approve(self, request: Path, by: str, expect: int = 0) -> Answer:
        signed = ("--custodian-key", self.person(by), "--yes", *self.logged)
        return self.run("recover", "approve", request, *signed, expect=expect)

    def recover(self, request: Path, *more: object, expect: int = 0, **changed: Path) -> Answer:
        options = {"--data": self.dst, "--keys": self.store, "--recipient-key": self.keys / "recipient.key"}
        options |= {"--office-key": self.keys / "office.key"}
        options |= {f"--{name.replace('_', '-')}": path for name, path in changed.items()}
        given = [part for pair in options.items() for part in pair]
        out = self.run.folder / f"{request.stem}-recovered"
        return self.run("--json", "recover", "run", request, "--out", out, *given, *self.logged, *more, expect=expect)

    def log(self, *more: object) -> list[dict[str, Any]]:
        answer = self.run("--json", "audit", "show", self.audit, "--log-vkey", self.keys / "log.vkey", *more)
        entries: list[dict[str, Any]] = answer.json()["entries"]
        return entries

    def reasons(self, kind: str) -> list[str]:
        return [entry["facts"]["reason"] for entry in self.log("--kind", kind)]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    folder = tmp_path_factory.mktemp("program")
    (folder / "passphrase").write_text(PASSPHRASE + "\n")
    (folder / "passphrase").chmod(0o600)
    return Program(folder)


def cheap_keys(folder: Path) -> Path:
    """What "keys init" makes (test_startup.py runs that), with a passphrase that is cheap to stretch."""
    init_keys(folder, PASSPHRASE, iterations=1, lanes=1, memory_kib=64)
    return folder


@pytest.fixture(scope="module")
def key_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log's key serves one log, so each module has keys of its own."""
    return cheap_keys(tmp_path_factory.mktemp("keys") / "keys")


def _sanitized(program: Program, keys: Path, name: str, src: Path, *options: object) -> Place:
    base = program.folder / name
    places = ("--keys", base / "store", "--audit", base / "audit")
    signed = ("--log-key", keys / "log.key", "--recipient", keys / "recipient.json", "--policy", keys / "policy.json")
    answer = program("--json", "sanitize", src, base / "data", *places, *signed, *options)
    return Place(program, src, base / "data", base / "store", base / "audit", keys, answer.json())


@pytest.fixture(scope="session")
def shards(program: Program) -> Place:
    """Two tars: a face in a lossless picture, six in a JPEG, a picture without one, and one that is cut short."""
    cut = encoded(astronaut(256), "JPEG")
    src = write_shards(
        program.folder / "shards",
        {
            "shard-000.tar": sample("000/face", 0, encoded(astronaut(256), "PNG"), "png")
            + sample("000/nobody", 1, encoded(coffee(), "JPEG")),
            "shard-001.tar": sample("001/group", 2, encoded(group(), "JPEG", quality=90))
            + sample("001/cut", 3, cut[: len(cut) // 2]),
        },
    )
    return _sanitized(program, cheap_keys(program.folder / "keys"), "first", src, "--transform", "fill", "--recovery", "exact")


@pytest.fixture(scope="session")
def pictures(program: Program) -> Place:
    """A picture folder, protected by a job file."""
    src = program.folder / "pictures"
    (src / "a").mkdir(parents=True)
    (src / "a" / "face.png").write_bytes(encoded(astronaut(256), "PNG"))
    (src / "notes.txt").write_text("not a picture")
    job = program.folder / "job.yaml"
    settings = {"transform": {"transform": "fill", "recovery": "exact"}, "workers": {"detect_batch": 4}}
    job.write_text(yaml.safe_dump(settings))
    engine = ("--engine", "beam")  # what is asked of this one, no engine decides
    telemetry = (*engine, "--json-lines", "--metrics", program.folder / "second.prom")
    return _sanitized(
        program, cheap_keys(program.folder / "keys-2"), "second", src, "--config", job, "--transform", "blur", *telemetry
    )


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: tmp_path / name
