"""The job as a Beam pipeline: the same workers, the same commit protocol, the same bytes as under Ray.

    shards -> read -> detect -> protect -> group by shard -> assemble        (in workers)
    prepared shards -> commit                                               (in this process, after the pipeline)

Nothing is published before the pipeline ends: Beam gives the driver no results until then. What was prepared by then is in
staging, so a killed run's complete shards are still rolled forward by the next.

Beam is imported here, in `rows.beam_transform` and in `audit_join.collect`, and nowhere else.
"""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from diffpriv.keys.errors import DiffPrivError, StorageError
from diffpriv.keys.notes import NoteKey
from diffpriv.keys.sources import RandomKeySource
from diffpriv.keys.store import encode_name
from diffpriv.pipelines import layout
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.destination.assemble import assemble_shard
from diffpriv.pipelines.destination.worker_deaths import RememberedSuspects
from diffpriv.pipelines.errors import JobError, ShardError
from diffpriv.pipelines.formats.base import Shard
from diffpriv.pipelines.records.results import SampleResult
from diffpriv.pipelines.records.samples import DetectedSample, QuarantinedSample, Sample, ShardEnd, Stop
from diffpriv.pipelines.run.job import Job, Progress, open_job
from diffpriv.pipelines.run.report import RunReport
from diffpriv.pipelines.run.tracker import ShardTracker
from diffpriv.pipelines.run.worker import DetectWorker, ProtectWorker, read_shard
from diffpriv.pipelines.run_context import RunContext
from diffpriv.pipelines.steps.transformer import KeySourceFactory

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
    with open_job(config, log_key, RememberedSuspects()) as job:
        if job.pending:
            job.begin()
            with _engine_errors(job), beam.Pipeline(options=PipelineOptions([*options])) as pipeline:
                _build(pipeline, job, key_source)
            _commit_all(job, progress)
        report = job.finish()
        if progress is not None:
            progress(job.progress())
        return report


def _build(pipeline: beam.Pipeline, job: Job, key_source: KeySourceFactory) -> None:
    context, workers = job.context, job.config.workers
    _ = (
        pipeline
        | "shards" >> beam.Create(job.pending)
        | "spread" >> beam.Reshuffle()
        | "read" >> beam.FlatMap(_read, context)
        | "detect in batches" >> beam.BatchElements(workers.detect_batch, workers.detect_batch)
        | "detect" >> beam.ParDo(_Detect(context))
        | "protect in batches" >> beam.BatchElements(workers.protect_batch, workers.protect_batch)
        | "protect" >> beam.ParDo(_Protect(context, key_source))
        | "by shard" >> beam.GroupByKey()
        | "assemble" >> beam.Map(_assemble, {shard.name: shard for shard in job.pending}, context)
    )


def _read(shard: Shard, context: RunContext) -> Iterator[Any]:
    for block in read_shard(context, shard):
        yield from block


class _Detect(beam.DoFn):
    def __init__(self, context: RunContext) -> None:
        self._context = context

    def setup(self) -> None:
        with _telling(self._context):
            self._worker = DetectWorker(self._context)

    def process(self, batch: list[Any]) -> Iterator[Any]:
        with _telling(self._context):
            yield from self._worker.detect([record for record in batch if isinstance(record, Sample)])
        yield from (record for record in batch if not isinstance(record, Sample))


class _Protect(beam.DoFn):
    def __init__(self, context: RunContext, key_source: KeySourceFactory) -> None:
        self._context, self._key_source = context, key_source

    def setup(self) -> None:
        with _telling(self._context):
            self._worker = ProtectWorker(self._context, self._key_source)

    def process(self, batch: list[Any]) -> Iterator[tuple[str, Any]]:
        with _telling(self._context):
            results = self._worker.protect([record for record in batch if isinstance(record, DetectedSample)])
        yield from ((result.shard, result) for result in results)
        for record in batch:
            if not isinstance(record, DetectedSample):
                yield record.shard, record


def _assemble(
    grouped: tuple[str, Iterable[SampleResult | QuarantinedSample | ShardEnd]], shards: dict[str, Shard], context: RunContext
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
            try:
                with _telling(context, but=ShardError):
                    prepared = assemble_shard(context, shards[shard], results, end)
            except ShardError as error:
                problem = str(error)
    outcome = json.dumps({"shard": shard, "prepared": prepared, "problem": problem}).encode()
    context.target.small.write(f"{layout.outcomes(context.run_id)}/{encode_name(shard)}.json", outcome)


def _commit_all(job: Job, progress: Callable[[Progress], None] | None) -> None:
    """Commit what the workers prepared, in shard order."""
    outcomes = {}
    for name in job.target.names(layout.outcomes(job.run_id)):
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


@contextlib.contextmanager
def _telling(context: RunContext, but: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Leave an error of ours where the driver finds it: Beam hands on its text only."""
    try:
        yield
    except but:
        raise
    except DiffPrivError as error:
        stop = json.dumps(asdict(Stop.because_of(error))).encode()
        with contextlib.suppress(StorageError):  # the disk may be what failed
            context.target.small.write(layout.stop_note(context.run_id), stop)
        raise


@contextlib.contextmanager
def _engine_errors(job: Job) -> Iterator[None]:
    """Whatever class a runner wraps a worker's exception in, as ours."""
    try:
        yield
    except DiffPrivError:
        raise
    except Exception as error:
        written = job.target.small.read_if_there(layout.stop_note(job.run_id))
        if written is not None:
            raise Stop(**json.loads(written)).error from error
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise JobError(f"Beam failed: {lines[-1][:500]}") from error
