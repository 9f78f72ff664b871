"""Sealing the faces of one part (one worker's batch) where their keys were made, so that no key travels.

Under a custody policy the shard's lock (keys/quorum.py) takes part, and a part's shard key S needs two secrets:
    R, 32 random bytes, wrapped to every recipient; Q, 32 random bytes, wrapped to the lock
    S = HKDF-SHA256(R || Q, no salt, info = canonical("diffpriv/v2/shard-key", shard context))
    wrap context of both: canonical("diffpriv/v2/wrap", shard context, commitment, policy digest (32), lock id (32))
Without one (version 1), S is random and itself wrapped to every recipient, with wrap context
canonical("diffpriv/v1/wrap", shard context, commitment). Wrapped secrets: see keys/recipients.py.
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
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from diffpriv.keys.cleartext import reveal
from diffpriv.keys.context import FORMAT_VERSION, FaceContext, ShardContext, canonical
from diffpriv.keys.errors import RecordError
from diffpriv.keys.quorum import ShardLock
from diffpriv.keys.recipients import Recipient, check_recipients
from diffpriv.keys.secrets import FaceKey, KeyHalf, SecretBytes, ShardKey

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
    wraps: tuple[bytes, ...] = field(repr=False)  # one per recipient, same order
    samples: tuple[str, ...] = field(repr=False)
    face_indices: tuple[int, ...] = field(repr=False)
    records: tuple[bytes, ...] = field(repr=False)
    lock: ShardLock | None = None
    quorum_wrap: bytes = field(default=b"", repr=False)  # Q for the lock; empty without one


@dataclass(frozen=True)
class WrappedKey:
    """A fresh shard key, and what is kept of it."""

    key: ShardKey = field(repr=False)
    commitment: bytes
    wraps: tuple[bytes, ...]
    quorum_wrap: bytes


def make_shard_key(context: ShardContext, recipients: Sequence[Recipient], lock: ShardLock | None) -> WrappedKey:
    """A shard key for one part, wrapped to the recipients and, in its other half, to the shard's lock."""
    if lock is None:
        key = ShardKey.generate()
        info = wrap_context(context, commit(key))
        return WrappedKey(key, commit(key), tuple(one.wrap(key, info) for one in recipients), b"")
    theirs, ours = KeyHalf.generate(), KeyHalf.generate()
    key = join_halves(context, theirs, ours)
    info = wrap_context(context, commit(key), lock)
    return WrappedKey(key, commit(key), tuple(one.wrap(theirs, info) for one in recipients), lock.recipient.wrap(ours, info))


def seal_part(
    context: ShardContext, recipients: Sequence[Recipient], faces: Sequence[FaceSecret], lock: ShardLock | None = None
) -> SealedPart:
    """Seal `faces` under a fresh shard key, wrap that to every recipient and lock it; the shard key is then forgotten.

    Args:
        lock: the shard's; None seals as version 1 did, without a custody policy.
    Raises: MisuseError if there is no recipient or one is given twice.
    """
    check_recipients(recipients)
    wrapped = make_shard_key(context, recipients, lock)
    shard_key = wrapped.key
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
        wrapped.commitment,
        tuple((recipient.fingerprint, recipient.kind) for recipient in recipients),
        wrapped.wraps,
        tuple(face.sample for face in faces),
        tuple(face.face_index for face in faces),
        tuple(records),
        lock,
        wrapped.quorum_wrap,
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


def reseal_record(old: ShardKey, new: ShardKey, context: FaceContext, record: bytes) -> bytes:
    """The record under another shard key; its payload's seal stays. Raises: RecordError as `open_record` does."""
    opened = open_record(old, context, record)
    nonce, bound = record[1:13], context.canonical_bytes
    return record[:13] + AESGCMSIV(new.derive("diffpriv/v1/record")).encrypt(nonce, reveal(opened.key), bound) + record[61:]


def join_halves(context: ShardContext, theirs: SecretBytes, ours: SecretBytes) -> ShardKey:
    """The shard key of the recipients' secret R and the quorum's secret Q."""
    info = canonical("diffpriv/v2/shard-key", context.canonical_bytes)
    return ShardKey(HKDF(hashes.SHA256(), 32, salt=None, info=info).derive(reveal(theirs) + reveal(ours)))


def commit(shard_key: ShardKey) -> bytes:
    """SHA-256 that binds a file to its shard key and tells nothing about it."""
    return hashlib.sha256(b"diffpriv/v1/commit" + reveal(shard_key)).digest()


def commitment_fits(shard_key: ShardKey, commitment: bytes) -> bool:
    """Whether a commitment is that of this shard key, compared in constant time."""
    return hmac.compare_digest(commit(shard_key), commitment)


def wrap_context(context: ShardContext, commitment: bytes, lock: ShardLock | None = None) -> bytes:
    """What a wrapped shard key is bound to: shard, commitment and, where custodians lock it, policy and lock."""
    if lock is None:
        return canonical("diffpriv/v1/wrap", context.canonical_bytes, commitment)
    return canonical("diffpriv/v2/wrap", context.canonical_bytes, commitment, bytes.fromhex(lock.policy), lock.id)
