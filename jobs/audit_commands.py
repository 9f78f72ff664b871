"""`diffpriv audit`: check, read and prove the audit log. The work is done in `keys/audit/`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.output import FOUND_WRONG, OUTPUT, print_table
from jobs.passphrases import PassphraseFile, Pkcs11Module
from keys.errors import MisuseError

if TYPE_CHECKING:
    from rich.console import Console

    from keys.audit.log import AuditLog

app = typer.Typer(help="The audit log: verify it, read it, prove an entry.", no_args_is_help=True)
AuditUrl = Annotated[str, typer.Argument(metavar="AUDIT", help="The log's folder or URL.")]
LogVkey = Annotated[Path, typer.Option("--log-vkey", help="The log's public key; never one from the log's own folder.")]


def open_log(audit: str, log_vkey: Path) -> "AuditLog":
    """A log for reading, its signatures checked with `log_vkey`."""
    from keys.audit.checkpoint import NoteVerifier
    from keys.audit.log import AuditLog

    return AuditLog(audit, verifier=NoteVerifier.load(log_vkey))


@app.command()
def verify(
    audit: AuditUrl,
    log_vkey: LogVkey,
    keys: Annotated[str | None, typer.Option(help="Key store: compare every key file with the log.")] = None,
    data: Annotated[list[str] | None, typer.Option(help="A published DST: compare every shard. Repeatable.")] = None,
    since: Annotated[Path | None, typer.Option(help="An earlier checkpoint that today's log must extend.")] = None,
    until: Annotated[Path | None, typer.Option(help="A later one, that must extend the earlier; today's log both.")] = None,
    witness: Annotated[list[Path] | None, typer.Option(help="Public key of a witness that must have cosigned.")] = None,
    recipient_key: Annotated[
        Path | None, typer.Option(help="With --keys: also open (and forget) every record, to see that it can be opened.")
    ] = None,
    pkcs11_module: Pkcs11Module = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Check the whole log, and key files and published data against it. Exits 1 if anything does not fit."""
    from jobs.places import unwrapper
    from keys.audit.checkpoint import NoteVerifier
    from keys.store import KeyStore

    if recipient_key is not None and keys is None:
        raise MisuseError("--recipient-key opens the records of a key store, and no --keys was given.")
    report = open_log(audit, log_vkey).verify(
        since=_read(since) if since else None,
        until=_read(until) if until else None,
        witnesses=[NoteVerifier.load(one) for one in witness or []],
        key_store=KeyStore(keys) if keys else None,
        recipient_key=unwrapper(recipient_key, passphrase_file, pkcs11_module) if recipient_key else None,
        data=_measured(data),
    )
    report.problems += _strangers(data)

    def show(console: "Console") -> None:
        rows = [(what, count) for what, count in report.checked.items()]
        print_table(console, f"Audit log {audit}, {report.size} entries", ["checked", "count"], rows, right=["count"])
        for note in report.notes:
            console.print(f"note: {note}", markup=False)
        for problem in report.problems:
            console.print(f"PROBLEM: {problem}", markup=False)
        if report.ok:
            unchecked = [option for option, given in (("--keys", keys), ("--data", data)) if not given]
            console.print("Everything that was checked fits the signed log.")
            if unchecked:
                console.print(f"Not looked at: what {' and '.join(unchecked)} would name.")

    OUTPUT.result(report.to_json(), show)
    if not report.ok:
        raise typer.Exit(FOUND_WRONG)


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
    from keys.audit.events import KINDS, to_iso

    if kind is not None and kind not in KINDS:
        raise MisuseError(f"{kind!r} is no kind of audit event.", advice=f"Kinds are: {', '.join(KINDS)}.")
    needles = [f'"kind":"{kind}"'] if kind else []
    needles += [f'"case":"{case}'] if case else []
    found = [
        (index, event)
        for index, event in open_log(audit, log_vkey).events(*needles)
        if shard is None or event.facts.get("shard") == shard
    ]
    found = found[-last:] if last else found
    document = {"entries": [{"index": i, "at": to_iso(e.at), "kind": e.kind, "facts": dict(e.facts)} for i, e in found]}

    def show(console: "Console") -> None:
        rows = [(i, to_iso(e.at), e.kind, _short(dict(e.facts))) for i, e in found]
        print_table(console, f"Audit log {audit}", ["entry", "at", "what", "facts"], rows, right=["entry"])

    OUTPUT.result(document, show)


