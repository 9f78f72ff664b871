"""Opening the faces of an approved case, and the signed receipt: the only way from a case to a key.

Order: read the key files and see that they can be opened, take the custodians' shares (no lock and no key is opened yet) -> log
the release -> where the policy names witnesses, wait for their cosignatures -> open locks, unwrap -> receipt.
What can be known beforehand to fail (wrong key file, unknown or shredded face, wrong recipient) fails before the release is
logged, so it does not use the case up; every failure is in the log.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from diffpriv.keys.audit.events import to_iso
from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.context import ShardContext
from diffpriv.keys.errors import DiffPrivError, KeyFileError, MisuseError, QuorumError, RecoveryRefusedError, WitnessError
from diffpriv.keys.keyfile import KeyFile
from diffpriv.keys.notes import NoteKey, NoteVerifier, open_json, sign_json
from diffpriv.keys.quorum import OpenLocks, open_lock, take_share
from diffpriv.keys.recipients import Unwrapper
from diffpriv.keys.recovery import RecoveryCase, Release
from diffpriv.keys.requests import CaseLock, Decision, FaceRef
from diffpriv.keys.sealing import OpenedFace
from diffpriv.keys.secrets import KeyShare
from diffpriv.keys.store import KeyStore

RECEIPT = "diffpriv recovery receipt"


@dataclass(frozen=True)
class ReleasedFace:
    """One opened face, for the step that rebuilds its picture."""

    face: FaceRef
    context: ShardContext
    opened: OpenedFace = field(repr=False)


def name_records(store: KeyStore, faces: Sequence[FaceRef]) -> tuple[list[FaceRef], list[CaseLock]]:
    """The faces with the digests of their sealed records, and the locks that opening them takes: what a request names.

    Raises: UnknownFaceError, ShreddedError, KeyFileError, StorageError. Nothing is opened.
    """
    files: dict[tuple[str, str], KeyFile] = {}
    named, locks = [], {}
    for face in faces:
        shard = (face.dataset, face.shard)
        if shard not in files:
            files[shard] = KeyFile.parse(store.get(*shard), dataset=face.dataset, shard=face.shard)
        file = files[shard]
        named.append(face._replace(record=file.record_digest(face.sample, face.face_index)))
        lock = file.lock_of(face.sample, face.face_index)
        if lock is not None:
            locks[lock.id] = CaseLock(file.context, lock)
    return named, list(locks.values())


def release_faces(
    case: RecoveryCase,
    log: AuditLog,
    store: KeyStore,
    recipient_key: Unwrapper,
    now: int,
    *,
    decisions: Sequence[Decision] = (),
    run_key: Unwrapper | None = None,
) -> tuple[Release, list[ReleasedFace]]:
    """Release an approved case and open its faces.

    Args:
        decisions: the approvals as they were mailed, with their shares; needed where shards are locked under a policy.
        run_key: private half of the key that the request names; the shares are sealed to it.
    Raises:
        RecoveryRefusedError: the case may not release (logged).
        WitnessError: the release is logged and waits for cosignatures; call again when they are there.
        QuorumError, ShreddedError, WrongRecipientError, UnknownFaceError, KeyFileError, StorageError: it can't; the attempt is
            logged.
        RecordError: a record did not open after the release; the case is used up, and logged as failed.
    """
    release = case.released(now)
    if release is None and case.status(now).state != "approved":
        case.release(now)  # refuses, and logs why
    try:
        files = _key_files(log, store, case.request.faces)
        for face in case.request.faces:
            _check_face(files[face.dataset, face.shard], face, recipient_key)
        shares = _shares(case, now, decisions, run_key)
        release = release or case.release(now)
        case.check_witnessed(release, now)
        locks = OpenLocks()
        for (context, lock), dealt in zip(case.request.locks, shares, strict=True):
            locks.add(lock, open_lock(lock, context, dealt))
        opened = [
            ReleasedFace(face, file.context, file.open_face(face.sample, face.face_index, recipient_key, locks))
            for face in release.faces
            for file in [files[face.dataset, face.shard]]
        ]
    except (RecoveryRefusedError, WitnessError):
        raise  # logged already, or nothing failed
    except DiffPrivError as error:
        case.fail(type(error).__name__, now)
        raise
    return release, opened


def open_case_locks(
    case: RecoveryCase, now: int, decisions: Sequence[Decision], run_key: Unwrapper | None
) -> tuple[Release | None, OpenLocks]:
    """Release a case that re-seals shards, or go on with it until it expires, and open its locks; see keys/rotation.py.

    Raises: RecoveryRefusedError, WitnessError, QuorumError, RecordError.
    """
    status = case.status(now)
    release = None
    going_on = status.state == "released" and now < case.request.expires_at
    shares = _shares(case, now, decisions, run_key) if going_on or status.state == "approved" else []
    if not going_on:
        release = case.release(now)
        case.check_witnessed(release, now)
    elif not status.opened and (waiting := case.released(now)) is not None:
        case.check_witnessed(waiting, now)
    locks = OpenLocks()
    for (context, lock), dealt in zip(case.request.locks, shares, strict=True):
        locks.add(lock, open_lock(lock, context, dealt))
    return release, locks


def make_receipt(
    log: AuditLog,
    case: RecoveryCase,
    release: Release,
    results: Sequence[dict[str, Any]],
    now: int,
    *,
    key: NoteKey | None = None,
    decisions: Sequence[Decision] = (),
) -> bytes:
    """A signed note that says who got what, on whose approval, and how close it is to what was recorded.

    Args:
        results: one per face, in the order of the release: e.g. {"file": ..., "sha256": ..., "psnr": float}.
        key: the recovery office's; by default the log's, as before there was one.
        decisions: the approvals, whose digests the receipt carries.
    """
    key = key if key is not None else log.key
    if key is None:
        raise MisuseError("a receipt is signed with the recovery office's key, which was not given.")
    if len(results) != len(release.faces):
        raise ValueError("one result per released face")
    head = log.checkpoint()
    body = {
        "version": 2,
        "case": release.case,  # the digest of the request
        "purpose": case.request.purpose,
        "requester": case.request.requester,
        "policy": case.policy.digest,
        "approved_by": list(release.approved_by),
        "approvals": {one.custodian: one.digest for one in decisions if one.custodian in release.approved_by},
        "released_at": to_iso(release.released_at),
        "made_at": to_iso(now),
        "log": {"origin": head.origin, "size": head.size, "root": head.root.hex(), "release_entry": release.log_index},
        "faces": [{**face._asdict(), **result} for face, result in zip(release.faces, results, strict=True)],
    }
    return sign_json(key, RECEIPT, body)


def read_receipt(note: bytes, verifier: NoteVerifier) -> dict[str, Any]:
    """Raises: AuditError unless `verifier`'s key signed it."""
    return open_json(note, RECEIPT, verifier, what="the receipt")


