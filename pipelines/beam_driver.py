"""The job as a Beam pipeline: the same workers, the same commit protocol, the same bytes as under Ray.

    shards -> read -> detect -> protect -> group by shard -> assemble        (in workers)
    prepared shards -> commit                                               (in this process, after the pipeline)

Nothing is published before the pipeline ends: Beam gives the driver no results until then. What was prepared by then is in
staging, so a killed run's complete shards are still rolled forward by the next.

Beam is imported here and in `beam_transform`, and nowhere else.
"""

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, replace
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from keys.audit.checkpoint import NoteKey
from keys.audit.events import AuditEvent
from keys.audit.ledger import Ledger
from keys.audit.log import AuditLog
from keys.errors import DiffPrivError, KeyFileError, StorageError
from keys.keyfile import KeyFile
from keys.sources import RandomKeySource
from keys.store import KeyStore, encode_name
from pipelines.assemble import ShardJob, assemble_shard
from pipelines.audit_join import AuditSide, Finding, KeySide, OutputSide, join_shard
from pipelines.config import JobConfig
from pipelines.errors import JobError, ShardError
from pipelines.formats import Shard, data_digest
from pipelines.job import Job, Progress, open_job
from pipelines.published import records
from pipelines.report import RunReport
from pipelines.samples import DetectedSample, QuarantinedSample, Sample, ShardEnd
from pipelines.staging import STAGING, SampleResult
from pipelines.storage import Folder
from pipelines.tracker import ShardTracker
from pipelines.workers import DetectWorker, KeySourceFactory, ProtectWorker, WorkerSettings, identities, read_shard

# Not "DirectRunner": that first looks for a Prism binary to download.
DEFAULT_OPTIONS = ("--runner=FnApiRunner",)


def run(
    config: JobConfig,
    *,
    key_source: KeySourceFactory = RandomKeySource,
    log_key: NoteKey | None = None,
    progress: Callable[[Progress], None] | None = None,
    options: Iterable[str] = DEFAULT_OPTIONS,
) -> RunReport:
    """Protect a dataset; arguments and errors as in `ray_driver.run`.

    Args:
        options: Beam's own, such as --runner=FlinkRunner. Workers elsewhere must see SRC, DST and the recipients' files.
    """
    with open_job(config, log_key) as job:
        if job.pending:
            job.begin()
            with _engine_errors(job), beam.Pipeline(options=PipelineOptions([*options])) as pipeline:
                _build(pipeline, job, key_source)
            _commit_all(job, progress)
        report = job.finish()
        if progress is not None:
            progress(job.progress())
        return report


def audit_join(dst: str, keys: str | None, log: AuditLog, *, options: Iterable[str] = DEFAULT_OPTIONS) -> list[Finding]:
    """Join outputs, key files and audit log of one DST; an empty list means that all three fit together.

    Key files of other datasets in the same store are left alone. The log's own integrity is `AuditLog.verify`'s business.
    """
    datasets = {record["dataset"] for record in records(dst)}
    store = KeyStore(keys) if keys else None
    key_files = [one for one in store.list() if one[0] in datasets] if store else []
    with tempfile.TemporaryDirectory() as folder:
        place = f"{folder}/findings"
        with beam.Pipeline(options=PipelineOptions([*options])) as pipeline:
            sides = {
                "outputs": pipeline | "outputs" >> beam.Create(list(records(dst))) | "measure" >> beam.Map(_output_side, dst),
                "keys": pipeline | "key files" >> beam.Create(key_files) | "parse" >> beam.Map(_key_side, keys),
                "audits": pipeline | "audit" >> beam.Create([one for one in _audit_sides(log) if one[0][0] in datasets]),
            }
            _ = (
                sides
                | "join" >> beam.CoGroupByKey()
                | "compare" >> beam.FlatMap(_compare)
                | "as text" >> beam.Map(lambda finding: json.dumps(astuple(finding)))
                | "write" >> beam.io.WriteToText(place, shard_name_template="")
            )
        with open(place, encoding="utf-8") as lines:
            return sorted(Finding(*json.loads(line)) for line in lines)


def _compare(joined: tuple[tuple[str, str], dict[str, Iterable[Any]]]) -> list[Finding]:
    shard, sides = joined
    return join_shard(shard, list(sides["outputs"]), list(sides["keys"]), list(sides["audits"]))


def _output_side(record: dict[str, Any], dst: str) -> tuple[tuple[str, str], OutputSide]:
    folder = Folder(dst)
    digest = data_digest(record["format"], [(name, folder.sha256(name)) for name, _, _ in record["files"]])
    faces = tuple((sample, index) for sample, index, _, _, recoverable in record["faces"] if recoverable)
    return (record["dataset"], record["shard"]), OutputSide(digest, faces, record["key_file"] is not None)


def _key_side(shard: tuple[str, str], keys: str) -> tuple[tuple[str, str], KeySide]:
    data = KeyStore(keys).get(*shard)
    digest = hashlib.sha256(data).hexdigest()
    try:
        return shard, KeySide(digest, tuple(KeyFile.parse(data, dataset=shard[0], shard=shard[1]).faces()))
    except KeyFileError as error:
        return shard, KeySide(digest, (), str(error))


def _audit_sides(log: AuditLog) -> list[tuple[tuple[str, str], AuditSide]]:
    """One pass over the log; a shard that was redone counts by its last commit, its key file by the last change."""
    ledger = Ledger()
    runs: dict[tuple[str, str], list[str]] = {}
    for index, entry in log.entries():
        ledger.take(index, entry)
        if entry.endswith(b'"kind":"shard committed"}'):
            facts = AuditEvent.decode(entry, where=f"entry {index}").facts
            runs.setdefault((facts["dataset"], facts["shard"]), []).append(facts["run"])
    return [
        (shard, AuditSide(state.data_sha256, state.key_file.hex() if state.key_file else None, tuple(runs[shard])))
        for shard, state in ledger.shards.items()
    ]


