"""The gate over a whole dataset: every shard that SRC has, every file that DST holds."""

import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from diffpriv.detectors import load_detector
from diffpriv.errors import DiffPrivError
from diffpriv.recognizers import Recognizer, load_recognizer
from pipelines.errors import JobError, MisuseError
from pipelines.formats import Shard, data_digest, shard_format
from pipelines.gate.findings import Finding, GateReport, GateSettings
from pipelines.gate.lookout import Lookout
from pipelines.gate.originals import Originals
from pipelines.gate.shard import ShardGate
from pipelines.published import COMMITS
from pipelines.samples import Sample
from pipelines.sources import STATE_FOLDER, open_source
from pipelines.storage import Folder
from pipelines.workers import fix_threads

LEAVE_NO_FACE = ("fill/", "blur/", "mosaic/")  # identities of transformations whose output is compared by region


def check_release(
    src: str,
    dst: str,
    settings: GateSettings,
    *,
    format: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    processes: int = 1,
) -> GateReport:
    """Look at everything that is published in DST, against the originals in SRC. Writes nothing.

    Args:
        progress: (shards done, shards).
        processes: how many look at shards at once; the answer does not depend on it.
    Raises:
        JobError: a process died.
        MisuseError: SRC or DST holds nothing, or a detector does not exist.
        DetectorError: a detector cannot be loaded.
    """
    fix_threads()
    source = open_source(src, format)
    published = _records(Folder(dst))
    if not published:
        raise MisuseError(f"{dst} holds no published shard.", advice='Run "diffpriv scrub SRC DST" without --gate-only.')
    report = GateReport(published[0]["dataset"], settings)
    covered = {file[0] for record in published for file in record["source"]["files"]}
    report.findings += [Finding("missing", name) for name in source.names if name not in covered]
    committed = {file for record in published for file, _, _ in record["files"]}
    strangers = [one for one in Folder(dst).names() if one not in committed and not one.startswith(f"{STATE_FOLDER}/")]
    report.findings += [Finding("added", name, detail="a file that no run committed") for name in strangers]
    lookout = Lookout(_detectors(settings))
    recognizer = _recognizer(settings, report)
    fix_threads()
    report.tools |= {"gate detector": lookout.identity, "gate recogniser": recognizer.identity if recognizer else "by region"}
    looks = _Looks(source.url, dst, report.dataset, settings, with_recognizer=recognizer is not None)
    if processes > 1 and len(published) > 1:
        answers = _in_processes(looks, published, min(processes, len(published)))
    else:
        answers = (looks.at(record, lookout, recognizer) for record in published)
    for number, answer in enumerate(answers):
        report.add(answer)
        if progress is not None:
            progress(number + 1, len(published))
    return report


@dataclass(frozen=True)
class _Looks:
    """How to look at one shard; plain values, so that any process can."""

    source_url: str
    dst: str
    dataset: str
    settings: GateSettings
    with_recognizer: bool

    def at(self, record: dict[str, Any], lookout: Lookout, recognizer: Recognizer | None) -> GateReport:
        answer = GateReport(self.dataset, self.settings)
        _check_shard(Folder(self.source_url), Folder(self.dst), record, answer, lookout, recognizer)
        return answer


def _in_processes(looks: _Looks, published: list[dict[str, Any]], processes: int) -> Iterator[GateReport]:
    """Answers in the shards' order, from processes that load the models once each."""
    start = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=start, initializer=_load, initargs=(looks,)) as pool:
        try:
            yield from pool.map(_look, published)
        except BrokenProcessPool:
            raise JobError("a process of the release gate died.", advice="It may be short of memory: give fewer.") from None


_LOADED: list[tuple[_Looks, Lookout, Recognizer | None]] = []  # of this process


def _load(looks: _Looks) -> None:
    fix_threads()
    recognizer = load_recognizer(looks.settings.recognizer) if looks.with_recognizer else None
    _LOADED.append((looks, Lookout(_detectors(looks.settings)), recognizer))
    fix_threads()


def _look(record: dict[str, Any]) -> GateReport:
    looks, lookout, recognizer = _LOADED[-1]
    return looks.at(record, lookout, recognizer)


