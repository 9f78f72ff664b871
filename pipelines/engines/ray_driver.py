"""The job on Ray Data: read tasks -> detect actors -> protect actors -> the driver, which commits shard by shard.

Pictures travel between stages as encoded bytes; the driver sees small results only. Errors of a sample or shard come back as
records; an error that Ray raises is the engine's or a dead worker's. After a death the driver looks for the sample that did it
(workers leave a note of what they hold), quarantines it, and goes on with what is not committed yet.

Nothing but this file and `ray_cluster` imports Ray.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

from diffpriv.keys.errors import DiffPrivError
from diffpriv.keys.notes import NoteKey
from diffpriv.keys.sources import RandomKeySource
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.destination.assemble import assemble_shard
from diffpriv.pipelines.destination.worker_deaths import take_notes
from diffpriv.pipelines.engines.ray_cluster import READ_CPUS, cluster, pool_size
from diffpriv.pipelines.errors import JobError, ShardError
from diffpriv.pipelines.formats.base import Shard
from diffpriv.pipelines.records.arrow import from_table, to_table
from diffpriv.pipelines.records.results import SampleResult
from diffpriv.pipelines.records.samples import DetectedSample, Sample, ShardEnd, Stop
from diffpriv.pipelines.run.job import Carried, Job, Progress, open_job
from diffpriv.pipelines.run.report import RunReport
from diffpriv.pipelines.run.tracker import ShardTracker
from diffpriv.pipelines.run.worker import DetectWorker, ProtectWorker, read_shard
from diffpriv.pipelines.run_context import Place, RunContext
from diffpriv.pipelines.steps.transformer import KeySourceFactory
from diffpriv.pipelines.storage import FileFacts

if TYPE_CHECKING:
    import pyarrow

ASSEMBLING_AT_ONCE = 4
COMMITTING_AT_ONCE = 8
ROUNDS_WITHOUT_PROGRESS = 3
TRIALS = 2  # that a sample must not survive: one may have died with its node


def run(
    config: JobConfig,
    *,
    key_source: KeySourceFactory = RandomKeySource,
    log_key: NoteKey | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> RunReport:
    """Protect a dataset.

    Args:
        key_source: makes the source of face keys inside each protecting worker. It is pickled, so it must hold no secret: a
            class, or a partial over a path.
        log_key: see `job.open_job`.
        progress: called in this process after every committed or failed shard.
    Raises:
        MisuseError, LeaseError: before anything was written.
        StorageError: a store refused in the middle (disk full, key store gone); rerun when it is well again.
        JobError: the engine failed, or the counts do not add up.
    """
    with open_job(config, log_key) as job:
        if job.pending:
            job.begin()
            with cluster(config):
                _run_rounds(job, key_source, progress)
        report = job.finish()
        if progress is not None:
            progress(job.progress())
        return report


def _run_rounds(job: Job, key_source: KeySourceFactory, progress: Callable[[Progress], None] | None) -> None:
    """Run the pipeline over what is pending until nothing is; again after each death of workers, while that leads anywhere."""
    fruitless = 0
    while pending := job.unfinished:
        try:
            _Round(job, pending, key_source, progress).run()
            return
        except _WorkersDied as death:
            found = _find_poison(job, key_source)
            fruitless = 0 if found or len(job.unfinished) < len(pending) else fruitless + 1
            job.suspects.condemn(found)
            if fruitless >= ROUNDS_WITHOUT_PROGRESS:
                raise JobError(
                    f"workers died {fruitless} times without a sample to blame: {death}",
                    advice="They may be short of memory: lower batch sizes or the number of actors, then run the job again.",
                ) from None


class _WorkersDied(Exception):
    """Ray gave up on a worker process."""


class _Round:
    """One pass of the pipeline over the pending shards."""

    def __init__(
        self,
        job: Job,
        pending: list[Shard],
        key_source: KeySourceFactory,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._job, self._key_source, self._progress = job, key_source, progress
        self._context = job.context
        self._shards = {shard.name: shard for shard in pending}
        self._tracker = ShardTracker()
        self._waiting: list[tuple[ShardEnd, list[SampleResult]]] = []
        self._assembling: dict[Any, str] = {}  # future -> shard
        self._committing: set[Future[Carried]] = set()
        self._threads = ThreadPoolExecutor(COMMITTING_AT_ONCE, "diffpriv-commit")

    def run(self) -> None:
        with self._threads, _engine_errors():
            try:
                self._stream()
            finally:  # also where workers died: what is committed is not to be done again
                self._note_commits(wait=True)
        if self._tracker.incomplete:
            raise JobError(f"{len(self._tracker.incomplete)} shards came back in part, such as {self._tracker.incomplete[0]}.")

    def _stream(self) -> None:
        for batch in self._dataset().iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
            for record in from_table(batch):
                self._take(record)
            self._advance(wait=False)
            while len(self._waiting) > ASSEMBLING_AT_ONCE:  # else results pile up where writing is slower than faces
                self._advance(wait=True)
        while self._waiting or self._assembling:
            self._advance(wait=True)

    def _dataset(self) -> Any:
        import ray.data

        workers, context = self._job.config.workers, self._context
        rows = [{"shard": json.dumps(asdict(shard))} for shard in self._shards.values()]
        common: dict[str, Any] = {"batch_format": "pyarrow", "zero_copy_batch": True}
        death: dict[str, Any] = {"max_restarts": workers.restarts, "max_task_retries": workers.restarts}
        work = sum(facts.size for shard in self._shards.values() for facts in shard.files)
        beside = READ_CPUS + workers.protect_cpus
        detectors = pool_size(workers.detect_actors, workers.detect_cpus, workers.detect_gpus, beside, work)
        beside = READ_CPUS + detectors * workers.detect_cpus
        protectors = pool_size(workers.protect_actors, workers.protect_cpus, workers.protect_gpus, beside, work)
        return (
            ray.data.from_items(rows, override_num_blocks=min(len(rows), 1000))
            .map_batches(cast(Any, _read), fn_args=[context], batch_size=1, num_cpus=READ_CPUS, **common)
            .map_batches(
                _Detect,
                fn_constructor_args=[context],
                batch_size=workers.detect_batch,
                compute=ray.data.ActorPoolStrategy(size=detectors),
                num_cpus=workers.detect_cpus,
                num_gpus=workers.detect_gpus,
                **common,
                **death,
            )
            .map_batches(
                _Protect,
                fn_constructor_args=[context, self._key_source],
                batch_size=workers.protect_batch,
                compute=ray.data.ActorPoolStrategy(size=protectors),
                num_cpus=workers.protect_cpus,
                num_gpus=workers.protect_gpus,
                **common,
                **death,
            )
        )

    def _take(self, record: Any) -> None:
        if isinstance(record, Stop):
            raise record.error
        complete = self._tracker.add(record)
        if complete is None:
            return
        end, results = complete
        if end.problem:
            self._job.fail(end.shard, end.problem)
            self._report()
        else:
            self._waiting.append((end, results))

    def _advance(self, *, wait: bool) -> None:
        """Start assembling what is complete, a few shards at a time, and commit what is assembled."""
        import ray

        assemble = ray.remote(num_cpus=0, max_retries=1)(_assemble)
        while self._waiting and len(self._assembling) < ASSEMBLING_AT_ONCE:
            end, results = self._waiting.pop(0)
            self._assembling[assemble.remote(self._context, self._shards[end.shard], results, end)] = end.shard
        if not self._assembling:
            return
        done, _ = ray.wait(
            list(self._assembling), num_returns=1 if wait else len(self._assembling), timeout=None if wait else 0
        )
        for future in done:
            shard = self._assembling.pop(future)
            prepared, problem = ray.get(future)
            if problem:
                self._job.fail(shard, problem)
                self._report()
            else:
                self._committing.add(self._threads.submit(self._job.carry, prepared))
        self._note_commits(wait=len(self._committing) >= 2 * COMMITTING_AT_ONCE)

    def _note_commits(self, *, wait: bool) -> None:
        """Take in the commits that are through. A commit is a chain of small requests: in threads, several wait for a store."""
        done, self._committing = futures.wait(self._committing, timeout=None if wait else 0)
        for carried in done:
            self._job.note(carried.result())
            self._report()

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(self._job.progress())


def _read(table: "pyarrow.Table", context: RunContext) -> "Iterator[pyarrow.Table]":
    for row in table.to_pylist():
        values = json.loads(row["shard"])
        files = tuple(FileFacts(**facts) for facts in values["files"])
        shard = Shard(values["name"], values["format"], files, tuple(values["ignore"]))
        for block in read_shard(context, shard):
            yield to_table(block)


class _Stage:
    """One worker of a pool. An error of ours is returned, not raised: Ray would keep its text only."""

    make: Callable[..., Any]

    def __init__(self, *arguments: Any) -> None:
        self._problem: Stop | None = None
        try:
            self._worker = self.make(*arguments)
        except DiffPrivError as error:
            self._problem = Stop.because_of(error)

    def __call__(self, table: "pyarrow.Table") -> "pyarrow.Table":
        if self._problem is None:
            try:
                return to_table(self.work(from_table(table)))
            except DiffPrivError as error:
                self._problem = Stop.because_of(error)
        return to_table([self._problem])

    def work(self, records: list[Any]) -> list[Any]:
        raise NotImplementedError


class _Detect(_Stage):
    make = DetectWorker

    def work(self, records: list[Any]) -> list[Any]:
        samples = [record for record in records if isinstance(record, Sample)]
        return [*self._worker.detect(samples), *(record for record in records if not isinstance(record, Sample))]


class _Protect(_Stage):
    make = ProtectWorker

    def work(self, records: list[Any]) -> list[Any]:
        samples = [record for record in records if isinstance(record, DetectedSample)]
        return [*self._worker.protect(samples), *(record for record in records if not isinstance(record, DetectedSample))]


class _Trial:
    """Takes one sample through all stages in a process of its own, to see whether that process survives."""

    def __init__(self, context: RunContext, key_source: KeySourceFactory) -> None:
        self._context = context
        self._detect = DetectWorker(context)
        self._protect = ProtectWorker(context, key_source)  # the part it leaves is named by no result: debris

    def survives(self, shard: Shard, index: int) -> bool:
        for block in read_shard(self._context, shard):
            for record in block:
                if isinstance(record, Sample) and record.index == index:
                    detected = self._detect.detect([record])
                    self._protect.protect([one for one in detected if isinstance(one, DetectedSample)])
                    return True
        return True


def _find_poison(job: Job, key_source: KeySourceFactory) -> frozenset[Place]:
    """Which of the samples that dead workers were busy with kill a worker when they are alone with it."""
    import ray
    import ray.exceptions

    shards = {shard.name: shard for shard in job.pending}
    workers = job.config.workers
    trial_class: Any = ray.remote(num_cpus=workers.protect_cpus, num_gpus=workers.protect_gpus, max_restarts=0)(_Trial)
    trial: Any = None
    found = set()
    for shard, index in take_notes(job.target, job.run_id):
        if shard not in shards:
            continue
        for _ in range(TRIALS):
            trial = trial or trial_class.remote(job.context, key_source)
            try:
                ray.get(trial.survives.remote(shards[shard], index))
                break
            except (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError):
                trial = None  # the sample's doing, or its node's
        else:
            found.add((shard, index))
    if trial is not None:
        ray.kill(trial)
    take_notes(job.target, job.run_id)  # the trials' own notes
    return frozenset(found)


def _assemble(context: RunContext, shard: Shard, results: list[SampleResult], end: ShardEnd) -> tuple[str, str]:
    """(name of prepared.json, "") or ("", why this shard cannot be done). Other errors concern every shard and end the run."""
    try:
        return assemble_shard(context, shard, results, end), ""
    except ShardError as error:
        return "", str(error)


@contextlib.contextmanager
def _engine_errors() -> Iterator[None]:
    """Ray's exceptions as ours: a dead worker, an error of ours that a worker raised, or the engine's own failure."""
    import ray.exceptions

    try:
        yield
    except DiffPrivError as error:
        # One raised inside a worker is also a RayTaskError, whose text is a traceback: raise the plain one.
        cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else None
        if isinstance(cause, DiffPrivError):
            raise cause from None
        raise
    except _deaths() as error:
        raise _WorkersDied(type(error).__name__) from error
    except ray.exceptions.RayError as error:
        cause = _root_cause(error)
        if isinstance(cause, DiffPrivError):
            raise cause from None
        if isinstance(cause, _deaths()):
            raise _WorkersDied(type(cause).__name__) from error
        raise JobError(f"Ray failed: {type(cause).__name__}: {str(cause).strip().splitlines()[-1:]}") from error


def _deaths() -> tuple[type[BaseException], ...]:
    """What Ray raises when a worker or a node died, and when results died with a node and can't be made again."""
    from ray import exceptions

    workers = (exceptions.RayActorError, exceptions.WorkerCrashedError, exceptions.OutOfMemoryError)
    return (*workers, exceptions.NodeDiedError, exceptions.ObjectLostError)


def _root_cause(error: BaseException) -> BaseException:
    """Down through Ray's wrappers to what a worker raised."""
    seen = set()
    while id(error) not in seen:
        seen.add(id(error))
        error = getattr(error, "cause", None) or error.__cause__ or error
    return error
