"""What those who can write DST, and nothing else, can try: plant finished-looking work, and have it signed in."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.audit.verify import verify_log
from diffpriv.keys.context import ShardContext
from diffpriv.keys.init import init_keys
from diffpriv.keys.keyfile import build_key_file
from diffpriv.keys.notes import NoteKey
from diffpriv.keys.store import KeyStore
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.destination.commit import Prepared
from diffpriv.pipelines.destination.published import measure, records
from diffpriv.pipelines.destination.record import PublishedFile
from diffpriv.pipelines.engines.beam_driver import run
from diffpriv.pipelines.formats.base import OutputFile
from diffpriv.pipelines.layout import STATE_FOLDER
from tests.pipelines.datasets import astronaut, encoded, read_tar, sample, write_shards

SHARD = "shard-000.tar"


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> tuple[JobConfig, NoteKey]:
    base = tmp_path_factory.mktemp("attacked")
    made = init_keys(base / "keyring", "pw", iterations=1, lanes=1, memory_kib=64)
    src = write_shards(base / "src", {SHARD: sample("a", 0, encoded(astronaut(128), "PNG"), "png")})
    config = JobConfig.from_mapping(
        {
            "src": str(src),
            "dst": str(base / "dst"),
            "keys": str(base / "store"),
            "audit": str(base / "audit"),
            "recipients": [str(made.recipient)],
            "policy": str(made.policy),
            "engine": "beam",
            "transform": {"transform": "fill", "recovery": "exact"},
        }
    )
    key = NoteKey.load(made.log_key)
    assert run(config, log_key=key).ok
    return config, key


def test_a_planted_shard_is_not_published_and_empties_no_key_file(job):
    """The original shard as 'prepared' work of a dead run, with a key file that holds nobody."""
    config, key = job
    dst, original = Path(config.dst), (Path(config.src) / SHARD).read_bytes()
    published, kept = (dst / SHARD).read_bytes(), KeyStore(config.keys or "").get(config.dataset, SHARD)
    folder = f"{STATE_FOLDER}/staging/dead-run/{SHARD}"
    (dst / folder / "try").mkdir(parents=True)
    empty = build_key_file(ShardContext(config.dataset, SHARD, config.digest()), [])
    files = []
    for name, data, final in (("data", original, SHARD), ("keyfile", empty, "keys")):
        (dst / folder / "try" / name).write_bytes(data)
        files.append(OutputFile(f"{folder}/try/{name}", final, hashlib.sha256(data).hexdigest(), len(data)))
    facts = {"run": "dead-run", "dataset": config.dataset, "shard": SHARD, "config_digest": config.digest(), "faces": 0}
    facts |= {"key_file_sha256": files[1].sha256, "data_sha256": "ab" * 32}
    (there,) = records(config.dst)
    record = replace(
        there, attempt="planted", run="dead-run", faces=(), files=(PublishedFile(SHARD, files[0].sha256, files[0].size),)
    )
    planted = Prepared(record, folder, (files[0],), files[1], (("shard committed", 1, facts),))
    for name in ("prepared.json", f"{planted.name.rpartition('/')[2]}"):
        (dst / folder / name).write_bytes(planted.encode())
    assert run(config, log_key=key).ok
    assert (dst / SHARD).read_bytes() == published
    assert dict(read_tar(dst / SHARD)) != dict(read_tar(Path(config.src) / SHARD))
    assert KeyStore(config.keys or "").get(config.dataset, SHARD) == kept
    log = AuditLog(config.audit, key)
    assert verify_log(log, key_store=KeyStore(config.keys or ""), data=measure(config.dst)).problems == []


def test_a_record_dropped_from_a_key_file_stays_a_finding_after_the_next_run(job):
    """Whoever can write store and DST, and puts digests into the commit record that fit what they did."""
    config, key = job
    store, log = KeyStore(config.keys or ""), AuditLog(config.audit, key)
    before = store.get(config.dataset, SHARD)
    empty = build_key_file(ShardContext(config.dataset, SHARD, config.digest()), [])
    store.put(config.dataset, SHARD, empty)
    (path,) = (Path(config.dst) / STATE_FOLDER / "commits").glob("*.json")
    record = json.loads(path.read_bytes())
    record["key_file"]["sha256"] = hashlib.sha256(empty).hexdigest()
    record["segment"]["sha256"] = "ab" * 32
    path.write_text(json.dumps(record))
    for _ in range(2):
        run(config, log_key=key)
        assert any("is not the one that entry" in one for one in verify_log(log, key_store=store).problems)
    store.put(config.dataset, SHARD, before)
