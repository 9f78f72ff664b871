"""Rotation: who can open changes, what is sealed does not, and a stop in the middle is no harm."""

import os

import pytest

from diffpriv.keys.audit.ledger import Ledger
from diffpriv.keys.audit.verify import verify_log
from diffpriv.keys.errors import KeyFileError, MisuseError, WrongRecipientError
from diffpriv.keys.keyfile import KeyFile
from diffpriv.keys.listing import list_key_files
from diffpriv.keys.recipients import RecipientKey
from diffpriv.keys.rotation import rotate

LATER = 1_790_100_000


@pytest.fixture
def successor():
    return RecipientKey(os.urandom(32), "successor")


def parsed(vault, shard):
    return KeyFile.parse(vault.store.get("faces", shard))


def records(vault):
    return {shard: parsed(vault, shard)._table.to_pylist() for shard in vault.shards}


def verify(vault, key):
    return verify_log(vault.log, key_store=vault.store, recipient_key=key, data=vault.data_digests()).problems


def test_an_added_recipient_opens_everything_and_no_record_changes(vault, successor):
    before = records(vault)
    report = rotate(vault.store, vault.log, add=[successor.recipient], recipient_key=vault.recipient_key, now=LATER)
    assert report.rewrapped == [("faces", shard) for shard in vault.shards]
    assert records(vault) == before
    assert verify(vault, successor) == []
    assert verify(vault, vault.recipient_key) == []


def test_a_replaced_recipient_opens_nothing_any_more(vault, successor):
    old = vault.recipient_key
    rotate(vault.store, vault.log, add=[successor.recipient], remove=[old.fingerprint], recipient_key=old, now=LATER)
    assert verify(vault, successor) == []
    with pytest.raises(WrongRecipientError):
        parsed(vault, vault.shards[0]).open_face("img00000", 0, old)
    assert {one.recipients for one in list_key_files(vault.store)} == {(successor.fingerprint,)}


def test_removing_needs_no_private_key_but_never_removes_the_last(vault, successor):
    rotate(vault.store, vault.log, add=[successor.recipient], recipient_key=vault.recipient_key, now=LATER)
    rotate(vault.store, vault.log, remove=[vault.recipient_key.fingerprint], now=LATER)
    assert verify(vault, successor) == []
    with pytest.raises(MisuseError, match=r"nobody could open shard-000\.tar"):
        rotate(vault.store, vault.log, remove=[successor.fingerprint], now=LATER)
    assert verify(vault, successor) == []


def test_running_it_again_does_nothing(vault, successor):
    options = {"add": [successor.recipient], "recipient_key": vault.recipient_key, "now": LATER}
    rotate(vault.store, vault.log, **options)
    size = vault.log.checkpoint().size
    report = rotate(vault.store, vault.log, **options)
    assert (report.rewrapped, len(report.unchanged)) == ([], 4)
    assert vault.log.checkpoint().size == size


@pytest.mark.parametrize("stop_after", [0, 1, 3])
def test_a_rotation_that_was_stopped_is_seen_and_finished_by_running_it_again(vault, successor, stop_after, monkeypatch):
    class Killed(Exception):
        pass

    put, done = type(vault.store).put, []

    def put_until_killed(self, *args):
        if len(done) == stop_after:
            raise Killed
        done.append(args)
        return put(self, *args)

    options = {"add": [successor.recipient], "recipient_key": vault.recipient_key, "now": LATER}
    monkeypatch.setattr(type(vault.store), "put", put_until_killed)
    with pytest.raises(Killed):
        rotate(vault.store, vault.log, **options)
    monkeypatch.undo()
    problems = verify(vault, vault.recipient_key)
    assert len(problems) == 4 - stop_after
    assert all("rotation that entry" in problem and "was interrupted; run it again" in problem for problem in problems)
    report = rotate(vault.store, vault.log, **options)
    assert len(report.rewrapped) == 4 - stop_after
    assert verify(vault, successor) == []


def test_a_tampered_key_file_is_not_turned_into_a_logged_one(vault, successor):
    shard = vault.shards[1]
    data = vault.store.get("faces", shard)
    vault.store.put("faces", shard, KeyFile.parse(data).without(lambda face: True, LATER)[0])
    with pytest.raises(KeyFileError, match=r"shard-001\.tar .* not the one the audit log names"):
        rotate(vault.store, vault.log, add=[successor.recipient], recipient_key=vault.recipient_key, now=LATER)


def test_only_the_named_dataset_is_rotated_and_contradictions_are_refused(vault, successor):
    options = {"add": [successor.recipient], "recipient_key": vault.recipient_key, "now": LATER}
    assert rotate(vault.store, vault.log, dataset="other", **options).rewrapped == []
    with pytest.raises(MisuseError, match="nothing to rotate"):
        rotate(vault.store, vault.log, now=LATER)
    with pytest.raises(MisuseError, match="added and removed"):
        rotate(vault.store, vault.log, remove=[successor.fingerprint], **options)
    with pytest.raises(MisuseError, match="private key of a present one"):
        rotate(vault.store, vault.log, add=[successor.recipient], now=LATER)
    with pytest.raises(WrongRecipientError):
        rotate(vault.store, vault.log, add=[successor.recipient], recipient_key=successor, now=LATER)


def test_the_log_tells_which_recipients_came_and_went(vault, successor):
    rotate(vault.store, vault.log, add=[successor.recipient], recipient_key=vault.recipient_key, now=LATER)
    facts = [event.facts for _, event in vault.log.events('"kind":"recipient rotated"')]
    assert [one["added"] for one in facts] == [[successor.fingerprint]] * 4
    ledger = Ledger()
    for index, entry in vault.log.entries():
        ledger.take(index, entry)
    assert ledger.problems == []
