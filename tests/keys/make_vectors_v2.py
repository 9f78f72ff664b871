"""Writes vectors/v2.json anew: python -m tests.keys.make_vectors_v2. Only for a new format version; v1.json stays as it is.

Everything in it is made up: the keys protect nothing.
"""

import base64
import json
from pathlib import Path
from typing import Any

from diffpriv.keys.context import ShardContext
from diffpriv.keys.custodians import CustodianKey, CustodyPolicy
from diffpriv.keys.keyfile import KeyFile, build_key_file
from diffpriv.keys.quorum import ShardLock
from diffpriv.keys.recipients import RecipientKey
from diffpriv.keys.requests import CaseLock, Decision, FaceRef, RecoveryRequest
from diffpriv.keys.sealing import FaceSecret, seal_part
from diffpriv.keys.secrets import FaceKey

OUT = Path(__file__).parent / "vectors" / "v2.json"


def make() -> dict[str, Any]:
    context = ShardContext("célébrités", "a/shard-000.tar", "c0" * 32)
    recipient, run_key = RecipientKey(bytes(range(32)), "vector recipient"), RecipientKey(bytes([6]) * 32, "run")
    custodians = [CustodianKey(bytes([10 + n]) * 32, f"custodian {n}") for n in range(3)]
    requester = CustodianKey(bytes([7]) * 32, "Ada")
    policy = CustodyPolicy(2, tuple(key.custodian for key in custodians), (requester.custodian,))
    lock = ShardLock.make(context, policy)
    faces = [FaceSecret("img-ü", 0, FaceKey(bytes([1]) * 32), b"payload one")]
    data = build_key_file(context, [seal_part(context, [recipient.recipient], faces, lock)])
    record = KeyFile.parse(data).record_digest("img-ü", 0)
    request = RecoveryRequest.make(
        [FaceRef(context.dataset, context.shard, "img-ü", 0, record)],
        "vector",
        requester,
        policy,
        now=1000,
        expires_at=2000,
        nonce=bytes(32),
        run_key=run_key.recipient,
        locks=[CaseLock(context, lock)],
    )
    return {
        "version": 2,
        "recipient_root": bytes(range(32)).hex(),
        "run_key_root": (bytes([6]) * 32).hex(),
        "custodian_seeds": [(bytes([10 + n]) * 32).hex() for n in range(3)],
        "policy": {"file": policy.to_json(), "digest": policy.digest},
        "key_file": base64.b64encode(data).decode(),
        "face": {"sample": "img-ü", "face_index": 0, "payload": b"payload one".hex(), "record_sha256": record},
        "request": {"file": request.to_json(), "case": request.case},
        "decisions": [Decision.make(request, key, "approve", now=1500).to_json() for key in custodians[:2]],
    }


if __name__ == "__main__":
    OUT.write_text(json.dumps(make(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
