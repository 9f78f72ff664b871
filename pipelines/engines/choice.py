"""A job on the engine that it names. Each is imported when it is chosen."""

import logging
from collections.abc import Callable

from diffpriv.keys.notes import NoteKey
from diffpriv.keys.sources import RandomKeySource
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.errors import MisuseError
from diffpriv.pipelines.run.job import Progress
from diffpriv.pipelines.run.report import RunReport
from diffpriv.pipelines.steps.transformer import KeySourceFactory


def run(
    config: JobConfig,
    *,
    key_source: KeySourceFactory = RandomKeySource,
    log_key: NoteKey | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> RunReport:
    """Protect a dataset. Running it again finishes an interrupted job and skips what is done.

    Args:
        config: what, where to, and how.
        key_source: makes the source of face keys inside each worker; for tests and replays. It is pickled: it holds no secret.
        log_key: signs the audit log; without it the run's segments wait for a later `diffpriv audit integrate`.
        progress: called in this process after every committed or failed shard.
    Raises:
        MisuseError: the job cannot be as it stands, or its engine is not installed.
        LeaseError: another run holds DST.
        StorageError: a store refused in the middle (disk full, key store gone); run again when it is well.
        JobError: the engine failed, or the counts do not add up.
    """
    if config.engine == "ray":
        from diffpriv.pipelines.engines import ray_driver

        return ray_driver.run(config, key_source=key_source, log_key=log_key, progress=progress)
    logging.disable(logging.WARNING)  # Beam says at import which of Google's clients it lacks
    try:
        from diffpriv.pipelines.engines import beam_driver
    except ImportError as error:
        raise MisuseError(f"the Beam engine is not installed: {error}.", advice='pip install "diffpriv[beam]"') from error
    finally:
        logging.disable(logging.NOTSET)
    return beam_driver.run(config, key_source=key_source, log_key=log_key, progress=progress)
