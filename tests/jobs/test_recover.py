"""`diffpriv recover`: what brings a face back, and everything that must not."""

import io
import shutil
import time
from pathlib import Path

import numpy as np
from PIL import Image

from diffpriv.keys.notes import NoteVerifier
from diffpriv.keys.release import read_receipt
from tests.jobs.conftest import Place, cheap_keys
from tests.pipelines.datasets import read_tar

FACE = ("shard-000.tar", "000/face")
GROUP = ("shard-001.tar", "001/group")


def _pixels(data: bytes | Path) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data) if isinstance(data, bytes) else data).convert("RGB"))


def _approved(place: Place, name: str, *more: object, by: str = "requester") -> Path:
    request = place.request(name, *more, by=by)  # type: ignore[arg-type]
    place.approve(request, "custodian-2")
    place.approve(request, "custodian-3")
    return request


def test_two_approvals_bring_the_original_pixels_back(shards: Place) -> None:
    request = _approved(shards, "whole", *FACE)
    done = shards.recover(request).json()
    assert [face["bit_exact"] for face in done["faces"]] == [True]
    original = _pixels(dict(read_tar(shards.src / FACE[0]))["000/face.png"])
    published = _pixels(dict(read_tar(shards.dst / FACE[0]))["000/face.png"])
    assert not np.array_equal(published, original)
    assert np.array_equal(_pixels(Path(done["pictures"][0])), original)
    receipt = read_receipt(Path(done["receipt"]).read_bytes(), NoteVerifier.load(shards.keys / "office.vkey"))
    assert receipt["case"] == done["case"]
    assert len(receipt["approved_by"]) == 2
    kinds = [entry["kind"] for entry in shards.log("--case", done["case"])]
    assert kinds == ["recovery requested", "recovery approved", "recovery approved", "recovery released"]


def test_one_face_of_a_group_comes_back_and_the_others_stay_protected(shards: Place) -> None:
    done = shards.recover(_approved(shards, "one-of-six", *GROUP, "--face", 2)).json()
    (face,) = done["faces"]
    assert (face["face_index"], face["bit_exact"]) == (2, True)
    recovered, published = (
        _pixels(Path(done["pictures"][0])),
        _pixels(dict(read_tar(shards.dst / GROUP[0]))["001/group.jpg"]),
    )
    changed = (recovered != published).any(axis=2)
    # One patch, not six: what came back lies in one box that is a small part of the picture.
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    box = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    assert 0 < box < changed.size / 6


def test_a_picture_of_a_folder_comes_back(pictures: Place) -> None:
    done = pictures.recover(_approved(pictures, "from-folder", "files-00000", "a/face.png")).json()
    assert np.array_equal(_pixels(Path(done["pictures"][0])), _pixels(pictures.src / "a" / "face.png"))


def test_a_case_opens_its_faces_once(shards: Place) -> None:
    request = _approved(shards, "once", *FACE)
    shards.recover(request)
    shutil.rmtree(shards.run.folder / "once-recovered")
    error = shards.recover(request, expect=1).json()["error"]
    assert "released before" in error["message"]


def test_nothing_is_opened_with_one_approval_of_two(shards: Place) -> None:
    request = shards.request("early", *FACE)
    shards.approve(request, "custodian-1")
    error = shards.recover(request, expect=1).json()["error"]
    assert "1 of 2 approvals" in error["message"]
    assert "too-few-approvals" in shards.reasons("recovery refused")
    assert not (shards.run.folder / "early-recovered").exists()


def test_nobody_approves_a_request_of_their_own(shards: Place) -> None:
    request = shards.request("own", *FACE, by="custodian-1")
    answer = shards.approve(request, "custodian-1", expect=1)
    assert "nobody approves a request of their own" in answer.err
    assert "own-request" in shards.reasons("recovery refused")


def test_one_denial_closes_a_case(shards: Place) -> None:
    request = shards.request("denied", *FACE)
    shards.approve(request, "custodian-1")
    shards.run("recover", "deny", request, "--custodian-key", shards.person("custodian-2"), "--yes", *shards.logged)
    assert "as denied" in shards.approve(request, "custodian-3", expect=2).err
    assert "denied before" in shards.recover(request, expect=1).json()["error"]["message"]


def test_an_expired_case_opens_nothing(shards: Place) -> None:
    made = time.time()
    request = shards.request("expired", *FACE, "--expires", "1s")
    time.sleep(max(0.0, made + 3 - time.time()))
    assert "expired" in shards.approve(request, "custodian-1", expect=2).err
    assert "expired" in shards.recover(request, expect=1).json()["error"]["message"]
    assert shards.log("--kind", "recovery expired")


