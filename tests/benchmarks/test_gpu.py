"""The GPU benchmark's code runs here too, on small shapes; and without a CUDA device it says so."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "benchmarks.gpu", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_small_shapes_go_through_on_the_cpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    done = run(
        *("--device", "cpu", "--tiny", "--profiles", "sd15", "--presets", "fast", "--batches", "1", "2", "--rounds", "1"),
        *("--json", str(out)),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "random weights" in done.stdout
    (rows,) = json.loads(out.read_text())["profiles"].values()
    assert [row["batch"] for row in rows] == [1, 2]
    assert rows[0]["unet_evaluations"] == rows[1]["unet_evaluations"] > 5
    # What a batch costs once (its empty surroundings) is shared by its faces.
    assert rows[0]["tflop_per_face"] == pytest.approx(rows[1]["tflop_per_face"], rel=0.05)


def test_without_a_cuda_device_it_says_so() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    done = run()
    assert (done.returncode, "no CUDA device" in done.stdout) == (2, True)
