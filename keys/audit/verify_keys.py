"""What `audit verify` says of key files: each is the one that the log names last, and only those can open it who should."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from diffpriv.keys.audit.ledger import Ledger, ShardState
from diffpriv.keys.errors import DiffPrivError, StorageError
from diffpriv.keys.keyfile import KeyFile
from diffpriv.keys.recipients import Unwrapper
from diffpriv.keys.store import KeyStore, key_file_path

Shard = tuple[str, str]  # (dataset, shard)


@dataclass
class VerifyReport:
    """What was looked at and what is wrong with it. `ok` is what decides the exit status."""

    size: int = 0
    root: str = ""
    checked: dict[str, int] = field(default_factory=dict)  # how many entries, segments, key files, ...
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # worth knowing, nothing wrong
    witnesses: list[tuple[str, int]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, **vars(self)}


def check_key_files(store: KeyStore, ledger: Ledger, recipient_key: Unwrapper | None, report: VerifyReport) -> None:
    """Report key files that are missing, added or not what the ledger says of them."""
    there = set(store.list())
    report.checked["key files"] = len(there)
    for shard, state in sorted(ledger.shards.items()):
        where = f"key file {key_file_path(*shard)}"
        if state.key_file is None:
            if shard in there:
                report.problems.append(f"{where} exists, but entry {state.index} says that no keys were kept.")
            continue
        try:
            found = store.get(*shard)
        except StorageError:
            report.problems.append(f"{where} is missing; entry {state.index} of the log names it.")
            continue
        digest = hashlib.sha256(found).digest()
        if digest != state.key_file:
            report.problems.append(_explain(where, shard, found, digest, ledger))
        else:
            report.problems += _key_file_problems(found, shard, state, recipient_key, report)
    for shard in sorted(there - ledger.shards.keys()):
        report.problems.append(
            f"key file {key_file_path(*shard)} is in no entry of the log: it was added, or its run never finished."
        )
    report.problems += [f"{store.location.describe(name)} is not a key file: it was added." for name in store.unexpected()]


def _key_file_problems(
    data: bytes, shard: Shard, state: ShardState, recipient_key: Unwrapper | None, report: VerifyReport
) -> list[str]:
    """What is wrong with a key file whose digest fits."""
    try:
        file = KeyFile.parse(data, dataset=shard[0], shard=shard[1])
        if recipient_key is not None and not file.locks:
            file.check_all(recipient_key)
    except DiffPrivError as error:
        return [str(error)]
    if file.parts and not file.locks:
        what = "of them without a policy"  # a recipient's key alone opens these
        report.checked[what] = report.checked.get(what, 0) + 1
    where = f"key file {key_file_path(*shard)}"
    if file.parts and state.recipients is not None and set(file.sealed_to) != set(state.recipients):
        return [f"{where} is sealed to others than entry {state.committed} states."]
    if file.parts and file.policy != state.policy and state.recipients is not None:
        return [f"{where} is locked under another custody policy than entry {state.committed} states."]
    return []


def _explain(where: str, shard: Shard, found: bytes, digest: bytes, ledger: Ledger) -> str:
    """Why a key file's digest is not the one the log names last."""
    state = ledger.shards[shard]
    if state.step and digest == state.previous:
        return f"{where}: the {state.step} that entry {state.index} announces was interrupted; run it again."
    try:
        KeyFile.parse(found, dataset=shard[0], shard=shard[1])
    except DiffPrivError as error:
        return f"{where} is not the one that entry {state.index} names: {error}"
    for other, known in ledger.shards.items():
        if known.key_file == digest:
            return f"{where} is that of {other[1]} of dataset {other[0]}: files were swapped."
    return f"{where} is not the one that entry {state.index} names: something in it was altered, or it is an old copy."


def check_openers(ledger: Ledger, recipients: Sequence[str] | None, report: VerifyReport) -> None:
    """Who can open, as the log states it, against whom the caller knows."""
    good = set(ledger.custody.trusted) | set(ledger.custody.pinned)
    for shard, state in sorted(ledger.shards.items()):
        if state.key_file is None:
            continue
        where = f"the key file of {shard[1]} of dataset {shard[0]}"
        others = sorted(set(state.recipients or ()) - set(recipients or ())) if recipients is not None else []
        if others:
            report.problems.append(f"{where} is sealed to {', '.join(others)} too: nobody you named.")
        if state.recipients is None and recipients is not None:
            report.notes.append(
                f"entry {state.committed} does not state whom {where} is sealed to: it is of an earlier version."
            )
        if ledger.custody.trusted and not state.policy:
            report.problems.append(f"{where} is locked under no custody policy: a recipient's key alone opens it.")
        elif ledger.custody.trusted and state.policy not in good:
            report.problems.append(f"{where} is locked under policy {state.policy[:12]}…, none of those given.")
        elif state.policy in ledger.custody.pinned[:-1]:
            report.problems.append(
                f"{where} is locked under policy {state.policy[:12]}…, which was replaced: ask for another rotation of it."
            )
