"""Sealed records and key files: what opens, what does not, and what the message says."""

import os
import pickle
from dataclasses import replace

import pyarrow
import pyarrow.parquet
import pytest

from diffpriv.keys.cleartext import reveal
from diffpriv.keys.context import ShardContext
from diffpriv.keys.errors import KeyFileError, MisuseError, RecordError, ShreddedError, UnknownFaceError, WrongRecipientError
from diffpriv.keys.keyfile import KeyFile, build_key_file
from diffpriv.keys.keyfile_layout import Layout
from diffpriv.keys.recipients import RecipientKey
from diffpriv.keys.sealing import RECORD_OVERHEAD, FaceSecret, open_record, seal_part
from diffpriv.keys.secrets import FaceKey, ShardKey
from tests.keys.helpers import CONFIG, make_faces

CONTEXT = ShardContext("faces", "shard-000.tar", CONFIG)


def sealed(recipient_key, faces, context=CONTEXT):
    return build_key_file(context, [seal_part(context, [recipient_key.recipient], faces)])


def test_what_was_sealed_opens_again_with_key_and_payload(recipient_key):
    faces = [FaceSecret("a", 0, FaceKey.generate(), b""), FaceSecret("a", 1, FaceKey.generate(), os.urandom(10_000))]
    file = KeyFile.parse(sealed(recipient_key, faces), dataset="faces", shard="shard-000.tar")
    for face in faces:
        opened = file.open_face(face.sample, face.face_index, recipient_key)
        assert opened.key.same_as(face.key)
        assert opened.payload == face.payload
        assert "key" not in repr(opened)


def test_a_part_crosses_process_borders_without_any_secret_in_it(recipient_key):
    faces = make_faces(3)
    part = seal_part(CONTEXT, [recipient_key.recipient], faces)
    moved = pickle.dumps(part)
    for face in faces:
        assert reveal(face.key) not in moved
        assert face.payload not in moved
    file = KeyFile.parse(build_key_file(CONTEXT, [pickle.loads(moved)]))
    assert file.check_all(recipient_key) == 3


def test_a_record_is_77_bytes_beyond_its_payload(recipient_key):
    part = seal_part(CONTEXT, [recipient_key.recipient], [FaceSecret("a", 0, FaceKey.generate(), bytes(500))])
    assert len(part.records[0]) == RECORD_OVERHEAD + 500


def test_each_part_has_a_shard_key_of_its_own_and_rows_follow_the_shard(recipient_key):
    faces = make_faces(4, 2)
    parts = [seal_part(CONTEXT, [recipient_key.recipient], faces[at::2]) for at in range(2)]
    assert parts[0].commitment != parts[1].commitment
    order = ["img00003", "img00002", "img00001", "img00000"]
    file = KeyFile.parse(build_key_file(CONTEXT, parts, sample_order=order))
    assert file.faces() == [(name, index) for name in order for index in range(2)]
    assert file.check_all(recipient_key) == 8


def test_a_face_sealed_twice_or_of_an_unknown_sample_is_refused(recipient_key):
    faces = make_faces(1)
    parts = [seal_part(CONTEXT, [recipient_key.recipient], faces) for _ in range(2)]
    with pytest.raises(KeyFileError, match="sealed twice"):
        build_key_file(CONTEXT, parts)
    with pytest.raises(KeyFileError, match="not in the shard"):
        build_key_file(CONTEXT, parts[:1], sample_order=["other"])
    with pytest.raises(KeyFileError, match="another shard"):
        build_key_file(ShardContext("faces", "shard-001.tar", CONFIG), parts[:1])


def test_a_shard_without_faces_has_an_empty_key_file(recipient_key):
    file = KeyFile.parse(build_key_file(CONTEXT, []))
    assert len(file) == 0
    with pytest.raises(UnknownFaceError, match="no face on record"):
        file.open_face("a", 0, recipient_key)


def test_sealing_without_a_recipient_or_twice_to_one_is_refused(recipient_key):
    with pytest.raises(MisuseError, match="no recipient"):
        seal_part(CONTEXT, [], make_faces(1))
    with pytest.raises(MisuseError, match="given twice"):
        seal_part(CONTEXT, [recipient_key.recipient] * 2, make_faces(1))


def test_any_one_of_several_recipients_opens(recipient_key):
    second = RecipientKey(os.urandom(32), "second")
    part = seal_part(CONTEXT, [recipient_key.recipient, second.recipient], make_faces(2))
    file = KeyFile.parse(build_key_file(CONTEXT, [part]))
    assert file.check_all(recipient_key) == file.check_all(second) == 2


def test_a_wrong_recipient_is_told_who_could_open_it(recipient_key):
    file = KeyFile.parse(sealed(recipient_key, make_faces(1)))
    stranger = RecipientKey.generate()
    with pytest.raises(WrongRecipientError) as caught:
        file.open_face("img00000", 0, stranger)
    assert recipient_key.fingerprint[:8] in str(caught.value)
    assert stranger.fingerprint[:8] in str(caught.value)
    assert "keys rotate" in str(caught.value)


def test_a_record_of_another_dataset_shard_sample_or_face_does_not_open(recipient_key):
    face = make_faces(1)[0]
    part = seal_part(CONTEXT, [recipient_key.recipient], [face])
    key = KeyFile.parse(build_key_file(CONTEXT, [part])).shard_key(0, recipient_key)
    elsewhere = [
        ShardContext("other", "shard-000.tar", CONFIG).face("img00000", 0),
        ShardContext("faces", "shard-001.tar", CONFIG).face("img00000", 0),
        ShardContext("faces", "shard-000.tar", "d1" * 32).face("img00000", 0),
        CONTEXT.face("img00001", 0),
        CONTEXT.face("img00000", 1),
    ]
    open_record(key, CONTEXT.face("img00000", 0), part.records[0])
    for context in elsewhere:
        with pytest.raises(RecordError, match=f"record of {context.sample} face {context.face_index} in {context.shard.shard}"):
            open_record(key, context, part.records[0])


