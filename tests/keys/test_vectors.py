"""docs/formats.md is enough to read our files: a second implementation, on bare primitives, opens what the product made.

The functions of this file use nothing of `keys`. vectors/v1.json was written once and must stay readable for ever.
"""

import base64
import hashlib
import io
import json
import struct
from pathlib import Path

import pyarrow.parquet
import pytest
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from diffpriv.keys import lockbox
from diffpriv.keys.audit.checkpoint import open_checkpoint
from diffpriv.keys.audit.events import AuditEvent
from diffpriv.keys.audit.manifest import decode_manifest
from diffpriv.keys.audit.segments import decode_segment
from diffpriv.keys.custodians import CustodyPolicy
from diffpriv.keys.keyfile import KeyFile
from diffpriv.keys.notes import NoteVerifier
from diffpriv.keys.recipients import RecipientKey
from diffpriv.keys.requests import Decision, RecoveryRequest

V = json.loads((Path(__file__).parent / "vectors" / "v1.json").read_text(encoding="utf-8"))


def canonical(label: str, *fields: bytes) -> bytes:
    out = struct.pack(">H", len(label)) + label.encode()
    for field in fields:
        out += struct.pack(">I", len(field)) + field
    return out


def hkdf(secret: bytes, info: bytes, length: int = 32) -> bytes:
    return HKDF(hashes.SHA256(), length, None, info).derive(secret)


def compact(value) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def shard_context() -> bytes:
    c = V["context"]
    return canonical(
        "diffpriv/v1/shard", c["dataset"].encode(), c["shard"].encode(), bytes.fromhex(c["config_digest"]), struct.pack(">H", 1)
    )


def face_context(sample: str, index: int) -> bytes:
    return canonical("diffpriv/v1/face", shard_context(), sample.encode(), struct.pack(">I", index))


def unwrap(wrapped: bytes, commitment: bytes) -> bytes:
    root = bytes.fromhex(V["recipient"]["root"])
    private = hpke.MLKEM768X25519PrivateKey(
        mlkem.MLKEM768PrivateKey.from_seed_bytes(hkdf(root, b"diffpriv/v1/recipient/mlkem768", 64)),
        x25519.X25519PrivateKey.from_private_bytes(hkdf(root, b"diffpriv/v1/recipient/x25519")),
    )
    suite = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    key = suite.decrypt(wrapped, private, info=canonical("diffpriv/v1/wrap", shard_context(), commitment))
    assert hashlib.sha256(b"diffpriv/v1/commit" + key).digest() == commitment
    return key


def open_record(shard_key: bytes, sample: str, index: int, record: bytes) -> tuple[bytes, bytes]:
    assert record[0] == 1
    bound = face_context(sample, index)
    key = AESGCMSIV(hkdf(shard_key, b"diffpriv/v1/record")).decrypt(record[1:13], record[13:61], bound)
    return key, AESGCMSIV(hkdf(key, b"diffpriv/v1/payload")).decrypt(record[1:13], record[61:], bound)


def test_contexts_have_the_documented_bytes():
    assert shard_context().hex() == V["context"]["bytes"]
    face = V["face_context"]
    assert face_context(face["sample"], face["face_index"]).hex() == face["bytes"]


def test_face_keys_derive_as_documented():
    one = V["face_key"]
    assert hkdf(bytes.fromhex(one["key"]), one["label"].encode()).hex() == one["derived"]
    other, c = V["derived_source"], V["context"]
    names = (c["dataset"].encode(), c["shard"].encode(), "img-ü".encode(), struct.pack(">I", 1))
    key = hkdf(bytes.fromhex(other["root"]), canonical("diffpriv/v1/derived-face-key", *names))
    assert hkdf(key, other["label"].encode()).hex() == other["key"]


def test_a_second_implementation_opens_the_key_file():
    table = pyarrow.parquet.ParquetFile(io.BytesIO(base64.b64decode(V["key_file"]["bytes"])))
    header = json.loads(table.metadata.metadata[b"diffpriv.key_file"])
    (part,) = header["parts"]
    assert header["recipients"] == [[V["recipient"]["file"]["fingerprint"], "hpke-mlkem768-x25519"]]
    shard_key = unwrap(base64.b64decode(part["wraps"][0]), base64.b64decode(part["commitment"]))
    rows = table.read().to_pylist()
    assert len(rows) == header["faces"] == len(V["faces"])
    for row, face in zip(rows, V["faces"], strict=True):
        assert (row["sample"], row["face_index"], row["part"]) == (face["sample"], face["face_index"], 0)
        key, payload = open_record(shard_key, row["sample"], row["face_index"], row["record"])
        assert (key.hex(), payload.hex()) == (face["key"], face["payload"])


