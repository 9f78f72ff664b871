"""`diffpriv scrub`: protect a dataset for good (recovery none), then let the release gate look at all of it.

Exit 0 and a signed manifest only if nothing is over its limit. `check-release` compares a copy with that manifest.
"""

import time
import uuid
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
from jobs.sanitize import _only_given, job_from, run_job
from keys.errors import MisuseError

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.config import JobConfig
    from pipelines.gate.findings import GateReport, GateSettings

SHOWN = 50  # findings on the screen; all of them are in --json and in --report


def scrub(
    src: Annotated[str | None, typer.Argument(metavar="SRC", help="Shards, or a folder of shards or pictures.")] = None,
    dst: Annotated[str | None, typer.Argument(metavar="DST", help="Where the scrubbed dataset goes.")] = None,
    audit: Annotated[str | None, typer.Option(help="Audit log.")] = None,
    log_key: Annotated[Path | None, typer.Option(help="Key that signs the audit log and the release manifest.")] = None,
    dataset: Annotated[str | None, typer.Option(help="The dataset's name; by default the last part of DST.")] = None,
    format: Annotated[str | None, typer.Option(help="auto, webdataset, parquet or folder.")] = None,
    transform: Annotated[str | None, typer.Option(help="diffprivacy, or a baseline: blur, mosaic, fill.")] = None,
    model: Annotated[str | None, typer.Option(help="builtin, a model folder, or a name.")] = None,
    detector: Annotated[str | None, typer.Option(help="centerface or insightface:FOLDER.")] = None,
    recognizer: Annotated[
        str | None,
        typer.Option(help="One more that new faces must not match: dlib, human:FOLDER, insightface:FOLDER, a model folder."),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="quality, fast or paper.")] = None,
    strip_metadata: Annotated[
        str | None, typer.Option(help="Whose EXIF, XMP, comments and thumbnails go: changed pictures', or all.")
    ] = None,
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
    engine: Annotated[str | None, typer.Option(help="ray or beam.")] = None,
    actors: Annotated[int | None, typer.Option(min=0, help="Actors per stage; 0 fits them to the machine.")] = None,
    gpus: Annotated[float | None, typer.Option(min=0, help="GPU share per protecting actor: 0, 1/n or a whole number.")] = None,
    config: Annotated[Path | None, typer.Option(help="job.yaml with any of these settings; options win over it.")] = None,
    gate_detector: Annotated[str | None, typer.Option(help="The gate's detector, if not the job's.")] = None,
    second_detector: Annotated[str, typer.Option(help="Another detector for the gate: insightface:FOLDER.")] = "",
    gate_recognizer: Annotated[
        str | None,
        typer.Option(
            help="builtin, dlib, human:FOLDER, insightface:FOLDER, a model folder; without one baselines go by region."
        ),
    ] = None,
    similarity_limit: Annotated[
        float | None, typer.Option(help="Highest similarity to an original that the gate passes, -1 to 1.")
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help='A kind of finding and how many pass: "metadata", "sidecar: box=12". Repeatable.')
    ] = None,
    allow_gallery: Annotated[
        bool, typer.Option("--allow-gallery", help="Let the consent gallery leave faces as they are.")
    ] = False,
    gate_only: Annotated[bool, typer.Option("--gate-only", help="Look at a DST that was scrubbed before.")] = False,
    report_file: Annotated[Path | None, typer.Option("--report", help="Write everything that was found, as JSON.")] = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Protect every face, keep nothing to bring it back, and let the release gate look. Exits 1 if it finds too much."""
    given = _only_given(
        src=src,
        dst=dst,
        audit=audit,
        log_key=str(log_key) if log_key else None,
        dataset=dataset,
        format=format,
        detector=detector,
        strip_metadata=strip_metadata,
        engine=engine,
        transform=_only_given(
            transform=transform, model=model, recognizer=recognizer, preset=preset, recovery="none", task="anonymize"
        ),
        workers=_only_given(detect_actors=actors, protect_actors=actors, protect_gpus=gpus),
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
    )
    job = job_from(config, given)
    if job.rules.gallery and not allow_gallery:
        raise MisuseError(
            "the job leaves faces that match a consent gallery, and a recogniser's mistake would release a stranger.",
            advice="Remove rules.gallery, or give --allow-gallery as well.",
        )
    if job.log_key is None:
        raise MisuseError("a release manifest is signed, and no key was given.", advice="Give --log-key FILE.")
    settings = gate_settings(job, gate_detector, second_detector, gate_recognizer, similarity_limit, allow or [])
    document: dict[str, Any] = {"dst": job.dst}
    if not gate_only:
        made = run_job(job, passphrase_file)
        document["job"] = made.to_json()
        OUTPUT.note(f"{made.counts['faces']} faces in {made.shards} shards; now the release gate looks at all of it.")
    report, manifest = pass_gate(job, settings, passphrase_file)
    document |= {"gate": report.to_json(), "manifest": manifest}
    if report_file is not None:
        _write(report_file, document)
    OUTPUT.result(document, lambda console: show_gate(console, job.dst, report, manifest))
    if not report.clean:
        raise typer.Exit(FOUND_WRONG)


def gate_settings(
    job: "JobConfig", detector: str | None, second: str, recognizer: str | None, limit: float | None, allow: list[str]
) -> "GateSettings":
    """Raises: MisuseError for an --allow that is no kind or no number."""
    from pipelines.gate.findings import GateSettings

    allowed: dict[str, int | None] = {}
    for one in allow:
        kind, equals, count = one.partition("=")
        if equals and not count.isdigit():
            raise MisuseError(f"--allow {one!r}: {count!r} is no number.", advice='Write it as "sidecar: box=12".')
        allowed[kind] = int(count) if equals else None
    if limit is not None and not -1 <= limit <= 1:
        raise MisuseError(f"--similarity-limit is {limit}.", advice="Give a cosine from -1 to 1.")
    default = "builtin" if job.transform.transform == "diffprivacy" else ""
    # Not the job's threshold: a gate as blind as the job would find nothing.
    places = {name: value for name, value in job.detector_options.items() if name in ("root", "weights", "allow_download")}
    return GateSettings(
        detector or job.detector,
        {} if detector else places,
        second,
        default if recognizer is None else recognizer,
        limit,
        allowed,
    )


def pass_gate(
    job: "JobConfig", settings: "GateSettings", passphrase_file: Path | None
) -> "tuple[GateReport, dict[str, str] | None]":
    """Look, and sign if it is clean. Holds DST meanwhile, so that what is signed is what was looked at."""
    from jobs.places import load_log_key
    from pipelines.gate.manifest import note_digest, withdraw_manifest, write_manifest
    from pipelines.gate.run import check_release
    from pipelines.lease import hold_lease
    from pipelines.storage import Folder

    assert job.log_key is not None
    key = load_log_key(Path(job.log_key), passphrase_file)
    target = Folder(job.dst)
    if not target.is_folder():
        raise MisuseError(f"DST {job.dst} does not exist.", advice="Run without --gate-only.")
    with hold_lease(target, f"gate-{uuid.uuid4().hex[:8]}"):
        withdraw_manifest(job.dst)
        report = check_release(job.src, job.dst, settings, format=job.format, processes=job.workers.detect_actors)
        if not report.clean:
            return report, None
        name = write_manifest(job.dst, report, key, int(time.time()))
    note = target.small.read(name)
    return report, {"path": target.describe(name), "sha256": note_digest(note), "signed_by": key.verifier.vkey}


def show_gate(console: "Console", dst: str, report: "GateReport", manifest: dict[str, str] | None) -> None:
    """The table, what was found, and what to do next."""
    looked = [(what, f"{count:,}") for what, count in sorted(report.counts.items())]
    looked += [(f"highest similarity {which}", f"{value:.3f}") for which, value in sorted(report.highest_similarity.items())]
    looked += sorted(report.tools.items())
    print_table(console, f"Release gate over {dst}", ["looked at", ""], looked)
    print_table(console, "Found", ["kind", "found", "limit", ""], report.rows(), right=["found", "limit"])
    for finding in report.findings[:SHOWN]:
        times = f" x {finding.times}" if finding.times > 1 else ""
        console.print(f"{finding.kind}{times}: {finding.place or 'dataset'}: {finding.detail}".rstrip(": "), markup=False)
    if len(report.findings) > SHOWN:
        console.print(f"… and {len(report.findings) - SHOWN} more: --json or --report FILE has all.")
    if manifest is None:
        console.print(f"NOT RELEASED: over the limit: {', '.join(report.over)}.", markup=False)
        return
    console.print(f"manifest   {manifest['path']}  (SHA-256 {manifest['sha256'][:16]}…)", markup=False)
    console.print("Nothing is over its limit. Release everything but _diffpriv, which names quarantined samples:")
    console.print(f"  rsync -a --exclude=/_diffpriv {dst.rstrip('/')}/ RELEASE/", markup=False)
    console.print(f"  diffpriv check-release RELEASE {manifest['path']} --log-vkey LOG.vkey", markup=False)


def check_release_copy(
    folder: Annotated[str, typer.Argument(metavar="RELEASE", help="A copy of a scrubbed dataset.")],
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="Its release.note.")],
    log_vkey: Annotated[Path, typer.Option("--log-vkey", help="The log's public key; never one that came with the copy.")],
) -> None:
    """Compare a copy with its signed release manifest. Exits 1 if a file is altered, missing or not in it."""
    from dataclasses import asdict

    from keys.audit.checkpoint import NoteVerifier
    from keys.audit.events import to_iso
    from pipelines.gate.manifest import check_copy

    try:
        note = manifest.read_bytes()
    except OSError as error:
        raise MisuseError(f"{manifest} can't be read: {error.strerror or error}.") from error
    found = check_copy(folder, note, NoteVerifier.load(log_vkey))

    def show(console: "Console") -> None:
        console.print(f"{found.files} files of {found.dataset} passed the gate at {to_iso(found.made_at)}", markup=False)
        for what in ("altered", "missing", "extra"):
            for name in getattr(found, what)[:SHOWN]:
                console.print(f"{what.upper()}: {name}", markup=False)
        console.print("The copy is what passed." if found.clean else "The copy is NOT what passed.")

    OUTPUT.result({"clean": found.clean, **asdict(found)}, show)
    if not found.clean:
        raise typer.Exit(FOUND_WRONG)


def _write(path: Path, document: dict[str, Any]) -> None:
    import json

    try:
        path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise MisuseError(f"{path} can't be written: {error.strerror or error}.") from error
