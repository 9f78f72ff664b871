"""`diffpriv scrub`: protect a dataset for good (recovery none), then let the release gate look at all of it.

Exit 0 and a signed manifest only if nothing is over its limit. `check-release` compares a copy with that manifest.
"""

import shlex
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffpriv.jobs.options import FaceOptions, JobOptions, flattened, only_given
from diffpriv.jobs.output import FOUND_WRONG, OUTPUT, print_table
from diffpriv.jobs.sanitize import job_from, run_job
from diffpriv.keys.errors import MisuseError

if TYPE_CHECKING:
    from rich.console import Console

    from diffpriv.pipelines.config import JobConfig
    from diffpriv.pipelines.gate.findings import GateReport, GateSettings

_FAMILIES = ("sidecar: ", "similar to ")  # kinds of finding, perhaps misspelt; all else that is no kind names a field
SHOWN = 50  # findings on the screen; all of them are in --json and in --report


@dataclass(frozen=True)
class GateOptions:
    """What the release gate looks with, and how much it lets pass."""

    gate_detector: Annotated[str | None, typer.Option(help="The gate's detector, if not the job's.")] = None
    second_detector: Annotated[str, typer.Option(help="Another detector for the gate: insightface:FOLDER.")] = ""
    gate_recognizer: Annotated[
        str | None,
        typer.Option(
            help="builtin, dlib, human:FOLDER, insightface:FOLDER, a model folder; without one baselines go by region."
        ),
    ] = None
    similarity_limit: Annotated[
        float | None, typer.Option(help="Highest similarity to an original that the gate passes, -1 to 1.")
    ] = None
    allow: Annotated[
        list[str] | None,
        typer.Option(help='A kind of finding and how many pass ("sidecar: box=12"), or a field that passes unseen. Repeatable'),
    ] = None
    release_key: Annotated[
        Path | None, typer.Option(envvar="DIFFPRIV_RELEASE_KEY", help="Key that signs the release manifest, and nothing else.")
    ] = None
    allow_gallery: Annotated[bool, typer.Option("--allow-gallery", help="Let the consent gallery leave faces as they are.")] = (
        False
    )

    def settings(self, job: "JobConfig") -> "GateSettings":
        """Raises: MisuseError for an --allow that is no kind or no number, or a similarity that is no cosine."""
        from diffpriv.pipelines.gate.findings import KINDS, GateSettings

        allowed: dict[str, int | None] = {}
        given = set(self.allow or ())
        fields = {one for one in given if one not in KINDS and "=" not in one and not one.startswith(_FAMILIES)}
        for one in sorted(given - fields):
            kind, equals, count = one.partition("=")
            if equals and not count.isdigit():
                raise MisuseError(f"--allow {one!r}: {count!r} is no number.", advice='Write it as "sidecar: box=12".')
            allowed[kind] = int(count) if equals else None
        limit = self.similarity_limit
        if limit is not None and not -1 <= limit <= 1:
            raise MisuseError(f"--similarity-limit is {limit}.", advice="Give a cosine from -1 to 1.")
        default = "builtin" if job.transform.transform == "diffprivacy" else ""
        # Not the job's threshold: a gate as blind as the job would find nothing.
        places = {name: value for name, value in job.detector_options.items() if name in ("root", "weights", "allow_download")}
        return GateSettings(
            self.gate_detector or job.detector,
            {} if self.gate_detector else places,
            self.second_detector,
            default if self.gate_recognizer is None else self.gate_recognizer,
            limit,
            job.keep_metadata == "camera",
            allowed,
            frozenset(fields),
        )


@flattened
def scrub(
    job: JobOptions,
    faces: FaceOptions,
    gate: GateOptions,
    sidecars: Annotated[
        str | None, typer.Option(help="Boxes, landmarks, embeddings and the like beside pictures: refuse, drop or report.")
    ] = None,
    gate_only: Annotated[bool, typer.Option("--gate-only", help="Look at a DST that was scrubbed before.")] = False,
    report_file: Annotated[Path | None, typer.Option("--report", help="Write everything that was found, as JSON.")] = None,
) -> None:
    """Protect every face, keep nothing to bring it back, and let the release gate look. Exits 1 if it finds too much."""
    given = job.settings(recovery="none", task="anonymize") | only_given(sidecars=sidecars) | faces.settings()
    config = _for_release(job_from(job.config, given))
    if config.rules.gallery and not gate.allow_gallery:
        raise MisuseError(
            "the job leaves faces that match a consent gallery, and a recogniser's mistake would release a stranger.",
            advice="Remove rules.gallery, or give --allow-gallery as well.",
        )
    if gate.release_key is None:
        advice = 'Give --release-key FILE; "diffpriv keys init" makes one, and "diffpriv keys signing-key --role release".'
        raise MisuseError("a release manifest is signed with the release key, and none was given.", advice=advice)
    settings = gate.settings(config)
    document: dict[str, Any] = {"dst": config.dst}
    if not gate_only:
        made = run_job(config, job.passphrase_file)
        document["job"] = made.to_json()
        OUTPUT.note(f"{made.counts['faces']} faces in {made.shards} shards; now the release gate looks at all of it.")
    report, manifest = pass_gate(config, settings, gate.release_key, job.passphrase_file)
    document |= {"gate": report.to_json(), "manifest": manifest}
    if report_file is not None:
        _write(report_file, document)
    OUTPUT.result(document, lambda console: show_gate(console, config.dst, report, manifest))
    if not report.clean or (not report.counts["pictures"] and not job.allow_empty):
        raise typer.Exit(FOUND_WRONG)


