"""The files of a recovery that people mail to each other: a request, and the decisions on it. Signed, without open secrets.

Request, JSON: {"faces": [[dataset, shard, sample, face index, SHA-256 of the sealed record], ...], "purpose",
    "requester": fingerprint, "requested_at", "expires_at": Unix seconds, "nonce": 64 hex digits,
    "policy": digest of the custody policy, "quorum": M, "run_key": a recipient, or null,
    "locks": [[dataset, shard, config digest, keys.quorum.ShardLock], ...]: of every locked shard of the case,
    "change": null, or of a case that re-seals shards: keys/changes.py,
    "format": "diffpriv recovery request", "version": 2, "signature": base64}
    case = SHA-256(canonical("diffpriv/v2/request", canonical JSON of all but the signature)), hex. The random nonce makes it a
    salted commitment to the faces, so the log can name the case without naming anybody. Signed: the case, as 64 hex digits.
Decision, JSON: {"case", "custodian": fingerprint, "decision": "approve" | "deny", "decided_at",
    "shares": [base64 per lock of the request, in its order: the custodian's shares for the run key], empty in a denial,
    "format": "diffpriv recovery decision", "version": 2, "signature": base64}
    Signed: canonical JSON of all but signature and shares, with "shares_sha256" = SHA-256 of canonical JSON of the shares, so
    that the log can check the signature without holding the shares.
Version 1 of both: no "run_key", "locks", "change", "shares" and record digests; label "diffpriv/v1/request"; signed:
    canonical JSON of all but the signature. Still read, for cases and logs of before.
Signatures: keys/custodians.py, label = the format.
"""

import base64
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from diffpriv.keys.changes import Change
from diffpriv.keys.context import ShardContext, canonical
from diffpriv.keys.custodians import MAX_CUSTODIANS, CustodianKey, CustodyPolicy, read_json
from diffpriv.keys.errors import MisuseError, RecipientError
from diffpriv.keys.lockbox import canonical_json
from diffpriv.keys.quorum import ShardLock, pass_share
from diffpriv.keys.recipients import Recipient, Unwrapper

_REQUEST = "diffpriv recovery request"
_DECISION = "diffpriv recovery decision"
MAX_FACES = 10_000
MAX_PURPOSE = 4_000  # characters
_LAST_SECOND = 253_402_300_799  # of the year 9999
_DIGEST = re.compile(r"[0-9a-f]{64}")


class FaceRef(NamedTuple):
    """One face. `record`: SHA-256 of its sealed record; names and numbers may shift when a shard is redone, this can't."""

    dataset: str
    shard: str
    sample: str
    face_index: int
    record: str = ""


class CaseLock(NamedTuple):
    """The lock of one shard of a case, and the shard's context, which the shares are bound to."""

    context: ShardContext
    lock: ShardLock


