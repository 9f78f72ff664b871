"""A recovery as functions: request, describe, decide, record, run, verify. Commands and desk call these.

Nothing here prints or asks; keys come opened, times come as `now`. Whoever shows a request to a custodian shows what `describe`
gives, and asks, before it calls `approve`: a signature is over exactly what was shown.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from diffpriv.keys.audit.events import to_iso
from diffpriv.keys.changes import UNSEEN, Difference, differences
from diffpriv.keys.errors import DiffPrivError, MisuseError
from diffpriv.keys.recipients import Recipient, RecipientKey
from diffpriv.keys.recovery import RecoveryCase
from diffpriv.keys.release import name_records
from diffpriv.keys.requests import Decision, FaceRef, RecoveryRequest
from diffpriv.keys.store import KeyStore

if TYPE_CHECKING:
    from diffpriv.jobs.published import PublishedFace
    from diffpriv.jobs.release import Recovery
    from diffpriv.keys.audit.log import AuditLog
    from diffpriv.keys.audit.verify_keys import VerifyReport
    from diffpriv.keys.custodians import CustodianKey, CustodyPolicy
    from diffpriv.keys.notes import NoteKey, NoteVerifier
    from diffpriv.keys.recipients import Unwrapper
    from diffpriv.keys.recovery import CaseStatus

MARGIN = 0.4  # of a face's size, around its crop


@dataclass(frozen=True)
class ShownFace:
    """One face of a request. `crop`: a picture of it as published; None where no published data was given."""

    face: FaceRef
    crop: Path | None = None


@dataclass(frozen=True)
class Description:
    """What a person must see before they sign.

    Attributes:
        shards: what the approval opens: with the recipient's key, every face of these, which the program does not do but could.
        change: for a case that re-seals shards: what it puts in place, and all that this changes, read from the policy itself.
    """

    case: str
    purpose: str
    requester: str
    requested_at: str
    expires_at: str
    quorum: int
    policy: str
    faces: tuple[ShownFace, ...]
    shards: tuple[str, ...]
    change: dict[str, Any] | None = None
    differences: tuple[Difference, ...] = ()


def choose_faces(data: str, shard: str, samples: Sequence[str], numbers: Sequence[int] = ()) -> "list[PublishedFace]":
    """The published faces that a request asks for; without `numbers`, all of the samples'.

    Raises: MisuseError for a face that is not there, or has no sealed record.
    """
    from diffpriv.jobs.published import faces_of, find_face

    if numbers:
        chosen = [find_face(data, shard, name, number) for name in samples for number in numbers]
    else:
        chosen = [one for one in faces_of(data) if one.shard == shard and one.sample in samples]
        for name in samples:
            if all(one.sample != name for one in chosen):
                find_face(data, shard, name, 0)  # says what is wrong
    for one in chosen:
        if not one.recoverable:
            raise MisuseError(f"face {one.face_index} of sample {one.sample} has no sealed record; it can't be recovered.")
    return chosen


def request(
    faces: "Sequence[PublishedFace]",
    keys: str,
    purpose: str,
    requester: "CustodianKey",
    policy: "CustodyPolicy",
    *,
    now: int,
    expires_at: int,
    run_key: Recipient | None = None,
) -> tuple[RecoveryRequest, RecipientKey | None]:
    """A signed request for the records that the key store has of these faces now.

    Args:
        run_key: whom approvals seal their shares to; by default a fresh one, whose private half comes back and belongs to
            whoever will run the case.
    Raises: MisuseError, UnknownFaceError, ShreddedError, KeyFileError.
    """
    wanted = [FaceRef(one.dataset, one.shard, one.sample, one.face_index) for one in faces]
    named, locks = name_records(KeyStore(keys), wanted)
    fresh = RecipientKey.generate() if locks and run_key is None else None
    made = RecoveryRequest.make(
        named,
        purpose,
        requester,
        policy,
        now=now,
        expires_at=expires_at,
        run_key=fresh.recipient if fresh is not None else run_key if locks else None,
        locks=locks,
    )
    return made, fresh


def describe(
    asked: RecoveryRequest,
    policy: "CustodyPolicy",
    *,
    data: str | None = None,
    crops: Path | None = None,
    new_policy: "CustodyPolicy | None" = None,
) -> Description:
    """What the request says, for a person to read.

    Args:
        data: the published DST; with `crops`, a folder where each face is left as a picture of how it is published.
        new_policy: the one that the request puts in place, where it does not bring it along.
    Raises: MisuseError for a request that no person of the policy signed: it must not even be shown as if.
    """
    if not asked.signed_by(policy):
        raise MisuseError("the request is not signed by a person of this policy, or it was altered; don't approve it.")
    person = policy.person(asked.requester)
    shown = [ShownFace(face, _crop(data, crops, number, face)) for number, face in enumerate(asked.faces)]
    opened = {f"{lock.context.dataset}/{lock.context.shard}" for lock in asked.locks}
    return Description(
        asked.case,
        asked.purpose,
        f"{person.name} ({asked.requester[:8]}…)" if person else asked.requester,
        to_iso(asked.requested_at),
        to_iso(asked.expires_at),
        asked.quorum,
        asked.policy,
        tuple(shown),
        tuple(sorted(opened)),
        asked.change.logged() if asked.change else None,
        changes(asked, policy, new_policy),
    )


def changes(
    asked: RecoveryRequest, policy: "CustodyPolicy", new_policy: "CustodyPolicy | None" = None
) -> tuple[Difference, ...]:
    """What a case that re-seals shards changes; empty for any other. Raises: MisuseError if `new_policy` is another one."""
    return tuple(differences(asked.change, policy, new_policy)) if asked.change is not None else ()


def check_seen(asked: RecoveryRequest, policy: "CustodyPolicy", new_policy: "CustodyPolicy | None" = None) -> None:
    """That a custodian can see what they would approve. Raises: MisuseError for a policy of which only the digest is here."""
    if any(one.kind == UNSEEN for one in changes(asked, policy, new_policy)):
        raise MisuseError(
            "the request names a new custody policy by its digest alone: what it changes can't be shown, and is not approved.",
            advice="Get that policy's file from the requester and give it with --new-policy.",
        )


def check_logged(asked: RecoveryRequest, policy: "CustodyPolicy", log: "AuditLog", now: int) -> None:
    """That the request is in the log and open. A custodian's program asks before it signs: what no log holds can be hidden.

    Raises: MisuseError, AuditError.
    """
    status = RecoveryCase(asked, policy, log).status(now)
    if status.state not in ("requested", "approved"):
        raise MisuseError(
            f"the log at {log.url} has this case as {status.state}: there is nothing to decide.",
            advice='The sequencer enters a request with "diffpriv recover record".',
        )


def check_proof(asked: RecoveryRequest, policy: "CustodyPolicy", proof: bytes, verifier: "NoteVerifier") -> None:
    """The same from a proof that was mailed with the request (`audit prove --case`). Raises: MisuseError, AuditError."""
    from diffpriv.keys.audit.proofs import check_inclusion

    proven = check_inclusion(proof, verifier, policy.witness_verifiers)
    if proven.event.kind != "recovery requested" or proven.event.facts["case"] != asked.case:
        raise MisuseError("the proof is of another log entry than this request's.")
    if len(proven.checkpoint.witnesses) < policy.witness_quorum:
        raise MisuseError("the proof's head lacks the cosignatures that the policy demands.")


def decide(
    asked: RecoveryRequest,
    custodian: "CustodianKey",
    decision: Literal["approve", "deny"],
    *,
    now: int,
    sealing_key: "Unwrapper | None" = None,
    policy: "CustodyPolicy",
    new_policy: "CustodyPolicy | None" = None,
) -> Decision:
    """A signed yes or no, for mailing; a yes carries the custodian's shares.

    Args:
        policy, new_policy: as for `describe`: what could not have been shown is not approved.
    Raises: RecordError, MisuseError.
    """
    if decision == "approve":
        check_seen(asked, policy, new_policy)
        _check_sealing(custodian, policy, sealing_key)
    if now >= asked.expires_at:
        raise MisuseError(f"the request expired at {to_iso(asked.expires_at)}.")
    return Decision.make(asked, custodian, decision, now=now, sealing_key=sealing_key)


def _check_sealing(custodian: "CustodianKey", policy: "CustodyPolicy", sealing_key: "Unwrapper | None") -> None:
    person = policy.custodian(custodian.custodian.fingerprint)
    sealing = person.sealing if person is not None else None
    if sealing is None or sealing_key is not None or sealing.fingerprint == custodian.sealing_key.fingerprint:
        return
    raise MisuseError(
        f"your shares are sealed to {sealing.locator or 'another key'}, and not to the key in your file.",
        advice="Approve on the command line, with --sealing-key and that key's public file.",
    )


def record(
    asked: RecoveryRequest, policy: "CustodyPolicy", log: "AuditLog", decisions: Sequence[Decision] = (), *, now: int
) -> "CaseStatus":
    """Enter the request, or decisions on it, into the log. Raises: RecoveryRefusedError (logged)."""
    case = RecoveryCase(asked, policy, log)
    if not decisions:
        return case.submit(now)
    for one in decisions:
        status = case.approve(one, now) if one.decision == "approve" else case.deny(one, now)
    return status


def run(
    asked: RecoveryRequest,
    policy: "CustodyPolicy",
    log: "AuditLog",
    recipient_key: "Callable[[], Unwrapper]",
    office_key: "Callable[[], NoteKey]",
    *,
    keys: str,
    data: str,
    out: Path,
    decisions: Sequence[Decision] = (),
    run_key: "Unwrapper | None" = None,
    model: str = "builtin",
) -> "Recovery":
    """Open the faces of an approved case, once; see `jobs.release.recover_case`."""
    from diffpriv.jobs.release import recover_case

    case = RecoveryCase(asked, policy, log)
    return recover_case(
        case,
        log,
        recipient_key,
        office_key,
        keys=keys,
        data=data,
        out=out,
        model=model,
        decisions=decisions,
        run_key=run_key,
    )


def verify(log: "AuditLog", *, keys: str | None = None, data: Sequence[str] = (), **options: Any) -> "VerifyReport":
    """The log, and what is given of key store and published data, checked (`keys.audit.verify.verify_log`)."""
    from diffpriv.keys.audit.verify import verify_log
    from diffpriv.pipelines.destination.published import measure, unexpected_files

    measured = {shard: digest for target in data for shard, digest in measure(target).items()} if data else None
    report = verify_log(log, key_store=KeyStore(keys) if keys else None, data=measured, **options)
    for target in data:
        report.problems += [f"{name} in {target} was published by no run: it was added." for name in unexpected_files(target)]
    return report


def _crop(data: str | None, crops: Path | None, number: int, face: FaceRef) -> Path | None:
    """The face as it is published, with some of its surroundings, as a PNG that only this user can read."""
    if data is None or crops is None:
        return None
    from diffpriv.jobs.published import find_face
    from diffpriv.jobs.release import write_png
    from diffpriv.pipelines.destination.published import read_picture
    from diffpriv.pipelines.pictures.codec import decode

    try:
        place = find_face(data, face.shard, face.sample, face.face_index)
        pixels = decode(read_picture(data, place.shard, place.sample, place.field)).pixels
    except DiffPrivError as error:
        raise MisuseError(f"the published face {face.face_index} of {face.sample} can't be shown: {error.message}") from error
    if place.box:
        left, top, right, bottom = place.box
        across, down = MARGIN * (right - left), MARGIN * (bottom - top)
        rows = slice(max(0, int(top - down)), max(1, int(bottom + down)))
        pixels = pixels[rows, max(0, int(left - across)) : max(1, int(right + across))]
    path = crops / f"face-{number:03d}.png"
    write_png(path, pixels)
    return path