def test_a_mailed_approval_counts_when_it_is_recorded(shards: Place, tmp_path: Path) -> None:
    request, policy = shards.request("mailed", *FACE), shards.keys / "policy.json"
    logged = ("--audit", shards.audit, "--log-vkey", shards.keys / "log.vkey", "--yes")
    for name in ("custodian-1", "custodian-3"):
        signed = ("--custodian-key", shards.person(name), "--policy", policy, "--out", tmp_path / name, *logged)
        shards.run("recover", "approve", request, *signed)
    decisions = ("--decision", tmp_path / "custodian-1", "--decision", tmp_path / "custodian-3")
    answer = shards.run("--json", "recover", "record", request, *shards.logged, *decisions)
    assert answer.json()["state"] == "approved"
    given = ("--policy", policy, "--audit", shards.audit, "--log-vkey", shards.keys / "log.vkey")
    assert shards.run("--json", "recover", "show", request, *given).json()["missing_approvals"] == 0


def test_a_wrong_key_opens_nothing_and_the_attempt_is_logged(shards: Place, tmp_path: Path) -> None:
    request = _approved(shards, "wrong-key", *FACE)
    cheap_keys(tmp_path / "others")
    error = shards.recover(request, expect=1, recipient_key=tmp_path / "others" / "recipient.key").json()["error"]
    assert error["kind"] == "WrongRecipientError"
    assert "was sealed to recipients" in error["message"]
    assert "diffpriv keys rotate" in error["advice"]
    assert shards.reasons("recovery failed")[-1] == "WrongRecipientError"
    shutil.rmtree(shards.run.folder / "wrong-key-recovered")
    shards.recover(request)  # the failure did not use the case up


def test_a_wrong_passphrase_is_an_attempt_and_logged(shards: Place, tmp_path: Path) -> None:
    request = _approved(shards, "wrong-passphrase", *FACE)
    (tmp_path / "guess").touch(0o600)
    (tmp_path / "guess").write_text("password1")
    error = shards.recover(request, "--passphrase-file", tmp_path / "guess", expect=1).json()["error"]
    assert error["kind"] == "PassphraseError"
    assert shards.reasons("recovery failed")[-1] == "PassphraseError"


def test_a_record_of_another_dataset_is_refused_and_logged(shards: Place, pictures: Place, tmp_path: Path) -> None:
    """The key file of another dataset, put where the right one was."""
    request = _approved(shards, "other-record", *FACE)
    shutil.copytree(shards.store, tmp_path / "store")
    (mine,) = (tmp_path / "store").rglob("shard-000*")
    (other,) = pictures.store.rglob("*.keys.parquet")
    shutil.copy(other, mine)
    error = shards.recover(request, expect=1, keys=tmp_path / "store").json()["error"]
    assert error["kind"] == "KeyFileError"
    assert "is really that of files-00000" in error["message"]
    assert shards.reasons("recovery failed")[-1] == "KeyFileError"


def test_pictures_of_another_dataset_are_refused_and_logged(shards: Place, pictures: Place) -> None:
    request = _approved(shards, "other-data", *FACE)
    error = shards.recover(request, expect=2, data=pictures.dst).json()["error"]
    assert "has no face 0 of sample 000/face" in error["message"]
    assert shards.reasons("recovery failed")[-1] == "MisuseError"


def test_a_face_that_is_not_there_can_not_be_asked_for(shards: Place) -> None:
    asked = ("--keys", shards.store, "--shard", FACE[0], "--sample", "000/nobody", "--purpose", "x", "--yes")
    asked += ("--requester-key", shards.person("requester"))
    request = shards.run.folder / "nobody.json"
    answer = shards.run("recover", "request", request, "--data", shards.dst, *asked, *shards.logged, expect=2)
    assert "has no face 0 of sample 000/nobody" in answer.err
    assert not request.exists()


def test_the_log_of_all_this_is_sound_and_names_nobody(shards: Place) -> None:
    given = ("--log-vkey", shards.keys / "log.vkey", "--keys", shards.store, "--data", shards.dst)
    assert shards.run("--json", "audit", "verify", shards.audit, *given).json()["problems"] == []
    stored = b"".join(path.read_bytes() for path in shards.audit.rglob("*") if path.is_file())
    assert b"000/face" not in stored
    assert b"custodian-1" not in stored
    assert shards.reasons("sample quarantined") == ["picture-unreadable"], (
        "a code; the words, which could hold names, stay in DST"
    )
