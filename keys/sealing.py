"""Sealing the faces of one part (one worker's batch) where their keys were made, so that no key travels.

Wrapped shard key: see keys/recipients.py; the wrap context is canonical("diffpriv/v1/wrap", shard context, commitment).
Key commitment (AES-GCM-SIV does not commit to its key): SHA-256("diffpriv/v1/commit" || shard key), 32 bytes, kept per part.

Sealed record, one per face; S = shard key, F = face key, A = the face context's canonical bytes:
    offset  size   field
         0     1   format version (1)
         1    12   nonce, random
        13    48   AES-256-GCM-SIV(HKDF-SHA256(S, info "diffpriv/v1/record"), nonce, F, associated data A) || tag(16)
        61   n+16  AES-256-GCM-SIV(HKDF-SHA256(F, info "diffpriv/v1/payload"), nonce, payload (n), associated data A) || tag(16)
77 bytes beyond the payload. Both layers carry the context; F seals one payload only. A record whose face key opens but whose
payload does not has been spliced. Opening fails closed on any other version.
"""

import hashlib
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from keys.cleartext import reveal
from keys.context import FORMAT_VERSION, FaceContext, ShardContext, canonical
from keys.errors import RecordError
from keys.recipients import Recipient, check_recipients
from keys.secrets import FaceKey, ShardKey

RECORD_OVERHEAD = 77
_VERSION = bytes([FORMAT_VERSION])


@dataclass(frozen=True)
class FaceSecret:
    """One face's key and recovery payload on their way to the seal. Neither is shown; pickling is refused by the key."""

    sample: str
    face_index: int
    key: FaceKey = field(repr=False)
    payload: bytes = field(repr=False)


@dataclass(frozen=True)
class OpenedFace:
    """One face's key and recovery payload, opened again."""

    key: FaceKey = field(repr=False)
    payload: bytes = field(repr=False)


@dataclass(frozen=True)
class SealedPart:
    """The sealed faces of one part: only public and encrypted bytes, safe to pickle and to move."""

    context: ShardContext
    commitment: bytes  # 32 bytes
    recipients: tuple[tuple[str, str], ...]  # (fingerprint, kind)
    wraps: tuple[bytes, ...] = field(repr=False)  # the wrapped shard key, one per recipient, same order
    samples: tuple[str, ...] = field(repr=False)
    face_indices: tuple[int, ...] = field(repr=False)
    records: tuple[bytes, ...] = field(repr=False)


def seal_part(context: ShardContext, recipients: Sequence[Recipient], faces: Sequence[FaceSecret]) -> SealedPart:
    """Seal `faces` under a fresh shard key and wrap that to every recipient; the shard key is then forgotten.

    Raises: MisuseError if there is no recipient or one is given twice.
    """
    check_recipients(recipients)
    shard_key = ShardKey.generate()
    commitment = commit(shard_key)
    info = wrap_context(context, commitment)
    cipher = AESGCMSIV(shard_key.derive("diffpriv/v1/record"))
    nonces = os.urandom(12 * len(faces))
    records = []
    for position, face in enumerate(faces):
        nonce = nonces[12 * position : 12 * position + 12]
        bound = context.face(face.sample, face.face_index).canonical_bytes
        records.append(
            b"".join(
                (
                    _VERSION,
                    nonce,
                    cipher.encrypt(nonce, reveal(face.key), bound),
                    AESGCMSIV(face.key.derive("diffpriv/v1/payload")).encrypt(nonce, face.payload, bound),
                )
            )
        )
    return SealedPart(
        context,
        commitment,
        tuple((recipient.fingerprint, recipient.kind) for recipient in recipients),
        tuple(recipient.wrap(shard_key, info) for recipient in recipients),
        tuple(face.sample for face in faces),
        tuple(face.face_index for face in faces),
        tuple(records),
    )


def open_record(shard_key: ShardKey, context: FaceContext, record: bytes) -> OpenedFace:
    """Raises: RecordError naming the face and what failed."""
    place = f"{context.shard.shard} of dataset {context.shard.dataset}"
    where = f"the record of {context.sample} face {context.face_index} in {place}"
    if len(record) < RECORD_OVERHEAD:
        raise RecordError(f"{where} is cut short: {len(record)} bytes.")
    if record[:1] != _VERSION:
        raise RecordError(f"{where} has format version {record[0]}; this program knows version {FORMAT_VERSION}.")
    nonce, bound = record[1:13], context.canonical_bytes
    try:
        key = FaceKey(AESGCMSIV(shard_key.derive("diffpriv/v1/record")).decrypt(nonce, record[13:61], bound))
    except InvalidTag:
        raise RecordError(f"{where} fails its authentication: altered, or of another face, shard or dataset.") from None
    try:
        payload = AESGCMSIV(key.derive("diffpriv/v1/payload")).decrypt(nonce, record[61:], bound)
    except InvalidTag:
        raise RecordError(f"{where}: its recovery payload fails its authentication: altered or swapped.") from None
    return OpenedFace(key, payload)


def commit(shard_key: ShardKey) -> bytes:
    return hashlib.sha256(b"diffpriv/v1/commit" + reveal(shard_key)).digest()


def commitment_fits(shard_key: ShardKey, commitment: bytes) -> bool:
    return hmac.compare_digest(commit(shard_key), commitment)


def wrap_context(context: ShardContext, commitment: bytes) -> bytes:
    return canonical("diffpriv/v1/wrap", context.canonical_bytes, commitment)
