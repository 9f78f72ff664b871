"""`diffpriv sanitize`: one job on Ray Data or Beam, with a progress bar and a closing table whose counts add up."""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffpriv.jobs.options import FaceOptions, JobOptions, flattened, only_given
from diffpriv.jobs.output import FOUND_WRONG, OUTPUT, print_table, print_wrapped
from diffpriv.jobs.plan import show_plan
from diffpriv.keys.errors import MisuseError

if TYPE_CHECKING:
    from rich.console import Console

    from diffpriv.pipelines.config import JobConfig
    from diffpriv.pipelines.run.job import Progress
    from diffpriv.pipelines.run.report import RunReport


@flattened
def sanitize(
    context: typer.Context,
    job: JobOptions,
    faces: FaceOptions,
    keys: Annotated[str | None, typer.Option(help="Key store, apart from the data.")] = None,
    recipient: Annotated[list[str] | None, typer.Option(help="Public key that face keys are locked to. Repeatable.")] = None,
    policy: Annotated[
        str | None, typer.Option(help="Custody policy: whose quorum it takes, with a recipient's key, to bring a face back.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="anonymize or hide.")] = None,
    recovery: Annotated[str | None, typer.Option(help="What is kept for later: none, image, keys or exact.")] = None,
    similarity_limit: Annotated[
        float | None,
        typer.Option(help="Highest similarity to its original that a face may keep, -1 to 1."),
    ] = None,
    max_attempts: Annotated[int | None, typer.Option(help="Tries before a face is filled, 1 to 16.")] = None,
    metrics: Annotated[str | None, typer.Option(help="Write the counts for Prometheus to this file (.prom).")] = None,
    decisions: Annotated[
        Path | None,
        typer.Option(help="What a reviewer decided: redoes the shards that it names."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what the job would meet and cost; write nothing."),
    ] = False,
    dry_run_seconds: Annotated[float, typer.Option(min=1, help="How long a dry run measures.")] = 60.0,
    json_lines: Annotated[bool, typer.Option("--json-lines", help="Progress as JSON lines on standard error.")] = False,
) -> None:
    """Protect every face of a dataset. Running it again finishes an interrupted job and skips what is done."""
    transform = only_given(task=task, recovery=recovery, similarity_limit=similarity_limit, max_attempts=max_attempts)
    kept = only_given(
        keys=keys,
        recipients=tuple(recipient) if recipient else None,
        policy=policy,
        decisions=str(decisions) if decisions else None,
    )
    config = job_from(job.config, job.settings(**transform) | kept | faces.settings(), known=found_around(context))
    if recovery is None:
        say_what_a_baseline_keeps(config)
    if dry_run:
        show_plan(config, dry_run_seconds)
        return
    report = run_job(config, job.passphrase_file, json_lines=json_lines)
    if metrics is not None:
        from diffpriv.pipelines.run.telemetry import write_metrics

        write_metrics(report, metrics)
    document = {**report.to_json(), "dst": config.dst, "keys": config.keys, "audit": config.audit}
    OUTPUT.result(document, lambda console: show_report(console, config, report))
    if not report.ok or (report.saw_nothing and not job.allow_empty):
        raise typer.Exit(FOUND_WRONG)


def found_around(context: typer.Context) -> frozenset[str]:
    """Settings that nobody gave on the command line: `diffpriv.toml` or a variable did, and a job file wins over those."""
    fields = {"keys": "keys", "audit": "audit", "log_key": "log_key", "recipient": "recipients", "policy": "policy"}
    sources = {field: context.get_parameter_source(option) for option, field in fields.items()}
    return frozenset(field for field, source in sources.items() if source is not None and source.name != "COMMANDLINE")


def say_what_a_baseline_keeps(job: "JobConfig") -> None:
    """A baseline's tier is chosen for who did not choose one; that nothing will come back must not go unsaid."""
    if job.transform.transform != "diffprivacy" and job.transform.recovery == "none":
        OUTPUT.note(
            f"{job.transform.transform} has nothing to recover from, so this job keeps no keys (tier none). "
            "To be able to bring faces back: --recovery exact."
        )


def job_from(config: Path | None, given: dict[str, Any], *, known: frozenset[str] = frozenset()) -> "JobConfig":
    """The job that a file and the command line describe together.

    Args:
        known: settings in `given` that a job file wins over.
    Raises:
        MisuseError: SRC, DST or the audit log is named by neither, or a setting is wrong.
    """
    from diffpriv.pipelines.config import JobConfig, load_job

    if config is not None:
        weak = {name: value for name, value in given.items() if name in known}
        return load_job(config, weak, **{name: value for name, value in given.items() if name not in known})
    example = "Write it as: diffpriv sanitize SRC DST --keys STORE --audit AUDIT --recipient KEYS/recipient.json"
    missing = [name for name, key in (("SRC", "src"), ("DST", "dst"), ("--audit URL", "audit")) if key not in given]
    if missing:
        raise MisuseError(f"missing: {', '.join(missing)}.", advice=f"{example}, or give --config job.yaml.")
    return JobConfig.from_mapping(given)


def run_job(job: "JobConfig", passphrase_file: Path | None = None, *, json_lines: bool = False) -> "RunReport":
    """Run it on the engine it names, with progress for people or machines. The log key in the job's settings signs the log."""
    from diffpriv.jobs.places import load_log_key
    from diffpriv.pipelines.engines.choice import run

    log_key = load_log_key(Path(job.log_key), passphrase_file) if job.log_key else None
    if not OUTPUT.verbose:
        _quiet_engine()
    if json_lines:
        from diffpriv.pipelines.run.telemetry import JsonLines

        lines = JsonLines(sys.stderr)
        report = run(job, log_key=log_key, progress=lines)
        lines.finished(report)
        return report
    with _progress_bar() as progress:
        return run(job, log_key=log_key, progress=progress)


def _quiet_engine() -> None:
    """Ray's notices about its own workings, which nobody who runs a job can act on; errors still come as exceptions."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    warnings.filterwarnings("ignore", message=".*will be removed in Ray.*")


@contextlib.contextmanager
def _progress_bar() -> "Iterator[Callable[[Progress], None] | None]":
    """A callback for the driver; it draws nothing with `--json`."""
    if OUTPUT.json or OUTPUT.quiet:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = OUTPUT.console(errors=True)
    with RichProgress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        bar_task = bar.add_task("starting", total=None)

        def update(state: "Progress") -> None:
            text = f"{state.samples_done:,} samples, {state.faces_done:,} faces; shards"
            bar.update(bar_task, completed=state.shards_done + state.shards_failed, total=state.shards, description=text)

        yield update


def show_report(console: "Console", job: "JobConfig", report: "RunReport") -> None:
    """The closing table, where things are, and what to do next."""
    if report.nothing_to_do:
        console.print("Nothing to do: every shard was committed before, with these settings.")
    rows = [row for row in report.rows() if not row[0].startswith("failed: ")]
    if report.shards_failed:
        rows.insert(1, ("  failed, see below", f"{len(report.shards_failed):,}"))
    print_table(console, f"Dataset {report.dataset}", ["", "count"], rows, right=["count"])
    for shard, reason in sorted(report.shards_failed.items()):
        print_wrapped(console, f"failed: {shard}", reason)
    tables = {
        "Quarantined": report.quarantined,
        "Filled": report.filled,
        "Left as they are": report.left,
        "Protected, but not as asked": report.otherwise,
    }
    for title, reasons in tables.items():
        if reasons:
            print_table(console, title, ["reason", "count"], reasons.items(), right=["count"])
    if report.saw_nothing:
        console.print("NO PICTURE was found, so nothing was protected. Is this the dataset? If it is, give --allow-empty.")
    console.print(f"data       {job.dst}", markup=False)
    if not job.keeps_keys:
        console.print("keys       none kept: irreversibly transformed by this tool")
    else:
        console.print(f"keys       {job.keys}  (pseudonymised: whoever opens these can bring faces back)", markup=False)
        if job.policy is None:
            console.print("           no --policy: a recipient's key opens them alone; only this program asks for approvals")
    console.print(f"audit log  {job.audit}", markup=False)
    keys = f" --keys {job.keys}" if job.keeps_keys else ""
    if report.audit != "integrated":
        console.print(
            f"The log's segments wait to be signed in: diffpriv audit integrate {job.audit} --log-key LOG.key", markup=False
        )
    vkey = Path(job.log_key).with_suffix(".vkey") if job.log_key else Path("LOG.vkey")
    named = vkey if vkey.is_file() else "LOG.vkey"
    console.print(f"Next: diffpriv audit verify {job.audit} --log-vkey {named}{keys} --data {job.dst}", markup=False)
