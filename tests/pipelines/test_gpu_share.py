"""Each protecting actor gets its share of a GPU, shown with GPUs that Ray only counts."""

import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffpriv.keys.sources import RandomKeySource
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.engines.ray_driver import run
from diffpriv.pipelines.errors import MisuseError
from tests.pipelines.conftest import commit_records
from tests.pipelines.datasets import small_shards, write_shards

ACTORS = 2


def noting_source(folder: str) -> RandomKeySource:
    """Called once in each protecting actor: notes which devices it may see, and waits for the other actor.

    Without the wait the actor that starts first could do the whole shard, and Ray would end the other one unseen.
    """
    (Path(folder) / str(os.getpid())).write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "unset"))
    end = time.monotonic() + 120
    while len(list(Path(folder).iterdir())) < ACTORS and time.monotonic() < end:
        time.sleep(0.05)
    return RandomKeySource()


def main() -> None:
    import ray

    job, folder = sys.argv[1:]
    ray.init(address="local", num_cpus=4, num_gpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    run(JobConfig.model_validate_json(Path(job).read_text()), key_source=functools.partial(noting_source, folder))


def test_actors_see_the_devices_of_their_share(tmp_path: Path, config_for: Callable[..., JobConfig]) -> None:
    src = write_shards(tmp_path / "src", {"a.tar": small_shards()["shard-000.tar"]})
    config = config_for(src, workers={"protect_actors": ACTORS, "protect_gpus": 1, "detect_cpus": 0.5, "protect_cpus": 0.5})
    (tmp_path / "job.json").write_text(config.model_dump_json())
    (tmp_path / "seen").mkdir()
    command = [sys.executable, "-m", "tests.pipelines.test_gpu_share", str(tmp_path / "job.json"), str(tmp_path / "seen")]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "RAY_ADDRESS": ""})
    assert sorted(path.read_text() for path in (tmp_path / "seen").iterdir()) == ["0", "1"]
    assert commit_records(config.dst)["a.tar"]["made_by"]["device"] == "gpu"


def test_more_than_the_cluster_has_is_refused_instead_of_waiting_for_ever(
    tmp_path: Path, config_for: Callable[..., JobConfig], derived: Any, ray_session: None
) -> None:
    src = write_shards(tmp_path / "src", {"a.tar": small_shards()["shard-000.tar"]})
    with pytest.raises(MisuseError, match="logical GPUs, and Ray has"):
        run(config_for(src, workers={"protect_gpus": 64}), key_source=derived)
    with pytest.raises(MisuseError, match="logical CPUs, and Ray has"):
        run(config_for(src, "other", workers={"protect_actors": 500}), key_source=derived)


if __name__ == "__main__":
    main()


def test_a_job_starts_its_own_ray_beside_what_another_program_left(
    tmp_path: Path, config_for: Callable[..., JobConfig]
) -> None:
    job = tmp_path / "job.json"
    job.write_text(config_for(write_shards(tmp_path / "src", small_shards())).model_dump_json())
    program = (
        "import sys, pathlib, ray\n"
        "from diffpriv.pipelines.config import JobConfig\n"
        "from diffpriv.pipelines.engines.ray_cluster import cluster\n"
        "with cluster(JobConfig.model_validate_json(pathlib.Path(sys.argv[1]).read_text())):\n"
        "    print(len(ray.nodes()))\n"
    )
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # a socket's path has at most 107 characters
        left = Path(short) / "ray"
        left.mkdir()
        (left / "ray_current_cluster").write_text("127.0.0.1:9")
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {"RAY_TMPDIR": short}
        done = subprocess.run(
            [sys.executable, "-c", program, str(job)], check=False, capture_output=True, text=True, env=environment
        )
    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr[-2000:]