def _check_face(file: KeyFile, face: FaceRef, recipient_key: Unwrapper) -> None:
    """That the record is the very one that was asked for, and can be opened. Unwraps nothing."""
    file.check_openable(face.sample, face.face_index, recipient_key.fingerprint)
    if face.record and file.record_digest(face.sample, face.face_index) != face.record:
        raise KeyFileError(
            f"face {face.face_index} of sample {face.sample} in {face.shard} has another record than the approved one: "
            "its shard was redone since.",
            advice="Make a new request.",
        )


def _shares(
    case: RecoveryCase, now: int, decisions: Sequence[Decision], run_key: Unwrapper | None
) -> list[dict[int, KeyShare]]:
    """Per lock of the case, the shares of the custodians whose approvals the log holds. Opens no lock."""
    locks = case.request.locks
    if not locks:
        return []
    logged = case.status(now).shares
    given = {one.custodian: one for one in decisions if one.case == case.case and one.decision == "approve"}
    usable = [one for by, one in given.items() if logged.get(by) == one.shares_sha256 and one.signed_by(case.policy)]
    if len(usable) < case.policy.quorum:
        raise QuorumError(
            f"the case opens locked shards: it takes the mailed approvals of {case.policy.quorum} custodians, and the "
            f"{len(usable)} that are here and in the log are too few.",
            advice="Give them with --approval; each carries its custodian's shares.",
        )
    if run_key is None or case.request.run_key is None or run_key.fingerprint != case.request.run_key.fingerprint:
        raise QuorumError("the shares are sealed to the request's run key, which was not given.", advice="Give --run-key.")
    found: list[dict[int, KeyShare]] = []
    wrong: list[str] = []
    for number, (context, lock) in enumerate(locks):
        dealt = {}
        for one in usable:
            place = lock.custodians.index(one.custodian)
            try:
                dealt[place] = take_share(lock, context, place, one.shares[number], run_key, case.case)
            except DiffPrivError:
                wrong.append(one.custodian[:8])
        if len(dealt) < lock.quorum:
            raise QuorumError(f"the shares of custodian {', '.join(sorted(set(wrong)))}… are wrong for {context.shard}.")
        found.append(dealt)
    return found


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
