"""The whole path on a real Ray: what comes out, what stays the same, where the keys are."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.audit.verify import verify_log
from diffpriv.keys.keyfile import KeyFile
from diffpriv.keys.store import KeyStore
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.destination.published import measure
from diffpriv.pipelines.engines.beam_driver import run as run_here
from diffpriv.pipelines.engines.ray_driver import run
from diffpriv.pipelines.errors import LeaseError
from diffpriv.pipelines.run.job import open_job
from diffpriv.pipelines.run.report import RunReport
from tests.pipelines.conftest import Keyring, commit_records, make_config, published
from tests.pipelines.datasets import read_tar, small_shards, write_shards

pytestmark = pytest.mark.usefixtures("ray_session")
WITH_FACES = {"000/a.jpg", "002/a.jpg", "002/c.png", "002/d.jpg", "003/two.right.webp"}


class Done:
    """A finished job and where everything is."""

    def __init__(self, config: JobConfig, report: RunReport, src: Path) -> None:
        self.config, self.report, self.src, self.dst = config, report, src, Path(config.dst)

    def members(self) -> dict[str, dict[str, bytes]]:
        return {name: dict(read_tar(self.dst / name)) for name in small_shards()}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, keyring: Keyring, derived: Any, ray_session: None) -> Done:
    base = tmp_path_factory.mktemp("job")
    src = write_shards(base / "src", small_shards())
    config = make_config(base, keyring, src)
    seen: list[Any] = []
    report = run(config, key_source=derived, log_key=keyring.log_key, progress=seen.append)
    assert [p.shards_done for p in seen][-1] == 4
    return Done(config, report, src)


def test_counts_add_up(done: Done) -> None:
    counts = done.report.counts
    done.report.check()
    assert done.report.ok
    assert (counts["samples_in"], counts["samples_out"], counts["samples_quarantined"]) == (14, 13, 1)
    assert counts["faces"] == counts["faces_protected"] + counts["faces_filled"] == 10
    assert counts["pictures_changed"] == len(WITH_FACES)


def test_pictures_with_faces_change_and_everything_else_keeps_its_bytes(done: Done) -> None:
    for name, members in small_shards().items():
        expected = [(member, data) for member, data in members if not member.startswith("002/bad")]
        there = read_tar(done.dst / name)
        assert [member for member, _ in there] == [member for member, _ in expected], "order or names changed"
        changed = {member for (member, old), (_, new) in zip(expected, there, strict=True) if old != new}
        assert changed == WITH_FACES & {member for member, _ in expected}


def test_a_shard_in_which_nothing_changes_is_the_same_file(done: Done) -> None:
    assert (done.dst / "shard-001.tar").read_bytes() == (done.src / "shard-001.tar").read_bytes()


def test_changed_pictures_keep_codec_and_size(done: Done) -> None:
    for name, members in small_shards().items():
        for member, data in members:
            if member in WITH_FACES:
                before, after = Image.open(io.BytesIO(data)), Image.open(io.BytesIO(done.members()[name][member]))
                assert (before.format, before.size, before.mode) == (after.format, after.size, after.mode)


def test_the_bad_sample_is_in_quarantine_with_a_reason(done: Done) -> None:
    assert "002/bad.jpg" not in done.members()["sub/shard-002.tar"]
    lines = (done.dst / ".diffpriv/quarantine/sub%2Fshard-002.tar.jsonl").read_text()
    assert '"sample": "002/bad"' in lines
    assert "truncated" in lines
    assert sum(done.report.quarantined.values()) == 1


def test_every_face_has_a_record_that_the_recipient_opens(done: Done, keyring: Keyring, derived: Any) -> None:
    store = KeyStore(done.config.keys or "")
    opened = 0
    for shard, record in commit_records(done.dst).items():
        file = KeyFile.parse(store.get("faces", shard), dataset="faces", shard=shard)
        assert file.faces() == [(sample, index) for sample, index, *_ in record["faces"]]
        for sample, index in file.faces():
            face = file.open_face(sample, index, keyring.recipient_key)
            assert face.key.same_as(derived().face_key(file.context, sample, index))
            assert face.payload
            opened += 1
    assert opened == done.report.counts["faces"]


def test_the_audit_log_accounts_for_every_shard_key_file_and_byte(done: Done, keyring: Keyring) -> None:
    report = verify_log(
        AuditLog(done.config.audit, keyring.log_key),
        key_store=KeyStore(done.config.keys or ""),
        recipient_key=keyring.recipient_key,
        data=measure(done.config.dst),
    )
    assert report.problems == []
    kinds = [event.kind for _, event in AuditLog(done.config.audit, keyring.log_key).events()]
    assert kinds.count("shard committed") == 4
    assert kinds.count("sample quarantined") == 1
    assert kinds.count("run started") == kinds.count("run finished") == 1


def test_nothing_is_left_in_staging(done: Done) -> None:
    assert not (done.dst / ".diffpriv/staging").exists()


def test_a_finished_job_run_again_does_nothing_and_says_so(done: Done, derived: Any, keyring: Keyring) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.dst.rglob("*") if path.is_file() and path.name != "lease"}
    size = AuditLog(done.config.audit, keyring.log_key).checkpoint().size
    again = run(done.config, key_source=derived, log_key=keyring.log_key)
    assert again.nothing_to_do
    assert again.counts == done.report.counts
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert AuditLog(done.config.audit, keyring.log_key).checkpoint().size == size


def test_output_bytes_depend_neither_on_batch_size_nor_on_actors(
    done: Done, config_for: Callable[..., JobConfig], derived: Any
) -> None:
    workers = {"detect_batch": 3, "protect_batch": 1, "protect_actors": 2, "detect_cpus": 0.5, "protect_cpus": 0.5}
    config = config_for(done.src, workers=workers)
    report = run(config, key_source=derived)
    assert report.audit == "waiting"  # no log key was given: segments are there, the log is not touched
    assert published(config.dst) == published(done.dst)


def test_two_runs_on_one_target_refuse_each_other(done: Done) -> None:
    with open_job(done.config), pytest.raises(LeaseError, match="is being written by run"):
        run(done.config)
    with open_job(done.config):
        pass  # and the lease is free again


def test_only_a_new_shard_is_done_when_one_is_added(done: Done, derived: Any, keyring: Keyring) -> None:
    before = published(done.dst)
    write_shards(done.src, {"shard-900.tar": small_shards()["shard-000.tar"]})
    try:
        report = run_here(done.config, key_source=derived, log_key=keyring.log_key)
        assert (report.shards_done, report.shards_done_before) == (1, 4)
        assert before.items() <= published(done.dst).items()
    finally:
        (done.src / "shard-900.tar").unlink()
        for path in done.dst.rglob("*shard-900*"):
            path.unlink()


def test_bad_shards_are_named_and_the_others_go_on(tmp_path: Path, config_for: Callable[..., JobConfig]) -> None:
    shards = small_shards()
    climbing = [("../outside.jpg", b"x"), *shards["shard-000.tar"]]
    src = write_shards(
        tmp_path / "src", {"a.tar": shards["shard-000.tar"], "climbing.tar": climbing, "b.tar.gz": shards["shard-001.tar"]}
    )
    (src / "empty.tar").write_bytes(b"")
    (src / "cut.tar").write_bytes((src / "a.tar").read_bytes()[:5000])
    (src / "text.tar").write_bytes(b"this is no archive\n" * 100)
    config = config_for(src)
    report = run(config)
    assert not report.ok
    assert set(report.shards_failed) == {"empty.tar", "cut.tar", "text.tar"}
    assert sorted(published(config.dst)) == ["a.tar", "b.tar.gz", "climbing.tar"]
    assert report.quarantined == {"its name climbs out of the dataset": 1}
    assert not (Path(config.dst).parent / "outside.jpg").exists()
    for name in ("empty.tar", "cut.tar", "text.tar"):
        (src / name).write_bytes((src / "a.tar").read_bytes())
    again = run_here(config)
    assert again.ok
    assert (again.shards_done, again.shards_done_before) == (3, 3)


def test_recovery_none_keeps_no_key_anywhere(tmp_path: Path, config_for: Callable[..., JobConfig]) -> None:
    src = write_shards(tmp_path / "src", {"a.tar": small_shards()["shard-000.tar"]})
    config = config_for(src, keys=None, recipients=[], transform={"transform": "fill", "recovery": "none"})
    report = run_here(config)
    assert (report.counts["faces"], report.counts["faces_recoverable"]) == (1, 0)
    assert commit_records(config.dst)["a.tar"]["key_file"] is None
    assert not (tmp_path / "out/keys").exists()