@dataclass(frozen=True)
class RecoveryRequest:
    """Which faces somebody asks to recover, for what purpose, until when and under which policy, signed."""

    faces: tuple[FaceRef, ...]
    purpose: str
    requester: str  # fingerprint
    requested_at: int
    expires_at: int
    nonce: str
    policy: str  # digest
    quorum: int
    signature: bytes = b""
    run_key: Recipient | None = None
    locks: tuple[CaseLock, ...] = field(default=(), repr=False)
    change: Change | None = None
    version: int = 2

    @classmethod
    def make(
        cls,
        faces: Sequence[FaceRef],
        purpose: str,
        requester: CustodianKey,
        policy: CustodyPolicy,
        *,
        now: int,
        expires_at: int,
        nonce: bytes | None = None,
        run_key: Recipient | None = None,
        locks: Sequence[CaseLock] = (),
        change: Change | None = None,
    ) -> "RecoveryRequest":
        """A signed request.

        Args:
            run_key: whom approvals seal their shares to; needed as soon as a shard of the case is locked.
            locks: of every locked shard of the case (keys.release.case_locks).
            change: for a case that re-seals the shards of `locks`; it names no faces.
        Raises: MisuseError for one that could never be granted.
        """
        _check_faces(faces, change)
        if not purpose.strip() or len(purpose) > MAX_PURPOSE:
            raise MisuseError(f"a request states its purpose, in at most {MAX_PURPOSE} characters.")
        if expires_at <= now:
            raise MisuseError("the request would be expired when it is made.")
        fingerprint = requester.custodian.fingerprint
        if policy.person(fingerprint) is None:
            raise MisuseError(
                f"{requester.name or fingerprint} is not in the custody policy, neither as custodian nor as requester."
            )
        other = next((one for one in locks if one.lock.policy != policy.digest), None)
        if other is not None:
            raise MisuseError(
                f"{other.context.shard} is locked under policy {other.lock.policy[:12]}…, not under {policy.digest[:12]}….",
                advice="Give the policy that the shard was sealed under.",
            )
        if locks and run_key is None:
            raise MisuseError("shards of this case are locked: the request must name a run key for the custodians' shares.")
        nonce = os.urandom(32) if nonce is None else nonce
        draft = cls(
            tuple(FaceRef(*face) for face in faces),
            purpose,
            fingerprint,
            now,
            expires_at,
            nonce.hex(),
            policy.digest,
            policy.quorum,
            b"",
            run_key,
            tuple(locks),
            change,
        )
        return cls(**{**vars_of(draft), "signature": requester.sign(_REQUEST, draft.case.encode())})

    @cached_property
    def signed_bytes(self) -> bytes:
        return canonical_json(self._body())

    @cached_property
    def case(self) -> str:
        """The digest that approvals name."""
        return hashlib.sha256(canonical(f"diffpriv/v{self.version}/request", self.signed_bytes)).hexdigest()

    def signed_by(self, policy: CustodyPolicy) -> bool:
        if self.version == 2:
            return request_signed(policy, self.case, self.requester, self.signature)
        person = policy.person(self.requester)
        return person is not None and person.signed(_REQUEST, self.signed_bytes, self.signature)

    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            **{name: getattr(self, name) for name in ("purpose", "requester", "requested_at", "expires_at")},
            **{name: getattr(self, name) for name in ("nonce", "policy", "quorum", "version")},
            "format": _REQUEST,
            "faces": [list(face)[: 4 if self.version == 1 else 5] for face in self.faces],
        }
        if self.version == 1:
            return body
        locks = [[c.dataset, c.shard, c.config_digest, lock.to_json()] for c, lock in self.locks]
        run_key = self.run_key.to_json() if self.run_key else None
        return body | {"run_key": run_key, "locks": locks, "change": self.change.to_json() if self.change else None}

    def to_json(self) -> dict[str, Any]:
        return self._body() | {"signature": base64.b64encode(self.signature).decode()}

    def save(self, path: str | os.PathLike[str]) -> None:
        _save(path, self.to_json())

    @classmethod
    def from_json(cls, body: Any, *, origin: str = "the request") -> "RecoveryRequest":
        try:
            fields = dict(body)
            if fields.pop("format") != _REQUEST or fields["version"] not in (1, 2):
                raise ValueError("another format")
            fields["faces"] = tuple(_face(*face) for face in fields["faces"])
            fields["signature"] = base64.b64decode(fields["signature"], validate=True)
            if fields["version"] == 2:
                fields["run_key"] = Recipient.from_json(fields["run_key"]) if fields["run_key"] else None
                fields["locks"] = tuple(
                    CaseLock(ShardContext(str(a), str(b), str(c)), ShardLock.from_json(d)) for a, b, c, d in fields["locks"]
                )
                fields["change"] = Change.from_json(fields["change"]) if fields["change"] else None
            request = cls(**fields)
            if request.version == 2:
                _check_faces(request.faces, request.change)
            _check_fields(request)
            if request.to_json() != body or not request.case:  # the case takes text that has bytes: no lone surrogates
                raise ValueError("unexpected fields")
        except (ValueError, KeyError, TypeError, MisuseError) as error:
            raise RecipientError(f"{origin} is not a recovery request.") from error
        return request

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "RecoveryRequest":
        return cls.from_json(read_json(path), origin=str(path))


