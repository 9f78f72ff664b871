"""What the tests of keys build again and again: sealed faces, people, and a finished small run in real folders."""

import hashlib
import os
import random
from dataclasses import dataclass
from pathlib import Path

from diffpriv.keys.audit.events import run_finished, run_started, shard_committed
from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.audit.manifest import PublishedShard, encode_manifest
from diffpriv.keys.context import ShardContext
from diffpriv.keys.custodians import CustodianKey, CustodyPolicy
from diffpriv.keys.keyfile import build_key_file
from diffpriv.keys.notes import NoteKey
from diffpriv.keys.recipients import RecipientKey
from diffpriv.keys.sealing import FaceSecret, seal_part
from diffpriv.keys.secrets import FaceKey
from diffpriv.keys.store import KeyStore

CHEAP_ARGON2 = {"iterations": 1, "lanes": 1, "memory_kib": 64}  # so that tests take no time
CONFIG = "c0" * 32
NOW = 1_790_000_000


@dataclass(frozen=True)
class People:
    policy: CustodyPolicy
    custodians: list[CustodianKey]
    requester: CustodianKey


def make_faces(samples: int, faces_each: int = 1, payload: int = 24, prefix: str = "img") -> list[FaceSecret]:
    return [
        FaceSecret(f"{prefix}{number:05d}", index, FaceKey.generate(), os.urandom(payload))
        for number in range(samples)
        for index in range(faces_each)
    ]


@dataclass(frozen=True)
class Vault:
    """A finished small run: published data, keys, audit log, manifest."""

    root: Path
    log: AuditLog
    store: KeyStore
    recipient_key: RecipientKey
    dataset: str
    shards: list[str]

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.jsonl"

    def data_digests(self) -> dict[tuple[str, str], str]:
        return {
            (self.dataset, path.name): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted((self.root / "data").iterdir())
        }


def build_vault(root: Path, log_key: NoteKey, recipient_key: RecipientKey, shards: int = 4, samples: int = 12) -> Vault:
    log = AuditLog(root / "audit", log_key)
    store = KeyStore(root / "keys")
    (root / "data").mkdir(parents=True)
    names = [f"shard-{number:03d}.tar" for number in range(shards)]
    published = []
    expected = {}
    rng = random.Random(5)
    for name in names:
        context = ShardContext("faces", name, CONFIG)
        faces = make_faces(samples, 2)
        parts = [seal_part(context, [recipient_key.recipient], faces[at : at + 10]) for at in range(0, len(faces), 10)]
        receipt = store.put("faces", name, build_key_file(context, parts))
        data = rng.randbytes(2000)
        (root / "data" / name).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        published.append(PublishedShard("faces", name, digest))
        events = [
            run_started(NOW, "run-1", "faces", CONFIG, worker=name),
            shard_committed(NOW + 5, "run-1", context, faces=len(faces), key_file=receipt, data_sha256=digest),
        ]
        expected[name] = log.segments.put(name, events)
    log.integrate(expected=expected)
    log.append(run_started(NOW + 10 + number, f"filler-{number}", "faces", CONFIG) for number in range(600))
    log.append([run_finished(NOW + 1000, "run-1", "faces", shards=shards)])
    (root / "manifest.jsonl").write_bytes(encode_manifest(published))
    return Vault(root, log, store, recipient_key, "faces", names)
