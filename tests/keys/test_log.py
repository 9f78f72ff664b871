"""The audit log in its folder: appending, crashing, integrating, and being read by others."""

import hashlib
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffpriv.keys.audit.events import AuditEvent, commit_names, run_started, sample_quarantined
from diffpriv.keys.audit.log import PENDING, AuditLog
from diffpriv.keys.audit.merkle import leaf_hash, range_hash, root_of
from diffpriv.keys.audit.tiles import TileReader, tile_path, tiles_of
from diffpriv.keys.audit.verify import verify_log
from diffpriv.keys.context import ShardContext
from diffpriv.keys.errors import AuditError, MisuseError
from diffpriv.keys.lockbox import canonical_json
from diffpriv.keys.notes import NoteKey, NoteVerifier
from tests.keys.helpers import CONFIG, NOW


def started(count, first=0):
    return [run_started(NOW + number, f"run-{number}", "faces", CONFIG) for number in range(first, first + count)]


def tile_files(log):
    return set(log.location.names("tile"))


def test_what_was_appended_is_read_back_in_order_by_whoever_has_the_public_key(log):
    log.append(started(300))
    reader = AuditLog(log.url, verifier=NoteVerifier.parse(log.verifier.vkey))
    assert [event.facts["run"] for _, event in reader.events()] == [f"run-{number}" for number in range(300)]
    assert [index for index, _ in reader.entries(250, 260)] == list(range(250, 260))
    assert verify_log(reader).ok
    with pytest.raises(MisuseError, match="signing key"):
        reader.append(started(1))


@settings(deadline=None, max_examples=12)
@given(st.lists(st.integers(0, 400), min_size=1, max_size=6))
def test_however_entries_are_grouped_the_files_are_those_of_the_layout(tmp_path_factory, log_key, groups):
    log = AuditLog(tmp_path_factory.mktemp("log"), log_key)
    whole = AuditLog(tmp_path_factory.mktemp("whole"), log_key)
    total = 0
    for count in groups:
        log.append(started(count, total))
        total += count
    whole.append(started(total))
    assert tile_files(whole) == {tile_path(*tile) for tile in tiles_of(total)} <= tile_files(log)
    assert all(log.location.read(name) == whole.location.read(name) for name in tile_files(whole))
    assert log.checkpoint() == whole.checkpoint()
    assert verify_log(log).problems == []


def test_appending_nothing_changes_nothing(log):
    log.append(started(3))
    before = log.checkpoint().note
    assert log.append([]).first == 3
    assert log.checkpoint().note == before


def test_a_log_of_another_key_is_not_read_or_appended_to(log):
    log.append(started(3))
    stranger = AuditLog(log.url, NoteKey.create(log.key.name))
    with pytest.raises(AuditError, match="not signed by the log's key"):
        stranger.append(started(1))
    assert not verify_log(stranger).ok


@pytest.mark.parametrize("point", ["after pending", "after tiles", "after checkpoint"])
@pytest.mark.parametrize("size", [10, 255, 256, 700])
def test_a_crash_at_any_point_of_an_append_leaves_the_old_log_or_the_new_one(log, point, size, monkeypatch):
    log.append(started(size))
    old = log.checkpoint()
    location = type(log.location)
    write, write_many = location.write, location.write_many

    class Crash(Exception):
        pass

    def write_then_crash(self, name, data):
        write(self, name, data)
        if (point, name) in {("after pending", PENDING), ("after checkpoint", "checkpoint")}:
            raise Crash

    def write_tiles_then_crash(self, files):
        files = list(files)
        write_many(self, files)
        if point == "after tiles" and any(name.startswith("tile/") for name, _ in files):
            raise Crash

    monkeypatch.setattr(location, "write", write_then_crash)
    monkeypatch.setattr(location, "write_many", write_tiles_then_crash)
    with pytest.raises(Crash):
        log.append(started(300, size))
    monkeypatch.undo()
    after = log.checkpoint().size
    assert after == (size + 300 if point == "after checkpoint" else size)
    report = verify_log(log, since=old.note)
    assert report.problems == []
    assert any("interrupted" in note for note in report.notes)
    log.append(started(5, after))
    report = verify_log(log, since=old.note)
    assert (report.problems, report.notes, report.size) == ([], [], after + 5)
    assert tile_files(log) >= {tile_path(*tile) for tile in tiles_of(after + 5)}


