"""The quorum in the cryptography: a shard's lock, which M of N custodians open together and nobody else.

A lock is a recipient (keys/recipients.py, kind hpke-mlkem768-x25519) whose 32-byte root is split M of N and forgotten: whoever
reads a shard makes it from public keys alone, and workers then wrap to it as to any recipient. A shard key needs two secrets
(keys/sealing.py), one wrapped to the recipients and one wrapped to the lock.

    shard context   keys/context.py;  policy digest, 32 bytes: keys/custodians.py;  lock id = SHA-256(lock's public key)
    share info I_i  = canonical("diffpriv/v2/share", shard context, policy digest, lock id, u8 place i, u8 quorum M)
    sealed share    = share (32 bytes) wrapped to custodian i's sealing key with `info` I_i
    check           = SHA-256(canonical("diffpriv/v2/share-check", I_i, share))[:16]: tells which share is wrong
    passed share    = share wrapped to the request's run key with `info` canonical("diffpriv/v2/passed-share", case (32), I_i)

Splitting is SLIP-39's Shamir scheme over GF(256) (package shamir-mnemonic: one group, extendable, iteration exponent 0, no
passphrase, no word lists); a quorum of 1 gives every custodian the root itself. Share i belongs to the policy's custodian i.
"""

import base64
import hashlib
import hmac
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from diffpriv.keys.cleartext import reveal
from diffpriv.keys.context import ShardContext, canonical
from diffpriv.keys.custodians import CustodyPolicy
from diffpriv.keys.errors import DiffPrivError, KeyFileError, MisuseError, QuorumError, RecordError
from diffpriv.keys.json_text import parse_json
from diffpriv.keys.lockbox import canonical_json
from diffpriv.keys.recipients import HPKE, Recipient, RecipientKey, Unwrapper
from diffpriv.keys.secrets import KeyShare

_CHECK = 16


@dataclass(frozen=True)
class ShardLock:
    """What a job leaves of a shard's lock: public and sealed bytes only, safe to pickle and to move.

    JSON: {"checks": base85 of all, "custodians": [fingerprint, ...], "policy": digest, "public": base64, "quorum": M, "shares":
    [base85 per custodian]}; base85 is RFC 1924's, which needs no escapes in JSON.
    """

    policy: str  # digest
    quorum: int
    custodians: tuple[str, ...]  # fingerprints, in the policy's order
    public: bytes = field(repr=False)
    shares: tuple[bytes, ...] = field(repr=False)
    checks: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def make(cls, context: ShardContext, policy: CustodyPolicy) -> "ShardLock":
        """A fresh lock for one shard; its root is split, sealed and forgotten.

        Raises: MisuseError for a policy whose custodians have no sealing keys.
        """
        sealing = [one.sealing for one in policy.custodians if one.sealing is not None]
        if not policy.locks:
            raise MisuseError(
                "the custody policy is of version 1: its custodians have no sealing keys, so it can't lock shards.",
                advice='Make a new one: "diffpriv keys custodian" for every custodian, then "diffpriv keys policy".',
            )
        root = RecipientKey.generate()
        custodians = tuple(one.fingerprint for one in policy.custodians)
        bare = cls(policy.digest, policy.quorum, custodians, root.recipient.public, (), ())
        infos = [bare.share_info(context, place) for place in range(len(custodians))]
        shares = split_root(root, policy.quorum, len(custodians))
        return cls(
            bare.policy,
            bare.quorum,
            custodians,
            bare.public,
            tuple(to.wrap(share, info) for to, share, info in zip(sealing, shares, infos, strict=True)),
            tuple(_check(share, info) for share, info in zip(shares, infos, strict=True)),
        )

    @cached_property
    def id(self) -> bytes:
        return hashlib.sha256(self.public).digest()

    @cached_property
    def recipient(self) -> Recipient:
        """Where workers wrap the quorum's half of their shard keys."""
        return Recipient(HPKE, self.public, "lock")

    def share_info(self, context: ShardContext, place: int) -> bytes:
        numbers = [bytes([place]), bytes([self.quorum])]
        return canonical("diffpriv/v2/share", context.canonical_bytes, bytes.fromhex(self.policy), self.id, *numbers)

    def open_share(self, context: ShardContext, place: int, custodian_key: Unwrapper) -> KeyShare:
        """One custodian's share. Raises: RecordError if it is not theirs, of another shard or policy, or altered."""
        info = self.share_info(context, place)
        try:
            share = KeyShare(reveal(custodian_key.unwrap(self.shares[place], info)))
        except RecordError:
            raise RecordError(
                f"the share of {context.shard} does not open: it is another custodian's or shard's, or was altered."
            ) from None
        self.check(context, place, share)
        return share

    def check(self, context: ShardContext, place: int, share: KeyShare) -> None:
        """Raises: QuorumError if this is not the share that was dealt."""
        if not hmac.compare_digest(_check(share, self.share_info(context, place)), self.checks[place]):
            raise QuorumError(f"the share of custodian {self.custodians[place][:8]}… for {context.shard} is not the one dealt.")

    def to_json(self) -> dict[str, Any]:
        return {
            "policy": self.policy,
            "quorum": self.quorum,
            "custodians": list(self.custodians),
            "public": base64.b64encode(self.public).decode(),
            "shares": [base64.b85encode(one).decode() for one in self.shares],
            "checks": base64.b85encode(b"".join(self.checks)).decode(),
        }

    @classmethod
    def from_json(cls, body: Any) -> "ShardLock":
        """Raises: ValueError, KeyError or TypeError for anything malformed."""
        checks = base64.b85decode(body["checks"])
        lock = cls(
            str(body["policy"]),
            body["quorum"],
            tuple(str(one) for one in body["custodians"]),
            base64.b64decode(body["public"], validate=True),
            tuple(base64.b85decode(one) for one in body["shares"]),
            tuple(checks[at : at + _CHECK] for at in range(0, len(checks), _CHECK)),
        )
        count = len(lock.custodians)
        if lock.to_json() != body or len(bytes.fromhex(lock.policy)) != 32 or type(lock.quorum) is not int:
            raise ValueError("a shard lock in another form")
        if not 1 <= lock.quorum <= count or len(lock.shares) != count or len(lock.checks) != count:
            raise ValueError("a shard lock without all its shares")
        return lock

    def encode(self) -> bytes:
        """For travelling with a shard's samples."""
        return canonical_json(self.to_json())

    @classmethod
    def decode(cls, data: bytes) -> "ShardLock":
        """Raises: KeyFileError."""
        try:
            return cls.from_json(parse_json(data))
        except (ValueError, KeyError, TypeError) as error:
            raise KeyFileError("a shard's lock is damaged.") from error


