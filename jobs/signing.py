"""What the `recover` commands share: what is shown and asked before somebody signs, and where decisions and logs are found."""

import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from diffpriv.jobs.output import OUTPUT, print_table
from diffpriv.jobs.places import writable_log
from diffpriv.keys.errors import MisuseError

if TYPE_CHECKING:
    from rich.console import Console

    from diffpriv.jobs.recoveries import Description
    from diffpriv.keys.audit.log import AuditLog
    from diffpriv.keys.recovery import CaseStatus, RecoveryCase
    from diffpriv.keys.requests import Decision, RecoveryRequest

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def shown(asked: "RecoveryRequest", policy: Any, data: str | None, new_policy: Any = None) -> "Description":
    """What a custodian is shown before signing, crops of the faces included where the data is at hand."""
    from diffpriv.jobs.recoveries import describe

    folder = Path(tempfile.mkdtemp(prefix="diffpriv-faces-")) if data is not None else None
    return describe(asked, policy, data=data, crops=folder, new_policy=new_policy)


def ask_first(question: str, described: "Description", yes: bool) -> None:
    """Show what is about to be signed, and ask. Raises: MisuseError where nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise MisuseError("before you sign you are asked, and there is no terminal to ask at.", advice="Look, then give --yes.")
    console = OUTPUT.console(errors=True)
    rows = [
        ("purpose", described.purpose),
        ("requester", described.requester),
        ("expires", described.expires_at),
        ("approvals", f"{described.quorum} needed, policy {described.policy[:12]}…"),
        *(
            ("face", f"{one.face.shard} {one.face.sample} face {one.face.face_index}  {one.crop or ''}")
            for one in described.faces
        ),
        *(("opens", f"{name}: whoever runs the case could keep all of this shard") for name in described.shards),
        *changes_shown(described),
    ]
    print_table(console, f"Request {described.case[:12]}…", ["", ""], rows)
    typer.confirm(f"{question}?", abort=True, err=True)


def changes_shown(described: "Description") -> list[tuple[str, str]]:
    """What a case that re-seals shards changes: read from the policy itself, whose digest is what is signed."""
    from diffpriv.keys.changes import KINDS

    if described.change is None:
        return []
    rows = [(KINDS[one.kind], one.text) for one in described.differences]
    return [("new policy", described.change["policy"]), *(rows or [("changes", "nothing: shards are sealed anew")])]


def check_logged(
    asked: "RecoveryRequest", policy: Any, audit: str | None, log_vkey: Path | None, proof: Path | None, now: int
) -> None:
    """Refuse a request that is not shown to be in the audit log."""
    from diffpriv.jobs import recoveries
    from diffpriv.jobs.places import open_log
    from diffpriv.keys.notes import NoteVerifier

    if log_vkey is None or (audit is None and proof is None):
        raise MisuseError(
            "nothing shows that the request is in the audit log; one that is not can be hidden afterwards.",
            advice="Give --log-vkey with --audit or --proof, or --unlogged to sign all the same.",
        )
    if proof is not None:
        recoveries.check_proof(asked, policy, proof.read_bytes(), NoteVerifier.load(log_vkey))
    elif audit is not None:
        recoveries.check_logged(asked, policy, open_log(audit, log_vkey), now)


def decision_file(request: Path, out: Path | None, custodian: str) -> Path:
    """Where a custodian's decision is written: a new file beside the request, or `out`."""
    target = out or request.with_suffix(f".decision-{custodian[:8]}.json")
    must_be_new(target)
    return target


def hand_over(made: "Decision", asked: "RecoveryRequest", policy: Any, log: "AuditLog | None", target: Path, now: int) -> None:
    """Enter a decision where the log's key is at hand, keep its file, and say what is next."""
    from diffpriv.jobs import recoveries

    status = recoveries.record(asked, policy, log, [made], now=now) if log is not None else None
    made.save(target)

    def show(console: "Console") -> None:
        console.print(f"decision {target}", markup=False)
        if status is None:
            console.print("Next: mail it to the recovery office; the sequencer enters it with: diffpriv recover record")
        else:
            console.print(f"case {status.case}: {status.state}, {len(status.approved_by)} of {status.quorum} approvals")

    OUTPUT.result({"case": asked.case, "decision": str(target), **status_json(status)}, show)


def mailed_decisions(request: Path, asked: "RecoveryRequest", given: list[Path] | None) -> "list[Decision]":
    """The decisions given, or those for this request that lie beside it."""
    from diffpriv.keys.requests import Decision

    paths = given if given is not None else sorted(request.parent.glob(f"{request.stem}.decision-*.json"))
    return [one for one in map(Decision.load, paths) if given is not None or one.case == asked.case]


def office_log(audit: str | None, log_key: Path | None, passphrase_file: Path | None) -> "AuditLog":
    """The audit log, opened for writing as every step of a recovery needs it."""
    if log_key is None or audit is None:
        raise MisuseError(
            "a step of a recovery is logged first, and the log or its key was not given.", advice="Give --audit and --log-key."
        )
    return writable_log(audit, log_key, passphrase_file)


def the_case(request: "Path | RecoveryRequest", policy: Path, log: "AuditLog") -> "RecoveryCase":
    """The case of a request, under a policy and in a log."""
    from diffpriv.keys.custodians import CustodyPolicy
    from diffpriv.keys.recovery import RecoveryCase
    from diffpriv.keys.requests import RecoveryRequest

    asked = RecoveryRequest.load(request) if isinstance(request, Path) else request
    return RecoveryCase(asked, CustodyPolicy.load(policy), log)


def show_status(status: "CaseStatus") -> None:
    """Print how far a case is."""

    def show(console: "Console") -> None:
        approvals = f"{len(status.approved_by)} of {status.quorum} approvals"
        console.print(f"case {status.case}: {status.state}, {approvals}", markup=False)

    OUTPUT.result({"case": status.case, **status_json(status)}, show)


def status_json(status: "CaseStatus | None") -> dict[str, Any]:
    """How far a case is, for --json."""
    if status is None:
        return {"state": "not recorded"}
    return {"state": status.state, "approvals": len(status.approved_by), "quorum": status.quorum}


def as_seconds(text: str) -> int:
    """Seconds in a length of time such as 90s, 30m, 12h or 7d."""
    match = re.fullmatch(r"(\d{1,6})([smhd])", text.strip())
    if not match:
        raise MisuseError(f"--expires {text!r} is no length of time.", advice="Write it as 90s, 30m, 12h or 7d.")
    return int(match[1]) * _UNITS[match[2]]


def must_be_new(path: Path) -> None:
    """Refuse a path that exists or has no folder."""
    if path.exists():
        raise MisuseError(f"{path} exists; signed files are not overwritten.", advice="Give another name.")
    if not path.parent.is_dir():
        raise MisuseError(f"the folder {path.parent} does not exist.")


def plain_text(value: Any) -> str:
    """A value of a log entry as text."""
    if isinstance(value, list):
        return "\n".join(plain_text(one) for one in value)
    if isinstance(value, dict):
        return " ".join(f"{name}={one}" for name, one in value.items())
    return str(value)
