"""Train the MSI of the Stable Diffusion profile once over many faces: frozen UNet, autoencoder and CLIP tower.

`python -m diffpriv.training.clip_inverter CROPS.npz OUT --stable-diffusion FOLDER_OR_NAME --clip FOLDER_OR_NAME --minutes 600`
resumes from OUT/checkpoint.pt when it is there, and writes OUT/model: a folder for `--model OUT/model`. SD 1.x in diffusers'
format (sub-folders unet, vae, scheduler) and CLIP ViT-L/14 are the user's to fetch, under their own licences. Crops of
`diffpriv.training.dataset --size 512` fit; smaller ones are enlarged.

Loss: the UNet's own denoising loss, conditional on the stage tokens of the crop (a learned null in `key_dropout` of the
samples), weighted 1 where the face is and `outside_weight` elsewhere. Only MSI learns: 4.3 M parameters for SD 1.x.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch.nn import functional

from diffpriv.crops import to_tensor
from diffpriv.latents import LATENT_SCALE, encode_crops
from diffpriv.models.clip_inverter import LAYERS, ClipInverter, clip_features
from diffpriv.models.msi import QUANTISATION_STEP, stage_of
from diffpriv.models.recognizer import FaceRecognizer
from diffpriv.pipeline import DiffPrivacyPipeline
from diffpriv.sketches import face_places
from diffpriv.training.dataset import load_crops
from diffpriv.training.loop import TrainingRun
from diffpriv.training.noising import coefficients, even_timesteps
from diffpriv.weights import builtin_folder, vision_tower

PRIOR_FACES = 2048  # of which key-E's spread over people is measured


@dataclass(frozen=True)
class InverterTraining:
    batch: int = 8
    learning_rate: float = 2e-4
    warmup_steps: int = 300
    key_dropout: float = 0.1
    outside_weight: float = 0.1
    average_decay: float = 0.999
    layers: tuple[int, ...] = LAYERS
    seed: int = 0


@dataclass(frozen=True, eq=False)
class FrozenModel:
    """The parts that do not learn. `dtype` is theirs; half precision fits SD 1.x and its gradients into 12 GB."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    scheduler: DDIMScheduler
    tower: Any

    @classmethod
    def load(cls, stable_diffusion: str, clip: str, device: str, dtype: torch.dtype) -> "FrozenModel":
        options: dict[str, Any] = {"torch_dtype": dtype, "low_cpu_mem_usage": False}
        unet = UNet2DConditionModel.from_pretrained(stable_diffusion, subfolder="unet", **options)
        unet.enable_gradient_checkpointing()
        vae = AutoencoderKL.from_pretrained(stable_diffusion, subfolder="vae", **options)
        for part in (unet, vae):
            part.requires_grad_(False).eval().to(device)
        scheduler = DDIMScheduler.from_pretrained(stable_diffusion, subfolder="scheduler")
        return cls(unet, vae, scheduler, vision_tower(clip, dtype=dtype).to(device))

    @property
    def side(self) -> int:
        return int(self.unet.config["sample_size"])


