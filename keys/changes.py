"""What a case that re-seals shards puts in place: another custody policy, other recipients; and what that changes, for people.

JSON, in a request: {"policy": digest, "add": [fingerprint, ...], "remove": [...], "to": the new policy's file}. "to" is missing
where the policy stays as it is, and in requests of before. In the audit log: without "to", which holds names.

A signature is over the digest, so what custodians are shown is taken from the policy that has this digest and from nothing
that a requester says of it. Names are not under the digest: people are told apart by their keys, and a new key under a known
name is pointed out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from diffpriv.keys.custodians import Custodian, CustodyPolicy
from diffpriv.keys.errors import MisuseError


@dataclass(frozen=True)
class Change:
    """What a case that re-seals shards puts in place of what is there.

    Attributes:
        policy: digest of the policy from then on.
        add, remove: fingerprints of recipients.
        to: the policy with this digest, where the request brings it along; not part of what makes two changes the same.
    """

    policy: str
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    to: CustodyPolicy | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.to is not None and self.to.digest != self.policy:
            raise MisuseError("the request brings another policy than the one whose digest it names; it was made to mislead.")

    def to_json(self) -> dict[str, Any]:
        return self.logged() | ({"to": self.to.to_json()} if self.to is not None else {})

    def logged(self) -> dict[str, Any]:
        """What the audit log holds of it: no names."""
        return {"policy": self.policy, "add": list(self.add), "remove": list(self.remove)}

    @classmethod
    def from_json(cls, body: Any) -> "Change":
        to = CustodyPolicy.from_json(body["to"], origin="the new policy in the request") if "to" in body else None
        return cls(str(body["policy"]), tuple(map(str, body["add"])), tuple(map(str, body["remove"])), to)

    def policy_after(self, held: CustodyPolicy, given: CustodyPolicy | None = None) -> CustodyPolicy | None:
        """The policy from then on: the one at hand that has the digest; None where none has.

        Args:
            held: the present policy. given: the new one, where the custodian has its file.
        Raises:
            MisuseError: the file given is of another policy.
        """
        if given is not None and given.digest != self.policy:
            raise MisuseError(f"the request is for policy {self.policy[:12]}…, and the file given is {given.digest[:12]}….")
        return next((one for one in (given, self.to, held) if one is not None and one.digest == self.policy), None)


class Difference(NamedTuple):
    """One thing that a change does. `kind` is one of KINDS."""

    kind: str
    text: str


UNSEEN = "policy_unseen"
KINDS = {  # kind -> for people
    UNSEEN: "a policy that nobody here has",
    "quorum": "approvals needed",
    "custodian_added": "custodian comes",
    "custodian_removed": "custodian goes",
    "custodian_sealing": "custodian's shares go to another key",
    "requester_added": "requester comes",
    "requester_removed": "requester goes",
    "same_name": "ANOTHER KEY under a name known before",
    "witnesses": "witnesses that must cosign",
    "witness_added": "witness comes",
    "witness_removed": "witness goes",
    "recipient_added": "recipient comes",
    "recipient_removed": "recipient goes",
}


def differences(change: Change, held: CustodyPolicy, given: CustodyPolicy | None = None) -> list[Difference]:
    """All that the change does, the policy's part first; empty if it re-seals and changes nothing.

    Args:
        held, given: as for `Change.policy_after`. Where none has the new policy, that is the one difference.
    """
    after = change.policy_after(held, given)
    if after is None:
        return [Difference(UNSEEN, change.policy)]
    found = []
    before, then = (f"{one.quorum} of {len(one.custodians)}" for one in (held, after))
    if before != then:
        found.append(Difference("quorum", f"{before} -> {then}"))
    found += _people("custodian", held.custodians, after.custodians)
    found += _people("requester", held.requesters, after.requesters)
    known = {one.name: one.fingerprint for one in (*held.custodians, *held.requesters)}
    for one in (*after.custodians, *after.requesters):
        if known.get(one.name, one.fingerprint) != one.fingerprint:
            found.append(Difference("same_name", f"{one.name}: was {known[one.name]}, would be {one.fingerprint}"))
    if held.witness_quorum != after.witness_quorum:
        found.append(Difference("witnesses", f"{held.witness_quorum} -> {after.witness_quorum}"))
    found += [Difference("witness_added", one) for one in after.witnesses if one not in held.witnesses]
    found += [Difference("witness_removed", one) for one in held.witnesses if one not in after.witnesses]
    found += [Difference("recipient_added", one) for one in change.add]
    found += [Difference("recipient_removed", one) for one in change.remove]
    return found


def _people(role: str, before: Sequence[Custodian], after: Sequence[Custodian]) -> Iterator[Difference]:
    old, new = ({one.fingerprint: one for one in people} for people in (before, after))
    for fingerprint, one in new.items():
        if fingerprint not in old:
            yield Difference(f"{role}_added", f"{one.name} ({fingerprint})")
        elif role == "custodian" and _sealing(one) != _sealing(old[fingerprint]):
            yield Difference("custodian_sealing", f"{one.name} ({fingerprint})")
    for fingerprint, one in old.items():
        if fingerprint not in new:
            yield Difference(f"{role}_removed", f"{one.name} ({fingerprint})")


def _sealing(person: Custodian) -> str:
    return person.sealing.fingerprint if person.sealing is not None else ""
