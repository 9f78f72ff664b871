"""What goes wrong in practice ends in a clear state, and running the job again completes it.

On Ray where the fault meets the engine; what only the job, the formats or the commit decide is run in this process.
"""

import functools
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.audit.verify import verify_log
from diffpriv.keys.errors import DiffPrivError, StorageError
from diffpriv.keys.sources import DerivedKeySource
from diffpriv.keys.store import KeyStore
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.destination.published import find_face, measure, read_picture, read_source_picture
from diffpriv.pipelines.engines.beam_driver import run as run_here
from diffpriv.pipelines.engines.ray_driver import run
from diffpriv.pipelines.errors import MisuseError
from tests.pipelines.conftest import Keyring, commit_records, derived_source, published
from tests.pipelines.datasets import Member, astronaut, coffee, encoded, gradient, sample, write_shards

FACE, NOBODY = encoded(astronaut(), "JPEG"), encoded(gradient(1), "JPEG")


def two_shards() -> dict[str, list[Member]]:
    return {"a.tar": sample("a", 0, FACE) + sample("b", 1, NOBODY), "b.tar": sample("c", 2, FACE)}


# --- misuse: refused before anything is written -----------------------------------------------------------------------

MISUSE: dict[str, dict[str, Any]] = {
    "missing folder": {"src": "nowhere"},
    "missing shard": {"src": "src/shard-{0..3}.tar"},
    "DST inside SRC": {"dst": "src/out"},
    "SRC inside DST": {"dst": "."},
    "keys inside DST": {"keys": "out/data/keys"},
    "DST inside keys": {"keys": "out"},
    "audit inside DST": {"audit": "out/data/audit"},
    "recipient that is not there": {"recipients": ["nobody.json"]},
    "recipient that is none": {"recipients": ["src/a.tar"]},
    "DST with other files": {"dst": "full"},
    "DST that is a file": {"dst": "file"},
}


@pytest.mark.parametrize("change", MISUSE.values(), ids=MISUSE)
def test_misuse_is_refused_before_anything_is_written(
    tmp_path: Path, config_for: Callable[..., JobConfig], change: dict[str, Any]
) -> None:
    src = write_shards(tmp_path / "src", two_shards())
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    absolute = {
        name: [str(tmp_path / one) for one in value] if isinstance(value, list) else str(tmp_path / value)
        for name, value in change.items()
    }
    config = config_for(absolute.pop("src", src), dataset="faces", **absolute)
    with pytest.raises(DiffPrivError) as refused:
        run(config)
    assert str(refused.value)
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "lease"]
    assert sorted(path.name for path in left) == ["a.tar", "a.txt", "b.tar", "file"]


# --- faults in the middle ---------------------------------------------------------------------------------------------


def test_other_settings_on_the_same_target_are_refused(tmp_path: Path, config_for: Callable[..., JobConfig]) -> None:
    src = write_shards(tmp_path / "src", {"a.tar": two_shards()["a.tar"]})
    run_here(config_for(src))
    with pytest.raises(MisuseError, match="other settings"):
        run_here(config_for(src, detector_options={"threshold": 0.4}))


def test_a_target_of_an_earlier_release_is_refused_with_the_reason_and_stays_as_it_was(
    tmp_path: Path, config_for: Callable[..., JobConfig]
) -> None:
    config = config_for(write_shards(tmp_path / "src", {"a.tar": two_shards()["a.tar"]}))
    run_here(config)
    state = Path(config.dst) / ".diffpriv/job.json"
    written = json.loads(state.read_text())
    del written["method_version"]  # as releases before it was kept left it
    state.write_text(json.dumps(written | {"version": 1, "config_digest": "0" * 64}))
    before = published(config.dst)
    with pytest.raises(MisuseError, match=r"kept no version of the method.*Give a new DST"):
        run_here(config)
    assert published(config.dst) == before


def test_a_text_called_jpg_and_a_cut_jpeg_are_quarantined(tmp_path: Path, config_for: Callable[..., JobConfig]) -> None:
    bad = sample("t", 0, b"this is text") + sample("u", 1, FACE[:3000]) + sample("v", 2, FACE)
    config = config_for(write_shards(tmp_path / "src", {"a.tar": bad}))
    report = run_here(config)
    assert report.ok
    assert (report.counts["samples_in"], report.counts["samples_out"]) == (3, 1)
    assert len(report.quarantined) == 2


def test_an_unwritable_key_store_publishes_nothing_and_a_rerun_completes_without_redoing(
    tmp_path: Path, config_for: Callable[..., JobConfig], keyring: Keyring, ray_session: None
) -> None:
    config = config_for(write_shards(tmp_path / "src", two_shards()))
    blocked = Path(config.keys or "")
    blocked.parent.mkdir()
    blocked.write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="can't be written"):
        run(config, log_key=keyring.log_key)
    assert published(config.dst) == {}
    blocked.unlink()
    report = run_here(config, log_key=keyring.log_key)
    assert report.ok
    assert report.rolled_forward >= 1, "finished work was thrown away"
    log = AuditLog(config.audit, keyring.log_key)
    assert verify_log(log, key_store=KeyStore(blocked), data=measure(config.dst)).problems == []


def deleting_source(root: str, victim: str) -> DerivedKeySource:
    Path(victim).unlink(missing_ok=True)
    return derived_source(root)


