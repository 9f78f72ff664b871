"""`diffpriv keys` on the keys of a protected dataset: new recipients, destroyed records, shares. All on copies."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from tests.jobs.conftest import Place

SHARD, SAMPLE = "shard-001.tar", "001/group"


@pytest.fixture
def copy(shards: Place, tmp_path: Path) -> Place:
    shutil.copytree(shards.store, tmp_path / "store")
    shutil.copytree(shards.audit, tmp_path / "audit")
    return dataclasses.replace(shards, store=tmp_path / "store", audit=tmp_path / "audit")


def _on(place: Place) -> tuple[object, ...]:
    return ("--keys", place.store, "--audit", place.audit, "--log-key", place.keys / "log.key")


def _verify(place: Place, recipient_key: Path) -> list[str]:
    given = ("--log-vkey", place.keys / "log.vkey", "--keys", place.store, "--recipient-key", recipient_key)
    problems: list[str] = place.run("--json", "audit", "verify", place.audit, *given, expect=None).json()["problems"]
    return problems


def test_rotation_lets_a_new_recipient_in_and_an_old_one_out(copy: Place, tmp_path: Path) -> None:
    new, old = tmp_path / "new.json", copy.keys / "recipient.json"
    copy.run("keys", "recipient", new, "--name", "new")
    change = ("--add", new, "--remove", old, "--recipient-key", copy.keys / "recipient.key")
    assert len(copy.run("--json", "keys", "rotate", *_on(copy), *change).json()["rewrapped"]) == 2
    assert _verify(copy, tmp_path / "new.key") == []
    assert "was sealed to recipients" in str(_verify(copy, copy.keys / "recipient.key"))
    assert len(copy.run("--json", "keys", "rotate", *_on(copy), *change).json()["unchanged"]) == 2


def test_a_shredded_face_cannot_be_recovered_and_the_log_names_nobody(copy: Place, tmp_path: Path) -> None:
    what = ("--dataset", copy.report["dataset"], "--shard", SHARD, "--sample", SAMPLE, "--face", 1)
    done = copy.run("--json", "keys", "shred", *_on(copy), *what, "--receipt", tmp_path / "receipt", "--yes").json()
    assert (done["destroyed"], done["destroyed_before"]) == (1, 0)
    again = copy.run("--json", "keys", "shred", *_on(copy), *what, "--receipt", tmp_path / "receipt2", "--yes").json()
    assert (again["destroyed"], again["destroyed_before"]) == (0, 1)
    request = copy.request("shredded", SHARD, SAMPLE, "--face", 1)
    copy.approve(request, "custodian-1")
    copy.approve(request, "custodian-2")
    error = copy.recover(request, expect=1).json()["error"]
    assert error["kind"] == "ShreddedError"
    assert "was shredded on" in error["message"]
    assert _verify(copy, copy.keys / "recipient.key") == []
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


def test_enough_shares_make_the_key_again_and_too_few_do_not(shards: Place, tmp_path: Path) -> None:
    shards.run("keys", "split", shards.keys / "recipient.key", tmp_path / "shares", "--shares", 3, "--threshold", 2)
    one, two, three = sorted((tmp_path / "shares").iterdir())
    fits = ("--recipient", shards.keys / "recipient.json")
    assert "don't join" in shards.run("keys", "join", tmp_path / "again.key", two, *fits, expect=1).err
    shards.run("keys", "join", tmp_path / "again.key", one, three, *fits)
    assert _verify(shards, tmp_path / "again.key") == []


def test_a_proof_holds_for_its_log_and_for_no_other(shards: Place, tmp_path: Path) -> None:
    log = ("--log-vkey", shards.keys / "log.vkey")
    shards.run("audit", "prove", shards.audit, *log, "--entry", 3, "--out", tmp_path / "proof")
    assert shards.run("--json", "audit", "check", tmp_path / "proof", *log).json()["index"] == 3
    shards.run("keys", "init", tmp_path / "others")
    shards.run("audit", "check", tmp_path / "proof", "--log-vkey", tmp_path / "others" / "log.vkey", expect=1)
    shards.run("audit", "prove", shards.audit, *log, "--since", shards.audit / "checkpoint", "--out", tmp_path / "same")
    assert "extends" in shards.run("audit", "check", tmp_path / "same", *log).out
