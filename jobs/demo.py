"""`diffpriv demo`: a small dataset through everything, from keys to one recovered face, and a sheet to look at."""

import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from diffpriv.jobs.output import FOUND_WRONG, OUTPUT, print_table
from diffpriv.keys.errors import DiffPrivError, MisuseError, RecoveryRefusedError

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from diffpriv.jobs.demo_dataset import Original
    from diffpriv.jobs.release import Recovery
    from diffpriv.keys.audit.verify_keys import VerifyReport
    from diffpriv.keys.init import InitializedKeys
    from diffpriv.keys.requests import Decision
    from diffpriv.pipelines.run.report import RunReport

MARKER = ".diffpriv-demo"
WANTED = "astronaut"  # whose face is recovered
Result = TypeVar("Result")


@dataclass(frozen=True)
class Closeness:
    """How near a crop is to the original crop, in dB."""

    published: float
    recovered: float


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("demo-output"),
    keep: Annotated[bool, typer.Option("--keep", help="Leave an earlier demo's folder as it is; use a new one.")] = False,
    faces: Annotated[int, typer.Option(min=0, max=64, help="Faces that the builtin model makes up.")] = 6,
    transform: Annotated[str, typer.Option(help="diffprivacy, or a baseline to compare: blur, mosaic, fill.")] = "diffprivacy",
) -> None:
    """Build a small dataset, protect it, verify the log, recover one face under a quorum, draw before/after/recovered.

    Opens nothing and downloads nothing; says where to look.
    """
    root = _fresh_folder(out, keep)
    steps = _Steps()
    originals = steps.time("build a dataset", lambda: _build(root / "original", faces))
    made, secret = steps.time("keys init", lambda: _keys(root / "keys"))
    job = _settings(root, made, transform)
    report = steps.time("sanitize", lambda: _sanitize(job))
    audit = steps.time("audit verify", lambda: _verify(root, made))
    recovery = steps.time("recover one face", lambda: _recover(root, made, secret))
    closeness = steps.time("contact sheet", lambda: _draw(root, originals, recovery))
    ok = report.ok and audit.ok and recovery.as_recorded
    document = {
        "ok": ok,
        "folder": str(root),
        "contact_sheet": str(root / "contact-sheet.png"),
        "counts": report.counts,
        "quarantined": report.quarantined,
        "filled": report.filled,
        "highest_similarity": report.highest_similarity,
        "audit": audit.to_json(),
        "recovered": recovery.to_json(),
        "psnr_published": _decibels(closeness.published),
        "psnr_recovered": _decibels(closeness.recovered),
        "seconds": {name: round(seconds, 1) for name, seconds in steps.seconds.items()},
    }

    def show(console: "Console") -> None:
        print_table(console, "Counts", ["", "count"], report.rows(), right=["count"])
        for reason, count in [*report.quarantined.items(), *report.filled.items()]:
            console.print(f"  {count} x {reason}", markup=False)
        rows = [(name, f"{seconds:.1f} s", _outcome(name, document)) for name, seconds in steps.seconds.items()]
        rows.append(("all", f"{sum(steps.seconds.values()):.1f} s", ""))
        print_table(console, "Steps", ["step", "took", "result"], rows, right=["took"])
        console.print(f"look at    {root / 'contact-sheet.png'}", markup=False)
        console.print(f"originals  {root / 'original'}\nprotected  {root / 'protected'}", markup=False)
        console.print(f"keys       {root / 'store'}, locked to {made.recipient_key}", markup=False)
        console.print(f"audit log  {root / 'audit'}", markup=False)
        console.print(f"passphrase of all demo keys: {root / 'keys' / 'passphrase'}", markup=False)

    OUTPUT.result(document, show)
    if not ok:
        raise typer.Exit(FOUND_WRONG)


class _Steps:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def time(self, name: str, step: Callable[[], Result]) -> Result:
        OUTPUT.note(f"{name} ...")
        started = time.monotonic()
        result = step()
        self.seconds[name] = time.monotonic() - started
        return result


def _outcome(step: str, document: dict[str, Any]) -> str:
    recovered = document["recovered"]["faces"][0]
    return {
        "sanitize": f"{document['counts']['faces']} faces replaced or filled",
        "audit verify": f"{document['audit']['size']} entries, {len(document['audit']['problems'])} problems",
        "recover one face": f"refused before the approvals, then tier {recovered['tier']}: {recovered['closeness']}",
        "contact sheet": f"PSNR published {document['psnr_published']}, recovered {document['psnr_recovered']}",
    }.get(step, "")


