"""`diffpriv keys` on the keys of a protected dataset: new recipients, destroyed records, shares. All on copies."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from tests.jobs.conftest import Place, Program, cheap_keys
from tests.pipelines.datasets import astronaut, encoded, sample, write_shards

SHARD, SAMPLE = "shard-001.tar", "001/group"


def _copied(place: Place, folder: Path) -> Place:
    """Store and log elsewhere, for keepers who saw no head of this log yet: the copy goes its own way."""
    shutil.copytree(place.store, folder / "store")
    shutil.copytree(place.audit, folder / "audit")
    (folder / "heads").mkdir()
    run = dataclasses.replace(place.run, always=(("DIFFPRIV_HEADS", str(folder / "heads")),))
    return dataclasses.replace(place, run=run, store=folder / "store", audit=folder / "audit")


@pytest.fixture
def copy(shards: Place, tmp_path: Path) -> Place:
    return _copied(shards, tmp_path)


@pytest.fixture(scope="module")
def unlocked(program: Program) -> Place:
    """A dataset of before there were custody policies: a recipient's key opens it alone."""
    keys = cheap_keys(program.folder / "keys-unlocked")
    base = program.folder / "unlocked"
    src = write_shards(base / "src", {"shard-000.tar": sample("000/face", 0, encoded(astronaut(256), "PNG"), "png")})
    places = ("--keys", base / "store", "--audit", base / "audit", "--engine", "beam")
    signed = ("--log-key", keys / "log.key", "--recipient", keys / "recipient.json")
    method = ("--transform", "fill", "--recovery", "exact")
    answer = program("--json", "sanitize", src, base / "data", *places, *signed, *method)
    return Place(program, src, base / "data", base / "store", base / "audit", keys, answer.json())


def _on(place: Place) -> tuple[object, ...]:
    return ("--keys", place.store, "--audit", place.audit, "--log-key", place.keys / "log.key")


def _verify(place: Place, recipient_key: Path) -> list[str]:
    given = ("--log-vkey", place.keys / "log.vkey", "--keys", place.store)
    given += ("--recipient-key", recipient_key, "--log-key", place.keys / "log.key")
    problems: list[str] = place.run("--json", "audit", "verify", place.audit, *given, expect=None).json()["problems"]
    return problems


def test_rotation_lets_a_new_recipient_in_and_an_old_one_out(unlocked: Place, tmp_path: Path) -> None:
    copy = _copied(unlocked, tmp_path)
    new, old = tmp_path / "new.json", copy.keys / "recipient.json"
    copy.run("keys", "recipient", new, "--name", "new")
    change = ("--add", new, "--remove", old, "--recipient-key", copy.keys / "recipient.key")
    assert len(copy.run("--json", "keys", "rotate", *_on(copy), *change).json()["rewrapped"]) == 1
    assert _verify(copy, tmp_path / "new.key") == []
    assert "was sealed to recipients" in str(_verify(copy, copy.keys / "recipient.key"))
    assert len(copy.run("--json", "keys", "rotate", *_on(copy), *change).json()["unchanged"]) == 1


def test_nobody_alone_lets_a_recipient_into_shards_that_a_quorum_locks(copy: Place, tmp_path: Path) -> None:
    new = tmp_path / "new.json"
    copy.run("keys", "recipient", new, "--name", "new")
    change = ("--add", new, "--recipient-key", copy.keys / "recipient.key")
    before = {path: path.read_bytes() for path in copy.store.rglob("*") if path.is_file()}
    error = copy.run("--json", "keys", "rotate", *_on(copy), *change, expect=1).json()["error"]
    assert error["kind"] == "QuorumError"
    assert "takes the shares of 2 of its 3 custodians" in error["message"]
    assert {path: path.read_bytes() for path in copy.store.rglob("*") if path.is_file()} == before


def test_a_shredded_face_cannot_be_recovered_and_the_log_names_nobody(copy: Place, tmp_path: Path) -> None:
    what = ("--dataset", copy.report["dataset"], "--shard", SHARD, "--sample", SAMPLE, "--face", 1)
    done = copy.run("--json", "keys", "shred", *_on(copy), *what, "--receipt", tmp_path / "receipt", "--yes").json()
    assert (done["destroyed"], done["destroyed_before"]) == (1, 0)
    again = copy.run("--json", "keys", "shred", *_on(copy), *what, "--receipt", tmp_path / "receipt2", "--yes").json()
    assert (again["destroyed"], again["destroyed_before"]) == (0, 1)
    asked = ("--shard", SHARD, "--sample", SAMPLE, "--face", 1, "--purpose", "x", "--yes", *copy.logged)
    asked += ("--data", copy.dst, "--keys", copy.store, "--requester-key", copy.person("requester"))
    error = copy.run("--json", "recover", "request", tmp_path / "request.json", *asked, expect=1).json()["error"]
    assert error["kind"] == "ShreddedError"
    assert "was shredded on" in error["message"]
    assert _verify(copy, copy.keys / "recipient.key") == []
    checked = ("keys", "check-shredding", tmp_path / "receipt", "--audit", copy.audit, "--log-vkey", copy.keys / "log.vkey")
    assert copy.run("--json", *checked, "--keys", copy.store).json() == {"ok": True, "faces": 1}
    assert SAMPLE.encode() not in b"".join(path.read_bytes() for path in copy.audit.rglob("*") if path.is_file())


