"""`diffpriv sanitize`: one job on Ray Data or Beam, with a progress bar and a closing table whose counts add up."""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.face_options import (
    Aligned,
    Boxes,
    BoxFormat,
    Consent,
    Detect,
    FacesTable,
    Gallery,
    GallerySimilarity,
    IdentityRootFile,
    Landmarks,
    Leave,
    MinScore,
    MinSize,
    Pseudonym,
    Treat,
    face_settings,
)
from jobs.output import FOUND_WRONG, OUTPUT, print_table
from jobs.passphrases import PassphraseFile
from jobs.plan import show_plan
from keys.errors import MisuseError

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.config import JobConfig
    from pipelines.job import Progress
    from pipelines.report import RunReport


def sanitize(
    src: Annotated[str | None, typer.Argument(metavar="SRC", help="Shards, or a folder of shards or pictures.")] = None,
    dst: Annotated[str | None, typer.Argument(metavar="DST", help="Where the protected dataset goes.")] = None,
    keys: Annotated[str | None, typer.Option(help="Key store, apart from the data.")] = None,
    audit: Annotated[str | None, typer.Option(help="Audit log.")] = None,
    log_key: Annotated[
        Path | None, typer.Option(help="Key that signs the audit log; without it the log's segments wait to be integrated.")
    ] = None,
    recipient: Annotated[list[str] | None, typer.Option(help="Public key that face keys are locked to. Repeatable.")] = None,
    dataset: Annotated[str | None, typer.Option(help="The dataset's name; by default the last part of DST.")] = None,
    format: Annotated[str | None, typer.Option(help="auto, webdataset, parquet or folder.")] = None,
    task: Annotated[str | None, typer.Option(help="anonymize or hide.")] = None,
    recovery: Annotated[str | None, typer.Option(help="What is kept for later: none, image, keys or exact.")] = None,
    transform: Annotated[str | None, typer.Option(help="diffprivacy, or a baseline: blur, mosaic, fill.")] = None,
    model: Annotated[str | None, typer.Option(help="builtin, a model folder, or a name.")] = None,
    detector: Annotated[str | None, typer.Option(help="centerface or insightface:FOLDER.")] = None,
    recognizer: Annotated[
        str | None,
        typer.Option(help="One more that new faces must not match: dlib, human:FOLDER, insightface:FOLDER, a model folder."),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="quality, fast or paper.")] = None,
    similarity_limit: Annotated[
        float | None, typer.Option(help="Highest similarity to its original that a face may keep, -1 to 1.")
    ] = None,
    max_attempts: Annotated[int | None, typer.Option(help="Tries before a face is filled, 1 to 16.")] = None,
    boxes: Boxes = None,
    box_format: BoxFormat = None,
    landmarks: Landmarks = None,
    detect: Detect = None,
    aligned: Aligned = None,
    pseudonym: Pseudonym = None,
    identity_root: IdentityRootFile = None,
    min_size: MinSize = None,
    min_score: MinScore = None,
    leave: Leave = None,
    treat: Treat = None,
    consent: Consent = None,
    gallery: Gallery = None,
    gallery_similarity: GallerySimilarity = None,
    faces_table: FacesTable = None,
    strip_metadata: Annotated[
        str | None, typer.Option(help="Whose EXIF, XMP, comments and thumbnails go: changed pictures', or all.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="ray or beam.")] = None,
    actors: Annotated[int | None, typer.Option(min=0, help="Actors per stage; 0 fits them to the machine.")] = None,
    gpus: Annotated[float | None, typer.Option(min=0, help="GPU share per protecting actor: 0, 1/n or a whole number.")] = None,
    config: Annotated[Path | None, typer.Option(help="job.yaml with any of these settings; options win over it.")] = None,
    metrics: Annotated[str | None, typer.Option(help="Write the counts for Prometheus to this file (.prom).")] = None,
    decisions: Annotated[Path | None, typer.Option(help="What a reviewer decided: redoes the shards that it names.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what the job would meet and cost; write nothing.")] = False,
    dry_run_seconds: Annotated[float, typer.Option(min=1, help="How long a dry run measures.")] = 60.0,
    json_lines: Annotated[bool, typer.Option("--json-lines", help="Progress as JSON lines on standard error.")] = False,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Protect every face of a dataset. Running it again finishes an interrupted job and skips what is done."""
    given = {
        "src": src,
        "dst": dst,
        "keys": keys,
        "audit": audit,
        "log_key": str(log_key) if log_key else None,
        "recipients": tuple(recipient) if recipient else None,
        "dataset": dataset,
        "format": format,
        "detector": detector,
        "strip_metadata": strip_metadata,
        "engine": engine,
        "decisions": str(decisions) if decisions else None,
        "transform": _only_given(
            transform=transform,
            task=task,
            recovery=recovery,
            model=model,
            recognizer=recognizer,
            preset=preset,
            similarity_limit=similarity_limit,
            max_attempts=max_attempts,
        ),
        "workers": _only_given(detect_actors=actors, protect_actors=actors, protect_gpus=gpus),
        **face_settings(
            boxes=boxes,
            box_format=box_format,
            landmarks=landmarks,
            detect=detect,
            aligned=aligned,
            pseudonym=pseudonym,
            identity_root=identity_root,
            min_size=min_size,
            min_score=min_score,
            leave=leave,
            treat=treat,
            consent=consent,
            gallery=gallery,
            gallery_similarity=gallery_similarity,
            faces_table=faces_table,
        ),
    }
    job = job_from(config, _only_given(**given))
    if dry_run:
        show_plan(job, dry_run_seconds)
        return
    report = run_job(job, passphrase_file, json_lines=json_lines)
    if metrics is not None:
        from pipelines.telemetry import write_metrics

        write_metrics(report, metrics)
    document = {**report.to_json(), "dst": job.dst, "keys": job.keys, "audit": job.audit}
    OUTPUT.result(document, lambda console: show_report(console, job, report))
    if not report.ok:
        raise typer.Exit(FOUND_WRONG)


def _only_given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None and value != {}}


def job_from(config: Path | None, given: dict[str, Any]) -> "JobConfig":
    """The job that a file and the command line describe together.

    Raises:
        MisuseError: SRC, DST or the audit log is named by neither, or a setting is wrong.
    """
    from pipelines.config import JobConfig, load_job

    if config is not None:
        return load_job(config, **given)
    missing = [name for name, key in (("SRC", "src"), ("DST", "dst"), ("--audit URL", "audit")) if key not in given]
    if missing:
        raise MisuseError(f"missing: {', '.join(missing)}.", advice="See diffpriv sanitize --help, or give --config job.yaml.")
    return JobConfig.from_mapping(given)


def run_job(job: "JobConfig", passphrase_file: Path | None = None, *, json_lines: bool = False) -> "RunReport":
    """Run it on the engine it names, with progress for people or machines. The log key in the job's settings signs the log."""
    from jobs.places import load_log_key

    log_key = load_log_key(Path(job.log_key), passphrase_file) if job.log_key else None
    if not OUTPUT.verbose:
        _quiet_engine()
    if json_lines:
        from pipelines.telemetry import JsonLines

        lines = JsonLines(sys.stderr)
        report = _driver(job.engine)(job, log_key=log_key, progress=lines)
        lines.finished(report)
        return report
    with _progress_bar() as progress:
        return _driver(job.engine)(job, log_key=log_key, progress=progress)


def _driver(engine: str) -> "Callable[..., RunReport]":
    if engine == "ray":
        from pipelines import ray_driver

        return ray_driver.run
    try:
        from pipelines import beam_driver
    except ImportError as error:
        raise MisuseError(f"the Beam engine is not installed: {error}.", advice='pip install "diffpriv[beam]"') from error
    return beam_driver.run


def _quiet_engine() -> None:
    """Ray's notices about its own workings, which nobody who runs a job can act on; errors still come as exceptions."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    warnings.filterwarnings("ignore", message=".*will be removed in Ray.*")


@contextlib.contextmanager
def _progress_bar() -> "Iterator[Callable[[Progress], None] | None]":
    """A callback for the driver; it draws nothing with `--json`."""
    if OUTPUT.json:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with RichProgress(*columns, console=OUTPUT.console(errors=True), transient=True) as bar:
        bar_task = bar.add_task("starting", total=None)

        def update(state: "Progress") -> None:
            text = f"{state.samples_done:,} samples, {state.faces_done:,} faces; shards"
            bar.update(bar_task, completed=state.shards_done + state.shards_failed, total=state.shards, description=text)

        yield update


def show_report(console: "Console", job: "JobConfig", report: "RunReport") -> None:
    """The closing table, where things are, and what to do next."""
    if report.nothing_to_do:
        console.print("Nothing to do: every shard was committed before, with these settings.")
    print_table(console, f"Dataset {report.dataset}", ["", "count"], report.rows(), right=["count"])
    for title, reasons in (("Quarantined", report.quarantined), ("Filled", report.filled), ("Left as they are", report.left)):
        if reasons:
            print_table(console, title, ["reason", "count"], reasons.items(), right=["count"])
    console.print(f"data       {job.dst}", markup=False)
    if job.transform.recovery == "none":
        console.print("keys       none kept: irreversibly transformed by this tool")
    else:
        console.print(f"keys       {job.keys}  (pseudonymised: whoever opens these can bring faces back)", markup=False)
    console.print(f"audit log  {job.audit}", markup=False)
    keys = f" --keys {job.keys}" if job.transform.recovery != "none" else ""
    if report.audit != "integrated":
        console.print(
            f"The log's segments wait to be signed in: diffpriv audit integrate {job.audit} --log-key LOG.key", markup=False
        )
    console.print(f"Next: diffpriv audit verify {job.audit} --log-vkey LOG.vkey{keys} --data {job.dst}", markup=False)