def test_a_source_shard_that_vanishes_fails_alone_and_a_rerun_completes(
    tmp_path: Path, config_for: Callable[..., JobConfig], derived: Any, ray_session: None
) -> None:
    src = write_shards(tmp_path / "src", two_shards())
    config = config_for(src)
    report = run(config, key_source=functools.partial(deleting_source, derived.args[0], str(src / "b.tar")))
    assert not report.ok
    assert list(report.shards_failed) == ["b.tar"]
    assert set(published(config.dst)) == {"a.tar"}
    write_shards(src, {"b.tar": two_shards()["b.tar"]})
    again = run_here(config, key_source=derived)
    assert (again.ok, again.shards_done, again.shards_done_before) == (True, 1, 1)


def test_a_changed_source_shard_is_redone_and_a_touched_one_is_not(
    tmp_path: Path, config_for: Callable[..., JobConfig], derived: Any, keyring: Keyring
) -> None:
    src = write_shards(tmp_path / "src", two_shards())
    config = config_for(src)
    run_here(config, key_source=derived, log_key=keyring.log_key)
    before = commit_records(config.dst)
    (src / "a.tar").touch()
    write_shards(src, {"b.tar": sample("d", 0, FACE) + sample("c", 1, FACE)})
    report = run_here(config, key_source=derived, log_key=keyring.log_key)
    assert (report.ok, report.shards_done, report.shards_done_before) == (True, 1, 1)
    after = commit_records(config.dst)
    assert after["a.tar"] == before["a.tar"]
    assert after["b.tar"]["counts"]["faces"] == 2
    log = AuditLog(config.audit, keyring.log_key)
    assert verify_log(log, key_store=KeyStore(config.keys or ""), data=measure(config.dst)).problems == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for little."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120k", "tmpfs", str(place)], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("a full disk needs the right to mount one")
    yield place
    subprocess.run(["umount", str(place)], check=False)


def test_a_full_disk_stops_the_job_and_a_rerun_completes_it(
    tmp_path: Path, small_disk: Path, config_for: Callable[..., JobConfig], derived: Any, keyring: Keyring, ray_session: None
) -> None:
    src = write_shards(tmp_path / "src", {f"{n}.tar": sample("a", n, FACE) + sample("b", n, NOBODY) for n in range(5)})
    config = config_for(src, dst=str(small_disk / "data"))
    with pytest.raises(StorageError, match="No space left"):
        run(config, key_source=derived, log_key=keyring.log_key)
    store = KeyStore(config.keys or "")
    for shard in published(config.dst):
        assert ("faces", shard) in store.list()
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    assert run_here(config, key_source=derived, log_key=keyring.log_key).ok
    log = AuditLog(config.audit, keyring.log_key)
    assert verify_log(log, key_store=store, recipient_key=keyring.recipient_key, data=measure(config.dst)).problems == []
    unbroken = config_for(src, "unbroken")
    run_here(unbroken, key_source=derived)
    assert published(config.dst) == published(unbroken.dst)


# --- the other formats ------------------------------------------------------------------------------------------------


def test_parquet_with_image_structs(tmp_path: Path, config_for: Callable[..., JobConfig]) -> None:
    src = tmp_path / "src"
    src.mkdir()
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pictures = [NOBODY, b"no picture", FACE, FACE, NOBODY]
    rows = [{"bytes": data, "path": f"{n}.jpg"} for n, data in enumerate(pictures)]
    pq.write_table(pa.table({"image": pa.array(rows, kind), "label": range(5)}), src / "p.parquet", row_group_size=2)
    config = config_for(src)
    report = run_here(config)
    assert report.ok
    assert (report.counts["samples_in"], report.counts["samples_quarantined"], report.counts["faces"]) == (5, 1, 2)
    table = pq.read_table(Path(config.dst) / "p.parquet")
    assert table["label"].to_pylist() == [0, 2, 3, 4]
    out = [row["bytes"] for row in table["image"].to_pylist()]
    assert [new == old for new, old in zip(out, [NOBODY, FACE, FACE, NOBODY], strict=True)] == [True, False, False, True]
    assert find_face(config.dst, "p.parquet", "000000003") == [(0, "image")]
    assert read_picture(config.dst, "p.parquet", "000000003", "image") == out[2]
    assert read_source_picture(config.src, "p.parquet", "000000003", "image") == FACE


def test_an_image_folder_keeps_its_tree(
    tmp_path: Path, config_for: Callable[..., JobConfig], derived: Any, keyring: Keyring
) -> None:
    files = {f"people/{n}/p.jpg": FACE for n in range(3)} | {"things/c.png": encoded(coffee(), "PNG"), "labels.csv": b"a,b\n"}
    for name, data in files.items():
        path = tmp_path / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    config = config_for(tmp_path / "src", files_per_shard=2)
    report = run_here(config, key_source=derived, log_key=keyring.log_key)
    assert (report.ok, report.shards, report.counts["pictures_changed"]) == (True, 3, 3)
    there = published(config.dst)
    assert there.keys() == files.keys()
    assert {name for name in files if there[name] != files[name]} == {f"people/{n}/p.jpg" for n in range(3)}
    (tmp_path / "src/aaa.jpg").write_bytes(FACE)
    again = run_here(config, key_source=derived, log_key=keyring.log_key)
    assert (again.shards_done, again.shards_done_before) == (1, 3)
    assert there.items() <= published(config.dst).items()
    log = AuditLog(config.audit, keyring.log_key)
    assert verify_log(log, key_store=KeyStore(config.keys or ""), data=measure(config.dst)).problems == []
    assert find_face(config.dst, "files-00000", "people/0/p.jpg") == [(0, "image")]
