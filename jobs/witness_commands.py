"""`diffpriv audit witness`, `cosign`, `acknowledge`: what people beside the sequencer say of the log."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffpriv.jobs.output import OUTPUT
from diffpriv.jobs.passphrases import PassphraseFile
from diffpriv.jobs.places import load_note_key, open_log, person_key, read_file, writable_log
from diffpriv.keys.errors import MisuseError

if TYPE_CHECKING:
    from rich.console import Console

AuditUrl = Annotated[str, typer.Argument(metavar="AUDIT", help="The log's folder or URL.")]
LogVkey = Annotated[Path, typer.Option("--log-vkey", help="The log's public key; never one from the log's own folder.")]


def witness(
    log_vkey: LogVkey,
    key: Annotated[Path, typer.Option(help="The witness's private key (keys signing-key --role witness).")],
    memory: Annotated[
        Path, typer.Option(help="The witness's own: a file, or with --serve a folder. Never in the log's folder.")
    ],
    audit: Annotated[str | None, typer.Argument(metavar="[AUDIT]", help="The log, where it is read as files.")] = None,
    mailed: Annotated[
        Path | None, typer.Option(help="Instead of AUDIT: a mailed proof (audit prove --since), or at first a checkpoint.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="New file for the cosignature, to mail it.")] = None,
    serve: Annotated[int | None, typer.Option(min=0, max=65535, help="Listen on this port of 127.0.0.1 instead.")] = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Cosign the log's head, if it extends the last one seen: once from files, or by the C2SP tlog-witness protocol."""
    from diffpriv.keys.audit.proofs import witness as cosign_head
    from diffpriv.keys.audit.proofs import witness_mailed
    from diffpriv.keys.audit.witness import Witness
    from diffpriv.keys.audit.witness import serve as listen
    from diffpriv.keys.notes import NoteVerifier

    signing = load_note_key(key, passphrase_file, "witness")
    if serve is not None:
        server = listen(Witness(signing, [NoteVerifier.load(log_vkey)], memory), serve)
        OUTPUT.note(f"witness {signing.name} listens on http://127.0.0.1:{server.server_address[1]}; stop it with Ctrl-C")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            server.server_close()
        return
    if (audit is None and mailed is None) or out is None:
        raise MisuseError("nothing to cosign.", advice="Give AUDIT or --mailed FILE, with --out FILE; or --serve PORT.")
    if out.exists():
        raise MisuseError(f"{out} exists.", advice="Give another name.")
    now = int(time.time())
    if mailed is not None:
        line = witness_mailed(read_file(mailed), NoteVerifier.load(log_vkey), signing, memory, now=now)
    else:
        line = cosign_head(open_log(str(audit), log_vkey), signing, memory, now=now)
    out.write_bytes(line)
    OUTPUT.result({"cosignature": str(out)}, lambda console: console.print(f"cosignature  {out}", markup=False))


def cosign(
    audit: AuditUrl,
    log_vkey: LogVkey,
    witness_vkey: Annotated[Path, typer.Option(help="The witness's public key.")],
    signature: Annotated[Path | None, typer.Option(help="The cosignature that the witness mailed.")] = None,
    url: Annotated[str | None, typer.Option(help="Or ask the witness that listens there.")] = None,
) -> None:
    """Put a witness's cosignature under the log's present head: the sequencer's part; needs no key."""
    from diffpriv.keys.audit.witness import ask_witness
    from diffpriv.keys.notes import NoteVerifier

    if (signature is None) == (url is None):
        raise MisuseError("give either --signature FILE or --url URL.")
    log, verifier = open_log(audit, log_vkey), NoteVerifier.load(witness_vkey)
    line = read_file(signature) if signature is not None else ask_witness(log, str(url), verifier)
    head = log.add_cosignature(line, verifier)
    document = {"size": head.size, "witness": verifier.name}
    OUTPUT.result(document, lambda c: c.print(f"{verifier.name} cosigned the head of {head.size} entries", markup=False))


def acknowledge(
    audit: AuditUrl,
    log_key: Annotated[Path, typer.Option(help="Key that signs the audit log.")],
    entry: Annotated[int, typer.Option(min=0, help="The entry that audit verify names.")],
    custodian_key: Annotated[Path, typer.Option(help="Your private key.")],
    passphrase_file: PassphraseFile = None,
) -> None:
    """A custodian's word that a shard was rightly redone: without it, audit verify keeps naming the entry."""
    from diffpriv.keys.audit.ledger import Ledger
    from diffpriv.keys.audit.ledger import acknowledge as sign

    log = writable_log(audit, log_key, passphrase_file)
    ledger = Ledger()
    log.read_proved(ledger.take)
    if entry not in ledger.superseded:
        raise MisuseError(f"entry {entry} supersedes nothing.", advice='"diffpriv audit verify" names those that do.')
    one = ledger.superseded[entry]
    log.append([sign(one, person_key(custodian_key, passphrase_file), int(time.time()))])

    def show(console: "Console") -> None:
        console.print(f"entry {entry} is acknowledged: segment {one.segment} was rightly put in again", markup=False)

    OUTPUT.result({"entry": entry, "segment": one.segment}, show)