def test_who_holds_an_older_checkpoint_still_finds_its_tiles(log):
    """https://c2sp.org/tlog-tiles: partial tiles of signed sizes stay until their tile is full."""
    sizes = [10, 70, 200, 255, 300, 520, 600]
    for before, size in zip([0, *sizes], sizes, strict=False):
        log.append(started(size - before, before))
        for old in sizes[: sizes.index(size) + 1]:
            reader = TileReader(log.location, old)
            root = range_hash(0, old, reader.node)
            assert root == root_of([leaf_hash(event.encode()) for event in started(old)])
            for level, number, width in tiles_of(old):
                full = tile_path(level, number)
                assert log.location.read_if_there(tile_path(level, number, width)) or log.location.read_if_there(full)
    assert not any(name.startswith("tile/entries/000.p/") for name in tile_files(log))
    assert verify_log(log).problems == []
    log.location.write("tile/entries/002.p/8", b"altered")
    assert "not the beginning of the tile it became" in verify_log(log).problems[0]


def test_a_log_whose_newest_tile_was_altered_is_not_built_upon(log):
    log.append(started(10))
    path = tile_path(0, 0, 10)
    log.location.write(path, bytes(320))
    with pytest.raises(AuditError, match=r"does not fit|altered"):
        log.append(started(1, 10))


def test_a_removed_checkpoint_is_not_mistaken_for_an_empty_log(log):
    log.append(started(10))
    log.location.delete("checkpoint")
    with pytest.raises(AuditError, match="checkpoint was removed"):
        log.append(started(1))
    assert "checkpoint was removed" in verify_log(log).problems[0]


def test_two_processes_appending_at_once_lose_nothing(log, log_key, tmp_path):
    log_key.save(tmp_path / "log.key")
    program = textwrap.dedent(
        f"""
        import sys
        from diffpriv.keys.notes import NoteKey
        from diffpriv.keys.audit.events import run_started
        from diffpriv.keys.audit.log import AuditLog
        log = AuditLog({log.url!r}, NoteKey.load({str(tmp_path / "log.key")!r}))
        for number in range(15):
            log.append([run_started({NOW}, sys.argv[1] + str(number), "faces", {CONFIG!r})])
        """
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", program, name], env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        )
        for name in "ab"
    ]
    assert [run.wait(120) for run in runs] == [0, 0]
    runs_seen = [event.facts["run"] for _, event in log.events()]
    assert sorted(runs_seen) == sorted(f"{name}{number}" for name in "ab" for number in range(15))
    assert verify_log(log).ok


def test_segments_enter_sorted_by_id_and_once(log, tmp_path):
    for name in ("c", "a", "b/x"):
        log.segments.put(name, [run_started(NOW, name, "faces", CONFIG)])
    first = log.integrate()
    assert first.added == ("a", "b/x", "c")
    again = log.integrate()
    assert (again.added, again.skipped) == ((), ("a", "b/x", "c"))
    assert again.checkpoint == first.checkpoint
    kinds = [(event.kind, event.facts.get("segment", event.facts.get("run"))) for _, event in log.events()]
    assert kinds == [(kind, name) for name in ("a", "b/x", "c") for kind in ("segment integrated", "run started")]
    assert verify_log(log).ok


def test_the_same_segments_give_the_same_log_whoever_wrote_them_first(log_key, tmp_path):
    heads = []
    for order in (["a", "b", "c"], ["c", "b", "a"]):
        log = AuditLog(tmp_path / order[0], log_key)
        for name in order:
            log.segments.put(name, [run_started(NOW, name, "faces", CONFIG)])
        heads.append(log.integrate().checkpoint)
    assert heads[0] == heads[1]


def test_only_the_segments_of_committed_shards_are_integrated(log):
    for name in "ab":
        log.segments.put(name, [run_started(NOW, name, "faces", CONFIG)])
    assert log.integrate(ids=["b"]).added == ("b",)
    report = verify_log(log)
    assert report.ok
    assert report.notes == ["audit segment a waits to be integrated."]


def test_a_segment_that_is_not_the_one_of_the_commit_record_is_refused(log):
    digest = log.segments.put("a", [run_started(NOW, "a", "faces", CONFIG)])
    log.segments.put("a", [run_started(NOW, "forged", "faces", CONFIG)])
    with pytest.raises(AuditError, match="segment a is not the one its commit record names"):
        log.integrate(expected={"a": digest})
    assert log.checkpoint().size == 0


