"""`diffpriv recover`: the audited recovery of a face, step by step. Each step leaves a file that can be mailed.

request -> approve (others than the requester) -> run. The rules are those of `keys.recovery.RecoveryCase`; every step, and
every refusal, is in the audit log before it has an effect. Signing needs no log: without --audit a step only writes its file,
and `recover record` enters it later, on the machine that has the log's key.
"""

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from jobs.output import FOUND_WRONG, OUTPUT, print_table
from jobs.passphrases import PassphraseFile, Pkcs11Module
from jobs.places import person_key, unwrapper, writable_log
from keys.errors import MisuseError

if TYPE_CHECKING:
    from rich.console import Console

    from keys.audit.log import AuditLog
    from keys.recovery import CaseStatus, RecoveryCase
    from keys.requests import RecoveryRequest

app = typer.Typer(help="Bring faces back: request, approve by others, run.", no_args_is_help=True)

RequestFile = Annotated[Path, typer.Argument(metavar="REQUEST", help="The request's file.")]
Policy = Annotated[Path, typer.Option(envvar="DIFFPRIV_POLICY", help="Custody policy: who may ask, who approves.")]
Audit = Annotated[str, typer.Option(envvar="DIFFPRIV_AUDIT", help="Audit log.")]
MaybeAudit = Annotated[
    str | None, typer.Option(envvar="DIFFPRIV_AUDIT", help="Audit log; without it only the file is written.")
]
LogKey = Annotated[Path, typer.Option(envvar="DIFFPRIV_LOG_KEY", help="Key that signs the audit log.")]
MaybeLogKey = Annotated[Path | None, typer.Option(envvar="DIFFPRIV_LOG_KEY", help="Key that signs the audit log.")]
Data = Annotated[str, typer.Option(help="The published DST that the faces are in.")]
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@app.command()
def faces(data: Annotated[str, typer.Argument(metavar="DST", help="A published DST.")]) -> None:
    """List the faces of a published dataset: what a request can ask for."""
    from jobs.published import faces_of

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
    shard: Annotated[str, typer.Option(help="Shard, by its name in DST.")],
    sample: Annotated[list[str], typer.Option(help="Sample, by its __key__. Repeatable.")],
    purpose: Annotated[str, typer.Option(help="Why; custodians read it, and the receipt repeats it.")],
    requester_key: Annotated[Path, typer.Option(help="Your private key.")],
    policy: Policy,
    face: Annotated[list[int] | None, typer.Option(min=0, help="Face number; by default all of the samples'.")] = None,
    expires: Annotated[str, typer.Option(help="How long it stays open: 90s, 30m, 12h, 7d.")] = "7d",
    audit: MaybeAudit = None,
    log_key: MaybeLogKey = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Ask for faces: writes a signed request, and enters it into the audit log where one is given."""
    from jobs.published import faces_of, find_face
    from keys.custodians import CustodyPolicy
    from keys.requests import FaceRef, RecoveryRequest

    _must_be_new(out)
    if face:
        chosen = [find_face(data, shard, name, number) for name in sample for number in face]
    else:
        chosen = [one for one in faces_of(data) if one.shard == shard and one.sample in sample]
        for name in sample:
            if all(one.sample != name for one in chosen):
                find_face(data, shard, name, 0)  # says what is wrong
    for one in chosen:
        if not one.recoverable:
            raise MisuseError(f"face {one.face_index} of sample {one.sample} has no sealed record; it can't be recovered.")
    now = int(time.time())
    made = RecoveryRequest.make(
        [FaceRef(one.dataset, one.shard, one.sample, one.face_index) for one in chosen],
        purpose,
        person_key(requester_key, passphrase_file),
        CustodyPolicy.load(policy),
        now=now,
        expires_at=now + _seconds(expires),
    )
    made.save(out)
    status = _case(made, policy, _log(audit, log_key, passphrase_file)).submit(now) if audit else None

    def show(console: "Console") -> None:
        console.print(f"request  {out}\ncase     {made.case}", markup=False)
        console.print(f"faces    {len(made.faces)}; {made.quorum} approval(s) needed, by others than the requester")
        console.print(f"Next: a custodian runs: diffpriv recover approve {out} --custodian-key KEY ...", markup=False)

    OUTPUT.result({"case": made.case, "request": str(out), "faces": len(made.faces), **_status_json(status)}, show)


@app.command()
def approve(
    request: RequestFile,
    custodian_key: Annotated[Path, typer.Option(help="Your private key.")],
    policy: Policy,
    out: Annotated[Path | None, typer.Option(help="Write the signed approval here, to mail it.")] = None,
    audit: MaybeAudit = None,
    log_key: MaybeLogKey = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Approve this exact request. The requester's own approval is refused."""
    _decide("approve", request, custodian_key, policy, out, audit, log_key, passphrase_file)