def test_the_product_still_opens_the_key_file():
    file = KeyFile.parse(base64.b64decode(V["key_file"]["bytes"]), dataset=V["context"]["dataset"], shard=V["context"]["shard"])
    key = RecipientKey(bytes.fromhex(V["recipient"]["root"]))
    for face in V["faces"]:
        opened = file.open_face(face["sample"], face["face_index"], key)
        assert opened.key.derive("x") == hkdf(bytes.fromhex(face["key"]), b"x")
        assert opened.payload.hex() == face["payload"]


def test_recipient_and_private_key_file_are_as_documented():
    public = base64.b64decode(V["recipient"]["file"]["public"])
    digest = hashlib.sha256(canonical("diffpriv/v1/recipient", b"hpke-mlkem768-x25519", public)).hexdigest()
    assert digest[:32] == V["recipient"]["file"]["fingerprint"]
    file, passphrase = V["private_key_file"]["file"], V["private_key_file"]["passphrase"]
    kdf = file["kdf"]
    stretched = Argon2id(
        salt=base64.b64decode(kdf["salt"]),
        length=32,
        iterations=kdf["iterations"],
        lanes=kdf["lanes"],
        memory_cost=kdf["memory_kib"],
    ).derive(passphrase.encode())
    head = {name: file[name] for name in ("format", "version", "kind", "public", "kdf")}
    bound = canonical("diffpriv/v1/lockbox", compact(head))
    root = AESGCMSIV(stretched).decrypt(base64.b64decode(file["nonce"]), base64.b64decode(file["sealed"]), bound)
    assert root.hex() == V["recipient"]["root"]
    assert lockbox.unlock(json.dumps(file).encode(), "recipient", passphrase)[0] == root


@pytest.mark.parametrize("which", ["request", "decision"])
def test_requests_and_decisions_are_signed_as_documented(which):
    body = dict(V[which]["file"])
    signature = base64.b64decode(body.pop("signature"))
    seed = V["people"]["requester_seed" if which == "request" else "custodian_seed"]
    public = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed)).public_key()
    public.verify(signature, canonical("diffpriv/v1/signed", body["format"].encode(), compact(body)))
    fingerprint = hashlib.sha256(canonical("diffpriv/v1/custodian", public.public_bytes_raw())).hexdigest()[:32]
    assert fingerprint == body["requester" if which == "request" else "custodian"]
    if which == "request":
        assert hashlib.sha256(canonical("diffpriv/v1/request", compact(body))).hexdigest() == V["request"]["case"]
        assert hashlib.sha256(canonical("diffpriv/v1/policy", compact(V["policy"]["file"]))).hexdigest() == body["policy"]


def test_the_product_still_reads_requests_and_decisions():
    policy = CustodyPolicy.from_json(V["policy"]["file"])
    request, decision = RecoveryRequest.from_json(V["request"]["file"]), Decision.from_json(V["decision"]["file"])
    assert (request.case, policy.digest) == (V["request"]["case"], V["policy"]["digest"])
    assert request.signed_by(policy)
    assert decision.signed_by(policy)
    assert decision.case == request.case


def test_commitments_are_as_documented():
    one = V["commitment"]
    names = [name.encode() for name in one["names"]]
    digest = hashlib.sha256(canonical("diffpriv/v1/commitment", bytes.fromhex(one["salt"]), *names)).hexdigest()
    assert digest == one["commitment"]
    gone, c = V["shredded"], V["context"]
    fields = [bytes.fromhex(gone["salt"]), c["dataset"].encode(), c["shard"].encode()]
    for sample, index in gone["faces"]:
        fields += [sample.encode(), struct.pack(">I", index)]
    assert hashlib.sha256(canonical("diffpriv/v1/shredded", *fields)).hexdigest() == gone["commitment"]


def test_the_log_is_as_documented():
    entry = V["event"]["bytes"].encode()
    assert hashlib.sha256(b"\x00" + entry).hexdigest() == V["event"]["leaf"]
    event = AuditEvent.decode(entry)
    assert event.encode() == entry
    text, _, signature_line = V["log"]["checkpoint"].encode().partition(b"\n\n")
    name, key_id, encoded = V["log"]["vkey"].split("+", 2)
    public = base64.b64decode(encoded)[1:]
    blob = base64.b64decode(signature_line.split()[-1])
    assert blob[:4].hex() == key_id
    Ed25519PublicKey.from_public_bytes(public).verify(blob[4:], text + b"\n")
    checkpoint = open_checkpoint(V["log"]["checkpoint"].encode(), NoteVerifier.parse(V["log"]["vkey"]))
    assert (checkpoint.origin, checkpoint.size, checkpoint.root.hex()) == (name, 2, V["log"]["root"])
    segment = decode_segment(V["segment"]["bytes"].encode(), V["segment"]["id"])
    assert segment.entries == (entry,)
    assert [row.shard for row in decode_manifest(V["manifest"].encode())] == ["s-0", "s-1"]