def _records(target: Folder) -> list[dict[str, Any]]:
    """Commit records as they were written, also where files have changed since: those above all must be looked at."""
    found = []
    for name in target.names(COMMITS):
        try:
            found.append(json.loads(target.small.read(name)))
        except ValueError:
            raise MisuseError(f"{target.describe(name)} is damaged.", advice='Run "diffpriv scrub" again.') from None
    return sorted(found, key=lambda record: str(record["shard"]))


def _detectors(settings: GateSettings) -> list[Any]:
    detectors = [load_detector(settings.detector, **settings.detector_options)]
    if settings.second_detector:
        detectors.append(load_detector(settings.second_detector))
    return detectors


def _recognizer(settings: GateSettings, report: GateReport) -> Recognizer | None:
    """None is only ever an answer together with a finding, or where comparing by region was asked for."""
    if not settings.recognizer:
        return None
    try:
        recognizer = load_recognizer(settings.recognizer)
        if settings.similarity_limit is None:
            recognizer.threshold(0.001)
    except DiffPrivError as error:
        report.findings.append(Finding("not checked", "", detail=f"similarity to the originals: {error}"))
        return None
    return recognizer


def _check_shard(
    source: Folder,
    target: Folder,
    record: dict[str, Any],
    report: GateReport,
    lookout: Lookout,
    recognizer: Recognizer | None,
) -> None:
    name = record["shard"]
    report.counts["shards"] += 1
    made_by = str(record["made_by"].get("transform", ""))
    report.tools["transform"] = made_by
    report.tools["detector"] = str(record["made_by"].get("detector", ""))
    report.tools["pseudonym"] = str(record["made_by"].get("pseudonym", "per face"))
    if recognizer is None and not report.settings.recognizer and not made_by.startswith(LEAVE_NO_FACE):
        detail = f"similarity to the originals: {made_by or 'its transformation'} leaves faces, and no recogniser was given"
        report.findings.append(Finding("not checked", name, detail=detail))
    if record["counts"]["faces_recoverable"]:
        report.findings.append(Finding("recoverable face", name, times=record["counts"]["faces_recoverable"]))
    left = record["counts"].get("faces_left", 0)
    if left:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in record["reasons"]["left"].items())
        report.findings.append(Finding("face left on purpose", name, detail=reasons, times=left))
    gate = ShardGate(name, lookout, recognizer, report.settings.similarity_limit)
    try:
        report.findings += [
            Finding("altered", name, detail=f"{file} is not what its run committed")
            for file, sha256, _ in record["files"]
            if target.sha256(file) != sha256
        ]
        original = Shard(name, record["format"], tuple(source.facts(file[0]) for file in record["source"]["files"]))
        if (
            data_digest(original.format, [(one.name, source.sha256(one.name)) for one in original.files])
            != (record["source"]["sha256"])
        ):
            report.findings.append(Finding("altered", name, detail="the original is not the one this was made from"))
        files = tuple(target.facts(file) for file, _, _ in record["files"])
        samples = (one for one in shard_format(record["format"]).read(source, original) if isinstance(one, Sample))
        originals = Originals(samples, lookout, recognizer)
        by_rows = _kept_rows(record) if record["format"] == "parquet" else []
        gate.check(originals, shard_format(record["format"]).read(target, Shard(name, record["format"], files)), by_rows)
    except DiffPrivError as error:
        report.findings.append(Finding("not checked", name, detail=str(error)))
    except Exception as error:  # the class only: a message could quote pixels. Not looked at is not clean
        report.findings.append(Finding("not checked", name, detail=f"looking at it failed ({type(error).__name__})"))
    report.findings += gate.result.findings
    report.counts.update(gate.result.counts)
    for which, value in gate.result.highest.items():
        report.highest_similarity[which] = max(value, report.highest_similarity.get(which, -1.0))


def _kept_rows(record: dict[str, Any]) -> list[str]:
    """Keys, in the source, of the rows that were published: those of quarantined rows are missing between them."""
    dropped = set(record["quarantined"])
    return [f"{row:09d}" for row in range(record["counts"]["samples_in"]) if row not in dropped]
