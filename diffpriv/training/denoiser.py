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

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from diffpriv.models.autoencoder import FaceAutoencoder
from diffpriv.models.msi import QUANTISATION_STEP, MultiScaleInverter, stage_of
from diffpriv.training.dataset import load_crops
from diffpriv.training.latent_faces import LatentFaces
from diffpriv.training.loop import TrainingRun, autocast, read_arguments
from diffpriv.training.noising import coefficients, even_timesteps
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


def train(crops_path: Path, autoencoder_path: Path, out: Path, minutes: float, config: DenoiserTraining, device: str) -> None:
    data = load_crops(crops_path)
    autoencoder = FaceAutoencoder.from_pretrained(autoencoder_path, torch_dtype=torch.float32).to(device).eval()
    out.mkdir(parents=True, exist_ok=True)
    faces = LatentFaces(autoencoder, data, device, out / "latents.pt")
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
        batch = faces.draw(config.batch, generator)
        timestep = even_timesteps(config.batch, generator).to(device)
        noise = torch.randn(batch.clean.shape, generator=generator).to(device)
        blind = torch.rand(config.batch, generator=generator) < config.context_dropout
        # A blind sample loses its key more often: with neither, the model generates faces from nothing.
        key_rate = torch.where(blind, 2 * config.key_dropout, config.key_dropout)
        drop_key = (torch.rand(config.batch, generator=generator) < key_rate).to(device)[:, None, None]
        drop_context = blind.to(device)[:, None, None, None]
        rounding = (torch.rand(config.batch, 1, 1, generator=generator) - 0.5).to(device) * QUANTISATION_STEP
        signal, spread = coefficients(alphas, timestep)
        noisy, target = signal * batch.clean + spread * noise, signal * noise - spread * batch.clean
        mask = torch.where(drop_context, torch.ones_like(faces.face), faces.face)
        seen = torch.where(drop_context, faces.nothing, batch.seen)
        optimizer.param_groups[0]["lr"] = config.learning_rate * step.rate(config.warmup_steps, floor=0.02)
        with autocast(device):
            tokens = msi.stage_tokens(msi(batch.clean).features + rounding)
            tokens = tokens[torch.arange(config.batch, device=device), stage_of(timestep)]
            tokens = torch.where(drop_key, msi.null_tokens, tokens)
            predicted = unet(torch.cat([noisy, seen, mask], 1), timestep, encoder_hidden_states=tokens).sample
        run.descend(weighted_loss(predicted, target, mask, batch.valid, config.outside_weight))
    shown = data.split()[1][:24]
    save_sample_sheet(out, autoencoder, data.crops[shown], data.landmarks[shown])


def weighted_loss(
    predicted: torch.Tensor, target: torch.Tensor, mask: torch.Tensor, valid: torch.Tensor, outside_weight: float
) -> torch.Tensor:
    """Mean squared error, weighted 1 where the denoiser sees nothing and `outside_weight` elsewhere, by what was in the photo.

    Args:
        predicted, target: (n, 8, 16, 16). mask: where it sees nothing, valid: `LatentBatch.valid`, (n, 1, 16, 16) in [0, 1].
    """
    weight = (outside_weight + (1 - outside_weight) * mask) * valid.clamp(min=0.05)
    return ((predicted.float() - target) ** 2 * weight).sum() / (weight.sum() * target.shape[1])


def main() -> None:
    arguments = read_arguments(__doc__, "crops", "autoencoder", "out", minutes=90.0)
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
