"""Opening the faces of an approved case, and the signed receipt: the only way from a case to a key.

Order: read the key files and see that they can be opened (nothing is unwrapped yet) -> log the release -> unwrap -> receipt.
What can be known beforehand to fail (wrong key file, unknown or shredded face, wrong recipient) fails before the release is
logged, so it does not use the case up; every failure is in the log.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from keys.audit.checkpoint import NoteVerifier, open_json, sign_json
from keys.audit.events import to_iso
from keys.audit.log import AuditLog
from keys.context import ShardContext
from keys.errors import DiffPrivError, KeyFileError, MisuseError
from keys.keyfile import KeyFile
from keys.recipients import Unwrapper
from keys.recovery import RecoveryCase, Release
from keys.requests import FaceRef
from keys.sealing import OpenedFace
from keys.store import KeyStore

RECEIPT = "diffpriv recovery receipt"


@dataclass(frozen=True)
class ReleasedFace:
    """One opened face, for the step that rebuilds its picture."""

    face: FaceRef
    context: ShardContext
    opened: OpenedFace = field(repr=False)


def release_faces(
    case: RecoveryCase, log: AuditLog, store: KeyStore, recipient_key: Unwrapper, now: int
) -> tuple[Release, list[ReleasedFace]]:
    """Release an approved case and open its faces.

    Raises:
        RecoveryRefusedError: the case may not release (logged).
        ShreddedError, WrongRecipientError, UnknownFaceError, KeyFileError, StorageError: it can't; the attempt is logged.
        RecordError: a record did not open after the release; the case is used up, and logged as failed.
    """
    status = case.status(now)
    if status.state != "approved":
        case.release(now)  # refuses, and logs why
    try:
        files = _key_files(log, store, case.request.faces)
        for face in case.request.faces:
            file = files[face.dataset, face.shard]
            file.check_openable(face.sample, face.face_index, recipient_key.fingerprint)
        release = case.release(now)
        opened = [
            ReleasedFace(face, file.context, file.open_face(face.sample, face.face_index, recipient_key))
            for face in release.faces
            for file in [files[face.dataset, face.shard]]
        ]
    except KeyFileError as error:
        case.fail(type(error).__name__, now)
        raise
    except DiffPrivError as error:
        if type(error).__name__ != "RecoveryRefusedError":  # that one is logged already
            case.fail(type(error).__name__, now)
        raise
    return release, opened


def make_receipt(log: AuditLog, case: RecoveryCase, release: Release, results: Sequence[dict[str, Any]], now: int) -> bytes:
    """A note signed by the log's key that says who got what, on whose approval, and how close it is to what was recorded.

    Args:
        results: one per face, in the order of the release: e.g. {"file": ..., "digest_matches": bool, "psnr": float}.
    """
    if log.key is None:
        raise MisuseError("a receipt is signed with the log's key, which was not given.")
    if len(results) != len(release.faces):
        raise ValueError("one result per released face")
    head = log.checkpoint()
    body = {
        "version": 1,
        "case": release.case,
        "purpose": case.request.purpose,
        "requester": case.request.requester,
        "approved_by": list(release.approved_by),
        "released_at": to_iso(release.released_at),
        "made_at": to_iso(now),
        "log": {"origin": head.origin, "size": head.size, "root": head.root.hex(), "release_entry": release.log_index},
        "faces": [{**face._asdict(), **result} for face, result in zip(release.faces, results, strict=True)],
    }
    return sign_json(log.key, RECEIPT, body)


def read_receipt(note: bytes, verifier: NoteVerifier) -> dict[str, Any]:
    """Raises: AuditError unless the log's key signed it."""
    return open_json(note, RECEIPT, verifier, what="the receipt")


def _key_files(log: AuditLog, store: KeyStore, faces: Sequence[FaceRef]) -> dict[tuple[str, str], KeyFile]:
    """The key files of these faces and of no others, each compared with the digest that the log names last."""
    files: dict[tuple[str, str], KeyFile] = {}
    for face in faces:
        shard = (face.dataset, face.shard)
        if shard in files:
            continue
        data = store.get(*shard)
        expected = current_key_file(log, *shard)
        if expected is None:
            raise KeyFileError(
                f"the key file of {face.shard} of dataset {face.dataset} is in no entry of the audit log.",
                advice="Give the key store and the audit log of the same runs.",
            )
        if hashlib.sha256(data).hexdigest() != expected:
            # Parsing first gives the more telling message where the file is damaged or swapped.
            KeyFile.parse(data, dataset=face.dataset, shard=face.shard)
            raise KeyFileError(
                f"the key file of {face.shard} of dataset {face.dataset} is not the one the audit log names: it was altered.",
                advice='Run "diffpriv audit verify" with the key store, and restore the file.',
            )
        files[shard] = KeyFile.parse(data, dataset=face.dataset, shard=face.shard)
    return files


def current_key_file(log: AuditLog, dataset: str, shard: str) -> str | None:
    """SHA-256 of the shard's key file as the log names it last; None if the log never did."""
    found = None
    for _, event in log.events(
        '"key_file_sha256":', where=lambda e: (e.facts.get("dataset"), e.facts.get("shard")) == (dataset, shard)
    ):
        found = event.facts["key_file_sha256"]
    return found
