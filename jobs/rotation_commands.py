"""`diffpriv keys rotate` and `keys rotate-request`: other recipients, or another custody policy, for what is sealed already."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffpriv.jobs.output import OUTPUT
from diffpriv.jobs.passphrases import PassphraseFile, Pkcs11Module
from diffpriv.keys.errors import MisuseError

if TYPE_CHECKING:
    from diffpriv.keys.audit.log import AuditLog
    from diffpriv.keys.resealing import Approved
    from diffpriv.keys.rotation import RotationReport

KeysUrl = Annotated[str, typer.Option(help="Key store.")]
Add = Annotated[list[Path] | None, typer.Option(help="Recipient file to add. Repeatable.")]
Remove = Annotated[list[str] | None, typer.Option(help="Recipient to remove: its file or fingerprint. Repeatable.")]


def rotate_request(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The request's new file.")],
    keys: KeysUrl,
    policy: Annotated[Path, typer.Option(help="The custody policy that shards are locked under now.")],
    requester_key: Annotated[Path, typer.Option(help="Your private key.")],
    purpose: Annotated[str, typer.Option(help="Why; custodians read it.")],
    new_policy: Annotated[Path | None, typer.Option(help="The policy from then on; by default it stays.")] = None,
    add: Add = None,
    remove: Remove = None,
    expires: Annotated[str, typer.Option(help="How long it can be approved, run and resumed: 12h, 7d.")] = "7d",
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask before signing.")] = False,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Ask custodians for another policy or recipient of the shards they lock. Next: recover record, approve; keys rotate."""
    from diffpriv.jobs.places import person_key
    from diffpriv.jobs.signing import as_seconds, ask_first, must_be_new, shown
    from diffpriv.keys.changes import Change
    from diffpriv.keys.custodians import CustodyPolicy
    from diffpriv.keys.recipients import RecipientKey
    from diffpriv.keys.requests import RecoveryRequest
    from diffpriv.keys.resealing import name_locks
    from diffpriv.keys.store import KeyStore

    private = out.with_suffix(".run.key")
    must_be_new(out)
    must_be_new(private)
    held = CustodyPolicy.load(policy)
    wanted = CustodyPolicy.load(new_policy) if new_policy else held
    if held.digest not in (wanted.digest, wanted.previous):
        raise MisuseError(f"{new_policy} does not follow {policy}.", advice='Make it with "diffpriv keys policy --previous".')
    brought = wanted if wanted.digest != held.digest else None  # custodians read from it what they would sign
    change = Change(wanted.digest, tuple(_fingerprints(add or [])), tuple(_fingerprints(remove or [])), brought)
    locks = name_locks(KeyStore(keys), held, change)
    if not locks:
        raise MisuseError("no shard of the key store is locked under this policy and needs the change.")
    now, run_key = int(time.time()), RecipientKey.generate()
    made = RecoveryRequest.make(
        (),
        purpose,
        person_key(requester_key, passphrase_file),
        held,
        now=now,
        expires_at=now + as_seconds(expires),
        run_key=run_key.recipient,
        locks=locks,
        change=change,
    )
    ask_first("Sign this request", shown(made, held, None), yes)
    made.save(out)
    run_key.save(private, None)
    text = f"request  {out}\ncase     {made.case}\nrun key  {private}  private: for whoever runs keys rotate\n"
    text += f"shards   {len(locks)}"
    document = {"case": made.case, "request": str(out), "run_key": str(private), "shards": len(locks)}
    OUTPUT.result(document, lambda console: console.print(text, markup=False))


def rotate(
    keys: KeysUrl,
    audit: Annotated[str, typer.Option(help="Audit log.")],
    log_key: Annotated[Path, typer.Option(help="Key that signs the audit log.")],
    add: Add = None,
    remove: Remove = None,
    recipient_key: Annotated[Path | None, typer.Option(help="Private key of a present recipient; needed to add one.")] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Custody policy that shards are to be locked under; brings up those without one.")
    ] = None,
    request: Annotated[Path | None, typer.Option(help="The approved request (keys rotate-request), for locked shards.")] = None,
    current_policy: Annotated[Path | None, typer.Option(help="The policy that approved it; by default --policy.")] = None,
    approval: Annotated[list[Path] | None, typer.Option(help="A mailed approval; by default those beside the request.")] = None,
    run_key: Annotated[Path | None, typer.Option(help="Private run key; by default the one beside the request.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only this dataset.")] = None,
    pkcs11_module: Pkcs11Module = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Change who can open: recipients, or the custody policy. Data and payloads stay. Can be run again after an interruption.

    Shards that a policy locks take an approved request. Without one, recipients can only be taken out of them.
    """
    from diffpriv.jobs.places import unwrapper, writable_log
    from diffpriv.keys.changes import Change
    from diffpriv.keys.custodians import CustodyPolicy
    from diffpriv.keys.recipients import Recipient
    from diffpriv.keys.resealing import reseal
    from diffpriv.keys.rotation import rotate as rewrap
    from diffpriv.keys.store import KeyStore

    store, removed, now = KeyStore(keys), _fingerprints(remove or []), int(time.time())
    log, added = writable_log(audit, log_key, passphrase_file), [Recipient.load(path) for path in add or []]
    opener = unwrapper(recipient_key, passphrase_file, pkcs11_module) if recipient_key else None
    if policy is None and request is None:
        return _show(rewrap(store, log, now=now, add=added, remove=removed, recipient_key=opener, dataset=dataset))
    if policy is None or opener is None or dataset is not None:
        raise MisuseError("to lock shards, give --policy and --recipient-key, and no --dataset: a log serves one policy.")
    approved = _approved(request, current_policy or policy, log, approval, run_key, passphrase_file) if request else None
    held = CustodyPolicy.load(policy)
    asked = approved.case.request.change if approved is not None else None
    change = asked or Change(held.digest, tuple(one.fingerprint for one in added), tuple(removed))
    known = [*added, opener.recipient]
    return _show(reseal(store, log, opener, held, change, now=now, known=known, approved=approved))


def _approved(
    request: Path,
    policy: Path,
    log: "AuditLog",
    approval: list[Path] | None,
    run_key: Path | None,
    passphrase_file: Path | None,
) -> "Approved":
    from diffpriv.jobs.places import recipient_key_file
    from diffpriv.jobs.signing import mailed_decisions, the_case
    from diffpriv.keys.resealing import Approved

    case = the_case(request, policy, log)
    if case.request.change is None:
        raise MisuseError(f"{request} asks for faces, not for a change.", advice='See "diffpriv keys rotate-request".')
    private = run_key or request.with_suffix(".run.key")
    return Approved(case, mailed_decisions(request, case.request, approval), recipient_key_file(private, passphrase_file))


def _fingerprints(given: "list[Path] | list[str]") -> list[str]:
    from diffpriv.keys.recipients import Recipient

    return [Recipient.load(one).fingerprint if os.path.exists(one) else str(one) for one in given]


def _show(report: "RotationReport") -> None:
    text = f"{len(report.rewrapped)} key files rewrapped, {len(report.unchanged)} had these recipients already"
    document = {"rewrapped": [list(one) for one in report.rewrapped], "unchanged": [list(one) for one in report.unchanged]}
    OUTPUT.result(document, lambda console: console.print(text))
