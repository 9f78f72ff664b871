"""What the desk does for people: the functions behind `recover` and `audit`, with keys from files that a form brought.

A key file lies for one call in a folder of its own that only this user can read, and its passphrase in memory; both are gone
when the call returns.
"""

import contextlib
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from diffpriv.keys.errors import MisuseError
from diffpriv.keys.json_text import parse_json
from diffpriv.keys.lockbox import write_private

if TYPE_CHECKING:
    from diffpriv.jobs.published import PublishedFace
    from diffpriv.jobs.release import Recovery
    from diffpriv.keys.audit.log import AuditLog
    from diffpriv.keys.audit.verify_keys import VerifyReport
    from diffpriv.keys.custodians import CustodianKey, CustodyPolicy
    from diffpriv.keys.requests import Decision, RecoveryRequest

MAX_SHOWN = 12  # faces of a case that are shown as pictures
MAX_LISTED = 300  # entries, or faces to choose from, on one page
DAY = 86400
CROP_BYTES = 24_000


@dataclass(frozen=True)
class Places:
    """Where things are, as the command found them; what is None the desk can't do, and says so.

    Attributes:
        log_key: signs the log: with it the desk enters what is signed, without it people mail their files.
        office_key: signs receipts.
        out: where recovered pictures go.
        witness_memory: a witness's own file, of the head that it cosigned last.
    """

    policy: Path | None = None
    data: str | None = None
    keys: str | None = None
    audit: str | None = None
    log_vkey: Path | None = None
    log_key: Path | None = None
    office_key: Path | None = None
    out: Path | None = None
    model: str = "builtin"
    witness_memory: Path | None = None

    def need(self, name: str) -> Any:
        value = getattr(self, name)
        if value is None:
            raise MisuseError(
                f"the desk was started without --{name.replace('_', '-')}.",
                advice='Start it in a folder with diffpriv.toml, or give the option ("diffpriv desk --help").',
            )
        return value


def read_case(data: bytes) -> "RecoveryRequest":
    """Raises: MisuseError or RecipientError for bytes that are no request."""
    from diffpriv.keys.requests import RecoveryRequest

    try:
        body = parse_json(data)
    except ValueError:
        raise MisuseError("this is not a case file.", advice="Choose the .json file that you were sent.") from None
    return RecoveryRequest.from_json(body, origin="this file")


def load_policy(places: Places) -> "CustodyPolicy":
    """The policy that the desk works under."""
    from diffpriv.keys.custodians import CustodyPolicy

    return CustodyPolicy.load(places.need("policy"))


def describe(asked: "RecoveryRequest", places: Places) -> dict[str, Any]:
    """What a person must see before they sign: the request, what the log says of it, and the faces as they are published.

    Raises:
        MisuseError: no person of the policy signed the request: it must not be shown as if.
    """
    from diffpriv.jobs import recoveries
    from diffpriv.keys.recovery import RecoveryCase

    policy = load_policy(places)
    if not asked.signed_by(policy):
        raise MisuseError(
            "the request is not signed by a person of this policy, or it was altered.", advice="Don't approve it."
        )
    log = _readable_log(places)
    if log is not None:
        summary = RecoveryCase(asked, policy, log).summary(int(time.time()))
    else:
        person = policy.person(asked.requester)
        summary = {
            "case": asked.case,
            "state": "not looked up",
            "requester": person.name if person else asked.requester,
            "purpose": asked.purpose,
            "faces": [face._asdict() for face in asked.faces],
            "requested_at": _iso(asked.requested_at),
            "expires_at": _iso(asked.expires_at),
            "quorum": policy.quorum,
            "approved_by": [],
            "missing_approvals": policy.quorum,
            "denied_by": None,
            "released_at": None,
        }
    entries = _entries(log, case=asked.case) if log is not None else []
    custodians = [person.name for person in policy.custodians]
    opened = sorted({f"{lock.context.dataset}/{lock.context.shard}" for lock in asked.locks})
    shown = {"entries": entries, "custodians": custodians, "shards": opened, "crops": _crops(asked, places)}
    shown |= {"change": asked.change.logged() if asked.change else None, "differences": recoveries.changes(asked, policy)}
    return {**summary, **shown}