def test_a_key_file_under_another_name_is_recognised(recipient_key):
    data = sealed(recipient_key, make_faces(1))
    with pytest.raises(KeyFileError, match="files were swapped or renamed"):
        KeyFile.parse(data, dataset="faces", shard="shard-001.tar")
    with pytest.raises(KeyFileError, match="files were swapped or renamed"):
        KeyFile.parse(data, dataset="other", shard="shard-000.tar")


def test_relabelling_a_key_file_for_another_dataset_does_not_make_it_open(recipient_key):
    part = seal_part(CONTEXT, [recipient_key.recipient], make_faces(1))
    forged_context = ShardContext("other", "shard-000.tar", CONFIG)
    file = KeyFile.parse(build_key_file(forged_context, [replace(part, context=forged_context)]))
    with pytest.raises(RecordError, match="can't be unwrapped: altered, or of another dataset, shard or policy"):
        file.open_face("img00000", 0, recipient_key)


def test_a_swapped_commitment_or_a_swapped_wrapped_key_is_found(recipient_key):
    one, other = (seal_part(CONTEXT, [recipient_key.recipient], make_faces(1, prefix=prefix)) for prefix in "ab")
    for forged in (replace(one, commitment=other.commitment), replace(one, wraps=other.wraps)):
        file = KeyFile.parse(build_key_file(CONTEXT, [forged]))
        with pytest.raises(RecordError, match="shard key of part 0"):
            file.open_face("a00000", 0, recipient_key)


def test_an_aead_key_that_opens_but_was_never_committed_to_is_refused(recipient_key):
    part = seal_part(CONTEXT, [recipient_key.recipient], make_faces(1))

    class Swapping:
        fingerprint = recipient_key.fingerprint

        def unwrap(self, wrapped, info):
            return ShardKey.generate()

    with pytest.raises(RecordError, match="does not fit its commitment"):
        KeyFile.parse(build_key_file(CONTEXT, [part])).open_face("img00000", 0, Swapping())


def test_an_unknown_version_fails_closed(recipient_key):
    part = seal_part(CONTEXT, [recipient_key.recipient], make_faces(1))
    record = b"\x02" + part.records[0][1:]
    with pytest.raises(RecordError, match="format version 2; this program knows version 1"):
        open_record(ShardKey.generate(), CONTEXT.face("img00000", 0), record)
    with pytest.raises(RecordError, match="cut short"):
        open_record(ShardKey.generate(), CONTEXT.face("img00000", 0), record[:40])


def test_every_flipped_byte_of_a_record_is_found_and_the_face_is_named(recipient_key):
    part = seal_part(CONTEXT, [recipient_key.recipient], [FaceSecret("img00000", 0, FaceKey.generate(), b"0123456789")])
    key = KeyFile.parse(build_key_file(CONTEXT, [part])).shard_key(0, recipient_key)
    for position in range(len(part.records[0])):
        altered = bytearray(part.records[0])
        altered[position] ^= 1
        with pytest.raises(RecordError, match=r"img00000 face 0 in shard-000\.tar of dataset faces"):
            open_record(key, CONTEXT.face("img00000", 0), bytes(altered))


def test_a_face_that_was_not_sealed_is_named_with_those_that_were(recipient_key):
    file = KeyFile.parse(sealed(recipient_key, make_faces(1, 3)))
    with pytest.raises(UnknownFaceError, match="no record of face 7 of sample img00000; its faces are 0, 1, 2"):
        file.open_face("img00000", 7, recipient_key)


def test_shredded_rows_say_when_and_their_shard_key_goes_with_the_last_of_them(recipient_key):
    faces = make_faces(2)
    file = KeyFile.parse(sealed(recipient_key, faces))
    data, gone = file.without(lambda face: face[0] == "img00000", 1_790_000_000)
    assert gone == [("img00000", 0)]
    after = KeyFile.parse(data)
    with pytest.raises(ShreddedError, match=r"face 0 of sample img00000 in shard-000\.tar was shredded on 2026-09-21"):
        after.open_face("img00000", 0, recipient_key)
    assert after.open_face("img00001", 0, recipient_key).key.same_as(faces[1].key)
    data, _ = after.without(lambda face: True, 1_790_000_001)
    assert KeyFile.parse(data).parts[0].wraps == ()


def test_files_that_are_not_key_files_are_named(recipient_key):
    data = sealed(recipient_key, make_faces(2))
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), sink)
    for bad, message in [
        (b"", "damaged"),
        (data[: len(data) // 2], "damaged"),
        (sink.getvalue().to_pybytes(), "not one of keys"),
    ]:
        with pytest.raises(KeyFileError, match=message):
            KeyFile.parse(bad, shard="shard-000.tar", dataset="faces")


def test_a_doubled_row_is_found_on_opening(recipient_key):
    file = KeyFile.parse(sealed(recipient_key, make_faces(2)))
    twice = pyarrow.concat_tables([file._table, file._table])
    doubled = KeyFile(Layout(file.context, file.recipients, file.parts, twice, []))
    with pytest.raises(KeyFileError, match="a row was doubled"):
        doubled.open_face("img00000", 0, recipient_key)
