"""The Ray that a job runs on: started or joined, told how large blocks may be, and checked to hold all actors at once."""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any

from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.errors import JobError, MisuseError

READ_CPUS = 0.5  # reading waits for storage more than it computes
SMALLEST_CLUSTER = 4  # logical CPUs; with fewer, two actor pools and a reader starve each other without a word
BLOCK_BYTES = 4 << 20  # what a stage hands on at a time: a shard of large photos keeps several actors busy
ACTOR_MEMORY = 1.5 * 2**30  # bytes that an actor with the method's models may come to need
ACTOR_WORK = 4 << 20  # encoded bytes below which another actor takes longer to start than it saves


@contextlib.contextmanager
def cluster(config: JobConfig) -> Iterator[None]:
    """The Ray that is there, or one of our own for the length of the job; quiet either way."""
    import ray
    import ray.data

    # `max_restarts` has no parameter of its own yet; Ray warns about the only way to give it.
    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
    # A dataset of one small block needs one actor, and which blocks come is not known before the pool is made.
    warnings.filterwarnings("ignore", message="The minimum number of concurrent actors")
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    ours = not ray.is_initialized()
    if ours:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        local = not os.environ.get("RAY_ADDRESS")
        size: dict[str, Any] = {}
        if local:
            # "local": else Ray would join whatever another program started on this machine, or fail at what it left behind.
            size = {
                "address": "local",
                "num_cpus": max(SMALLEST_CLUSTER, os.cpu_count() or 1),
                "include_dashboard": False,
            }
        try:
            ray.init(logging_level=logging.ERROR, log_to_driver=False, configure_logging=True, **size)
        except Exception as error:  # it has no class of its own: timeouts, ports, an address that does not answer
            raise JobError(
                f"Ray could not be started: {type(error).__name__}: {str(error).strip()[:300]}",
                advice="A machine under heavy load may be too slow for it; run the job again.",
            ) from error
    try:
        _check_resources(config)
        context = ray.data.DataContext.get_current()
        saved = {
            name: getattr(context, name) for name in ("enable_progress_bars", "target_max_block_size", "max_errored_blocks")
        }
        context.enable_progress_bars = False
        context.target_max_block_size = BLOCK_BYTES
        context.max_errored_blocks = 0
        try:
            yield
        finally:
            for name, value in saved.items():
                setattr(context, name, value)
    finally:
        if ours:
            ray.shutdown()


def pool_size(actors: int, cpus: float, gpus: float, others: float, work: int) -> int:
    """How many actors a pool has: what the job says, or for 0 what the Ray that is there has room for, at least one.

    Args:
        cpus, gpus: logical ones for each actor. others: logical CPUs that everything else in the job takes.
        work: encoded bytes that wait; few bytes need few actors.
    """
    import ray

    if actors:
        return actors
    there = ray.cluster_resources()
    room = [work / ACTOR_WORK, there.get("memory", ACTOR_MEMORY) / ACTOR_MEMORY]
    room.append(there.get("GPU", 0) / gpus if gpus else (there.get("CPU", 1) - others) / max(cpus, 0.01))
    if len(ray.nodes()) == 1 and not gpus:
        room.append(os.cpu_count() or 1)  # a cluster of our own has more logical CPUs than a small machine has cores
    return max(1, int(min(room)))


def _check_resources(config: JobConfig) -> None:
    """Two pools that do not fit beside a reader wait for each other for ever, without an error."""
    import ray

    there = ray.cluster_resources()
    workers = config.workers
    cpus = (
        max(workers.detect_actors, 1) * workers.detect_cpus + max(workers.protect_actors, 1) * workers.protect_cpus + READ_CPUS
    )
    gpus = max(workers.detect_actors, 1) * workers.detect_gpus + max(workers.protect_actors, 1) * workers.protect_gpus
    for what, needed, have in (("CPU", cpus, there.get("CPU", 0)), ("GPU", gpus, there.get("GPU", 0))):
        if needed > have:
            raise MisuseError(
                f"the actors need {needed:g} logical {what}s, and Ray has {have:g}.",
                advice=f"Lower the number of actors or their share of {what}s, or give Ray more.",
            )