@dataclass(frozen=True)
class Decision:
    """One custodian's yes or no to one exact request; a yes carries the custodian's shares for the request's run key."""

    case: str
    custodian: str  # fingerprint
    decision: Literal["approve", "deny"]
    decided_at: int
    signature: bytes = b""
    shares: tuple[bytes, ...] = field(default=(), repr=False)
    version: int = 2

    @classmethod
    def make(
        cls,
        request: RecoveryRequest,
        custodian: CustodianKey,
        decision: Literal["approve", "deny"],
        *,
        now: int,
        sealing_key: Unwrapper | None = None,
    ) -> "Decision":
        """Needs no log and no network: a custodian can sign on a machine of their own and mail the file.

        Args:
            sealing_key: opens this custodian's shares, where it is not the one that comes with `custodian` (KMS, a token).
        Raises: RecordError if a share of a shard that the request names does not open: nothing is passed on then.
        """
        person = custodian.custodian
        shares: tuple[bytes, ...] = ()
        if decision == "approve" and request.run_key is not None:
            opener = sealing_key if sealing_key is not None else custodian.sealing_key
            shares = tuple(_passed_shares(request, person.fingerprint, opener, request.run_key))
        draft = cls(request.case, person.fingerprint, decision, now, b"", shares, request.version)
        return cls(**{**vars_of(draft), "signature": custodian.sign(_DECISION, draft.signed_bytes)})

    @cached_property
    def shares_sha256(self) -> str:
        return hashlib.sha256(canonical_json(self._shares())).hexdigest()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the whole file's canonical JSON, for the receipt."""
        return hashlib.sha256(canonical_json(self.to_json())).hexdigest()

    @property
    def signed_bytes(self) -> bytes:
        return _decision_bytes(self.version, self.case, self.custodian, self.decision, self.decided_at, self.shares_sha256)

    def signed_by(self, policy: CustodyPolicy) -> bool:
        person = policy.custodian(self.custodian)
        return person is not None and person.signed(_DECISION, self.signed_bytes, self.signature)

    def logged(self) -> dict[str, Any]:
        """What the audit log holds of it, enough to check its signature."""
        facts = {"decided_at": self.decided_at, "signature": base64.b64encode(self.signature).decode()}
        return facts if self.version == 1 else facts | {"shares_sha256": self.shares_sha256}

    def _shares(self) -> list[str]:
        return [base64.b64encode(one).decode() for one in self.shares]

    def to_json(self) -> dict[str, Any]:
        names = ("case", "custodian", "decision", "decided_at", "version")
        body = {name: getattr(self, name) for name in names} | {"format": _DECISION}
        body |= {"signature": base64.b64encode(self.signature).decode()}
        return body if self.version == 1 else body | {"shares": self._shares()}

    def save(self, path: str | os.PathLike[str]) -> None:
        _save(path, self.to_json())

    @classmethod
    def from_json(cls, body: Any, *, origin: str = "the decision") -> "Decision":
        try:
            fields = dict(body)
            known = fields.pop("format") == _DECISION and fields["version"] in (1, 2)
            fields["signature"] = base64.b64decode(fields["signature"], validate=True)
            fields["shares"] = tuple(base64.b64decode(one, validate=True) for one in fields.get("shares", ()))
            decision = cls(**fields)
            numbers, texts = (decision.decided_at, decision.version), (decision.case, decision.custodian)
            fine = all(type(one) is int for one in numbers) and all(type(one) is str for one in texts)
            if not known or not fine or decision.decision not in ("approve", "deny") or decision.to_json() != body:
                raise ValueError("another format, or unexpected fields")
        except (ValueError, KeyError, TypeError) as error:
            raise RecipientError(f"{origin} is not a decision on a recovery request.") from error
        return decision

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Decision":
        return cls.from_json(read_json(path), origin=str(path))


