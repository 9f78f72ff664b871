"""Shredding: gone for good, provable without names, and harmless to repeat."""

import os

import pytest

from diffpriv.keys.audit.verify import verify_log
from diffpriv.keys.errors import AuditError, KeyFileError, MisuseError, ShreddedError, UnknownFaceError
from diffpriv.keys.keyfile import KeyFile
from diffpriv.keys.listing import list_key_files
from diffpriv.keys.requests import FaceRef
from diffpriv.keys.shredding import Selection, check_receipt, person_selections, read_receipt, shred

LATER = 1_790_100_000  # 2026-09-22


def parsed(vault, shard):
    return KeyFile.parse(vault.store.get("faces", shard))


def verify(vault):
    return verify_log(vault.log, key_store=vault.store, recipient_key=vault.recipient_key, data=vault.data_digests()).problems


def gone(vault):
    return {(shard, *face) for shard in vault.shards for face in parsed(vault, shard).shredded()}


def test_one_face_is_gone_and_its_neighbours_are_not(vault):
    report = shred(vault.store, vault.log, [Selection("faces", "shard-001.tar", "img00003", 1)], scope="face", now=LATER)
    assert report.destroyed == [FaceRef("faces", "shard-001.tar", "img00003", 1)]
    file = parsed(vault, "shard-001.tar")
    with pytest.raises(ShreddedError, match=r"face 1 of sample img00003 in shard-001\.tar was shredded on 2026-09-22"):
        file.open_face("img00003", 1, vault.recipient_key)
    assert file.check_all(vault.recipient_key) == 23
    assert verify(vault) == []


def test_the_record_bytes_are_nowhere_in_the_new_key_file(vault):
    rows = parsed(vault, "shard-001.tar")._table.to_pylist()
    record = next(row["record"] for row in rows if (row["sample"], row["face_index"]) == ("img00003", 1))
    shred(vault.store, vault.log, [Selection("faces", "shard-001.tar", "img00003", 1)], scope="face", now=LATER)
    assert record not in vault.store.get("faces", "shard-001.tar")
    assert record[13:61] not in vault.store.get("faces", "shard-001.tar")


def test_a_sample_a_person_and_a_dataset_go_as_a_whole(vault, tmp_path):
    shred(vault.store, vault.log, [Selection("faces", "shard-000.tar", "img00000")], scope="sample", now=LATER)
    assert gone(vault) == {("shard-000.tar", "img00000", 0), ("shard-000.tar", "img00000", 1)}

    people = tmp_path / "people.csv"
    people.write_text(
        "person,dataset,shard,sample,face\n"
        "Anna B.,faces,shard-002.tar,img00004,1\n"
        "Anna B.,faces,,img00007,0\n"
        "Carl D.,faces,shard-002.tar,img00004,0\n"
    )
    report = shred(vault.store, vault.log, person_selections(people, "Anna B."), scope="person", now=LATER)
    assert len(report.destroyed) == 5
    assert ("shard-002.tar", "img00004", 1) in gone(vault)
    assert ("shard-002.tar", "img00004", 0) not in gone(vault)
    assert {(shard, "img00007", 0) for shard in vault.shards} < gone(vault)

    report = shred(vault.store, vault.log, [Selection("faces")], scope="dataset", now=LATER)
    assert len(report.destroyed) == 4 * 24 - 2 - 5
    assert len(report.already) == 7
    assert all(one.faces == 0 and one.shredded == 24 for one in list_key_files(vault.store))
    assert all(part.wraps == () for shard in vault.shards for part in parsed(vault, shard).parts)
    assert verify(vault) == []


def test_shredding_twice_destroys_nothing_more_and_says_since_when(vault):
    chosen = [Selection("faces", "shard-001.tar", "img00003")]
    first = shred(vault.store, vault.log, chosen, scope="sample", now=LATER)
    stored, size = vault.store.get("faces", "shard-001.tar"), vault.log.checkpoint().size
    again = shred(vault.store, vault.log, chosen, scope="sample", now=LATER + 99)
    assert (again.destroyed, again.receipt) == ([], None)
    assert set(again.already) == set(first.destroyed)
    assert set(again.already.values()) == {"2026-09-22T18:00:00Z"}
    assert (vault.store.get("faces", "shard-001.tar"), vault.log.checkpoint().size) == (stored, size)