@app.command()
def deny(
    request: RequestFile,
    custodian_key: Annotated[Path, typer.Option(help="Your private key.")],
    policy: Policy,
    out: Annotated[Path | None, typer.Option(help="Write the signed denial here, to mail it.")] = None,
    audit: MaybeAudit = None,
    log_key: MaybeLogKey = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Deny it: one custodian's no closes the case."""
    _decide("deny", request, custodian_key, policy, out, audit, log_key, passphrase_file)


@app.command()
def record(
    request: RequestFile,
    policy: Policy,
    audit: Audit,
    log_key: LogKey,
    decision: Annotated[list[Path] | None, typer.Option(help="A mailed approval or denial. Repeatable.")] = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Enter a mailed request, or mailed decisions on it, into the audit log."""
    from keys.requests import Decision

    case = _case(request, policy, _log(audit, log_key, passphrase_file))
    now = int(time.time())
    status = case.submit(now) if not decision else None
    for one in [Decision.load(path) for path in decision or []]:
        status = case.approve(one, now) if one.decision == "approve" else case.deny(one, now)
    _show_status(status)


@app.command("show")
def show_case(
    request: RequestFile,
    policy: Policy,
    audit: Audit,
    log_vkey: Annotated[Path, typer.Option(help="The log's public key.")],
) -> None:
    """What the log says about a case."""
    from jobs.audit_commands import open_log

    case = _case(request, policy, open_log(audit, log_vkey))
    summary = case.summary(int(time.time()))

    def show(console: "Console") -> None:
        rows = [(name.replace("_", " "), _plain(value)) for name, value in summary.items() if value not in (None, [])]
        print_table(console, "Recovery case", ["", ""], rows)

    OUTPUT.result(summary, show)


@app.command()
def run(
    request: RequestFile,
    policy: Policy,
    audit: Audit,
    log_key: LogKey,
    keys: Annotated[str, typer.Option(envvar="DIFFPRIV_KEYS", help="Key store.")],
    data: Data,
    recipient_key: Annotated[Path, typer.Option(help="Private key of a recipient; for KMS and tokens the public file.")],
    out: Annotated[Path, typer.Option(help="Folder for the recovered pictures and the receipt.")],
    model: Annotated[str, typer.Option(help="The model that protected the faces.")] = "builtin",
    pkcs11_module: Pkcs11Module = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Open the faces of an approved case, once. The release is in the audit log before a key is unwrapped."""
    from jobs.release import recover_case

    log = _log(audit, log_key, passphrase_file)
    case = _case(request, policy, log)
    done = recover_case(
        case, log, lambda: unwrapper(recipient_key, passphrase_file, pkcs11_module), keys=keys, data=data, out=out, model=model
    )

    def show(console: "Console") -> None:
        rows = [(one.face.sample, one.face.face_index, one.tier, one.closeness, one.crop_file) for one in done.faces]
        print_table(console, f"Recovered, case {case.case[:12]}…", ["sample", "face", "tier", "how close", "crop"], rows)
        for path in done.pictures:
            console.print(f"picture  {path}", markup=False)
        console.print(f"receipt  {done.receipt}", markup=False)
        console.print("These files show people: keep them as the purpose of the request says, and delete them after.")

    OUTPUT.result(done.to_json(), show)
    if not done.as_recorded:
        raise typer.Exit(FOUND_WRONG)


def _decide(
    decision: Literal["approve", "deny"],
    request: Path,
    custodian_key: Path,
    policy: Path,
    out: Path | None,
    audit: str | None,
    log_key: Path | None,
    passphrase_file: Path | None,
) -> None:
    from keys.requests import Decision, RecoveryRequest

    if out is None and audit is None:
        raise MisuseError(f"nothing to do with this {decision}.", advice="Give --audit and --log-key, or --out FILE, or both.")
    if out is not None:
        _must_be_new(out)
    now = int(time.time())
    asked = RecoveryRequest.load(request)
    made = Decision.make(asked, person_key(custodian_key, passphrase_file), decision, now=now)
    if out is not None:
        made.save(out)
    if audit is None:
        OUTPUT.result({"case": asked.case, "decision": str(out)}, lambda c: c.print(f"decision {out}", markup=False))
        return
    case = _case(asked, policy, _log(audit, log_key, passphrase_file))
    _show_status(case.approve(made, now) if decision == "approve" else case.deny(made, now))


def _log(audit: str, log_key: Path | None, passphrase_file: Path | None) -> "AuditLog":
    if log_key is None:
        raise MisuseError("a step of a recovery is logged first, and the log's key was not given.", advice="Give --log-key.")
    return writable_log(audit, log_key, passphrase_file)


def _case(request: "Path | RecoveryRequest", policy: Path, log: "AuditLog") -> "RecoveryCase":
    from keys.custodians import CustodyPolicy
    from keys.recovery import RecoveryCase
    from keys.requests import RecoveryRequest

    asked = RecoveryRequest.load(request) if isinstance(request, Path) else request
    return RecoveryCase(asked, CustodyPolicy.load(policy), log)


def _show_status(status: "CaseStatus | None") -> None:
    assert status is not None

    def show(console: "Console") -> None:
        approvals = f"{len(status.approved_by)} of {status.quorum} approvals"
        console.print(f"case {status.case}: {status.state}, {approvals}", markup=False)

    OUTPUT.result({"case": status.case, **_status_json(status)}, show)


def _status_json(status: "CaseStatus | None") -> dict[str, Any]:
    if status is None:
        return {"state": "not recorded"}
    return {"state": status.state, "approvals": len(status.approved_by), "quorum": status.quorum}


def _seconds(text: str) -> int:
    match = re.fullmatch(r"(\d{1,6})([smhd])", text.strip())
    if not match:
        raise MisuseError(f"--expires {text!r} is no length of time.", advice="Write it as 90s, 30m, 12h or 7d.")
    return int(match[1]) * _UNITS[match[2]]


def _must_be_new(path: Path) -> None:
    if path.exists():
        raise MisuseError(f"{path} exists; signed files are not overwritten.", advice="Give another name.")
    if not path.parent.is_dir():
        raise MisuseError(f"the folder {path.parent} does not exist.")


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(_plain(one) for one in value)
    if isinstance(value, dict):
        return " ".join(f"{name}={one}" for name, one in value.items())
    return str(value)