def decide(
    asked: "RecoveryRequest", decision: Literal["approve", "deny"], key: bytes, passphrase: str, places: Places
) -> tuple[bytes, str]:
    """A signed decision, as the file to mail, and what the log then says of the case; "" where it was not entered."""
    from diffpriv.jobs import recoveries

    now, policy, log = int(time.time()), load_policy(places), _readable_log(places)
    if log is not None:
        recoveries.check_logged(asked, policy, log, now)
    with _person(key, passphrase) as person:
        made = recoveries.decide(asked, person, decision, now=now, policy=policy)
    state = ""
    if places.audit is not None and places.log_key is not None:
        state = recoveries.record(asked, policy, _writable_log(places), [made], now=now).state
    return _saved(made), state


def faces_to_ask(places: Places, text: str) -> "list[PublishedFace]":
    """Published faces that can be brought back and whose shard or sample holds `text`; the first MAX_LISTED."""
    from diffpriv.jobs.published import faces_of

    found = []
    for face in faces_of(places.need("data")):
        if face.recoverable and text.lower() in f"{face.shard}/{face.sample}".lower():
            found.append(face)
            if len(found) == MAX_LISTED:
                break
    return found


def ask(
    face: str, purpose: str, days: str, key: bytes, passphrase: str, places: Places
) -> tuple[bytes, "RecoveryRequest", bytes]:
    """A signed request for one face, entered into the log where the desk can, and the private run key that belongs to it.

    Args:
        face: shard, sample and face number, as `name_of_face` writes them.
    """
    from diffpriv.jobs import recoveries

    try:
        shard, sample, number = json.loads(face)
        chosen = recoveries.choose_faces(places.need("data"), str(shard), [str(sample)], [int(number)])
        until = int(days)
    except (ValueError, TypeError):
        raise MisuseError("no face was chosen, or no number of days was given.") from None
    if not 1 <= until <= 90:
        raise MisuseError(f"a request stays open for 1 to 90 days, not {until}.")
    now, policy = int(time.time()), load_policy(places)
    with _person(key, passphrase) as person:
        expires_at = now + until * DAY
        made, fresh = recoveries.request(chosen, places.need("keys"), purpose, person, policy, now=now, expires_at=expires_at)
    if places.audit is not None and places.log_key is not None:
        recoveries.record(made, policy, _writable_log(places), now=now)
    run_key = b""
    if fresh is not None:
        with _folder() as folder:
            fresh.save(folder / "run.key", None)
            run_key = (folder / "run.key").read_bytes()
    return _saved(made), made, run_key


def name_of_face(face: "PublishedFace") -> str:
    """A face as the value of a form's field."""
    return json.dumps([face.shard, face.sample, face.face_index])


def recover(
    asked: "RecoveryRequest",
    key: bytes,
    passphrase: str,
    office_passphrase: str,
    run_key: bytes,
    answers: Sequence[bytes],
    places: Places,
) -> "Recovery":
    """Open the faces of an approved case, once, into a new folder below `out`.

    Args:
        office_passphrase: of the office's key, which signs the receipt.
        run_key, answers: the request's run key and the signed approvals, which carry the custodians' shares to it.
    """
    from diffpriv.jobs import recoveries
    from diffpriv.jobs.places import load_note_key, unwrapper
    from diffpriv.keys.audit.heads import beside
    from diffpriv.keys.audit.log import AuditLog
    from diffpriv.keys.recipients import RecipientKey

    log, office = _writable_log(places), places.need("office_key")
    log = AuditLog(places.need("audit"), log.key, kept=[*log.kept, beside(office)])
    out = places.need("out")
    with _folder() as folder:
        secret, office_secret = folder / "passphrase", folder / "office-passphrase"
        write_private(secret, f"{passphrase}\n".encode())
        write_private(office_secret, f"{office_passphrase or passphrase}\n".encode())
        write_private(folder / "recipient.key", key)
        write_private(folder / "run.key", run_key)
        return recoveries.run(
            asked,
            load_policy(places),
            log,
            lambda: unwrapper(folder / "recipient.key", secret),
            lambda: load_note_key(office, office_secret, "office"),
            keys=places.need("keys"),
            data=places.need("data"),
            out=out / asked.case[:12],
            decisions=[_decision(one) for one in answers],
            run_key=RecipientKey.load(folder / "run.key", None) if run_key else None,
            model=places.model,
        )


def _decision(data: bytes) -> "Decision":
    from diffpriv.keys.requests import Decision

    try:
        body = parse_json(data)
    except ValueError:
        raise MisuseError(
            "one of the answers is not a signed answer.", advice="Choose the .json files that custodians saved."
        ) from None
    return Decision.from_json(body, origin="one of the answers")