def _for_release(job: "JobConfig") -> "JobConfig":
    """Stricter defaults than `sanitize` has, where neither the command line nor the file says otherwise."""
    strict: dict[str, Any] = {"sidecars": "refuse", "strip_metadata": "all", "thorough": True}
    return job.model_copy(update={name: rule for name, rule in strict.items() if name not in job.model_fields_set})


def pass_gate(
    job: "JobConfig", settings: "GateSettings", release_key: Path, passphrase_file: Path | None
) -> "tuple[GateReport, dict[str, str] | None]":
    """Look, and sign if it is clean. Holds DST meanwhile, so that what is signed is what was looked at."""
    from diffpriv.jobs.places import load_note_key
    from diffpriv.pipelines.destination.lease import hold_lease
    from diffpriv.pipelines.gate.manifest import note_digest, withdraw_manifest, write_manifest
    from diffpriv.pipelines.gate.run import check_release
    from diffpriv.pipelines.storage import Folder

    key = load_note_key(release_key, passphrase_file, "release")
    target = Folder(job.dst)
    if not target.is_folder():
        raise MisuseError(f"DST {job.dst} does not exist.", advice="Run without --gate-only.")
    with hold_lease(target, f"gate-{uuid.uuid4().hex[:8]}"):
        withdraw_manifest(job.dst)
        report = check_release(
            job.src, job.dst, settings, format=job.format, ignore=job.ignore, processes=job.workers.detect_actors
        )
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
    console.print("Nothing is over its limit. Release everything but .diffpriv, which names quarantined samples:")
    console.print(f"  rsync -a --exclude=/.diffpriv {dst.rstrip('/')}/ RELEASE/", markup=False)
    console.print(f"  diffpriv check-release RELEASE {manifest['path']} --release-vkey RELEASE.vkey", markup=False)


def check_release_copy(
    folder: Annotated[str, typer.Argument(metavar="RELEASE", help="A copy of a scrubbed dataset.")],
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="Its release.note.")],
    release_vkey: Annotated[
        Path,
        typer.Option("--release-vkey", "--log-vkey", help="The release key's public half; never one that came with the copy."),
    ],
    accept: Annotated[
        list[str] | None, typer.Option(help="A kind of finding or a field that the gate was told to let pass. Repeatable.")
    ] = None,
) -> None:
    """Compare a copy with its signed release manifest. Exits 1 if a file is altered, missing or not in it.

    It prints what the gate was told to let pass, and exits 1 for each of it that you don't accept by name.
    """
    from dataclasses import asdict

    from diffpriv.keys.audit.events import to_iso
    from diffpriv.keys.notes import NoteVerifier
    from diffpriv.pipelines.gate.manifest import check_copy

    try:
        note = manifest.read_bytes()
    except OSError as error:
        raise MisuseError(f"{manifest} can't be read: {error.strerror or error}.") from error
    accepted = set(accept or ())
    found = check_copy(folder, note, NoteVerifier.load(release_vkey))

    refused = sorted(set(found.allowances) - accepted)

    def show(console: "Console") -> None:
        console.print(f"{found.files} files of {found.dataset} passed the gate at {to_iso(found.made_at)}", markup=False)
        for name in found.allowed_fields:
            console.print(f"ALLOWED: nobody looked into the field {name}", markup=False)
        for kind, limit in found.lifted.items():
            console.print(f"ALLOWED: {kind}: {'any number' if limit is None else f'up to {limit}'}", markup=False)
        for name in refused:
            console.print(f"NOT ACCEPTED: {name}; give --accept {shlex.quote(name)} if you do", markup=False)
        for what in ("altered", "missing", "extra"):
            for name in getattr(found, what)[:SHOWN]:
                console.print(f"{what.upper()}: {name}", markup=False)
        console.print("The copy is what passed." if found.clean else "The copy is NOT what passed.")

    OUTPUT.result({"clean": found.clean, **asdict(found), "not_accepted": refused}, show)
    if not found.clean or refused:
        raise typer.Exit(FOUND_WRONG)


def _write(path: Path, document: dict[str, Any]) -> None:
    import json

    try:
        path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise MisuseError(f"{path} can't be written: {error.strerror or error}.") from error
