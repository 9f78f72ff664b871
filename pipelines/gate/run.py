"""The gate over a whole dataset: every shard that SRC has, every file that DST holds."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import Any

from diffpriv.detectors import load_detector
from diffpriv.errors import DiffPrivError
from diffpriv.pipelines import layout
from diffpriv.pipelines.destination.published import measure_shard
from diffpriv.pipelines.destination.record import CommitRecord
from diffpriv.pipelines.errors import JobError, MisuseError, ShardError
from diffpriv.pipelines.formats.base import source_digest
from diffpriv.pipelines.formats.ignoring import IGNORED
from diffpriv.pipelines.formats.registry import shard_format
from diffpriv.pipelines.formats.source import open_source
from diffpriv.pipelines.gate.contents import FieldWitness
from diffpriv.pipelines.gate.findings import GateFinding, GateReport, GateSettings
from diffpriv.pipelines.gate.originals import Originals
from diffpriv.pipelines.gate.shard import ShardGate
from diffpriv.pipelines.records.samples import Sample
from diffpriv.pipelines.steps.lookout import Lookout
from diffpriv.pipelines.storage import Folder
from diffpriv.pipelines.threads import fix_threads
from diffpriv.recognizers import Recognizer, load_recognizer

LEAVE_NO_FACE = ("fill/", "blur/", "mosaic/")  # identities of transformations whose output is compared by region


def check_release(
    src: str,
    dst: str,
    settings: GateSettings,
    *,
    format: str = "auto",
    ignore: Sequence[str] = IGNORED,
    progress: Callable[[int, int], None] | None = None,
    processes: int = 1,
) -> GateReport:
    """Look at everything that is published in DST, against the originals in SRC. Writes nothing.

    Args:
        ignore: the job's patterns of names that are left out of SRC.
        progress: (shards done, shards).
        processes: how many look at shards at once; the answer does not depend on it.
    Raises:
        JobError: a process died.
        MisuseError: SRC or DST holds nothing, or a detector does not exist.
        DetectorError: a detector cannot be loaded.
    """
    fix_threads()
    source = open_source(src, format, ignore)
    published = _records(Folder(dst))
    if not published:
        raise MisuseError(f"{dst} holds no published shard.", advice='Run "diffpriv scrub SRC DST" without --gate-only.')
    report = GateReport(published[0].dataset, settings)
    covered = {name for record in published for name, _, _ in record.source_files}
    report.findings += [GateFinding("missing", name) for name in source.names if name not in covered]
    committed = {file.name for record in published for file in record.files}
    unexpected = [one for one in Folder(dst).names() if one not in committed and not layout.is_state(one)]
    report.findings += [GateFinding("added", name, detail="a file that no run committed") for name in unexpected]
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

    def at(self, record: CommitRecord, lookout: Lookout, recognizer: Recognizer | None) -> GateReport:
        answer = GateReport(self.dataset, self.settings)
        _check_shard(Folder(self.source_url), Folder(self.dst), record, answer, lookout, recognizer)
        return answer


def _in_processes(looks: _Looks, published: list[CommitRecord], processes: int) -> Iterator[GateReport]:
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


def _look(record: CommitRecord) -> GateReport:
    looks, lookout, recognizer = _LOADED[-1]
    return looks.at(record, lookout, recognizer)


def _records(target: Folder) -> list[CommitRecord]:
    """Commit records as they were written, also where files have changed since: those above all must be looked at."""
    found = []
    for name in target.names(layout.COMMITS):
        try:
            found.append(CommitRecord.decode(target.small.read(name)))
        except ShardError:
            raise MisuseError(f"{target.describe(name)} is damaged.", advice='Run "diffpriv scrub" again.') from None
    return sorted(found, key=lambda record: record.shard)


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
        report.findings.append(GateFinding("not checked", "", detail=f"similarity to the originals: {error}"))
        return None
    return recognizer


def _named(records: Iterator[Any], witness: FieldWitness, by_rows: list[str]) -> Iterator[Any]:
    """The records of a published shard, whose names are shown to the witness on the way; rows are numbers."""
    for record in records:
        if isinstance(record, Sample) and not by_rows:
            witness.name("samples", record.key)
            for picture in record.pictures:
                witness.name("members", picture.field)
        yield record


def _check_shard(
    source: Folder,
    target: Folder,
    record: CommitRecord,
    report: GateReport,
    lookout: Lookout,
    recognizer: Recognizer | None,
) -> None:
    name = record.shard
    report.counts["shards"] += 1
    made_by = str(record.made_by.get("transform", ""))
    report.tools["transform"] = made_by
    report.tools["detector"] = str(record.made_by.get("detector", ""))
    report.tools["pseudonym"] = str(record.made_by.get("pseudonym", "per face"))
    if recognizer is None and not report.settings.recognizer and not made_by.startswith(LEAVE_NO_FACE):
        detail = f"similarity to the originals: {made_by or 'its transformation'} leaves faces, and no recogniser was given"
        report.findings.append(GateFinding("not checked", name, detail=detail))
    if record.counts["faces_recoverable"]:
        report.findings.append(GateFinding("recoverable face", name, times=record.counts["faces_recoverable"]))
    left = record.counts.get("faces_left", 0)
    if left:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in record.reasons["left"].items())
        report.findings.append(GateFinding("face left on purpose", name, detail=reasons, times=left))
    gate = ShardGate(name, lookout, recognizer, report.settings)
    try:
        report.findings += [
            GateFinding("altered", name, detail=f"{file.name} is not what its run committed")
            for file in record.files
            if target.sha256(file.name) != file.sha256
        ]
        original, published = replace(record.original(source), ignore=()), record.published(target)
        reader = shard_format(record.format)
        if source_digest(source, original) != record.source_sha256:
            report.findings.append(GateFinding("altered", name, detail="the original is not the one this was made from"))
        originals = Originals((one for one in reader.read(source, original) if isinstance(one, Sample)), lookout, recognizer)
        by_rows = record.source_keys() if record.format == "parquet" else []
        witness = FieldWitness(lookout.sees_one)
        gate.check(originals, _named(reader.read(target, published, beside=witness), witness, by_rows), by_rows)
        gate.beside(witness)
        if reader.plain_digest(target, published) != measure_shard(target, record):
            gate.container("it holds more than its samples: headers, footers, metadata, or gaps between them")
    except DiffPrivError as error:
        report.findings.append(GateFinding("not checked", name, detail=str(error)))
    except Exception as error:  # the class only: a message could quote pixels. Not looked at is not clean
        report.findings.append(GateFinding("not checked", name, detail=f"looking at it failed ({type(error).__name__})"))
    report.findings += gate.result.findings
    report.counts.update(gate.result.counts)
    for which, value in gate.result.highest.items():
        report.highest_similarity[which] = max(value, report.highest_similarity.get(which, -1.0))
