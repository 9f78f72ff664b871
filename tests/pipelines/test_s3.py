"""SRC, DST, keys and audit on S3, a real moto server on the loopback. On Beam, whose default runner works in this process."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.audit.verify import verify_log
from diffpriv.keys.store import KeyStore
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.destination.published import measure, read_picture, unexpected_files
from diffpriv.pipelines.errors import LeaseError, MisuseError
from diffpriv.pipelines.layout import LEASE
from diffpriv.pipelines.run.job import open_job
from diffpriv.pipelines.storage import Folder
from tests.pipelines.conftest import Keyring, make_config, published
from tests.pipelines.datasets import small_shards, tar_bytes, write_shards

moto_server = pytest.importorskip("moto.server")
pytest.importorskip("s3fs")
beam_driver = pytest.importorskip("diffpriv.pipelines.engines.beam_driver", reason="needs the extra beam")


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """An S3 with three empty buckets, found through the usual environment variables."""
    import s3fs

    monkeypatch = pytest.MonkeyPatch()
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    store = s3fs.S3FileSystem(use_listings_cache=False)
    for bucket in ("data", "keys", "audit"):
        store.mkdir(bucket)
    yield store
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()
    monkeypatch.undo()


def test_a_job_on_s3_gives_the_bytes_of_a_local_one(tmp_path: Path, s3: Any, keyring: Keyring, derived: Any) -> None:
    shards = {name: members for name, members in small_shards().items() if name.startswith("sub") or name == "shard-001.tar"}
    for name, members in shards.items():
        s3.pipe_file(f"data/in/{name}", tar_bytes(members))
    local = make_config(tmp_path, keyring, write_shards(tmp_path / "src", shards), engine="beam")
    places = {"dst": "s3://data/out", "keys": "s3://keys/store", "audit": "s3://audit/log", "engine": "beam"}
    remote = make_config(tmp_path, keyring, "s3://data/in", **places)

    expected = beam_driver.run(local, key_source=derived)
    report = beam_driver.run(remote, key_source=derived, log_key=keyring.log_key)
    assert report.ok
    assert report.counts == expected.counts
    there = {name.removeprefix("data/out/"): s3.cat_file(name) for name in s3.find("data/out") if ".diffpriv" not in name}
    assert there == published(local.dst)
    assert unexpected_files(remote.dst) == []
    assert not [name for name in s3.find("data/out") if "/staging/" in name or name.endswith("/lease")]
    log = AuditLog(remote.audit, keyring.log_key)
    found = verify_log(
        log, key_store=KeyStore(remote.keys or ""), recipient_key=keyring.recipient_key, data=measure(remote.dst)
    )
    assert found.problems == []
    assert read_picture(remote.dst, "sub/shard-003.tar", "003/two", "right.webp")

    again = beam_driver.run(remote, key_source=derived, log_key=keyring.log_key)
    assert again.nothing_to_do

    with open_job(remote), pytest.raises(LeaseError):
        beam_driver.run(remote, key_source=derived)
    held = {"run": "dead", "host": "gone", "process": 1, "time": 0.0}
    Folder(remote.dst).small.write(LEASE, json.dumps(held).encode())
    assert beam_driver.run(remote, key_source=derived).nothing_to_do, "the lease of a run that died long ago was not taken over"

    with pytest.raises(MisuseError, match="inside"):
        beam_driver.run(JobConfig.from_mapping(remote.model_dump() | {"keys": "s3://data/out/keys"}))


def test_a_missing_bucket_or_folder_is_refused(tmp_path: Path, s3: Any, keyring: Keyring) -> None:
    for src in ("s3://nowhere/in", "s3://data/nothing", "s3://data/in/s-{0..3}.tar"):
        with pytest.raises(MisuseError):
            beam_driver.run(make_config(tmp_path, keyring, src, engine="beam"))
