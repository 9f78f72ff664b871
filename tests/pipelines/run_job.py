"""A driver process of its own, to be killed: python -m tests.pipelines.run_job JOB.json ROOT LOG_KEY"""

import functools
import json
import sys
from pathlib import Path

from keys.audit.checkpoint import NoteKey
from pipelines.config import JobConfig
from pipelines.ray_driver import run
from tests.pipelines.conftest import PASSPHRASE, derived_source


def main() -> None:
    job, root, log_key = sys.argv[1:]
    config = JobConfig.from_mapping(json.loads(Path(job).read_text()))
    run(config, key_source=functools.partial(derived_source, root), log_key=NoteKey.load(log_key, PASSPHRASE))


if __name__ == "__main__":
    main()
