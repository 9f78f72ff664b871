"""Train the conditional denoiser together with the amortised MSI, on latents of aligned crops.

`python -m diffpriv.training.denoiser CROPS.npz AUTOENCODER OUT --minutes 90` resumes from OUT/checkpoint.pt when it is there;
the learning rate follows the minutes asked for in total, so a longer run is a longer schedule.

The denoiser sees: the noisy latent (8 channels), the latent of the picture with the face region blanked and the five landmarks
marked there (8), and the mask (1).
In `context_dropout` of the samples the whole crop is blanked: this is the mode in which key-I is inverted, so that recovery
depends on nothing but the keys. In `key_dropout` of the samples (twice that among the blanked ones) the stage tokens are the
learned null. Target: v-prediction, weighted 1 inside the face region and `outside_weight` outside, by pixels that really were
in the photo.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch.nn import functional

from diffpriv.crops import to_tensor
from diffpriv.faces.marks import mirrored_landmarks
from diffpriv.faces.masks import blank_mask
from diffpriv.models.autoencoder import FaceAutoencoder
from diffpriv.models.msi import QUANTISATION_STEP, MultiScaleInverter, stage_of
from diffpriv.scenes import seen_around
from diffpriv.training.dataset import TrainingCrops, load_crops
from diffpriv.training.loop import TrainingRun
from diffpriv.training.samples import save_sample_sheet

LATENT_SIZE = 16


@dataclass(frozen=True)
class DenoiserTraining:
    batch: int = 32
    learning_rate: float = 4e-4
    warmup_steps: int = 300
    key_dropout: float = 0.25
    context_dropout: float = 0.2
    outside_weight: float = 0.1
    average_decay: float = 0.999
    seed: int = 0


def new_denoiser() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=17,
        out_channels=8,
        block_out_channels=(96, 160, 192),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=128,
        attention_head_dim=4,  # diffusers' name; it is the number of heads
    )


def new_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )


@torch.no_grad()
def encode_all(
    autoencoder: FaceAutoencoder, data: TrainingCrops, device: str, cache: Path
) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents of all crops, and of what is seen around the face; plain and mirrored: two (2, n, 8, 16, 16) float16 tensors."""
    if cache.exists():
        stored = torch.load(cache, weights_only=True)
        return stored["full"], stored["context"]
    full, context = [], []
    for mirrored in (False, True):
        landmarks = mirrored_landmarks(data.landmarks) if mirrored else data.landmarks
        for start in range(0, len(data.crops), 64):
            part = slice(start, start + 64)
            crops = to_tensor(data.crops[part], device)
            crops = crops.flip(3) if mirrored else crops
            full.append(autoencoder.encode(crops).latent.half().cpu())
            context.append(autoencoder.encode(seen_around(crops, landmarks[part])).latent.half().cpu())
    shape = (2, len(data.crops), *full[0].shape[1:])
    stored = {"full": torch.cat(full).view(shape), "context": torch.cat(context).view(shape)}
    torch.save(stored, cache)
    return stored["full"], stored["context"]


