"""`diffpriv recover`: the audited recovery of a face, step by step. Each step leaves a file that can be mailed.

request (a requester) -> record (the sequencer) -> approve (custodians, not the requester) -> record -> run (the office).
The work is done in `jobs.recoveries`, the rules are those of `keys.audit.custody`; every step, and every refusal, is in the
audit log before it has an effect. People who ask and approve hold no log key: their steps write files, and `recover record`
enters them. With --log-key a step enters its file at once, which is for trying it out on one machine.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffpriv.jobs.output import FOUND_WRONG, OUTPUT, print_table
from diffpriv.jobs.passphrases import PassphraseFile, Pkcs11Module
from diffpriv.jobs.places import load_note_key, open_log, person_key, recipient_key_file, unwrapper
from diffpriv.jobs.signing import (
    as_seconds,
    ask_first,
    check_logged,
    decision_file,
    hand_over,
    mailed_decisions,
    must_be_new,
    office_log,
    plain_text,
    show_status,
    shown,
    status_json,
    the_case,
)
from diffpriv.keys.errors import MisuseError

if TYPE_CHECKING:
    from rich.console import Console

    from diffpriv.jobs.release import Recovery
    from diffpriv.keys.recipients import Unwrapper

app = typer.Typer(help="Bring faces back: request, approve by others, run.", no_args_is_help=True)

RequestFile = Annotated[Path, typer.Argument(metavar="REQUEST", help="The request's file.")]
Policy = Annotated[Path, typer.Option(envvar="DIFFPRIV_POLICY", help="Custody policy: who may ask, who approves.")]
Audit = Annotated[str, typer.Option(envvar="DIFFPRIV_AUDIT", help="Audit log.")]
MaybeAudit = Annotated[str | None, typer.Option(envvar="DIFFPRIV_AUDIT", help="Audit log.")]
Keys = Annotated[str, typer.Option(envvar="DIFFPRIV_KEYS", help="Key store.")]
Yes = Annotated[bool, typer.Option("--yes", help="Don't ask before signing: for scripts, where someone has looked.")]
LogKey = Annotated[Path, typer.Option(envvar="DIFFPRIV_LOG_KEY", help="Key that signs the audit log.")]
MaybeLogKey = Annotated[Path | None, typer.Option(envvar="DIFFPRIV_LOG_KEY", help="Key that signs the audit log.")]
Data = Annotated[str, typer.Option(help="The published DST that the faces are in.")]


@app.command()
def faces(data: Annotated[str, typer.Argument(metavar="DST", help="A published DST.")]) -> None:
    """List the faces of a published dataset: what a request can ask for."""
    from diffpriv.jobs.published import faces_of

    found = list(faces_of(data))

    def show(console: "Console") -> None:
        rows = [(f.shard, f.sample, f.face_index, f.field, f.status, "yes" if f.recoverable else "no") for f in found]
        columns = ["shard", "sample", "face", "picture", "status", "can be asked for"]
        print_table(console, f"Faces in {data}", columns, rows, right=["face"])

    OUTPUT.result({"faces": [vars(face) for face in found]}, show)


@app.command()
def request(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The request's new file.")],
    data: Data,
    keys: Keys,
    shard: Annotated[str, typer.Option(help="Shard, by its name in DST.")],
    sample: Annotated[list[str], typer.Option(help="Sample, by its __key__. Repeatable.")],
    purpose: Annotated[str, typer.Option(help="Why; custodians read it, and the receipt repeats it.")],
    requester_key: Annotated[Path, typer.Option(help="Your private key.")],
    policy: Policy,
    face: Annotated[list[int] | None, typer.Option(min=0, help="Face number; by default all of the samples'.")] = None,
    expires: Annotated[str, typer.Option(help="How long it stays open: 90s, 30m, 12h, 7d.")] = "7d",
    run_key: Annotated[
        Path | None, typer.Option(help="Public file of the office's key for this run; by default one is made beside OUT.")
    ] = None,
    audit: MaybeAudit = None,
    log_key: MaybeLogKey = None,
    yes: Yes = False,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Ask for faces: shows what is asked, then writes a signed request for the custodians and the sequencer."""
    from diffpriv.jobs import recoveries
    from diffpriv.keys.custodians import CustodyPolicy
    from diffpriv.keys.recipients import Recipient

    private = out.with_suffix(".run.key")
    must_be_new(out)
    must_be_new(private)
    chosen = recoveries.choose_faces(data, shard, sample, face or ())
    now = int(time.time())
    held = CustodyPolicy.load(policy)
    made, fresh = recoveries.request(
        chosen,
        keys,
        purpose,
        person_key(requester_key, passphrase_file),
        held,
        now=now,
        expires_at=now + as_seconds(expires),
        run_key=Recipient.load(run_key) if run_key else None,
    )
    ask_first("Sign this request", shown(made, held, data), yes)
    made.save(out)
    if fresh is not None:
        fresh.save(private, None)
    log = office_log(audit, log_key, passphrase_file) if log_key else None
    status = recoveries.record(made, held, log, now=now) if log is not None else None

    def show(console: "Console") -> None:
        console.print(f"request  {out}\ncase     {made.case}", markup=False)
        if fresh is not None:
            console.print(f"run key  {private}  private: for whoever runs the case, and for nobody else", markup=False)
        console.print(f"faces    {len(made.faces)}; {made.quorum} approval(s) needed, by others than the requester")
        if status is None:
            console.print(f"Next: the sequencer runs: diffpriv recover record {out} ...", markup=False)
        console.print(f"Then: custodians run: diffpriv recover approve {out} --custodian-key KEY ...", markup=False)

    document = {"case": made.case, "request": str(out), "faces": len(made.faces)}
    document |= {"run_key": str(private) if fresh is not None else None}
    OUTPUT.result({**document, **status_json(status)}, show)