def train(
    crops: np.ndarray, frozen: FrozenModel, out: Path, minutes: float, config: InverterTraining, device: str
) -> Iterator[float]:
    """Train until the budget is spent, then write OUT/model. Yields the loss of each step.

    Args:
        crops: (n, size, size, 3) uint8 RGB, aligned.
    """
    unet, size = frozen.unet, frozen.side * LATENT_SCALE
    alphas = frozen.scheduler.alphas_cumprod.to(device)
    weight = torch.where(face_places(frozen.side), 1.0, config.outside_weight).to(device)
    torch.manual_seed(config.seed)
    token_dim, width = int(unet.config["cross_attention_dim"]), int(frozen.tower.config.hidden_size)
    msi = ClipInverter(width=width, layers=config.layers, token_dim=token_dim).to(device)
    optimizer = torch.optim.AdamW(msi.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=0.01)

    def pixels(rows: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
        picture = to_tensor(crops[rows.numpy()], device)
        picture = torch.where(mirrored.to(device)[:, None, None, None], picture.flip(3), picture)
        if picture.shape[-1] == size:
            return picture
        return functional.interpolate(picture, (size, size), mode="bicubic", antialias=True, align_corners=False)

    run = TrainingRun(
        out / "checkpoint.pt",
        {"msi": msi},
        optimizer,
        minutes=minutes,
        decay=config.average_decay,
        seed=config.seed,
    )
    for step in run.steps():
        generator, count = step.generator, config.batch
        with torch.no_grad():
            mirrored = torch.rand(count, generator=generator) < 0.5
            batch = pixels(torch.randint(len(crops), (count,), generator=generator), mirrored)
            clean, seen = encode_crops(frozen.vae, batch), clip_features(frozen.tower, batch, config.layers)
        timestep = even_timesteps(count, generator).to(device)
        noise = torch.randn(clean.shape, generator=generator).to(device)
        dropped = (torch.rand(count, generator=generator) < config.key_dropout).to(device)[:, None, None]
        rounding = (torch.rand(count, 1, 1, generator=generator) - 0.5).to(device) * QUANTISATION_STEP
        signal, spread = coefficients(alphas, timestep)
        noisy = signal * clean + spread * noise
        target = signal * noise - spread * clean if frozen.scheduler.config["prediction_type"] == "v_prediction" else noise
        optimizer.param_groups[0]["lr"] = config.learning_rate * step.rate(config.warmup_steps, floor=0.02)
        tokens = msi.stage_tokens(msi(seen).features + rounding)[torch.arange(count, device=device), stage_of(timestep)]
        tokens = torch.where(dropped, msi.null_tokens, tokens)
        predicted = unet(noisy.to(unet.dtype), timestep, encoder_hidden_states=tokens.to(unet.dtype)).sample.float()
        loss = ((predicted - target) ** 2 * weight).sum() / (weight.sum() * clean.shape[0] * clean.shape[1])
        run.descend(loss)
        yield float(loss.detach())
    msi.load_state_dict(run.averages["msi"].values)
    _write(out / "model", frozen, msi.eval(), pixels, len(crops))


@torch.no_grad()
def _write(folder: Path, frozen: FrozenModel, msi: ClipInverter, pixels: Any, faces: int) -> None:
    some = torch.linspace(0, faces - 1, min(faces, PRIOR_FACES)).long()
    seen = [
        clip_features(frozen.tower, pixels(rows, torch.zeros(len(rows), dtype=torch.bool)), msi.layers)
        for rows in some.split(8)
    ]
    msi.fit_prior(msi(torch.cat(seen)).features)
    options: dict[str, Any] = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}
    recognizer = FaceRecognizer.from_pretrained(builtin_folder() / "recognizer", **options)
    pipeline = DiffPrivacyPipeline(
        vae=frozen.vae,
        unet=frozen.unet,
        scheduler=frozen.scheduler,
        msi=msi,
        recognizer=recognizer,
        image_encoder=frozen.tower,
    )
    pipeline.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crops", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--stable-diffusion", required=True, help="an SD 1.x folder in diffusers' format, or its hub name")
    parser.add_argument("--clip", default="openai/clip-vit-large-patch14", help="a CLIPVisionModel folder, or its hub name")
    parser.add_argument("--minutes", type=float, default=600.0)
    parser.add_argument("--batch", type=int, default=InverterTraining.batch)
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    frozen = FrozenModel.load(arguments.stable_diffusion, arguments.clip, arguments.device, getattr(torch, arguments.dtype))
    data = load_crops(arguments.crops)
    config = InverterTraining(batch=arguments.batch)
    options = (arguments.out, arguments.minutes, config, arguments.device)
    for _ in train(data.crops[data.split()[0]], frozen, *options):
        pass


if __name__ == "__main__":
    main()
