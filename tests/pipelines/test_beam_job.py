"""The same job under Beam: the same bytes, the same promises."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.audit.verify import verify_log
from diffpriv.keys.context import ShardContext
from diffpriv.keys.errors import StorageError
from diffpriv.keys.keyfile import build_key_file
from diffpriv.keys.store import KeyStore
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.destination.published import measure
from tests.pipelines.conftest import Keyring, commit_records, published
from tests.pipelines.datasets import small_shards, write_shards

beam_driver = pytest.importorskip("diffpriv.pipelines.engines.beam_driver", reason="needs the extra beam")
collect = pytest.importorskip("diffpriv.pipelines.audit_join.collect", reason="needs the extra beam")


def test_beam_gives_the_bytes_that_ray_gives(
    tmp_path: Path, config_for: Callable[..., JobConfig], derived: Any, keyring: Keyring, ray_session: None
) -> None:
    from diffpriv.pipelines.engines import ray_driver

    src = write_shards(tmp_path / "src", small_shards())
    (src / "empty.tar").write_bytes(b"")
    on_ray, on_beam = config_for(src, "ray"), config_for(src, "beam", engine="beam")
    one = ray_driver.run(on_ray, key_source=derived, log_key=keyring.log_key)
    two = beam_driver.run(on_beam, key_source=derived, log_key=keyring.log_key)
    assert published(on_beam.dst) == published(on_ray.dst)
    assert (two.counts, two.quarantined, two.shards_failed) == (one.counts, one.quarantined, one.shards_failed)
    ours, theirs = commit_records(on_beam.dst), commit_records(on_ray.dst)
    for shard in theirs:
        for fact in ("made_by", "counts", "faces", "files", "sidecars", "config_digest"):
            assert ours[shard][fact] == theirs[shard][fact]
    log = AuditLog(on_beam.audit, keyring.log_key)
    report = verify_log(
        log, key_store=KeyStore(on_beam.keys or ""), recipient_key=keyring.recipient_key, data=measure(on_beam.dst)
    )
    assert report.problems == []
    again = beam_driver.run(on_beam, key_source=derived, log_key=keyring.log_key)
    assert (again.shards_done, again.shards_done_before) == (0, 4)


def test_a_store_that_refuses_ends_a_beam_job_with_its_own_words(
    tmp_path: Path, config_for: Callable[..., JobConfig], derived: Any, keyring: Keyring
) -> None:
    config = config_for(write_shards(tmp_path / "src", {"a.tar": small_shards()["shard-000.tar"]}))
    Path(config.keys or "").parent.mkdir()
    Path(config.keys or "").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="can't be written"):
        beam_driver.run(config, key_source=derived)
    Path(config.keys or "").unlink()
    report = beam_driver.run(config, key_source=derived)
    assert (report.ok, report.rolled_forward) == (True, 1)
    assert report.audit == "waiting"

    # The segments wait for the log's key; the first run that has it signs them in, and the next has nothing to do.
    signed = beam_driver.run(config, key_source=derived, log_key=keyring.log_key)
    assert (signed.audit, signed.nothing_to_do, signed.shards_done) == ("integrated", False, 0)
    kinds = [event.kind for _, event in AuditLog(config.audit, keyring.log_key).events()]
    assert (kinds.count("run started"), kinds.count("shard committed")) == (3, 1)
    assert beam_driver.run(config, key_source=derived, log_key=keyring.log_key).nothing_to_do


def test_the_audit_join_names_what_is_missing_orphaned_doubled_and_altered(
    tmp_path: Path, config_for: Callable[..., JobConfig], derived: Any, keyring: Keyring
) -> None:
    shards = {f"{name}.tar": small_shards()["shard-000.tar"] for name in "abcdef"}
    config = config_for(write_shards(tmp_path / "src", shards), engine="beam")
    beam_driver.run(config, key_source=derived, log_key=keyring.log_key)
    log, store, dst = AuditLog(config.audit, keyring.log_key), KeyStore(config.keys or ""), Path(config.dst)
    assert collect.audit_join(config.dst, config.keys, log) == []

    store.delete("faces", "a.tar")
    store.put("faces", "b.tar", build_key_file(ShardContext("faces", "b.tar", config.digest()), []))
    (dst / "c.tar").write_bytes((dst / "c.tar").read_bytes().replace(b"label", b"lapel"))
    (dst / ".diffpriv/commits/d.tar.json").unlink()
    store.put("faces", "e.tar", b"no key file")
    (event,) = (e for _, e in log.events() if e.kind == "shard committed" and e.facts["shard"] == "f.tar")
    log.append([replace(event, at=max(one.at for _, one in log.events()))])
    found = collect.audit_join(config.dst, config.keys, log)
    assert {(one.shard, one.kind, one.what) for one in found} == {
        ("a.tar", "missing", "key file"),
        ("b.tar", "altered", "key file"),
        ("b.tar", "missing", "key record"),
        ("c.tar", "altered", "output"),
        ("d.tar", "orphaned", "key file"),
        ("d.tar", "orphaned", "audit entry"),
        ("e.tar", "altered", "key file"),
        ("f.tar", "doubled", "audit entry"),
    }