def test_a_typo_destroys_nothing(vault):
    chosen = [Selection("faces", "shard-001.tar", "img00003"), Selection("faces", "shard-001.tar", "img99999")]
    with pytest.raises(UnknownFaceError, match="img99999; nothing was shredded"):
        shred(vault.store, vault.log, chosen, scope="sample", now=LATER)
    for wrong in (Selection("fases"), Selection("faces", "shard-777.tar")):
        with pytest.raises(UnknownFaceError, match="nothing was shredded"):
            shred(vault.store, vault.log, [wrong], scope="dataset", now=LATER)
    assert gone(vault) == set()


def test_the_log_proves_the_shredding_without_naming_anybody(vault, tmp_path):
    people = tmp_path / "people.csv"
    people.write_text("person,dataset,shard,sample,face\nAnna B.,faces,shard-002.tar,img00004,\n")
    report = shred(vault.store, vault.log, person_selections(people, "Anna B."), scope="person", now=LATER)
    events = [entry for _, entry in vault.log.entries() if b"face shredded" in entry]
    assert len(events) == 1
    for word in (b"Anna", b"img00004"):
        assert word not in events[0]
    body = check_receipt(report.receipt, vault.log, vault.store)
    assert body["key_files"][0]["faces"] == [["img00004", 0], ["img00004", 1]]
    assert read_receipt(report.receipt, vault.log.verifier) == body
    with pytest.raises(AuditError, match="altered"):
        check_receipt(report.receipt.replace(b"img00004", b"img00005"), vault.log)


def test_a_half_written_copy_that_a_dead_process_left_is_named_and_goes_too(vault):
    left = vault.root / "keys" / "faces" / ".writing-0123"
    left.write_bytes(vault.store.get("faces", "shard-001.tar"))
    assert verify(vault) == []  # it may be a living process's
    os.utime(left, (1, 1))
    (problem,) = verify(vault)
    assert ".writing-0123" in problem
    shred(vault.store, vault.log, [Selection("faces", "shard-001.tar", "img00003")], scope="sample", now=LATER)
    assert not left.exists()


def test_a_restored_backup_is_found(vault):
    backup = vault.store.get("faces", "shard-001.tar")
    report = shred(vault.store, vault.log, [Selection("faces", "shard-001.tar", "img00003")], scope="sample", now=LATER)
    vault.store.put("faces", "shard-001.tar", backup)
    with pytest.raises(AuditError, match=r"2 shredded faces are back in the key file of shard-001\.tar"):
        check_receipt(report.receipt, vault.log, vault.store)
    assert any("shredding that entry" in problem and "interrupted; run it again" in problem for problem in verify(vault))
    # A crash looks the same; the remedy is the same.
    shred(vault.store, vault.log, [Selection("faces", "shard-001.tar", "img00003")], scope="sample", now=LATER + 5)
    assert verify(vault) == []


def test_a_tampered_key_file_is_refused_before_anything_is_destroyed(vault):
    swapped = KeyFile.parse(vault.store.get("faces", "shard-002.tar")).without(lambda face: face[1] == 1, LATER)[0]
    vault.store.put("faces", "shard-002.tar", swapped)
    with pytest.raises(KeyFileError, match=r"shard-002\.tar"):
        shred(vault.store, vault.log, [Selection("faces")], scope="dataset", now=LATER)
    assert all(shard == "shard-002.tar" for shard, *_ in gone(vault))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,file\nx,y\n", "needs a first line with the columns person"),
        ("person,dataset,shard,sample,face\nOther,faces,,img,0\n", "no line for this person"),
        ("person,dataset,shard,sample,face\nAnna,faces,,img,first\n", "line 2: the face must be a number"),
        ("person,dataset,shard,sample,face\nAnna,faces,,,0\n", "line 2: dataset and sample must be given"),
    ],
)
def test_a_mapping_file_with_mistakes_is_refused_with_the_line(tmp_path, text, message):
    (tmp_path / "people.csv").write_text(text)
    with pytest.raises(MisuseError, match=message):
        person_selections(tmp_path / "people.csv", "Anna")
    with pytest.raises(MisuseError, match="can't be read"):
        person_selections(tmp_path / "missing.csv", "Anna")
