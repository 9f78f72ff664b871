"""The job can lock, never unlock."""

import os
import shutil
from pathlib import Path

import pytest

from diffpriv.keys.context import ShardContext
from diffpriv.keys.errors import DiffPrivError
from diffpriv.keys.init import init_keys
from diffpriv.keys.keyfile import KeyFile, build_key_file
from diffpriv.keys.notes import NoteKey
from diffpriv.keys.recipients import Recipient, RecipientKey
from diffpriv.keys.sealing import open_record, seal_part
from diffpriv.keys.secrets import ShardKey
from diffpriv.keys.store import KeyStore
from tests.keys.helpers import CONFIG, make_faces


def test_a_job_host_that_holds_everything_the_job_holds_cannot_open_one_record(tmp_path: Path):
    made = init_keys(tmp_path / "safe", "correct horse", iterations=1, lanes=1, memory_kib=64)
    host = tmp_path / "host"
    host.mkdir()
    for path in (made.recipient, made.log_key, made.log_vkey, made.policy):  # what a job is given
        shutil.copy(path, host / path.name)
    recipient = Recipient.load(host / "recipient.json")
    store = KeyStore(host / "keys")
    context = ShardContext("faces", "shard-000.tar", CONFIG)
    store.put("faces", "shard-000.tar", build_key_file(context, [seal_part(context, [recipient], make_faces(3))]))

    # Store access, code, recipients, the log key, the policy: everything the host has is tried as a key.
    file = KeyFile.parse(store.get("faces", "shard-000.tar"))
    log_key = NoteKey.load(host / "log.key")
    materials = [log_key._material, recipient.public[:32], recipient.public[-32:], bytes.fromhex(recipient.fingerprint * 2)]
    materials += [part.commitment for part in file.parts] + [bytes(32), os.urandom(32)]
    records = [row["record"] for row in file._table.to_pylist()]
    for material in materials:
        impostor = RecipientKey(material)

        class Claiming:
            fingerprint = recipient.fingerprint
            unwrap = impostor.unwrap

        with pytest.raises(DiffPrivError):
            file.open_face("img00000", 0, Claiming())
        for record in records:
            with pytest.raises(DiffPrivError):
                open_record(ShardKey(material), context.face("img00000", 0), record)
    for path in host.rglob("*"):
        if path.is_file():
            path.chmod(0o600)
            with pytest.raises(DiffPrivError):
                RecipientKey.load(path, "")

    # The same store opens for the one who has the private file and its passphrase.
    assert file.check_all(RecipientKey.load(made.recipient_key, "correct horse")) == 3


def test_two_records_share_no_key_material(recipient_key):
    """A thief of one face key learns nothing about another face: its key opens no other payload."""
    context = ShardContext("faces", "shard-000.tar", CONFIG)
    faces = make_faces(2)
    part = seal_part(context, [recipient_key.recipient], faces)
    with pytest.raises(DiffPrivError):
        open_record(ShardKey(faces[0].key._material), context.face("img00001", 0), part.records[1])
    assert not faces[0].key.same_as(faces[1].key)
