"""What a figure was measured on: versions, processor, threads, load, seed. Goes into every benchmark's JSON."""

import importlib.metadata
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "diffusers", "ray", "onnxruntime", "numpy", "opencv-python-headless", "pillow", "pyarrow")


def environment(seed: int | None = None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "cores allowed": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
    }
    if "torch" in sys.modules:
        facts["torch threads"] = sys.modules["torch"].get_num_threads()
    return facts if seed is None else facts | {"seed": seed}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") if Path("/proc/cpuinfo").exists() else open(os.devnull) as lines:
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
