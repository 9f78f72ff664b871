"""How close to the hardware the whole thing runs: every ratio from one run, printed as a table and written as JSON.

    make bench PHOTOS=DIR          or: python -m benchmarks.bench DIR [--work FOLDER] [--only a c …] [--json FILE]

DIR holds manifest.csv (file, faces_found, …) and JPEG photos. Parts:
    a  the bare model loop (crops in memory, stages 1 and 2) against this processor's measured peak of matrix products and
       convolutions in the same number format, by counted arithmetic
    b  the whole job on Ray, once warm, against the same work in a loop of one process (decode, detect, replace, encode) and
       against the bare model loop
    c  UNet evaluations and seconds per face of quality, fast and paper; and against the released code's 6,100 training steps
       (forward and backward: three evaluations each) and 170 evaluations per face
    d  detection and blur against the deface tool and an OpenCV loop (`benchmarks.baseline_blur`)
    e  which stage takes what share of that loop's time
    f  cost per sample and memory as the dataset grows (`benchmarks.growth`; here with small sizes)
    g  two protecting actors against one, one thread each
    h  faces per second of the whole job once warm, two protecting actors, tier none, for fast and quality
Everything computes on one thread per process. Ratios are by wall time; where another process shares the cores, the ones by CPU
time, printed beside them, say more. The folder WORK holds photos afterwards: keep it out of the repository.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.environment import environment
from diffpriv.pipelines.threads import fix_threads

RELEASED_TRAINING_STEPS, RELEASED_EVALUATIONS = 6100, 170
BARS = {
    "b whole job / loop": 0.9,
    "c released code / quality": 1000,
    "c released code / fast": 1000,
    "d images per CPU second / deface": 2.0,
    "g two actors / one": 1.7,
    "h faces per s, fast": 8.0,
    "h faces per s, quality": 2.0,
}


class Bench:
    """Args:
    photos: see the file's head. work: scratch. faces: about how many faces parts a to c, e, g and h look at.
    """

    def __init__(self, photos: Path, work: Path, faces: int, sizes: list[int], seed: int) -> None:
        self._photos, self._work, self._count, self._sizes, self._seed = photos, work, faces, sizes, seed
        self.result: dict[str, Any] = {"environment": environment(seed)}
        self.rows: list[tuple[str, float]] = []
        self._loop: dict[str, Any] = {}
        self._model_seconds = 0.0

    def run(self, parts: str) -> None:
        for part in parts:
            began = time.perf_counter()
            found = getattr(self, f"part_{part}")()
            self.result[part] = found | {"took_s": round(time.perf_counter() - began, 1)}

    def _ratio(self, name: str, value: float) -> None:
        self.rows.append((name, value))
        bar = BARS.get(name)
        print(f"{name:44s} {value:10.3f}" + (f"   bar {bar:g}{'' if value >= bar else '  MISSED'}" if bar else ""), flush=True)

    def part_a(self) -> dict[str, Any]:
        import torch

        from benchmarks.model_speed import measure_loop, peak_flops

        pipeline = _pipeline()
        device = torch.device("cpu")
        peaks = peak_flops(device, pipeline.arithmetic, 2048)
        found: dict[str, Any] = {"arithmetic": str(pipeline.arithmetic), "peak": peaks, "presets": {}}
        for name in ("quality", "fast"):
            loop = measure_loop(pipeline, _preset(name), _preset(name).micro_batch, noise_map=True)
            limit = max(peaks["matmul cpu"], peaks["conv cpu"]) / loop.flops
            found["presets"][name] = vars(loop) | {"faces_per_cpu_s": 1 / loop.cpu_seconds, "limit_faces_per_s": limit}
            self._ratio(f"a share of peak arithmetic, {name}", 1 / loop.cpu_seconds / limit)
            if name == "fast":
                self._model_seconds = loop.cpu_seconds
        return found

    def part_b(self) -> dict[str, Any]:
        loop, job = self._one_process(), self._marginal(1, "fast", "keys")
        self._ratio("b whole job / loop", job["faces_per_s"] / loop["faces_per_s"])
        self._ratio("b whole job / loop, by CPU time", job["faces_per_cpu_s"] / loop["faces_per_cpu_s"])
        if self._model_seconds:
            self._ratio("b whole job / bare model loop", job["faces_per_s"] * self._model_seconds)
            self._ratio("b whole job / bare model loop, by CPU time", job["faces_per_cpu_s"] * self._model_seconds)
        return {"loop": loop, "job": job}

    def part_c(self) -> dict[str, Any]:
        from benchmarks.model_speed import measure_loop

        pipeline = _pipeline()
        released = 3 * RELEASED_TRAINING_STEPS + RELEASED_EVALUATIONS
        loops = {
            name: measure_loop(pipeline, _preset(name), _preset(name).micro_batch, noise_map=True, rounds=1)
            for name in ("fast", "quality", "paper")
        }
        for name, loop in loops.items():
            print(f"c {name}: {loop.unet_evaluations:.0f} UNet evaluations, {loop.cpu_seconds:.2f} CPU s a face")
            self._ratio(f"c released code / {name}", released / loop.unet_evaluations)
        self._ratio("c paper / quality, CPU s a face", loops["paper"].cpu_seconds / loops["quality"].cpu_seconds)
        self._ratio("c paper / fast, CPU s a face", loops["paper"].cpu_seconds / loops["fast"].cpu_seconds)
        return {"released_evaluations": released, "presets": {name: vars(loop) for name, loop in loops.items()}}

    def part_d(self) -> dict[str, Any]:
        from benchmarks.baseline_blur import compare

        found = compare(self._photos, self._count, self._seed)
        for other in ("deface", "deface 1 thread", "opencv"):
            mine, theirs = found["diffpriv"], found[other]
            self._ratio(f"d images per s / {other}", mine["pictures_per_s"] / theirs["pictures_per_s"])
            self._ratio(f"d images per CPU second / {other}", theirs["cpu_s_per_picture"] / mine["cpu_s_per_picture"])
            self._ratio(f"d recall / {other}", mine["recall"] / max(1e-9, theirs["recall"]))
        return found

    def part_e(self) -> dict[str, Any]:
        stages = self._one_process()["stages"]
        total = sum(stages.values())
        for stage, seconds in stages.items():
            self._ratio(f"e share of {stage}", seconds / total)
        return {"cpu_s": stages}

    def part_f(self) -> dict[str, Any]:
        from benchmarks.growth import compare

        per_shard = max(10, min(self._sizes) // 8)
        found = compare(self._work / "growth", self._photos, self._sizes, seed=self._seed, per_shard=per_shard)
        self._ratio("f CPU of a further sample, last stretch / first", found["ratios"]["cpu per sample"])
        for role, ratio in found["ratios"]["memory"].items():
            self._ratio(f"f peak memory of the {role}", ratio)
        return found

    def part_g(self) -> dict[str, Any]:
        runs = {actors: self._marginal(actors, "fast", "keys") for actors in (1, 2)}
        self._ratio("g two actors / one", runs[2]["faces_per_s"] / runs[1]["faces_per_s"])
        return {"runs": runs}

    def part_h(self) -> dict[str, Any]:
        found = {preset: self._marginal(2, preset, "none") for preset in ("fast", "quality")}
        for preset, one in found.items():
            self._ratio(f"h faces per s, {preset}", one["faces_per_s"])
            self._ratio(f"h CPU seconds per face, {preset}", 1 / one["faces_per_cpu_s"])
            self._ratio(f"h faces per s, {preset}, start and all", one["large"]["faces"] / one["large"]["seconds"])
        return found

    def _marginal(self, actors: int, preset: str, recovery: str) -> dict[str, Any]:
        """What more faces take, between a job and one of a third of its size: the start of Ray and of the models drops out."""
        small, large = (self._job(actors, preset, recovery, count) for count in (self._count // 3, self._count))
        faces = large["faces"] - small["faces"]
        return {
            "faces_per_s": faces / (large["seconds"] - small["seconds"]),
            "faces_per_cpu_s": faces / (large["cpu_s"] - small["cpu_s"]),
            "small": small,
            "large": large,
        }

    def _dataset(self, count: int) -> Path:
        from benchmarks.growth import make_dataset, pool

        pictures = pool(self._photos, 250, 500, self._seed)
        return make_dataset(self._work / f"src-{count}", pictures, count, self._seed, per_shard=64)

    def _job(self, actors: int, preset: str, recovery: str, count: int) -> dict[str, Any]:
        """A whole job; kept, so that parts b and g share one."""
        from benchmarks.growth import job_mapping, measure

        name = f"job-{actors}-{preset}-{recovery}-{count}"
        kept = self._work / f"{name}.json"
        if kept.exists():
            return dict(json.loads(kept.read_text()))
        workers = {"protect_actors": actors, "detect_cpus": 0.5, "protect_cpus": 1}
        transform = {"preset": preset, "recovery": recovery}
        job = job_mapping(self._work, name, self._dataset(count), transform, workers=workers)
        found = measure(self._work, name, job)
        kept.write_text(json.dumps(found))
        return found

    def _one_process(self) -> dict[str, Any]:
        """The same pictures in a loop of one process: decode, detect, replace, encode, seal. No engine, nothing written."""
        if self._loop:
            return self._loop
        from benchmarks.growth import job_mapping
        from diffpriv.config import TransformConfig
        from diffpriv.keys.context import ShardContext
        from diffpriv.keys.recipients import Recipient
        from diffpriv.keys.sealing import seal_part
        from diffpriv.keys.sources import RandomKeySource
        from diffpriv.pipelines.config import JobConfig
        from diffpriv.pipelines.formats.base import Shard
        from diffpriv.pipelines.formats.registry import shard_format
        from diffpriv.pipelines.records.samples import DetectedSample, Sample
        from diffpriv.pipelines.steps.finder import Finder
        from diffpriv.pipelines.steps.protect import protect
        from diffpriv.pipelines.storage import Folder
        from diffpriv.transforms import load_transform

        src = self._dataset(self._count)
        config = JobConfig.from_mapping(job_mapping(self._work, "loop", src, {"preset": "fast", "recovery": "keys"}))
        fix_threads()
        finder, transform = Finder(config), load_transform(TransformConfig(preset="fast", recovery="keys"))
        fix_threads()
        recipients, keys, folder = [Recipient.load(config.recipients[0])], RandomKeySource(), Folder(str(src))
        stages = dict.fromkeys(("read", "decode and detect", "replace", "decode and encode", "seal"), 0.0)
        timed = _Timed(transform, stages)
        faces = samples = 0
        shards = (Shard(name, "webdataset", (folder.facts(name),)) for name in folder.names())
        records = (one for shard in shards for one in shard_format("webdataset").read(folder, shard))
        batches = _batches(records, config.workers.protect_batch)
        began = cpu_began = 0.0
        while True:
            with _stage(stages, "read"):
                batch = [one for one in next(batches, []) if isinstance(one, Sample)]
            if not batch:
                break
            with _stage(stages, "decode and detect"):
                found = [one for one in finder.detect(batch) if isinstance(one, DetectedSample) and one.found]
            context = ShardContext("loop", batch[0].shard, "0" * 64)
            before = stages["replace"]
            with _stage(stages, "decode and encode"):
                outcomes, secrets = protect(found, timed, keys, context)
            stages["decode and encode"] -= stages["replace"] - before
            with _stage(stages, "seal"):
                seal_part(context, recipients, secrets)
            if not began:  # the first batch warms up
                began, cpu_began = time.perf_counter(), time.process_time()
                stages.update(dict.fromkeys(stages, 0.0))
            else:
                faces, samples = faces + len(secrets), samples + len(batch)
            del outcomes
        if not faces:
            raise SystemExit("too few photos with faces: give --faces a larger number")
        self._loop = {
            "faces": faces,
            "samples": samples,
            "faces_per_s": faces / (time.perf_counter() - began),
            "faces_per_cpu_s": faces / (time.process_time() - cpu_began),
            "stages": stages,
        }
        return self._loop


class _Timed:
    """A transformation whose time is written down."""

    def __init__(self, transform: Any, stages: dict[str, float]) -> None:
        self._transform, self._stages, self.identity = transform, stages, transform.identity

    def protect(self, requests: Any) -> Any:
        with _stage(self._stages, "replace"):
            return self._transform.protect(requests)


@contextmanager
def _stage(stages: dict[str, float], name: str) -> Iterator[None]:
    began = time.process_time()
    yield
    stages[name] += time.process_time() - began


def _batches(records: Iterator[Any], size: int) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for record in records:
        batch.append(record)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _pipeline() -> Any:
    import torch

    from diffpriv.arithmetic import resolve_arithmetic
    from diffpriv.weights import builtin_folder, load_pipeline

    fix_threads()
    pipeline = load_pipeline(builtin_folder(), "cpu")
    pipeline.arithmetic = resolve_arithmetic("auto", torch.device("cpu"))
    return pipeline


def _preset(name: str) -> Any:
    from diffpriv.presets import load_preset

    return load_preset(name, "anonymize")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--work", type=Path, help="kept for the next run; by default a temporary folder")
    parser.add_argument("--only", nargs="+", choices=list("abcdefgh"), default=list("abcdefgh"))
    parser.add_argument("--faces", type=int, default=768, help="about how many faces parts b, e, g and h look at")
    parser.add_argument("--sizes", type=int, nargs="+", default=[500, 1000, 4000], help="samples, for part f")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if not (arguments.photos / "manifest.csv").is_file():
        parser.error(f"{arguments.photos} holds no manifest.csv")
    fix_threads()
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(arguments.photos, arguments.work or Path(scratch), arguments.faces, arguments.sizes, arguments.seed)
        bench.run("".join(sorted(arguments.only)))
    bench.result["ratios"] = dict(bench.rows)
    bench.result["bars"] = BARS
    if arguments.json:
        arguments.json.write_text(json.dumps(bench.result, indent=1) + "\n")


if __name__ == "__main__":
    main()
