"""What the builtin models cost to have: time to load them, and memory to protect one face on the CPU.

`python -m benchmarks.footprint` prints JSON. Every measurement is a process of its own, so that nothing is loaded before; one
run first warms the page cache, and times are the least of --repeats. "load" is all models of the builtin profile (detector,
autoencoder, UNet, MSI, recogniser) once Python's modules are imported; "process" is all that a fresh process spends until the
models are ready. CPU seconds beside wall seconds tell waiting from work on a busy machine.
"""

import argparse
import json
import subprocess
import sys

LOAD = """
import json, time
started, busy = time.perf_counter(), time.process_time()
import torch
torch.set_num_threads({threads})
from diffpriv.config import TransformConfig
from diffpriv.transforms import load_transform
import diffpriv.transforms.diffprivacy, diffpriv.detectors.centerface
imported, imported_busy = time.perf_counter(), time.process_time()
transform = load_transform(TransformConfig(model={model!r}, preset={preset!r}))
loaded, loaded_busy = time.perf_counter(), time.process_time()
"""
REPORT_LOAD = """
parts = {"import": [imported - started, imported_busy - busy], "load": [loaded - imported, loaded_busy - imported_busy]}
print(json.dumps(parts | {"process": [loaded - started, loaded_busy]}))
"""
PROTECT = """
import resource
import numpy as np
from diffpriv.detectors import load_detector
from diffpriv.transforms import FaceRequest
from skimage import data
after_load = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
picture = np.ascontiguousarray(data.astronaut())
face = load_detector("centerface").detect([picture])[0][0]
(result,) = transform.protect([FaceRequest(picture, face, b"benchmarks.footprint".ljust(32, b"."))])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"status": result.status, "peak_rss_mb": peak / 1024, "peak_rss_after_load_mb": after_load / 1024}))
"""


def run(code: str) -> dict:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--preset", default="quality")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    load = LOAD.format(threads=arguments.threads, model=arguments.model, preset=arguments.preset)
    memory = run(load + PROTECT)  # warms the page cache too
    times = [run(load + REPORT_LOAD) for _ in range(arguments.repeats)]
    report: dict = {}
    for name in ("import", "load", "process"):
        wall, busy = (min(one[name][kind] for one in times) for kind in (0, 1))
        report |= {f"{name}_s": round(wall, 2), f"{name}_cpu_s": round(busy, 2)}
    report |= {name: round(value) if isinstance(value, float) else value for name, value in memory.items()}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