def _fresh_folder(out: Path, keep: bool) -> Path:
    """An empty folder. Only what a demo made is ever removed."""
    if out.exists() and keep:
        number = 2
        while (fresh := out.with_name(f"{out.name}-{number}")).exists():
            number += 1
        out = fresh
    elif (out / MARKER).exists():
        shutil.rmtree(out)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise MisuseError(f"{out} exists and no demo made it.", advice="Give another --out.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / MARKER).write_text("made by diffpriv demo, which may replace this folder\n", encoding="utf-8")
    except OSError as error:
        raise MisuseError(f"{out} can't be written: {error.strerror or error}.") from error
    return out.resolve()


def _build(folder: Path, faces: int) -> "dict[str, Original]":
    from diffpriv.jobs.demo_dataset import build

    return build(folder, faces)


def _keys(folder: Path) -> "tuple[InitializedKeys, str]":
    from diffpriv.keys.init import init_keys

    secret = secrets.token_hex(8)
    made = init_keys(folder, secret)
    (folder / "passphrase").write_text(secret + "\n", encoding="utf-8")
    (folder / "passphrase").chmod(0o600)
    return made, secret


def _settings(root: Path, made: "InitializedKeys", transform: str) -> dict[str, Any]:
    return {
        "src": str(root / "original"),
        "dst": str(root / "protected"),
        "keys": str(root / "store"),
        "audit": str(root / "audit"),
        "log_key": str(made.log_key),
        "recipients": [str(made.recipient)],
        "policy": str(made.policy),
        "dataset": "demo",
        "transform": {"transform": transform, "recovery": "keys" if transform == "diffprivacy" else "exact"},
    }


def _sanitize(settings: dict[str, Any]) -> "RunReport":
    from diffpriv.jobs.sanitize import job_from, run_job

    report = run_job(job_from(None, settings))
    if report.shards_failed:
        raise DiffPrivError(f"shards failed: {report.shards_failed}")
    return report


def _verify(root: Path, made: "InitializedKeys") -> "VerifyReport":
    from diffpriv.jobs.places import open_log
    from diffpriv.keys.audit.verify import verify_log
    from diffpriv.keys.custodians import CustodyPolicy
    from diffpriv.keys.recipients import Recipient
    from diffpriv.keys.store import KeyStore
    from diffpriv.pipelines.destination.published import measure

    return verify_log(
        open_log(str(root / "audit"), made.log_vkey),
        key_store=KeyStore(str(root / "store")),
        data=measure(root / "protected"),
        policies=[CustodyPolicy.load(made.policy)],
        recipients=[Recipient.load(made.recipient).fingerprint],
    )


def _recover(root: Path, made: "InitializedKeys", secret: str) -> "Recovery":
    """What five people would do with the `recover` commands, each on a machine of their own."""
    from diffpriv.jobs import recoveries
    from diffpriv.keys.audit.heads import beside
    from diffpriv.keys.audit.log import AuditLog
    from diffpriv.keys.custodians import CustodianKey, CustodyPolicy
    from diffpriv.keys.notes import NoteKey
    from diffpriv.keys.recipients import RecipientKey

    now = int(time.time())
    policy = CustodyPolicy.load(made.policy)
    log = AuditLog(str(root / "audit"), NoteKey.load(made.log_key), kept=[beside(made.log_key), beside(made.office_key)])
    store, data = str(root / "store"), str(root / "protected")
    asked, run_key = recoveries.request(
        recoveries.choose_faces(data, "shard-000.tar", [WANTED], [0]),
        store,
        "to show that it works",
        CustodianKey.load(made.requesters["requester"], secret),
        policy,
        now=now,
        expires_at=now + 3600,
    )
    asked.save(root / "request.json")
    recoveries.record(asked, policy, log, now=now)

    def run(*decisions: "Decision") -> "Recovery":
        return recoveries.run(
            asked,
            policy,
            log,
            lambda: RecipientKey.load(made.recipient_key, secret),
            lambda: NoteKey.load(made.office_key, secret, role="office"),
            keys=store,
            data=data,
            out=root / "recovered",
            decisions=decisions,
            run_key=run_key,
        )

    try:
        run()
    except RecoveryRefusedError:
        pass  # as it must be: nobody has approved yet
    else:
        raise DiffPrivError("a recovery ran without approvals.")
    approvals = []
    for path in list(made.custodians.values())[: policy.quorum]:
        custodian = CustodianKey.load(path, secret)
        recoveries.check_logged(asked, policy, log, now)
        approvals.append(recoveries.decide(asked, custodian, "approve", now=now, policy=policy))
    recoveries.record(asked, policy, log, approvals, now=int(time.time()))
    return run(*approvals)


def _draw(root: Path, originals: "dict[str, Original]", recovery: "Recovery") -> Closeness:
    import numpy as np
    from PIL import Image

    from diffpriv.detectors import load_detector
    from diffpriv.faces.alignment import warp_to_crop
    from diffpriv.jobs.contact_sheet import Cell, draw
    from diffpriv.pipelines.destination.published import read_picture
    from diffpriv.pipelines.pictures.codec import decode
    from diffpriv.recovery import psnr
    from diffpriv.transforms.base import SEED_SIZE, FaceRequest
    from diffpriv.transforms.payloads import stored_matrix

    published = {
        sample: decode(read_picture(root / "protected", one.shard, sample, one.field)).pixels
        for sample, one in originals.items()
    }
    pairs = [
        (Cell(one.pixels, f"{sample}: before"), Cell(published[sample], _label(one.pixels, published[sample])))
        for sample, one in originals.items()
    ]
    rows = [[cell for pair in pairs[start : start + 2] for cell in pair] for start in range(0, len(pairs), 2)]
    # The same detector finds the same face 0, so these are the pixels that protection started from and left.
    face = load_detector("centerface").detect([originals[WANTED].pixels])[0][0]
    matrix = stored_matrix(FaceRequest(originals[WANTED].pixels, face, bytes(SEED_SIZE)))
    before, after = (warp_to_crop(one, matrix) for one in (originals[WANTED].pixels, published[WANTED]))
    recovered = np.asarray(Image.open(recovery.faces[0].crop_file))
    closeness = Closeness(psnr(after, before), psnr(recovered, before))
    rows.append(
        [
            Cell(before, "the face: before"),
            Cell(after, f"published: {_decibels(closeness.published)}"),
            Cell(recovered, f"recovered with its key: {_decibels(closeness.recovered)}"),
            Cell(np.asarray(Image.open(recovery.pictures[0])), "recovered, in its picture"),
        ]
    )
    draw(root / "contact-sheet.png", "diffpriv demo: before, after, recovered", rows)
    return closeness


def _decibels(value: float) -> str:
    return "identical" if value == float("inf") else f"{value:.1f} dB"


def _label(before: "np.ndarray", after: "np.ndarray") -> str:
    return "after: no face found, same bytes" if before.shape == after.shape and (before == after).all() else "after"
