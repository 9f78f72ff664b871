"""The files of a recovery that people mail to each other: a request, and the decisions on it. Signed, without secrets.

Request, JSON: {"faces": [[dataset, shard, sample, face index], ...], "purpose", "requester": fingerprint, "requested_at",
    "expires_at": Unix seconds, "nonce": 64 hex digits, "policy": digest of the custody policy, "quorum": M,
    "format": "diffpriv recovery request", "version": 1, "signature": base64}
    case = SHA-256(canonical("diffpriv/v1/request", canonical JSON of all but the signature)), hex. The random nonce makes it a
    salted commitment to the faces, so the log can name the case without naming anybody.
Decision, JSON: {"case", "custodian": fingerprint, "decision": "approve" | "deny", "decided_at",
    "format": "diffpriv recovery decision", "version": 1, "signature": base64}
Signatures: keys/custodians.py, label = the format, message = canonical JSON of all but the signature.
"""

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from keys.context import canonical
from keys.custodians import CustodianKey, CustodyPolicy, read_json
from keys.errors import MisuseError, RecipientError
from keys.lockbox import canonical_json

_REQUEST = "diffpriv recovery request"
_DECISION = "diffpriv recovery decision"
MAX_FACES = 10_000


class FaceRef(NamedTuple):
    dataset: str
    shard: str
    sample: str
    face_index: int


@dataclass(frozen=True)
class RecoveryRequest:
    faces: tuple[FaceRef, ...]
    purpose: str
    requester: str  # fingerprint
    requested_at: int
    expires_at: int
    nonce: str
    policy: str  # digest
    quorum: int
    signature: bytes = b""

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
    ) -> "RecoveryRequest":
        """A signed request. Raises: MisuseError for one that could never be granted."""
        if not faces or len(set(faces)) < len(faces) or len(faces) > MAX_FACES:
            raise MisuseError(f"a request names 1 to {MAX_FACES} faces, each once.")
        if not purpose.strip():
            raise MisuseError("a request states its purpose.")
        if expires_at <= now:
            raise MisuseError("the request would be expired when it is made.")
        fingerprint = requester.custodian.fingerprint
        if policy.person(fingerprint) is None:
            raise MisuseError(
                f"{requester.name or fingerprint} is not in the custody policy, neither as custodian nor as requester."
            )
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
        )
        return cls(**{**vars_of(draft), "signature": requester.sign(_REQUEST, draft.signed_bytes)})

    @cached_property
    def signed_bytes(self) -> bytes:
        return canonical_json(self._body())

    @cached_property
    def case(self) -> str:
        """The digest that approvals name."""
        return hashlib.sha256(canonical("diffpriv/v1/request", self.signed_bytes)).hexdigest()

    def signed_by(self, policy: CustodyPolicy) -> bool:
        person = policy.person(self.requester)
        return person is not None and person.signed(_REQUEST, self.signed_bytes, self.signature)

    def _body(self) -> dict[str, Any]:
        body = vars_of(self) | {"format": _REQUEST, "version": 1, "faces": [list(face) for face in self.faces]}
        del body["signature"]
        return body

    def to_json(self) -> dict[str, Any]:
        return self._body() | {"signature": base64.b64encode(self.signature).decode()}

    def save(self, path: str | os.PathLike[str]) -> None:
        _save(path, self.to_json())

    @classmethod
    def from_json(cls, body: Any, *, origin: str = "the request") -> "RecoveryRequest":
        try:
            fields = dict(body)
            if fields.pop("format") != _REQUEST or fields.pop("version") != 1:
                raise ValueError("another format")
            fields["faces"] = tuple(FaceRef(str(a), str(b), str(c), int(d)) for a, b, c, d in fields["faces"])
            fields["signature"] = base64.b64decode(fields["signature"], validate=True)
            request = cls(**fields)
            if request.to_json() != body or not all(
                type(value) is int for value in (request.quorum, request.requested_at, request.expires_at)
            ):
                raise ValueError("unexpected fields")
        except (ValueError, KeyError, TypeError) as error:
            raise RecipientError(f"{origin} is not a recovery request.") from error
        return request

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "RecoveryRequest":
        return cls.from_json(read_json(path), origin=str(path))


@dataclass(frozen=True)
class Decision:
    """One custodian's yes or no to one exact request."""

    case: str
    custodian: str  # fingerprint
    decision: Literal["approve", "deny"]
    decided_at: int
    signature: bytes = b""

    @classmethod
    def make(
        cls, request: RecoveryRequest, custodian: CustodianKey, decision: Literal["approve", "deny"], *, now: int
    ) -> "Decision":
        """Needs no log and no network: a custodian can sign on a machine of their own and mail the file."""
        draft = cls(request.case, custodian.custodian.fingerprint, decision, now)
        return cls(**{**vars_of(draft), "signature": custodian.sign(_DECISION, draft.signed_bytes)})

    @cached_property
    def signed_bytes(self) -> bytes:
        return canonical_json(self._body())

    def signed_by(self, policy: CustodyPolicy) -> bool:
        person = policy.custodian(self.custodian)
        return person is not None and person.signed(_DECISION, self.signed_bytes, self.signature)

    def _body(self) -> dict[str, Any]:
        body = vars_of(self) | {"format": _DECISION, "version": 1}
        del body["signature"]
        return body

    def to_json(self) -> dict[str, Any]:
        return self._body() | {"signature": base64.b64encode(self.signature).decode()}

    def save(self, path: str | os.PathLike[str]) -> None:
        _save(path, self.to_json())

    @classmethod
    def from_json(cls, body: Any, *, origin: str = "the decision") -> "Decision":
        try:
            fields = dict(body)
            known = fields.pop("format") == _DECISION and fields.pop("version") == 1
            fields["signature"] = base64.b64decode(fields["signature"], validate=True)
            decision = cls(**fields)
            fine = known and decision.decision in ("approve", "deny") and type(decision.decided_at) is int
            if not fine or decision.to_json() != body:
                raise ValueError("another format, or unexpected fields")
        except (ValueError, KeyError, TypeError) as error:
            raise RecipientError(f"{origin} is not a decision on a recovery request.") from error
        return decision

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Decision":
        return cls.from_json(read_json(path), origin=str(path))


def vars_of(record: RecoveryRequest | Decision) -> dict[str, Any]:
    """The fields only: cached properties live in the same __dict__."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def _save(path: str | os.PathLike[str], body: dict[str, Any]) -> None:
    Path(path).write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
