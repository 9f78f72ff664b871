"""The bare model loop: faces per second, UNet evaluations and arithmetic per face, and what the device could do at best.

No pictures, no files, no engine: crops in memory through stages 1 and 2 of the pipeline, micro-batch after micro-batch.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from diffpriv.pipeline import DiffPrivacyPipeline
from diffpriv.presets import Preset


@dataclass(frozen=True)
class ModelLoop:
    """One preset at one batch size.

    Attributes:
        unet_evaluations: per face, of protection and, where it was asked for, inversion.
        flops: per face, multiply and add counted apart, backward passes of guidance included.
        seconds, cpu_seconds: per face.
    """

    unet_evaluations: float
    flops: float
    seconds: float
    cpu_seconds: float


def measure_loop(
    pipeline: DiffPrivacyPipeline, preset: Preset, batch: int, *, task: str = "anonymize", noise_map: bool, rounds: int = 2
) -> ModelLoop:
    """Warm up with one batch (which is also the one that is counted), then time `rounds`.

    Args:
        noise_map: with key-I, as tier `keys` needs it.
    """
    size = pipeline.crop_size
    crops = (torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1).to(pipeline.device)
    seeds = [bytes([row]) * 32 for row in range(batch)]

    def once() -> None:
        key = pipeline.create_key(crops, preset, noise_map=noise_map)
        pipeline.protect(crops, key.key_e, seeds, task, preset)

    with counting_unet(pipeline) as evaluations, FlopCounterMode(display=False) as flops:
        once()
    synchronise(pipeline.device)
    began, cpu_began = time.perf_counter(), time.process_time()
    for _ in range(rounds):
        once()
    synchronise(pipeline.device)
    faces = rounds * batch
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    return ModelLoop(sum(evaluations) / batch, flops.get_total_flops() / batch, seconds / faces, cpu_seconds / faces)


@contextlib.contextmanager
def counting_unet(pipeline: DiffPrivacyPipeline) -> Iterator[list[int]]:
    """Batch sizes of the UNet's calls inside the block."""
    calls: list[int] = []

    def note(module: Any, arguments: tuple[torch.Tensor, ...]) -> None:
        calls.append(len(arguments[0]))

    handle = pipeline.unet.register_forward_pre_hook(note)
    try:
        yield calls
    finally:
        handle.remove()


def peak_flops(device: torch.device, dtype: torch.dtype, side: int, seconds: float = 2.0) -> dict[str, float]:
    """Operations per second of the two kernels that diffusion models consist of, measured now.

    Returns:
        "matmul" of square matrices, "conv" 3 × 3 on 256 channels; per second, and "… cpu" per CPU second of this process.
    """
    first, second = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    width = 256
    pixels = torch.randn(16, width, 32, 32, device=device).to(dtype).to(memory_format=torch.channels_last)
    kernel = torch.randn(width, width, 3, 3, device=device).to(dtype).to(memory_format=torch.channels_last)
    work = {
        "matmul": (lambda: first @ second, 2.0 * side**3),
        "conv": (lambda: torch.nn.functional.conv2d(pixels, kernel, padding=1), 2.0 * pixels.numel() * 9 * width),
    }
    found = {}
    for name, (kernel_call, operations) in work.items():
        kernel_call()
        synchronise(device)
        rounds, began, cpu_began = 0, time.perf_counter(), time.process_time()
        while rounds < 3 or time.perf_counter() - began < seconds:
            kernel_call()
            rounds += 1
            if rounds % 8 == 0:
                synchronise(device)
        synchronise(device)
        found[name] = rounds * operations / (time.perf_counter() - began)
        found[f"{name} cpu"] = rounds * operations / max(1e-9, time.process_time() - cpu_began)
    return found


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