def request_signed(policy: CustodyPolicy, case: str, requester: str, signature: bytes) -> bool:
    """Whether `requester`, a person of the policy, signed the request of this case (version 2)."""
    person = policy.person(requester)
    return person is not None and person.signed(_REQUEST, case.encode(), signature)


def decision_signed(policy: CustodyPolicy, case: str, custodian: str, decision: str, facts: Mapping[str, Any]) -> bool:
    """Whether `custodian` of the policy signed the decision that the log holds as `facts` (see `Decision.logged`)."""
    person = policy.custodian(custodian)
    version = 2 if "shares_sha256" in facts else 1
    message = _decision_bytes(version, case, custodian, decision, facts["decided_at"], facts.get("shares_sha256", ""))
    return person is not None and person.signed(_DECISION, message, base64.b64decode(facts["signature"]))


def _decision_bytes(version: int, case: str, custodian: str, decision: str, decided_at: int, shares_sha256: str) -> bytes:
    body = {"case": case, "custodian": custodian, "decision": decision, "decided_at": decided_at}
    body |= {"format": _DECISION, "version": version}
    return canonical_json(body if version == 1 else body | {"shares_sha256": shares_sha256})


def _passed_shares(request: RecoveryRequest, custodian: str, sealing_key: Unwrapper, run_key: Recipient) -> list[bytes]:
    passed = []
    named = {(face.dataset, face.shard) for face in request.faces}
    for context, lock in request.locks:
        if request.change is None and (context.dataset, context.shard) not in named:
            raise MisuseError(f"the request would open {context.shard}, of which it names no face; it was made to mislead.")
        if custodian not in lock.custodians:
            raise MisuseError(f"{custodian[:8]}… holds no share of {context.shard}: another custody policy locked it.")
        place = lock.custodians.index(custodian)
        share = lock.open_share(context, place, sealing_key)
        passed.append(pass_share(lock, context, place, share, run_key, request.case))
    return passed


def _face(dataset: str, shard: str, sample: str, number: int, *record: str) -> FaceRef:
    if type(number) is not int or not 0 <= number < 1 << 31:
        raise ValueError("a face's number")
    return FaceRef(str(dataset), str(shard), str(sample), number, *record)


def _check_fields(request: RecoveryRequest) -> None:
    """What a program may rely on, whoever made the file. Raises: ValueError."""
    numbers = (request.version, request.quorum, request.requested_at, request.expires_at)
    texts = (request.purpose, request.requester, request.nonce, request.policy)
    if not all(type(one) is int for one in numbers) or not all(type(one) is str for one in texts):
        raise ValueError("a field of another type")
    if not 0 <= request.requested_at < request.expires_at <= _LAST_SECOND or not 1 <= request.quorum <= MAX_CUSTODIANS:
        raise ValueError("a time or quorum that can't be meant")
    if not request.purpose.strip() or len(request.purpose) > MAX_PURPOSE:
        raise ValueError("no purpose, or one that nobody reads")


def _check_faces(faces: Sequence[FaceRef], change: Change | None) -> None:
    if change is not None:
        if faces:
            raise MisuseError("a case that re-seals shards opens no faces.")
    elif not faces or len(set(faces)) < len(faces) or len(faces) > MAX_FACES:
        raise MisuseError(f"a request names 1 to {MAX_FACES} faces, each once.")
    elif not all(_DIGEST.fullmatch(face.record) for face in faces):
        raise MisuseError("a request names each face's sealed record by its digest.", advice="See keys.release.name_records.")


def vars_of(record: RecoveryRequest | Decision) -> dict[str, Any]:
    """The fields only: cached properties live in the same __dict__."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def _save(path: str | os.PathLike[str], body: dict[str, Any]) -> None:
    Path(path).write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
