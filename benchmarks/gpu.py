"""One CUDA device: faces per second and share of its bf16 arithmetic, for SD-1.5-sized modules and for the builtin model.

    python -m benchmarks.gpu [--batches 1 2 4 8 16 32 64] [--presets quality fast] [--json FILE]

Stage 1 with key-I and stage 2 of the method, crops in memory. "sd15" has the shapes of Stable Diffusion 1.5 (UNet 860 M
parameters, 64 x 64 latents, 512 px crops; autoencoder 84 M) and RANDOM WEIGHTS: its speed is that of real ones, its pictures
are noise. Peak is measured in the same run: the faster of a large matrix product and a convolution, in bf16. Arithmetic is
counted by torch.utils.flop_counter, backward passes of guidance included. Without a CUDA device it says so and exits 2.
`--device cpu --tiny` runs the same code on small shapes, to see that it works.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

from benchmarks.environment import environment
from benchmarks.model_speed import measure_loop, peak_flops
from diffpriv.models.msi import MultiScaleInverter
from diffpriv.models.recognizer import FaceRecognizer
from diffpriv.pipeline import DiffPrivacyPipeline
from diffpriv.presets import load_preset
from diffpriv.weights import builtin_folder, load_pipeline


def stable_diffusion_sized(*, tiny: bool = False) -> DiffPrivacyPipeline:
    """A pipeline of SD 1.5's shapes with random weights; `tiny` keeps the structure and shrinks every width."""
    widths = (32, 64) if tiny else (320, 640, 1280, 1280)
    width, side = (32, 8) if tiny else (768, 64)
    crossed = len(widths) - 1
    unet = UNet2DConditionModel(
        sample_size=side,
        in_channels=9,  # noisy latent, surroundings and their mask, as Stable Diffusion's inpainting model has it
        out_channels=4,
        layers_per_block=1 if tiny else 2,
        block_out_channels=widths,
        down_block_types=("CrossAttnDownBlock2D",) * crossed + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * crossed,
        cross_attention_dim=width,
        attention_head_dim=8,
    )
    blocks = 4
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=(32,) * blocks if tiny else (128, 256, 512, 512),
        layers_per_block=1 if tiny else 2,
        latent_channels=4,
        scaling_factor=0.18215,
        sample_size=side * 8,
    )
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
    msi = MultiScaleInverter(latent_channels=4, tokens=4 if tiny else 77, token_dim=width)
    pipeline = DiffPrivacyPipeline(vae, unet, scheduler, msi, FaceRecognizer(spread=0.17))
    for part in (vae, unet, msi, pipeline.recognizer):
        part.eval().requires_grad_(False)
    return pipeline


def measure(
    pipeline: DiffPrivacyPipeline, presets: list[str], batches: list[int], peak: float, rounds: int
) -> list[dict[str, Any]]:
    """A row per preset and batch size; sizes that do not fit the device's memory say so."""
    rows: list[dict[str, Any]] = []
    for name in presets:
        preset = load_preset(name, "anonymize")
        for batch in batches:
            row: dict[str, Any] = {"preset": name, "batch": batch}
            try:
                loop = measure_loop(pipeline, preset, batch, noise_map=True, rounds=rounds)
            except torch.cuda.OutOfMemoryError:
                rows.append(row | {"problem": "out of memory"})
                torch.cuda.empty_cache()
                break
            rows.append(
                row
                | {
                    "faces_per_s": 1 / loop.seconds,
                    "tflop_per_face": loop.flops / 1e12,
                    "unet_evaluations": loop.unet_evaluations,
                    "share_of_peak": loop.flops / loop.seconds / peak,
                }
            )
    return rows


def show(profile: str, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        head = f"{profile:22s} {row['preset']:8s} batch {row['batch']:3d}  "
        if "problem" in row:
            print(head + row["problem"])
        else:
            print(
                f"{head}{row['faces_per_s']:9.2f} faces/s  {row['tflop_per_face']:8.3f} TFLOP and "
                f"{row['unet_evaluations']:4.0f} UNet evaluations a face  {row['share_of_peak']:6.1%} of peak"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="small shapes, to see that it works")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--presets", nargs="+", default=["quality", "fast"])
    parser.add_argument("--profiles", nargs="+", default=["builtin", "sd15"], choices=["builtin", "sd15"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("This machine has no CUDA device, so there is nothing to measure. --device cpu --tiny tries the code.")
        sys.exit(2)
    device = torch.device(arguments.device)
    peaks = peak_flops(device, torch.bfloat16, *((256, 0.1) if arguments.tiny else (8192, 2.0)))
    peak = max(peaks["matmul"], peaks["conv"])
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(
        f"{name}: bf16 peak measured {peak / 1e12:.1f} TFLOP/s "
        f"(matmul {peaks['matmul'] / 1e12:.1f}, conv {peaks['conv'] / 1e12:.1f})"
    )
    result: dict[str, Any] = {"environment": environment(), "device": name, "peak": peaks, "profiles": {}}
    for profile in arguments.profiles:
        pipeline = load_pipeline(builtin_folder()) if profile == "builtin" else stable_diffusion_sized(tiny=arguments.tiny)
        pipeline = pipeline.to(device)
        pipeline.arithmetic = torch.bfloat16
        title = profile if profile == "builtin" else f"{'tiny' if arguments.tiny else 'sd15'} (random weights)"
        rows = measure(pipeline, arguments.presets, arguments.batches, peak, arguments.rounds)
        show(title, rows)
        result["profiles"][title] = rows
        del pipeline
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