def test_shredding_asks_first_and_a_typo_destroys_nothing(copy: Place, tmp_path: Path) -> None:
    whole = ("--dataset", copy.report["dataset"], "--receipt", tmp_path / "receipt")
    assert "Give --yes" in copy.run("keys", "shred", *_on(copy), *whole, expect=2).err
    typo = ("--dataset", copy.report["dataset"], "--shard", SHARD, "--sample", "001/gruop", "--receipt", tmp_path / "receipt")
    assert "nothing was shredded" in copy.run("keys", "shred", *_on(copy), *typo, "--yes", expect=1).err
    lonely = ("--dataset", copy.report["dataset"], "--face", 0, "--receipt", tmp_path / "receipt")
    copy.run("keys", "shred", *_on(copy), *lonely, "--yes", expect=2)
    listed = copy.run("--json", "keys", "list", copy.store).json()["key_files"]
    assert sum(one["shredded"] for one in listed) == 0


def test_enough_shares_make_the_key_again_and_too_few_do_not(unlocked: Place, tmp_path: Path) -> None:
    unlocked.run("keys", "split", unlocked.keys / "recipient.key", tmp_path / "shares", "--shares", 3, "--threshold", 2)
    one, two, three = sorted((tmp_path / "shares").iterdir())
    fits = ("--recipient", unlocked.keys / "recipient.json")
    assert "don't join" in unlocked.run("keys", "join", two, *fits, expect=1).err
    unlocked.run("keys", "join", one, three, *fits)
    assert not (tmp_path / "again.key").exists(), "a whole key is written where that is asked for, and nowhere else"
    unlocked.run("keys", "join", one, three, *fits, "--write-whole-key", tmp_path / "again.key")
    assert _verify(unlocked, tmp_path / "again.key") == []


def test_a_proof_holds_for_its_log_and_for_no_other(shards: Place, tmp_path: Path) -> None:
    log = ("--log-vkey", shards.keys / "log.vkey")
    shards.run("audit", "prove", shards.audit, *log, "--entry", 3, "--out", tmp_path / "proof")
    assert shards.run("--json", "audit", "check", tmp_path / "proof", *log).json()["index"] == 3
    cheap_keys(tmp_path / "others")
    shards.run("audit", "check", tmp_path / "proof", "--log-vkey", tmp_path / "others" / "log.vkey", expect=1)
    shards.run("audit", "prove", shards.audit, *log, "--since", shards.audit / "checkpoint", "--out", tmp_path / "same")
    assert "extends" in shards.run("audit", "check", tmp_path / "same", *log).out


def _policy(place: Place, folder: Path, *more: object) -> Path:
    """A policy of two new custodians, both needed."""
    people = []
    for name in ("xenia", "yuri"):
        place.run("keys", "custodian", folder / f"{name}.json", "--name", name)
        people += ["--custodian", folder / f"{name}.json"]
    asking = ("--requester", place.keys / "people" / "requester.json")
    place.run("keys", "policy", folder / "new-policy.json", *people, "--quorum", 2, *asking, *more)
    return folder / "new-policy.json"


def test_a_new_policy_takes_over_when_the_old_quorum_approves(copy: Place, tmp_path: Path) -> None:
    old, request = copy.keys / "policy.json", tmp_path / "rotation.json"
    new = _policy(copy, tmp_path, "--previous", old)
    opener = ("--recipient-key", copy.keys / "recipient.key")
    turn = (*_on(copy), *opener, "--policy", new, "--current-policy", old)
    error = copy.run("--json", "keys", "rotate", *turn, expect=2).json()["error"]
    assert "no case that was given" in error["message"] or "approved by a case of its quorum" in error["message"]
    asked = ("--keys", copy.store, "--policy", old, "--new-policy", new, "--purpose", "Ada left", "--yes")
    copy.run("keys", "rotate-request", request, *asked, "--requester-key", copy.person("requester"))
    copy.run("recover", "record", request, *copy.logged)
    assert "xenia" in request.read_text(), "custodians get the new policy with the request, and are shown what it changes"
    copy.approve(request, "custodian-1")
    assert "1 of 2 approvals" in copy.run("keys", "rotate", *turn, "--request", request, expect=1).err
    copy.approve(request, "custodian-2")
    assert len(copy.run("--json", "keys", "rotate", *turn, "--request", request).json()["rewrapped"]) == 2
    assert len(copy.run("--json", "keys", "rotate", *turn, "--request", request).json()["unchanged"]) == 2
    assert len({one["policy"] for one in copy.run("--json", "keys", "list", copy.store).json()["key_files"]}) == 1
    assert _verify(copy, copy.keys / "recipient.key") == []


def test_key_files_without_a_policy_are_marked_and_brought_up(unlocked: Place, tmp_path: Path) -> None:
    copy = _copied(unlocked, tmp_path)
    assert "NONE: a recipient opens alone" in " ".join(copy.run("keys", "list", copy.store, COLUMNS="200").out.split())
    new = _policy(copy, tmp_path)
    turn = (*_on(copy), "--recipient-key", copy.keys / "recipient.key", "--policy", new)
    assert len(copy.run("--json", "keys", "rotate", *turn).json()["rewrapped"]) == 1
    assert "NONE" not in copy.run("keys", "list", copy.store, COLUMNS="200").out
    assert _verify(copy, copy.keys / "recipient.key") == []
