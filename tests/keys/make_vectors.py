"""Writes vectors/v1.json anew: python tests/keys/make_vectors.py. Only for a new format version; old ones stay.

Everything in it is made up: the keys protect nothing.
"""

import base64
import json
from pathlib import Path
from typing import Any

from diffpriv.keys import lockbox
from diffpriv.keys.audit.checkpoint import sign_checkpoint
from diffpriv.keys.audit.events import commit_names, run_started
from diffpriv.keys.audit.manifest import PublishedShard, encode_manifest
from diffpriv.keys.audit.merkle import leaf_hash, root_of
from diffpriv.keys.audit.segments import encode_segment
from diffpriv.keys.context import ShardContext
from diffpriv.keys.custodians import CustodianKey, CustodyPolicy
from diffpriv.keys.keyfile import build_key_file
from diffpriv.keys.notes import NoteKey
from diffpriv.keys.recipients import RecipientKey
from diffpriv.keys.requests import Decision, FaceRef, RecoveryRequest
from diffpriv.keys.sealing import FaceSecret, seal_part
from diffpriv.keys.secrets import FaceKey
from diffpriv.keys.shredding import commit_shredded
from diffpriv.keys.sources import DerivedKeySource
from diffpriv.keys.store import key_file_path

OUT = Path(__file__).parent / "vectors" / "v1.json"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def make() -> dict[str, Any]:
    context = ShardContext("célébrités", "a/shard-000.tar", "c0" * 32)
    recipient = RecipientKey(bytes(range(32)), "vector recipient")
    faces = [
        ("img-ü", 0, bytes([1]) * 32, b"payload one"),
        ("img-ü", 1, bytes([2]) * 32, b""),
        ("img-z", 0, bytes([3]) * 32, bytes(100)),
    ]
    part = seal_part(
        context, [recipient.recipient], [FaceSecret(name, index, FaceKey(key), load) for name, index, key, load in faces]
    )
    ada, ben = CustodianKey(bytes([7]) * 32, "Ada"), CustodianKey(bytes([8]) * 32, "Ben")
    policy = CustodyPolicy(1, (ben.custodian,), (ada.custodian,))
    reference = FaceRef("célébrités", "a/shard-000.tar", "img-ü", 1)
    request = RecoveryRequest.make([reference], "vector", ada, policy, now=1000, expires_at=2000, nonce=bytes(32))
    decision = Decision.make(request, ben, "approve", now=1500)
    log = NoteKey(bytes([9]) * 32, "log.example/vectors")
    event = run_started(1_790_000_000, "run-1", "célébrités", "c0" * 32, shards=2)
    leaves = [leaf_hash(event.encode()), leaf_hash(b"second")]
    commitment, salt = commit_names("célébrités", "a/shard-000.tar", "img-ü", salt=bytes(16))
    return {
        "version": 1,
        "context": {
            "dataset": context.dataset,
            "shard": context.shard,
            "config_digest": context.config_digest,
            "bytes": context.canonical_bytes.hex(),
        },
        "face_context": {"sample": "img-ü", "face_index": 1, "bytes": context.face("img-ü", 1).canonical_bytes.hex()},
        "face_key": {
            "key": (bytes([1]) * 32).hex(),
            "label": "diffpriv/v1/transform",
            "derived": FaceKey(bytes([1]) * 32).derive("diffpriv/v1/transform").hex(),
        },
        "derived_source": {
            "root": (b"r" * 32).hex(),
            "key": DerivedKeySource(b"r" * 32).face_key(context, "img-ü", 1).derive("x").hex(),
            "label": "x",
        },
        "recipient": {"root": bytes(range(32)).hex(), "file": recipient.recipient.to_json()},
        "private_key_file": {
            "passphrase": "vector passphrase",
            "file": json.loads(
                lockbox.lock(
                    "recipient",
                    bytes(range(32)),
                    recipient.recipient.to_json(),
                    "vector passphrase",
                    iterations=1,
                    lanes=1,
                    memory_kib=64,
                )
            ),
        },
        "part": {
            "commitment": part.commitment.hex(),
            "wrap": b64(part.wraps[0]),
            "records": [b64(record) for record in part.records],
        },
        "faces": [
            {"sample": name, "face_index": index, "key": key.hex(), "payload": load.hex()} for name, index, key, load in faces
        ],
        "key_file": {"path": key_file_path(context.dataset, context.shard), "bytes": b64(build_key_file(context, [part]))},
        "people": {"requester_seed": (bytes([7]) * 32).hex(), "custodian_seed": (bytes([8]) * 32).hex()},
        "policy": {"file": policy.to_json(), "digest": policy.digest},
        "request": {"file": request.to_json(), "case": request.case},
        "decision": {"file": decision.to_json()},
        "event": {"bytes": event.encode().decode(), "leaf": leaves[0].hex()},
        "commitment": {"salt": salt, "names": ["célébrités", "a/shard-000.tar", "img-ü"], "commitment": commitment},
        "shredded": {
            "salt": bytes(16).hex(),
            "faces": [["img-ü", 0], ["img-ü", 1]],
            "commitment": commit_shredded(bytes(16), context.dataset, context.shard, [("img-ü", 0), ("img-ü", 1)]),
        },
        "segment": {"id": "a/b", "bytes": encode_segment("a/b", [event]).decode()},
        "manifest": encode_manifest([PublishedShard("d", "s-1", "ab" * 32), PublishedShard("d", "s-0", "cd" * 32)]).decode(),
        "log": {
            "seed": (bytes([9]) * 32).hex(),
            "vkey": log.verifier.vkey,
            "root": root_of(leaves).hex(),
            "checkpoint": sign_checkpoint(log, 2, root_of(leaves)).decode(),
        },
    }


if __name__ == "__main__":
    OUT.write_text(json.dumps(make(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