def verify(places: Places) -> "VerifyReport":
    """The log, and key store, published data and the custody policy against it."""
    from diffpriv.jobs import recoveries

    log = _readable_log(places)
    if log is None:
        places.need("audit")
        places.need("log_vkey")
        raise MisuseError("there is no log to verify.")
    policies = [load_policy(places)] if places.policy is not None else []
    return recoveries.verify(log, keys=places.keys, data=[places.data] if places.data else [], policies=policies)


def witness(places: Places, mailed: bytes, key: bytes, passphrase: str) -> bytes:
    """A witness's cosignature, as the file to mail: of the head that was mailed, or of the log this desk reads.

    What the witness saw last lies in its own file, `witness_memory`; nothing is signed that does not extend it.

    Args:
        mailed: a consistency proof, or a checkpoint; empty to look at the log itself.
    """
    from diffpriv.jobs.places import load_note_key
    from diffpriv.keys.audit import proofs
    from diffpriv.keys.notes import NoteVerifier

    if not key:
        raise MisuseError("no key file was chosen.")
    memory, now, log = places.need("witness_memory"), int(time.time()), _readable_log(places)
    verifier = NoteVerifier.load(places.need("log_vkey"))
    with _folder() as folder:
        secret = folder / "passphrase"
        write_private(secret, f"{passphrase}\n".encode())
        write_private(folder / "witness.key", key)
        signing = load_note_key(folder / "witness.key", secret, "witness")
    if mailed:
        return proofs.witness_mailed(mailed, verifier, signing, memory, now=now)
    if log is None:
        places.need("audit")
        raise MisuseError("there is no log to cosign.")
    return proofs.witness(log, signing, memory, now=now)


def entries(places: Places, kind: str, case: str) -> list[dict[str, Any]]:
    """The newest entries of the log, of one kind or case where asked for."""
    log = _readable_log(places)
    if log is None:
        places.need("audit")
        places.need("log_vkey")
        return []
    return _entries(log, kind=kind, case=case)


def _entries(log: "AuditLog", *, kind: str = "", case: str = "") -> list[dict[str, Any]]:
    from diffpriv.keys.audit.show import event_row, select_events

    found = select_events(log, kinds=[kind] if kind else (), case=case or None, last=MAX_LISTED)
    return [event_row(*one) for one in found]


def picture(path: str) -> bytes:
    """A small picture of a recovered face, for the page."""
    import numpy as np
    from PIL import Image

    from diffpriv.pipelines.review.looking import thumbnail

    with Image.open(path) as image:
        return thumbnail(np.asarray(image.convert("RGB")), CROP_BYTES)


def _crops(asked: "RecoveryRequest", places: Places) -> list[bytes]:
    """The faces as they are published, the first few; empty bytes where one can't be shown."""
    if places.data is None:
        return []
    from diffpriv.jobs.published import find_face
    from diffpriv.keys.errors import DiffPrivError
    from diffpriv.pipelines.destination.published import read_picture
    from diffpriv.pipelines.pictures.codec import decode
    from diffpriv.pipelines.review.looking import thumbnail

    crops = []
    for face in asked.faces[:MAX_SHOWN]:
        try:
            place = find_face(places.data, face.shard, face.sample, face.face_index)
            pixels = decode(read_picture(places.data, place.shard, place.sample, place.field)).pixels
            crops.append(thumbnail(pixels, CROP_BYTES))
        except DiffPrivError:
            crops.append(b"")
    return crops


def _readable_log(places: Places) -> "AuditLog | None":
    """The log for reading. Its head is kept beside its public key, so that one that was rewound is refused."""
    from diffpriv.jobs.places import open_log

    return open_log(places.audit, places.log_vkey) if places.audit is not None and places.log_vkey is not None else None


def _writable_log(places: Places) -> "AuditLog":
    from diffpriv.jobs.places import writable_log

    return writable_log(places.need("audit"), places.need("log_key"), None)


@contextlib.contextmanager
def _person(key: bytes, passphrase: str) -> "Iterator[CustodianKey]":
    from diffpriv.keys.custodians import CustodianKey

    if not key:
        raise MisuseError("no key file was chosen.")
    with _folder() as folder:
        write_private(folder / "person.key", key)
        yield CustodianKey.load(folder / "person.key", passphrase or None)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder for this user alone, for functions that read key files; gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="diffpriv-desk-") as name:
        yield Path(name)


def _saved(made: "Decision | RecoveryRequest") -> bytes:
    """The bytes that `save` writes."""
    return (json.dumps(made.to_json(), indent=2, ensure_ascii=False) + "\n").encode()


def _iso(at: int) -> str:
    from diffpriv.keys.audit.events import to_iso

    return to_iso(at)
