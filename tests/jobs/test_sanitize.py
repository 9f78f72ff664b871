"""`diffpriv sanitize` and `audit verify` on real tars, a real Ray and real keys."""

import hashlib
import shutil
from pathlib import Path

from tests.jobs.conftest import Place
from tests.pipelines.datasets import read_tar

SHARDS = ("shard-000.tar", "shard-001.tar")


def _verify(place: Place, *more: object, expect: int = 0, **changed: Path) -> dict[str, object]:
    data, store = changed.get("data", place.dst), changed.get("store", place.store)
    given = ("--log-vkey", place.keys / "log.vkey", "--keys", store, "--data", data)
    return place.run("--json", "audit", "verify", place.audit, *given, *more, expect=expect).json()


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but the lease, which every run signs."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "lease")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_counts_add_up(shards: Place) -> None:
    counts = shards.report["counts"]
    assert counts["samples_in"] == 4 == counts["samples_out"] + counts["samples_quarantined"]
    assert counts["samples_quarantined"] == 1 == sum(shards.report["quarantined"].values())
    assert counts["faces"] == 7 == counts["faces_protected"] + counts["faces_filled"]
    assert counts["pictures_changed"] == 2


def test_all_but_pictures_with_faces_is_the_same_byte_for_byte(shards: Place) -> None:
    for name in SHARDS:
        before = [one for one in read_tar(shards.src / name) if not one[0].startswith("001/cut")]
        after = read_tar(shards.dst / name)
        assert [member for member, _ in after] == [member for member, _ in before]
        changed = [member for (member, new), (_, old) in zip(after, before, strict=True) if new != old]
        assert changed == {"shard-000.tar": ["000/face.png"], "shard-001.tar": ["001/group.jpg"]}[name]


def test_a_finished_job_has_nothing_to_do(shards: Place) -> None:
    state = _digests(shards.dst)
    entries = len(shards.log())
    places = ("--keys", shards.store, "--audit", shards.audit, "--recipient", shards.keys / "recipient.json")
    again = ("--log-key", shards.keys / "log.key", "--transform", "fill", "--recovery", "exact")
    answer = shards.run("sanitize", shards.src, shards.dst, *places, *again)
    assert "Nothing to do" in answer.out
    assert _digests(shards.dst) == state
    assert len(shards.log()) == entries


def test_a_finished_dst_is_not_made_again_with_other_settings(shards: Place) -> None:
    places = ("--keys", shards.store, "--audit", shards.audit, "--recipient", shards.keys / "recipient.json")
    answer = shards.run("sanitize", shards.src, shards.dst, *places, "--transform", "blur", "--recovery", "exact", expect=2)
    assert "other settings" in answer.err


def test_the_audit_accepts_what_was_made(shards: Place) -> None:
    report = _verify(shards, "--recipient-key", shards.keys / "recipient.key", "--log-key", shards.keys / "log.key")
    assert report["problems"] == []
    checked = report["checked"]
    assert isinstance(checked, dict)
    assert checked["published shards"] == checked["key files"] == 2


def test_the_audit_finds_an_altered_shard(shards: Place, tmp_path: Path) -> None:
    shutil.copytree(shards.dst, tmp_path / "data")
    shard = tmp_path / "data" / "shard-001.tar"
    altered = bytearray(shard.read_bytes())
    altered[len(altered) // 2] ^= 1
    shard.write_bytes(altered)
    problems = _verify(shards, expect=1, data=tmp_path / "data")["problems"]
    assert len(problems) == 1  # type: ignore[arg-type]
    assert "shard-001.tar" in str(problems)


def test_the_audit_misses_a_key_file(shards: Place, tmp_path: Path) -> None:
    shutil.copytree(shards.store, tmp_path / "store")
    (gone,) = (tmp_path / "store").rglob("shard-000*")
    gone.unlink()
    assert "shard-000.tar" in str(_verify(shards, expect=1, store=tmp_path / "store")["problems"])


def test_the_audit_accepts_a_picture_folder(pictures: Place) -> None:
    assert _verify(pictures)["problems"] == []
    assert (pictures.dst / "notes.txt").read_bytes() == (pictures.src / "notes.txt").read_bytes()
    assert (pictures.dst / "a" / "face.png").read_bytes() != (pictures.src / "a" / "face.png").read_bytes()


def test_the_command_line_wins_over_the_job_file_setting_by_setting(pictures: Place) -> None:
    """The file says fill and exact, the command line says blur: exact must have stayed."""
    (committed,) = pictures.log("--kind", "shard committed")
    assert "blur" in str(committed["facts"]["made_by"])
    assert committed["facts"]["faces_recoverable"] == 1


def test_metrics_of_a_run_are_where_they_were_wanted(pictures: Place) -> None:
    text = (pictures.run.folder / "second.prom").read_text()
    assert 'diffpriv_faces{dataset="data",state="protected"} 1' in text
    assert 'diffpriv_run_ok{dataset="data"} 1' in text


def test_keys_list_shows_who_can_open_what(shards: Place) -> None:
    listed = shards.run("--json", "keys", "list", shards.store, shards.keys).json()
    (recipient,) = [one["fingerprint"] for one in listed["keys"] if one["kind"] == "recipient"]
    assert [one["shard"] for one in listed["key_files"]] == list(SHARDS)
    assert all(one["sealed_to"] == [recipient] for one in listed["key_files"])
    assert sum(one["faces"] for one in listed["key_files"]) == 7