def train(crops_path: Path, autoencoder_path: Path, out: Path, minutes: float, config: DenoiserTraining, device: str) -> None:
    data = load_crops(crops_path)
    training_rows, held_out_rows = data.split()
    autoencoder = FaceAutoencoder.from_pretrained(autoencoder_path, torch_dtype=torch.float32).to(device).eval()
    out.mkdir(parents=True, exist_ok=True)
    full, context = encode_all(autoencoder, data, device, out / "latents.pt")
    blank = torch.from_numpy(blank_mask())[None, None].to(device)
    with torch.no_grad():
        no_context = autoencoder.encode(torch.zeros(1, 3, 128, 128, device=device)).latent
    face = functional.avg_pool2d(blank, 8)
    valid = torch.from_numpy(data.valid)[:, None].float().div(255)
    valid = torch.cat([functional.avg_pool2d(valid[start : start + 512], 8) for start in range(0, len(valid), 512)])
    scheduler = new_scheduler()
    alphas = scheduler.alphas_cumprod.to(device)

    torch.manual_seed(config.seed)
    unet, msi = new_denoiser().to(device), MultiScaleInverter().to(device)
    parameters = [*unet.parameters(), *msi.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=0.01)

    def write_model() -> None:
        finished_unet, finished_msi = new_denoiser(), MultiScaleInverter()
        finished_unet.load_state_dict(run.averages["unet"].values)
        finished_msi.load_state_dict(run.averages["msi"].values)
        finished_unet.half().save_pretrained(out / "unet")
        finished_msi.half().save_pretrained(out / "msi")
        scheduler.save_pretrained(out / "scheduler")

    run = TrainingRun(
        out / "checkpoint.pt",
        {"unet": unet, "msi": msi},
        optimizer,
        minutes=minutes,
        decay=config.average_decay,
        seed=config.seed,
        write=write_model,
        save_seconds=300,
    )
    for step in run.steps():
        generator = step.generator
        rows = torch.from_numpy(training_rows)[torch.randint(len(training_rows), (config.batch,), generator=generator)]
        mirror = (torch.rand(config.batch, generator=generator) < 0.5).long()
        clean = full[mirror, rows].float().to(device)
        seen = context[mirror, rows].float().to(device)
        valid_rows = torch.where(mirror[:, None, None, None] > 0, valid[rows].flip(3), valid[rows]).to(device)
        # One timestep from each of `batch` equal parts: less variance than independent draws.
        part = (torch.arange(config.batch) + torch.rand(config.batch, generator=generator)) / config.batch
        timestep = (part * 1000).long().clamp(max=999).to(device)
        noise = torch.randn(clean.shape, generator=generator).to(device)
        blind = torch.rand(config.batch, generator=generator) < config.context_dropout
        # A blind sample loses its key more often: with neither, the model generates faces from nothing.
        key_rate = torch.where(blind, 2 * config.key_dropout, config.key_dropout)
        drop_key = (torch.rand(config.batch, generator=generator) < key_rate).to(device)[:, None, None]
        drop_context = blind.to(device)[:, None, None, None]
        rounding = (torch.rand(config.batch, 1, 1, generator=generator) - 0.5).to(device) * QUANTISATION_STEP
        signal, spread = alphas[timestep].sqrt()[:, None, None, None], (1 - alphas[timestep]).sqrt()[:, None, None, None]
        noisy, target = signal * clean + spread * noise, signal * noise - spread * clean
        mask = torch.where(drop_context, torch.ones_like(face), face)
        seen = torch.where(drop_context, no_context, seen)
        weight = (config.outside_weight + (1 - config.outside_weight) * mask) * valid_rows.clamp(min=0.05)
        warm = min(1.0, (step.index + 1) / config.warmup_steps)
        decayed = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step.progress))
        optimizer.param_groups[0]["lr"] = config.learning_rate * warm * decayed
        with torch.autocast(device, dtype=torch.bfloat16):
            tokens = msi.stage_tokens(msi(clean).features + rounding)
            tokens = tokens[torch.arange(config.batch, device=device), stage_of(timestep)]
            tokens = torch.where(drop_key, msi.null_tokens, tokens)
            predicted = unet(torch.cat([noisy, seen, mask], 1), timestep, encoder_hidden_states=tokens).sample
        loss = ((predicted.float() - target) ** 2 * weight).sum() / (weight.sum() * clean.shape[1])
        run.descend(loss)
    save_sample_sheet(out, autoencoder, data.crops[held_out_rows[:24]], data.landmarks[held_out_rows[:24]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crops", type=Path)
    parser.add_argument("autoencoder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=90.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    train(
        arguments.crops,
        arguments.autoencoder,
        arguments.out,
        arguments.minutes,
        DenoiserTraining(seed=arguments.seed),
        arguments.device,
    )


if __name__ == "__main__":
    main()
