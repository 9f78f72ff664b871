"""Train the builtin autoencoder on aligned crops.

`python -m diffpriv.training.autoencoder CROPS.npz OUT --minutes 14` resumes from OUT/checkpoint.pt when it is there, and
ends by writing the diffusers folder OUT/autoencoder with the latent statistics in its config.
Loss: L1 + L1 of the image gradients (sharp edges) on pixels that really were in the photo; on `equivariance` of the steps
the latent is halved in size or mirrored and must decode to the crop treated alike.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from diffpriv.crops import to_tensor
from diffpriv.models.autoencoder import FaceAutoencoder
from diffpriv.training.dataset import TrainingCrops, load_crops
from diffpriv.training.loop import TrainingRun, autocast, read_arguments


@dataclass(frozen=True)
class AutoencoderTraining:
    batch: int = 16
    learning_rate: float = 6e-4
    warmup_steps: int = 200
    equivariance: float = 0.2
    latent_penalty: float = 1e-4
    latent_noise: float = 0.02
    average_decay: float = 0.998
    seed: int = 0


def to_batch(
    data: TrainingCrops, rows: np.ndarray, generator: torch.Generator, device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops in [-1, 1] and their validity, (n, 3, 128, 128) and (n, 1, 128, 128), half of them mirrored."""
    crops = to_tensor(data.crops[rows], device)
    valid = torch.from_numpy(data.valid[rows]).to(device)[:, None].float() / 255
    mirror = (torch.rand(len(rows), generator=generator) < 0.5).to(device)[:, None, None, None]
    return torch.where(mirror, crops.flip(3), crops), torch.where(mirror, valid.flip(3), valid)


def reconstruction_loss(output: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Masked L1 of values and of horizontal and vertical differences; (n, 3, h, w), (n, 3, h, w), (n, 1, h, w)."""
    error = output - target
    weight = 0.1 + 0.9 * valid
    value = (error.abs() * weight).mean()
    down = ((error[:, :, 1:] - error[:, :, :-1]).abs() * weight[:, :, 1:]).mean()
    right = ((error[:, :, :, 1:] - error[:, :, :, :-1]).abs() * weight[:, :, :, 1:]).mean()
    return value + down + right


@torch.no_grad()
def measure_psnr(model: FaceAutoencoder, data: TrainingCrops, rows: np.ndarray, device: str) -> float:
    """Mean over crops of the 8-bit PSNR in dB, valid pixels only."""
    values = []
    for start in range(0, len(rows), 32):
        part = rows[start : start + 32]
        crops = torch.from_numpy(data.crops[part]).to(device).permute(0, 3, 1, 2).float()
        valid = torch.from_numpy(data.valid[part]).to(device)[:, None].float() / 255
        output = ((model(crops / 127.5 - 1).clamp(-1, 1) + 1) * 127.5).round()
        squared = ((output - crops) ** 2 * valid).sum((1, 2, 3)) / (3 * valid.sum((1, 2, 3)))
        values.append(10 * torch.log10(255**2 / squared.clamp(min=1e-9)))
    return float(torch.cat(values).mean())


def latent_statistics(
    model: FaceAutoencoder, data: TrainingCrops, rows: np.ndarray, device: str
) -> tuple[list[float], list[float]]:
    with torch.no_grad():
        latents = []
        for start in range(0, min(len(rows), 2048), 64):
            latents.append(model.encode_raw(to_tensor(data.crops[rows[start : start + 64]], device)).float())
        stacked = torch.cat(latents)
    return stacked.mean((0, 2, 3)).tolist(), stacked.std((0, 2, 3)).tolist()


def train(crops_path: Path, out: Path, minutes: float, config: AutoencoderTraining, device: str) -> None:
    data = load_crops(crops_path)
    training_rows, held_out_rows = data.split()
    torch.manual_seed(config.seed)
    model = FaceAutoencoder().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    run = TrainingRun(
        out / "checkpoint.pt",
        {"model": model},
        optimizer,
        minutes=minutes,
        decay=config.average_decay,
        seed=config.seed,
        report_every=500,
    )
    for step in run.steps():
        generator = step.generator
        rows = training_rows[torch.randint(len(training_rows), (config.batch,), generator=generator).numpy()]
        crops, valid = to_batch(data, rows, generator, device)
        choice = float(torch.rand(1, generator=generator))
        warm = min(1.0, (step.index + 1) / config.warmup_steps)
        optimizer.param_groups[0]["lr"] = config.learning_rate * warm * min(1.0, max(0.03, 2 * (1 - step.progress)))
        with autocast(device):
            latent = model.encode_raw(crops)
            scale = latent.detach().float().std()
            noise = torch.randn(latent.shape, generator=generator).to(device)
            decoded_latent = latent + config.latent_noise * scale * noise
            if choice < config.equivariance / 2:  # the latent at half size decodes to the crop at half size
                decoded_latent = functional.avg_pool2d(decoded_latent, 2)
                crops, valid = functional.avg_pool2d(crops, 2), functional.avg_pool2d(valid, 2)
            elif choice < config.equivariance:  # the mirrored latent decodes to the mirrored crop
                decoded_latent, crops, valid = decoded_latent.flip(3), crops.flip(3), valid.flip(3)
            output = model.decode(decoded_latent)
            loss = reconstruction_loss(output.float(), crops, valid) + config.latent_penalty * latent.float().square().mean()
        run.descend(loss)
    finished = FaceAutoencoder().to(device)
    finished.load_state_dict(run.averages["model"].values)
    finished.eval()
    mean, std = latent_statistics(finished, data, training_rows, device)
    finished.register_to_config(latent_mean=mean, latent_std=std)
    finished.half().save_pretrained(out / "autoencoder")
    reloaded = FaceAutoencoder.from_pretrained(out / "autoencoder", torch_dtype=torch.float32).to(device).eval()
    print(
        json.dumps(
            {
                "steps": run.step,
                "minutes": round(run.spent / 60, 1),
                "held_out_psnr_db": round(measure_psnr(reloaded, data, held_out_rows, device), 2),
            }
        )
    )


def main() -> None:
    arguments = read_arguments(__doc__, "crops", "out", minutes=14.0)
    train(arguments.crops, arguments.out, arguments.minutes, AutoencoderTraining(seed=arguments.seed), arguments.device)


if __name__ == "__main__":
    main()