class OpenLocks:
    """The locks that enough custodians opened for one case, and for no other shard. Holds secrets; refuses pickling."""

    def __init__(self, keys: Mapping[bytes, RecipientKey] | None = None) -> None:
        self._keys = dict(keys or {})

    def key(self, lock: ShardLock) -> RecipientKey | None:
        return self._keys.get(lock.id)

    def add(self, lock: ShardLock, root: RecipientKey) -> None:
        self._keys[lock.id] = root

    def __repr__(self) -> str:
        return f"OpenLocks({len(self._keys)}, not shown)"

    def __reduce_ex__(self, protocol: object) -> tuple[object, ...]:
        raise TypeError("OpenLocks holds secrets and refuses pickling")


def split_root(root: RecipientKey, quorum: int, count: int) -> list[KeyShare]:
    """Shares 0 to count - 1 of a lock's root, any `quorum` of which give it back."""
    if quorum == 1:
        return [KeyShare(reveal(root)) for _ in range(count)]
    from shamir_mnemonic.shamir import EncryptedMasterSecret, split_ems

    (group,) = split_ems(1, [(quorum, count)], EncryptedMasterSecret(0, True, 0, reveal(root)))
    return [KeyShare(share.value) for share in group]


def join_root(shares: Mapping[int, KeyShare], quorum: int) -> RecipientKey:
    """The root of exactly `quorum` shares, by place. Raises: QuorumError."""
    if len(shares) != quorum:
        raise QuorumError(f"{len(shares)} shares of {quorum} are at hand.")
    if quorum == 1:
        return RecipientKey(reveal(next(iter(shares.values()))))
    from shamir_mnemonic.shamir import ShareGroup, recover_ems
    from shamir_mnemonic.share import Share
    from shamir_mnemonic.utils import MnemonicError

    group = ShareGroup()
    try:
        for place, share in shares.items():
            group.add(Share(0, True, 0, 0, 1, 1, place, quorum, reveal(share)))
        return RecipientKey(recover_ems({0: group}).ciphertext)
    except (MnemonicError, ValueError):
        raise QuorumError("the shares do not belong together.") from None


def open_lock(lock: ShardLock, context: ShardContext, shares: Mapping[int, KeyShare]) -> RecipientKey:
    """The lock's private key, from the shares of enough custodians, by their place in the policy.

    Raises: QuorumError if they are too few, or do not give this lock's key.
    """
    if len(shares) < lock.quorum:
        raise QuorumError(
            f"{context.shard} is locked under policy {lock.policy[:12]}…: it takes the shares of {lock.quorum} of its "
            f"{len(lock.custodians)} custodians, and {len(shares)} are at hand.",
            advice="Give the approvals of enough custodians, as they mailed them.",
        )
    for chosen in itertools.combinations(sorted(shares), lock.quorum):  # one wrong share must not hide the right ones
        try:
            root = join_root({place: shares[place] for place in chosen}, lock.quorum)
        except DiffPrivError:
            continue
        if root.recipient.public == lock.public:
            return root
    raise QuorumError(f"the shares at hand do not open the lock of {context.shard}: at least one is wrong.")


def pass_share(lock: ShardLock, context: ShardContext, place: int, share: KeyShare, run_key: Recipient, case: str) -> bytes:
    """A custodian's share, sealed again to the key that the request names for its run."""
    return run_key.wrap(share, _passed(lock, context, place, case))


def take_share(lock: ShardLock, context: ShardContext, place: int, passed: bytes, run_key: Unwrapper, case: str) -> KeyShare:
    """A passed share opened. Raises: RecordError if it was passed on for another case, QuorumError if it is a wrong one."""
    share = KeyShare(reveal(run_key.unwrap(passed, _passed(lock, context, place, case))))
    lock.check(context, place, share)
    return share


def one_lock(locks: Sequence[ShardLock], where: str) -> list[ShardLock]:
    """The locks without repetition; all of one policy. Raises: KeyFileError."""
    found = {lock.id: lock for lock in locks}
    if len({lock.policy for lock in found.values()}) > 1:
        raise KeyFileError(f"the parts of {where} were locked under different custody policies.")
    return list(found.values())


def _passed(lock: ShardLock, context: ShardContext, place: int, case: str) -> bytes:
    return canonical("diffpriv/v2/passed-share", bytes.fromhex(case), lock.share_info(context, place))


def _check(share: KeyShare, info: bytes) -> bytes:
    return hashlib.sha256(canonical("diffpriv/v2/share-check", info, reveal(share))).digest()[:_CHECK]
