"""Fixed files of version 2: what was locked under a policy with this program's first such version opens for ever."""

import base64
import hashlib
import json
from pathlib import Path

from diffpriv.keys.context import canonical
from diffpriv.keys.custodians import CustodyPolicy
from diffpriv.keys.keyfile import KeyFile
from diffpriv.keys.lockbox import canonical_json
from diffpriv.keys.quorum import OpenLocks, open_lock, take_share
from diffpriv.keys.recipients import RecipientKey
from diffpriv.keys.requests import Decision, RecoveryRequest

V = json.loads((Path(__file__).parent / "vectors" / "v2.json").read_text(encoding="utf-8"))


def test_mailed_approvals_open_the_key_file_of_the_vectors():
    policy = CustodyPolicy.from_json(V["policy"]["file"])
    request = RecoveryRequest.from_json(V["request"]["file"])
    decisions = [Decision.from_json(one) for one in V["decisions"]]
    assert (policy.digest, request.case) == (V["policy"]["digest"], V["request"]["case"])
    assert request.signed_by(policy)
    assert all(one.signed_by(policy) for one in decisions)
    run_key, recipient = (RecipientKey(bytes.fromhex(V[name])) for name in ("run_key_root", "recipient_root"))
    ((context, lock),) = request.locks
    shares = {}
    for one in decisions:
        place = lock.custodians.index(one.custodian)
        shares[place] = take_share(lock, context, place, one.shares[0], run_key, request.case)
    file, face = KeyFile.parse(base64.b64decode(V["key_file"])), V["face"]
    opened = file.open_face(
        face["sample"], face["face_index"], recipient, OpenLocks({lock.id: open_lock(lock, context, shares)})
    )
    assert opened.payload.hex() == face["payload"]
    assert file.record_digest(face["sample"], face["face_index"]) == face["record_sha256"] == request.faces[0].record


def test_case_and_policy_digests_are_as_documented():
    body = dict(V["request"]["file"])
    del body["signature"]
    assert hashlib.sha256(canonical("diffpriv/v2/request", canonical_json(body))).hexdigest() == V["request"]["case"]
    form = CustodyPolicy.from_json(V["policy"]["file"]).public_form()
    assert hashlib.sha256(canonical("diffpriv/v2/policy", canonical_json(form))).hexdigest() == V["policy"]["digest"]