def _build(pipeline: beam.Pipeline, job: Job, key_source: KeySourceFactory) -> None:
    settings = job.worker_settings()
    workers = job.config.workers
    shards = [(shard, job.shard_job(shard)) for shard in job.pending]
    _ = (
        pipeline
        | "shards" >> beam.Create([shard for shard, _ in shards])
        | "spread" >> beam.Reshuffle()
        | "read" >> beam.FlatMap(_read, settings)
        | "detect in batches" >> beam.BatchElements(workers.detect_batch, workers.detect_batch)
        | "detect" >> beam.ParDo(_Detect(settings))
        | "protect in batches" >> beam.BatchElements(workers.protect_batch, workers.protect_batch)
        | "protect" >> beam.ParDo(_Protect(settings, key_source))
        | "by shard" >> beam.GroupByKey()
        | "assemble" >> beam.Map(_assemble, {shard.name: shard_job for shard, shard_job in shards}, settings)
    )


def _read(shard: Shard, settings: WorkerSettings) -> Iterator[Any]:
    for block in read_shard(settings, shard):
        yield from block


class _Detect(beam.DoFn):
    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings

    def setup(self) -> None:
        with _telling(self._settings):
            self._worker = DetectWorker(self._settings)

    def process(self, batch: list[Any]) -> Iterator[Any]:
        with _telling(self._settings):
            yield from self._worker.detect([record for record in batch if isinstance(record, Sample)])
        yield from (record for record in batch if not isinstance(record, Sample))


class _Protect(beam.DoFn):
    def __init__(self, settings: WorkerSettings, key_source: KeySourceFactory) -> None:
        self._settings, self._key_source = settings, key_source

    def setup(self) -> None:
        with _telling(self._settings):
            self._worker = ProtectWorker(self._settings, self._key_source)

    def process(self, batch: list[Any]) -> Iterator[tuple[str, Any]]:
        with _telling(self._settings):
            results = self._worker.protect([record for record in batch if isinstance(record, DetectedSample)])
        yield from ((result.shard, result) for result in results)
        for record in batch:
            if not isinstance(record, DetectedSample):
                yield record.shard, record


def _assemble(
    grouped: tuple[str, Iterable[SampleResult | QuarantinedSample | ShardEnd]],
    shard_jobs: dict[str, ShardJob],
    settings: WorkerSettings,
) -> None:
    """Prepare one shard; the outcome is left in staging for the driver, since runners elsewhere return nothing."""
    shard, records = grouped
    tracker = ShardTracker()
    complete = None
    for record in records:
        complete = tracker.add(record) or complete
    prepared, problem = "", "its samples came back in part."
    if complete is not None:
        end, results = complete
        problem = end.problem
        if not problem:
            job = shard_jobs[shard]
            made_by = {**identities(Folder(settings.config.dst), settings.run_id), **job.made_by}
            try:
                with _telling(settings, but=ShardError):
                    prepared = assemble_shard(replace(job, made_by=made_by, sidecars=end.sidecars), results)
            except ShardError as error:
                problem = str(error)
    outcome = json.dumps({"shard": shard, "prepared": prepared, "problem": problem}).encode()
    Folder(settings.config.dst).small.write(f"{_outcomes(settings.run_id)}/{encode_name(shard)}.json", outcome)


def _commit_all(job: Job, progress: Callable[[Progress], None] | None) -> None:
    """Commit what the workers prepared, in shard order."""
    outcomes = {}
    for name in job.target.names(_outcomes(job.run_id)):
        outcome = json.loads(job.target.small.read(name))
        outcomes[outcome["shard"]] = outcome
    missing = [shard.name for shard in job.pending if shard.name not in outcomes]
    if missing:
        raise JobError(f"{len(missing)} shards did not come back, such as {missing[0]}.")
    for shard, outcome in sorted(outcomes.items()):
        if outcome["problem"]:
            job.fail(shard, outcome["problem"])
        else:
            job.commit(outcome["prepared"])
        if progress is not None:
            progress(job.progress())


def _outcomes(run_id: str) -> str:
    return f"{STAGING}/{run_id}/outcomes"


def _stop_file(run_id: str) -> str:
    return f"{STAGING}/{run_id}/stop.json"


@contextlib.contextmanager
def _telling(settings: WorkerSettings, but: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Leave an error of ours where the driver finds it: Beam hands on its text only."""
    try:
        yield
    except but:
        raise
    except DiffPrivError as error:
        stop = json.dumps({"message": str(error), "kind": type(error).__name__}).encode()
        with contextlib.suppress(StorageError):  # the disk may be what failed
            Folder(settings.config.dst).small.write(_stop_file(settings.run_id), stop)
        raise


@contextlib.contextmanager
def _engine_errors(job: Job) -> Iterator[None]:
    """Whatever class a runner wraps a worker's exception in, as ours."""
    try:
        yield
    except DiffPrivError:
        raise
    except Exception as error:
        written = job.target.small.read_if_there(_stop_file(job.run_id))
        if written is not None:
            stop = json.loads(written)
            raise (StorageError if stop["kind"] == "StorageError" else JobError)(stop["message"]) from error
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise JobError(f"Beam failed: {lines[-1][:500]}") from error
