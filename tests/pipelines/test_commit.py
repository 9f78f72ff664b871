"""The ordering rule, crashed at every single step."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diffpriv.keys.audit.segments import AuditSegments
from diffpriv.keys.context import ShardContext
from diffpriv.keys.keyfile import build_key_file
from diffpriv.keys.store import KeyStore
from diffpriv.pipelines.destination.commit import Commit, Prepared, prepared_place, segment_id
from diffpriv.pipelines.destination.lease import hold_lease
from diffpriv.pipelines.destination.record import CommitRecord, PublishedFile, read_record
from diffpriv.pipelines.errors import LeaseError, ShardError
from diffpriv.pipelines.formats.base import OutputFile
from diffpriv.pipelines.storage import Folder

CONTEXT = ShardContext("faces", "a/b.tar", "0" * 64)


class Crash(Exception):
    """The process ends here."""


class Watched:
    """A real store or folder that ends the process before its n-th change of anything (the count is shared)."""

    def __init__(self, inner: Any, clock: Iterator[int], last: int, check: Any) -> None:
        self._inner, self._clock, self._last, self._check = inner, clock, last, check

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if name == "small":
            return Watched(value, self._clock, self._last, self._check)
        if name not in ("put", "move", "remove", "write", "delete", "remove_tree"):
            return value

        def watched(*arguments: Any) -> Any:
            self._check()
            if next(self._clock) >= self._last:
                raise Crash
            return value(*arguments)

        return watched


class World:
    """DST, key store and audit segments, and shards prepared for them."""

    def __init__(self, base: Path) -> None:
        self.data, self.keys = Folder(str(base / "data")), KeyStore(base / "keys")
        self.segments = AuditSegments(base / "audit/segments")
        self.prepared = prepared_place(str(base / "audit"))

    def prepare(self, version: int, files: int = 2) -> Prepared:
        """Version n of the shard: its data and key file say n, so that the two can be matched."""
        folder = f".diffpriv/staging/run-{version}/shard"
        made = []
        for number in range(files):
            with self.data.writing(f"{folder}/try/{number}") as out:
                out.write(b"version %d" % version)
            made.append(self._described(f"{folder}/try/{number}", f"part-{number}.bin"))
        context = ShardContext("faces", "a/b.tar", f"{version:064x}")
        self.data.small.write(f"{folder}/try/keyfile", build_key_file(context, []))
        facts = {
            "run": f"run-{version}",
            "dataset": "faces",
            "shard": "a/b.tar",
            "config_digest": context.config_digest,
            "faces": 0,
            "key_file_sha256": "",
            "data_sha256": "",
        }
        record = CommitRecord(
            dataset="faces",
            shard="a/b.tar",
            attempt=f"attempt-{version}",
            run=f"run-{version}",
            config_digest=context.config_digest,
            format="webdataset",
            made_by={},
            source_files=(),
            source_sha256="",
            counts={},
            reasons={},
            quarantined=(),
            sidecars={},
            sidecar_rule="report",
            decisions="",
            highest_similarity=None,
            faces=(),
            files=tuple(PublishedFile(file.name, file.sha256, file.size) for file in made),
        )
        prepared = Prepared(
            record,
            folder,
            files=tuple(made),
            key_file=self._described(f"{folder}/try/keyfile", "keys"),
            events=(("shard committed", version, facts),),
            quarantine=({"sample": "x"},) if version == 1 else (),
        )
        self.prepared.write(prepared.name, prepared.encode())
        return prepared

    def _described(self, staged: str, name: str) -> OutputFile:
        return OutputFile(staged, name, self.data.sha256(staged), self.data.facts(staged).size)

    def published_versions(self) -> set[int]:
        names = [name for name in self.data.names() if not name.startswith(".diffpriv")]
        return {int(self.data.small.read(name).split()[1]) for name in names}

    def check(self) -> None:
        """What is published at this moment has its key file and its audit entry."""
        versions = self.published_versions()
        assert len(versions) <= 1, "two versions of one shard are published together"
        for version in versions:
            assert self.keys.get("faces", "a/b.tar") == build_key_file(ShardContext("faces", "a/b.tar", f"{version:064x}"), [])
            (event,) = self.segments.get(segment_id("faces", "a/b.tar")).events()
            assert event.facts["run"] == f"run-{version}"

    def commit(self, prepared: Prepared, steps: int, *, forward: bool = False) -> bool:
        """Commit, crash after `steps` changes; True if it came to the end."""
        clock = iter(range(10_000))
        stores = [Watched(one, clock, steps, self.check) for one in (self.data, self.keys, self.segments, self.prepared)]
        try:
            Commit(*stores).finish(prepared, after_a_crash=forward)  # type: ignore[arg-type]
        except Crash:
            return False
        finally:
            self.check()
        return True


def test_a_crash_at_any_step_leaves_old_or_new_and_a_second_try_finishes(tmp_path: Path) -> None:
    done = False
    steps = 0
    while not done:
        world = World(tmp_path / str(steps))
        assert world.commit(world.prepare(1), 10_000)
        prepared = world.prepare(2)
        done = world.commit(prepared, steps)
        written = world.prepared.read_if_there(prepared.name)
        if (old := read_record(world.data, "a/b.tar")) is not None and old.attempt == "attempt-1":
            with pytest.raises(ShardError, match="does not replace it"):  # what is whole is redone, never rolled over
                world.commit(prepared, 10_000, forward=True)
            assert world.published_versions() == {1}
            assert world.commit(prepared, 10_000)
        elif written is not None:  # the next run finds it and rolls it forward
            assert world.commit(Prepared.decode(written), 10_000, forward=True)
        assert world.published_versions() == {2}
        record = read_record(world.data, "a/b.tar")
        assert record is not None
        assert record.attempt == "attempt-2"
        assert not world.data.exists(".diffpriv/quarantine/a%2Fb.tar.jsonl")
        steps += 1
    assert steps > 8, "the steps were not taken one by one"


def test_after_the_record_is_written_a_key_file_is_not_put_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    prepared = world.prepare(1)
    steps = 0
    while read_record(world.data, "a/b.tar") is None:
        world.commit(prepared, steps := steps + 1)
    world.keys.put("faces", "a/b.tar", b"shredded since")
    Commit(world.data, world.keys, world.segments, world.prepared).finish(prepared)
    assert world.keys.get("faces", "a/b.tar") == b"shredded since"


def test_a_prepared_shard_that_was_tampered_with_changes_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    prepared = world.prepare(2)
    Path(world.data.path(prepared.files[1].staged)).write_bytes(b"version 3")
    with pytest.raises(ShardError, match="is not what was prepared"):
        Commit(world.data, world.keys, world.segments, world.prepared).finish(prepared, after_a_crash=True)
    assert world.published_versions() == set()
    world.check()


def test_a_record_whose_files_are_gone_counts_as_none(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.commit(world.prepare(1), 10_000)
    assert read_record(world.data, "a/b.tar")
    world.data.remove("part-1.bin")
    assert read_record(world.data, "a/b.tar") is None


def test_the_lease_is_exclusive_and_free_again_afterwards(tmp_path: Path) -> None:
    target = Folder(str(tmp_path / "data"))
    with hold_lease(target, "first"), pytest.raises(LeaseError, match="run first"), hold_lease(target, "second"):
        pass
    with hold_lease(target, "third"):
        pass


def test_the_lease_of_a_remote_target_is_a_heartbeat(tmp_path: Path) -> None:
    target = Folder(f"memory://lease-{tmp_path.name}")
    with hold_lease(target, "first"):
        with pytest.raises(LeaseError, match="run first"), hold_lease(target, "second"):
            pass
        silent = json.loads(target.small.read(".diffpriv/lease")) | {"time": 0}
        target.small.write(".diffpriv/lease", json.dumps(silent).encode())
        with hold_lease(target, "second"):
            pass
