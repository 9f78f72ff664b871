"""`diffpriv keys custodian`, `policy`, `signing-key`: what each person makes on a machine of their own."""

import os
from pathlib import Path
from typing import Annotated

import typer

from diffpriv.jobs.output import OUTPUT
from diffpriv.jobs.passphrases import PassphraseFile, passphrase
from diffpriv.keys.errors import MisuseError


def custodian(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The new public file; the private one is beside it (.key).")],
    name: Annotated[str, typer.Option(help="Your name, for the people who read the policy.")],
    sealing: Annotated[
        Path | None,
        typer.Option(help="Public recipient file of a key in AWS KMS or on a token, for your shares (keys recipient)."),
    ] = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make a custodian's or requester's key: it signs, and unless --sealing names another, shares are sealed to it."""
    from diffpriv.keys.custodians import Custodian, CustodianKey
    from diffpriv.keys.recipients import Recipient

    private = out.with_suffix(".key")
    _must_be_new(out, private)
    key = CustodianKey.create(name)
    person = key.custodian
    if sealing is not None:
        person = Custodian(name, person.public, Recipient.load(sealing))
    key.save(private, passphrase(passphrase_file, "the new key", new=True))
    person.save(out)
    document = {"custodian": str(out), "key": str(private), "fingerprint": person.fingerprint}
    OUTPUT.result(document, lambda c: c.print(f"custodian  {out}  {person.fingerprint}\nkey        {private}", markup=False))


def policy(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The new policy's file.")],
    custodian: Annotated[list[Path], typer.Option(help="Public file of a custodian. Repeatable.")],
    quorum: Annotated[int, typer.Option(min=1, help="How many of them open.")],
    requester: Annotated[list[Path] | None, typer.Option(help="Public file of someone who may ask. Repeatable.")] = None,
    witness: Annotated[list[Path] | None, typer.Option(help="Public key of a witness of the log. Repeatable.")] = None,
    witness_quorum: Annotated[int, typer.Option(min=0, help="How many must cosign a release before it opens.")] = 0,
    previous: Annotated[Path | None, typer.Option(help="The policy that this one follows.")] = None,
) -> None:
    """Write a custody policy from the public files that people sent. Compare its digest with them by another channel."""
    from diffpriv.keys.custodians import Custodian, CustodyPolicy
    from diffpriv.keys.notes import NoteVerifier

    _must_be_new(out)
    asking = [Custodian.load(path) for path in requester or []]
    made = CustodyPolicy(
        quorum,
        tuple(Custodian.load(path) for path in custodian),
        tuple(Custodian(one.name, one.public) for one in asking),
        tuple(NoteVerifier.load(path).vkey for path in witness or []),
        witness_quorum,
        CustodyPolicy.load(previous).digest if previous else "",
    )
    if not made.locks:
        raise MisuseError("none of the custodians has a sealing key.", advice='Make new files with "diffpriv keys custodian".')
    made.save(out)
    document = {"policy": str(out), "digest": made.digest, "quorum": quorum, "custodians": len(made.custodians)}
    OUTPUT.result(document, lambda c: c.print(f"policy  {out}  {made.digest}", markup=False))


def signing_key(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The private key's new file; the public one is beside it (.vkey).")
    ],
    role: Annotated[str, typer.Option(help="What it is for: log, release, office or witness. One key, one role.")],
    name: Annotated[str, typer.Option(help="The signer's name, e.g. example.org/witness; it stands in what it signs.")],
    unattended: Annotated[bool, typer.Option("--unattended", help="No passphrase: only the file's mode guards it.")] = False,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make a signing key for one role."""
    from diffpriv.keys.notes import NoteKey

    public = out.with_suffix(".vkey")
    _must_be_new(out, public)
    key = NoteKey.create(name, witness=role == "witness")
    key.save(out, None if unattended else passphrase(passphrase_file, "the new key", new=True), role=role)
    public.write_text(key.verifier.vkey + os.linesep, encoding="utf-8")
    document = {"key": str(out), "public": str(public), "vkey": key.verifier.vkey}
    OUTPUT.result(document, lambda c: c.print(f"key     {out}\npublic  {public}  {key.verifier.vkey}", markup=False))


def _must_be_new(*paths: Path) -> None:
    for path in paths:
        if path.exists():
            raise MisuseError(f"{path} exists; keys and policies are never overwritten.", advice="Give another name.")
        if not path.absolute().parent.is_dir():
            raise MisuseError(f"the folder {path.parent} does not exist.")
