"""`diffpriv audit`: check, read and prove the audit log. The work is done in `keys/audit/`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffpriv.jobs import witness_commands
from diffpriv.jobs.output import FOUND_WRONG, OUTPUT, print_table
from diffpriv.jobs.passphrases import PassphraseFile, Pkcs11Module
from diffpriv.jobs.places import load_log_key, open_log, read_file, unwrapper, writable_log
from diffpriv.keys.errors import MisuseError

if TYPE_CHECKING:
    from rich.console import Console

    from diffpriv.keys.audit.verify_keys import VerifyReport

app = typer.Typer(help="The audit log: verify it, read it, prove an entry, witness it.", no_args_is_help=True)
app.command()(witness_commands.witness)
app.command()(witness_commands.cosign)
app.command()(witness_commands.acknowledge)
AuditUrl = Annotated[str, typer.Argument(metavar="AUDIT", help="The log's folder or URL.")]
LogVkey = Annotated[Path, typer.Option("--log-vkey", help="The log's public key; never one from the log's own folder.")]


@app.command()
def verify(
    audit: AuditUrl,
    log_vkey: LogVkey,
    keys: Annotated[str | None, typer.Option(help="Key store: compare every key file with the log.")] = None,
    data: Annotated[list[str] | None, typer.Option(help="A published DST: compare every shard. Repeatable.")] = None,
    manifest: Annotated[
        list[Path] | None, typer.Option(help="Instead of --data: digests that its holder mailed (audit manifest). Repeatable.")
    ] = None,
    since: Annotated[Path | None, typer.Option(help="An earlier checkpoint that today's log must extend.")] = None,
    until: Annotated[Path | None, typer.Option(help="A later one, that must extend the earlier; today's log both.")] = None,
    witness: Annotated[list[Path] | None, typer.Option(help="Public key of a witness that must have cosigned.")] = None,
    policy: Annotated[
        list[Path] | None, typer.Option(help="Custody policy that the log must follow and shards be locked under. Repeatable.")
    ] = None,
    recipient: Annotated[
        list[Path] | None, typer.Option(help="Public file of whoever may open; anyone else is a finding. Repeatable.")
    ] = None,
    recipient_key: Annotated[
        Path | None,
        typer.Option(help="With --keys: also open (and forget) every record that no policy locks. Logged; needs --log-key."),
    ] = None,
    log_key: Annotated[Path | None, typer.Option(help="Key that signs the audit log, for --recipient-key only.")] = None,
    pkcs11_module: Pkcs11Module = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Check the whole log, and key files and published data against it. Exits 1 if anything does not fit."""
    from diffpriv.keys.audit.log import AuditLog
    from diffpriv.keys.audit.verify import verify_log
    from diffpriv.keys.custodians import CustodyPolicy
    from diffpriv.keys.notes import NoteVerifier
    from diffpriv.keys.recipients import Recipient
    from diffpriv.keys.store import KeyStore

    if recipient_key is not None and keys is None:
        raise MisuseError("--recipient-key opens the records of a key store, and no --keys was given.")
    log = open_log(audit, log_vkey)
    if recipient_key is not None and log_key is not None:
        log = AuditLog(audit, load_log_key(log_key, passphrase_file), log.verifier, log.kept)
    report = verify_log(
        log,
        since=read_file(since) if since else None,
        until=read_file(until) if until else None,
        witnesses=[NoteVerifier.load(one) for one in witness or []],
        key_store=KeyStore(keys) if keys else None,
        recipient_key=unwrapper(recipient_key, passphrase_file, pkcs11_module) if recipient_key else None,
        data=_digests(data, manifest),
        policies=[CustodyPolicy.load(one) for one in policy or []],
        recipients=[Recipient.load(one).fingerprint for one in recipient] if recipient else None,
        now=int(time.time()),
    )
    report.problems += _unexpected_files(data)
    not_given = [option for option, given in (("--keys", keys), ("--data", data or manifest)) if not given]
    OUTPUT.result(report.to_json(), lambda console: _show_report(console, audit, report, not_given))
    if not report.ok:
        raise typer.Exit(FOUND_WRONG)


def _show_report(console: "Console", audit: str, report: "VerifyReport", not_given: list[str]) -> None:
    rows = [(what, count) for what, count in report.checked.items()]
    print_table(console, f"Audit log {audit}, {report.size} entries", ["checked", "count"], rows, right=["count"])
    for note in report.notes:
        console.print(f"note: {note}", markup=False)
    for problem in report.problems:
        console.print(f"PROBLEM: {problem}", markup=False)
    if report.ok:
        console.print("Everything that was checked fits the signed log.")
        if not_given:
            console.print(f"Not looked at: what {' and '.join(not_given)} would name.")