@app.command()
def prove(
    audit: AuditUrl,
    log_vkey: LogVkey,
    out: Annotated[Path, typer.Option(help="The proof's new file.")],
    entry: Annotated[int | None, typer.Option(min=0, help="Prove that this entry is in the log.")] = None,
    since: Annotated[Path | None, typer.Option(help="Prove that today's log extends this earlier checkpoint.")] = None,
) -> None:
    """Write a proof that others can check with the log's public key alone, without reading the log."""
    from keys.audit.proofs import prove_consistency, prove_inclusion

    if (entry is None) == (since is None):
        raise MisuseError("give either --entry N or --since CHECKPOINT.")
    if out.exists():
        raise MisuseError(f"{out} exists.", advice="Give another name.")
    log = open_log(audit, log_vkey)
    made = prove_inclusion(log, entry) if entry is not None else prove_consistency(log, _read(since))  # type: ignore[arg-type]
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
    from keys.audit.checkpoint import NoteVerifier
    from keys.audit.events import to_iso
    from keys.audit.proofs import check_consistency, check_inclusion

    data, verifier = _read(proof), NoteVerifier.load(log_vkey)
    if data.lstrip().startswith(b"{"):
        old, new = check_consistency(data, verifier)
        document: dict[str, Any] = {"ok": True, "old_size": old.size, "new_size": new.size}
        text = f"the log of {new.size} entries extends the one of {old.size}"
    else:
        proven = check_inclusion(data, verifier)
        event = proven.event
        document = {"ok": True, "index": proven.index, "at": to_iso(event.at), "kind": event.kind, "facts": dict(event.facts)}
        text = f"entry {proven.index}: {event.kind} at {to_iso(event.at)}: {_short(dict(event.facts))}"
    OUTPUT.result(document, lambda console: console.print(text, markup=False))


@app.command()
def integrate(
    audit: AuditUrl,
    log_key: Annotated[Path, typer.Option(help="Key that signs the audit log.")],
    passphrase_file: PassphraseFile = None,
) -> None:
    """Sign waiting segments into the log: those of runs that had no log key."""
    from jobs.places import writable_log

    done = writable_log(audit, log_key, passphrase_file).integrate()
    document = {"added": list(done.added), "there_before": len(done.skipped), "size": done.checkpoint.size}

    def show(console: "Console") -> None:
        console.print(f"{len(done.added)} segments added, {len(done.skipped)} were there; {done.checkpoint.size} entries")

    OUTPUT.result(document, show)


def _short(facts: dict[str, Any]) -> str:
    """Facts on one line, digests cut: the whole is in --json."""
    parts = []
    for name, value in facts.items():
        text = str(value)
        is_digest = isinstance(value, str) and len(value) >= 32 and all(char in "0123456789abcdef" for char in value)
        parts.append(f"{name}={text[:12] + '…' if is_digest else text if len(text) <= 60 else text[:57] + '…'}")
    return " ".join(parts)


def _measured(targets: list[str] | None) -> "dict[tuple[str, str], str] | None":
    if not targets:
        return None
    from pipelines.published import measure  # numpy comes with it: only when there is data to look at

    return {shard: digest for target in targets for shard, digest in measure(target).items()}


def _strangers(targets: list[str] | None) -> list[str]:
    if not targets:
        return []
    from pipelines.published import strangers

    return [f"{name} in {target} was published by no run: it was added." for target in targets for name in strangers(target)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MisuseError(f"{path} can't be read: {error.strerror or error}.") from error