def test_a_worker_can_not_log_what_only_the_sequencer_may(log):
    facts = {"case": "ca" * 32, "custodian": "x", "denial": {}}
    forged = AuditEvent("recovery denied", NOW, facts)
    with pytest.raises(ValueError, match="what workers may log"):
        log.segments.put("a", [forged])
    body = forged.encode() + b"\n"
    head = {
        "format": "diffpriv audit segment",
        "version": 1,
        "segment": "a",
        "events": 1,
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    log.segments.location.write("a.jsonl", canonical_json(head) + b"\n" + body)
    with pytest.raises(AuditError, match="no worker may log"):
        log.integrate()
    assert log.checkpoint().size == 0


def test_a_redone_segment_enters_again_and_names_what_it_supersedes(log):
    old = log.segments.put("a", [run_started(NOW, "first", "faces", CONFIG)])
    log.integrate()
    new = log.segments.put("a", [run_started(NOW, "second", "faces", CONFIG)])
    assert not verify_log(log).ok  # until it is integrated, the file is not what the log took
    log.integrate()
    redone = [event.facts for _, event in log.events() if event.kind == "segment integrated"][-1]
    assert (redone["sha256"], redone["supersedes"]) == (new, old)
    assert verify_log(log).ok


def test_an_earlier_checkpoint_shows_a_rewritten_or_shortened_past(log, log_key, tmp_path):
    log.append(started(300))
    earlier = log.checkpoint().note
    log.append(started(100, 300))
    assert verify_log(log, since=earlier).ok

    forged = AuditLog(tmp_path / "forged", log_key)  # by whoever stole the log's key
    forged.append([*started(100), *started(300, 9000)])
    assert "the past was rewritten" in verify_log(forged, since=earlier).problems[0]
    short = AuditLog(tmp_path / "short", log_key)
    short.append(started(200))
    assert "cut back" in verify_log(short, since=earlier).problems[0]


def test_a_log_is_verified_between_two_checkpoints(log, log_key, tmp_path):
    heads = []
    for first in (0, 100, 300):
        log.append(started(100, first))
        heads.append(log.checkpoint().note)
    assert verify_log(log, since=heads[0], until=heads[1]).ok
    assert any("more entries than the later" in problem for problem in verify_log(log, since=heads[1], until=heads[0]).problems)
    other = AuditLog(tmp_path / "other", log_key)
    other.append(started(200, 7000))
    (problem,) = verify_log(log, since=heads[0], until=other.checkpoint().note).problems
    assert "the first 200 entries are not those" in problem


def test_reading_and_verifying_go_on_while_another_process_appends(log, log_key):
    log.append(started(250))
    reader = AuditLog(log.url, verifier=log.verifier)
    head = reader.checkpoint()
    reading = reader.entries()
    assert next(reading)[0] == 0

    stop = threading.Event()

    def append() -> None:
        for number in range(250, 300):
            log.append(started(1, number))
            if stop.is_set():
                break

    writer = threading.Thread(target=append)
    writer.start()
    try:
        assert [index for index, _ in reading] == list(range(1, head.size))
        assert verify_log(reader, since=head.note).problems == []
        assert len(list(reader.events())) >= 250
    finally:
        stop.set()
        writer.join()
    assert verify_log(reader, since=head.note).problems == []


@pytest.mark.parametrize(
    ("kind", "facts", "message"),
    [
        ("party held", {}, "no kind of audit event"),
        ("run started", {"run": "r"}, "must state config_digest, dataset"),
        ("run started", {"run": "r", "dataset": "d", "config_digest": "c", "sample": "anna"}, "must not hold sample"),
        ("run started", {"run": "r", "dataset": "d", "config_digest": "c", "more": {"image": 1}}, "must not hold image"),
        ("run started", {"run": "r", "dataset": "d", "config_digest": b"c"}, "does not hold"),
        ("run started", {"run": "r" * 5000, "dataset": "d", "config_digest": "c"}, "too long"),
    ],
)
def test_an_event_can_not_hold_what_the_log_must_not(kind, facts, message):
    with pytest.raises(ValueError, match=message):
        AuditEvent(kind, NOW, facts)


def test_a_quarantined_sample_is_named_by_a_salted_commitment_only(log):
    commitment, salt = commit_names("faces", "shard-000.tar", "anna_b.jpg")
    log.append([sample_quarantined(NOW, "run-1", ShardContext("faces", "shard-000.tar", CONFIG), commitment, "truncated JPEG")])
    stored = b"".join(log.location.read(name) for name in log.location.names("tile"))
    assert b"anna" not in stored
    assert commitment.encode() in stored
    assert commit_names("faces", "shard-000.tar", "anna_b.jpg", salt=bytes.fromhex(salt))[0] == commitment
    assert commit_names("faces", "shard-000.tar", "anna_b.jpg")[0] != commitment