@app.command("show")
def show_entries(
    audit: AuditUrl,
    log_vkey: LogVkey,
    kind: Annotated[str | None, typer.Option(help='Only events of this kind, e.g. "shard committed".')] = None,
    case: Annotated[str | None, typer.Option(help="Only the recovery case that starts like this.")] = None,
    shard: Annotated[str | None, typer.Option(help="Only events of this shard.")] = None,
    last: Annotated[int | None, typer.Option(min=1, help="Only the newest ones.")] = None,
) -> None:
    """List the log's entries."""
    from diffpriv.keys.audit.show import event_row, event_text, select_events

    log = open_log(audit, log_vkey)
    found = select_events(log, kinds=[kind] if kind else (), shard=shard, case=case, last=last)

    def show(console: "Console") -> None:
        rows = [event_text(*one) for one in found]
        print_table(console, f"Audit log {audit}", ["entry", "at", "what", "facts"], rows, right=["entry"])

    OUTPUT.result({"entries": [event_row(*one) for one in found]}, show)


@app.command()
def prove(
    audit: AuditUrl,
    log_vkey: LogVkey,
    out: Annotated[Path, typer.Option(help="The proof's new file.")],
    entry: Annotated[int | None, typer.Option(min=0, help="Prove that this entry is in the log.")] = None,
    since: Annotated[Path | None, typer.Option(help="Prove that today's log extends this earlier checkpoint.")] = None,
) -> None:
    """Write a proof that others can check with the log's public key alone, without reading the log."""
    from diffpriv.keys.audit.proofs import prove_consistency, prove_inclusion

    if (entry is None) == (since is None):
        raise MisuseError("give either --entry N or --since CHECKPOINT.")
    if out.exists():
        raise MisuseError(f"{out} exists.", advice="Give another name.")
    log = open_log(audit, log_vkey)
    made = prove_inclusion(log, entry) if entry is not None else prove_consistency(log, read_file(since))  # type: ignore[arg-type]
    try:
        out.write_bytes(made)
    except OSError as error:
        raise MisuseError(f"{out} can't be written: {error.strerror or error}.") from error
    OUTPUT.result({"proof": str(out)}, lambda console: console.print(f"proof  {out}", markup=False))


@app.command()
def check(
    proof: Annotated[Path, typer.Argument(metavar="PROOF", help="A file that audit prove wrote.")],
    log_vkey: LogVkey,
) -> None:
    """Check a proof of either kind. Exits 1 if it does not hold."""
    from diffpriv.keys.audit.proofs import check_consistency, check_inclusion
    from diffpriv.keys.audit.show import event_row, event_text
    from diffpriv.keys.notes import NoteVerifier

    data, verifier = read_file(proof), NoteVerifier.load(log_vkey)
    if data.lstrip().startswith(b"{"):
        old, new = check_consistency(data, verifier)
        document: dict[str, Any] = {"ok": True, "old_size": old.size, "new_size": new.size}
        text = f"the log of {new.size} entries extends the one of {old.size}"
    else:
        proven = check_inclusion(data, verifier)
        document = {"ok": True, **event_row(proven.index, proven.event)}
        index, at, kind, facts = event_text(proven.index, proven.event)
        text = f"entry {index}: {kind} at {at}: {facts}"
    OUTPUT.result(document, lambda console: console.print(text, markup=False))


@app.command("manifest")
def write_manifest(
    data: Annotated[str, typer.Argument(metavar="DST", help="A published DST.")],
    out: Annotated[Path, typer.Option(help="The manifest's new file.")],
) -> None:
    """Write the digests of a DST's shards, measured now, for an auditor who has not the data: audit verify --manifest."""
    from diffpriv.pipelines.destination.published import manifest

    if out.exists():
        raise MisuseError(f"{out} exists.", advice="Give another name.")
    try:
        out.write_bytes(manifest(data))
    except OSError as error:
        raise MisuseError(f"{out} can't be written: {error.strerror or error}.") from error
    OUTPUT.result({"manifest": str(out)}, lambda console: console.print(f"manifest  {out}", markup=False))


@app.command()
def integrate(
    audit: AuditUrl,
    log_key: Annotated[Path, typer.Option(help="Key that signs the audit log.")],
    passphrase_file: PassphraseFile = None,
) -> None:
    """Sign waiting segments into the log: those of runs that had no log key."""
    done = writable_log(audit, log_key, passphrase_file).integrate()
    document = {"added": list(done.added), "there_before": len(done.skipped), "size": done.checkpoint.size}

    def show(console: "Console") -> None:
        console.print(f"{len(done.added)} segments added, {len(done.skipped)} were there; {done.checkpoint.size} entries")

    OUTPUT.result(document, show)


def _digests(targets: list[str] | None, manifests: list[Path] | None) -> "dict[tuple[str, str], str] | None":
    """SHA-256 of each published shard, as measured now or as a manifest says."""
    from diffpriv.keys.audit.manifest import decode_manifest

    if not targets and not manifests:
        return None
    rows = [row for path in manifests or [] for row in decode_manifest(read_file(path), where=str(path))]
    found = {(row.dataset, row.shard): row.sha256 for row in rows}
    if targets:
        from diffpriv.pipelines.destination.published import measure  # numpy comes with it: only when there is data to look at

        found |= {shard: digest for target in targets for shard, digest in measure(target).items()}
    return found


def _unexpected_files(targets: list[str] | None) -> list[str]:
    if not targets:
        return []
    from diffpriv.pipelines.destination.published import unexpected_files

    return [
        f"{name} in {target} was published by no run: it was added." for target in targets for name in unexpected_files(target)
    ]