CustodianKeyFile = Annotated[Path, typer.Option(help="Your private key.")]
SealingKey = Annotated[
    Path | None, typer.Option(help="Public file of your sealing key, where AWS KMS or a token keeps its private half.")
]
NewPolicy = Annotated[
    Path | None, typer.Option(help="The policy that the request puts in place, where the request does not bring it along.")
]
Out = Annotated[Path | None, typer.Option(help="The decision's new file; by default beside the request.")]
MaybeData = Annotated[str | None, typer.Option(help="The published DST, to look at the faces as they are published.")]
MaybeLogVkey = Annotated[Path | None, typer.Option(help="The log's public key, to see that the request is logged.")]
Proof = Annotated[Path | None, typer.Option(help="Instead of --audit: a proof (audit prove) that the request is logged.")]
Unlogged = Annotated[bool, typer.Option("--unlogged", help="Sign though nothing shows that the request is logged.")]


@app.command()
def approve(
    request: RequestFile,
    custodian_key: CustodianKeyFile,
    policy: Policy,
    data: MaybeData = None,
    out: Out = None,
    audit: MaybeAudit = None,
    log_vkey: MaybeLogVkey = None,
    proof: Proof = None,
    unlogged: Unlogged = False,
    log_key: MaybeLogKey = None,
    sealing_key: SealingKey = None,
    new_policy: NewPolicy = None,
    yes: Yes = False,
    pkcs11_module: Pkcs11Module = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Approve this exact request: shows it, and asks. The approval carries your shares of its shards, and of no others.

    Look at what is shown: with enough approvals and the recipient's key, everything in the shards that the request names can be
    opened by whoever runs it. A request that is in no log can be hidden afterwards, so one is refused.
    """
    from diffpriv.jobs import recoveries
    from diffpriv.keys.custodians import CustodyPolicy
    from diffpriv.keys.requests import RecoveryRequest

    asked, held, now = RecoveryRequest.load(request), CustodyPolicy.load(policy), int(time.time())
    key = person_key(custodian_key, passphrase_file)
    target = decision_file(request, out, key.custodian.fingerprint)
    log = office_log(audit, log_key, passphrase_file) if log_key else None
    if log is not None:
        recoveries.check_logged(asked, held, log, now)
    elif not unlogged:
        check_logged(asked, held, audit, log_vkey, proof, now)
    after = CustodyPolicy.load(new_policy) if new_policy else None
    recoveries.check_seen(asked, held, after)
    ask_first("Approve it", shown(asked, held, data, after), yes)
    opener = unwrapper(sealing_key, passphrase_file, pkcs11_module) if sealing_key else None
    made = recoveries.decide(asked, key, "approve", now=now, sealing_key=opener, policy=held, new_policy=after)
    hand_over(made, asked, held, log, target, now)


@app.command()
def deny(
    request: RequestFile,
    custodian_key: CustodianKeyFile,
    policy: Policy,
    data: MaybeData = None,
    out: Out = None,
    audit: MaybeAudit = None,
    log_key: MaybeLogKey = None,
    yes: Yes = False,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Deny it: one custodian's no closes the case."""
    from diffpriv.jobs import recoveries
    from diffpriv.keys.custodians import CustodyPolicy
    from diffpriv.keys.requests import RecoveryRequest

    asked, held, now = RecoveryRequest.load(request), CustodyPolicy.load(policy), int(time.time())
    key = person_key(custodian_key, passphrase_file)
    target = decision_file(request, out, key.custodian.fingerprint)
    log = office_log(audit, log_key, passphrase_file) if log_key else None
    ask_first("Deny it", shown(asked, held, data), yes)
    hand_over(recoveries.decide(asked, key, "deny", now=now, policy=held), asked, held, log, target, now)


@app.command()
def record(
    request: RequestFile,
    policy: Policy,
    audit: Audit,
    log_key: LogKey,
    decision: Annotated[list[Path] | None, typer.Option(help="A mailed approval or denial. Repeatable.")] = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Enter a mailed request, or mailed decisions on it, into the audit log: the sequencer's part."""
    from diffpriv.jobs import recoveries
    from diffpriv.keys.custodians import CustodyPolicy
    from diffpriv.keys.requests import Decision, RecoveryRequest

    asked, held, log = RecoveryRequest.load(request), CustodyPolicy.load(policy), office_log(audit, log_key, passphrase_file)
    decisions = [Decision.load(path) for path in decision or []]
    show_status(recoveries.record(asked, held, log, decisions, now=int(time.time())))


@app.command("show")
def show_case(
    request: RequestFile,
    policy: Policy,
    audit: Audit,
    log_vkey: Annotated[Path, typer.Option(help="The log's public key.")],
) -> None:
    """What the log says about a case."""
    case = the_case(request, policy, open_log(audit, log_vkey))
    summary = case.summary(int(time.time()))

    def show(console: "Console") -> None:
        rows = [(name.replace("_", " "), plain_text(value)) for name, value in summary.items() if value not in (None, [])]
        print_table(console, "Recovery case", ["", ""], rows)

    OUTPUT.result(summary, show)


@app.command()
def run(
    request: RequestFile,
    policy: Policy,
    audit: Audit,
    log_key: LogKey,
    keys: Keys,
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the recovered pictures and the receipt.")],
    office_key: Annotated[Path, typer.Option(envvar="DIFFPRIV_OFFICE_KEY", help="The office's key, which signs the receipt.")],
    recipient_key: Annotated[
        Path | None, typer.Option(help="Private key of a recipient; for KMS and tokens the public file.")
    ] = None,
    share: Annotated[
        list[Path] | None, typer.Option(help="Instead: shares of a split recipient key, joined in memory only. Repeatable.")
    ] = None,
    approval: Annotated[
        list[Path] | None, typer.Option(help="A mailed approval, with its shares; by default those beside the request.")
    ] = None,
    run_key: Annotated[
        Path | None, typer.Option(help="Private half of the request's run key; by default the one beside the request.")
    ] = None,
    model: Annotated[str, typer.Option(help="The model that protected the faces.")] = "builtin",
    pkcs11_module: Pkcs11Module = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Open the faces of an approved case, once. The release is in the audit log before a key is unwrapped."""
    from diffpriv.jobs import recoveries
    from diffpriv.keys.audit.heads import beside
    from diffpriv.keys.audit.log import AuditLog
    from diffpriv.keys.custodians import CustodyPolicy
    from diffpriv.keys.requests import RecoveryRequest

    if (recipient_key is None) == (not share):
        raise MisuseError("give the recipient's key: either --recipient-key, or --share for enough shares of it.")
    log = office_log(audit, log_key, passphrase_file)
    log = AuditLog(audit, log.key, kept=[*log.kept, beside(office_key)])  # the office's own memory beside the sequencer's
    asked = RecoveryRequest.load(request)
    private = run_key or request.with_suffix(".run.key")
    done = recoveries.run(
        asked,
        CustodyPolicy.load(policy),
        log,
        lambda: _recipient(recipient_key, share or [], passphrase_file, pkcs11_module),
        lambda: load_note_key(office_key, passphrase_file, "office"),
        keys=keys,
        data=data,
        out=out,
        decisions=mailed_decisions(request, asked, approval),
        run_key=recipient_key_file(private, passphrase_file) if run_key or private.exists() else None,
        model=model,
    )
    OUTPUT.result(done.to_json(), lambda console: _show_recovered(console, done))
    if not done.as_recorded:
        raise typer.Exit(FOUND_WRONG)


def _recipient(key: Path | None, shares: list[Path], passphrase_file: Path | None, pkcs11_module: Path | None) -> "Unwrapper":
    """The recipient's key from its file, or joined from `shares` in memory."""
    from diffpriv.keys.splitting import join, read_share

    if key is not None:
        return unwrapper(key, passphrase_file, pkcs11_module)
    return join([read_share(path) for path in shares])


def _show_recovered(console: "Console", done: "Recovery") -> None:
    rows = [(one.face.sample, one.face.face_index, one.tier, one.closeness, one.crop_file) for one in done.faces]
    print_table(console, f"Recovered, case {done.case[:12]}…", ["sample", "face", "tier", "how close", "crop"], rows)
    for path in done.pictures:
        console.print(f"picture  {path}", markup=False)
    console.print(f"receipt  {done.receipt}", markup=False)
    console.print("These files show people: keep them as the purpose of the request says, and delete them after.")
