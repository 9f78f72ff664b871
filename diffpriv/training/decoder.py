"""Train the autoencoder's decoder and its detail further, the latent's encoder frozen: sharper pictures from the same latents.

`python -m diffpriv.training.decoder CROPS.npz AUTOENCODER OUT --minutes 60` can run beside or after the denoiser's training,
since the latents, and so the denoiser, stay as they are. Resumes from OUT/decoder.pt, and writes the folder OUT/autoencoder.

Half of a batch is decoded with its detail and has to be the photo again. The other half is decoded without, which is how new
faces are: it has to be the photo when both are seen small, and a photo's equal to a discriminator that looks at patches.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from diffpriv.crops import to_pixels, to_tensor
from diffpriv.metrics.images import sharpness
from diffpriv.models.autoencoder import FaceAutoencoder
from diffpriv.training.autoencoder import measure_psnr, reconstruction_loss, to_batch
from diffpriv.training.dataset import load_crops
from diffpriv.training.loop import TrainingRun, autocast, read_arguments
from diffpriv.training.patches import PatchDiscriminator, balanced, risen


@dataclass(frozen=True)
class DecoderTraining:
    """told, imagined: samples of a batch with and without their detail; told_weight: of the former's loss. pull: of the
    discriminator, against the imagined ones' own loss; it rises from nothing between two shares of the training. faithful: how
    much of that loss compares every pixel. latent_noise: of the unit variance, what keys of few bits and an imperfect denoiser
    bring.
    """

    told: int = 8
    imagined: int = 8
    told_weight: float = 2.0
    detail_channels: int = 16
    learning_rate: float = 3e-4
    discriminator_rate: float = 3e-4
    warmup_steps: int = 100
    pull: float = 0.8
    pull_rises: tuple[float, float] = (0.05, 0.15)
    faithful: float = 0.25
    latent_noise: float = 0.03
    average_decay: float = 0.998
    seed: int = 0


def with_detail(autoencoder: FaceAutoencoder, channels: int) -> FaceAutoencoder:
    """The same autoencoder with a detail that does nothing yet; one that has a detail, as it is."""
    if autoencoder.config["detail_channels"]:
        return autoencoder
    facts = {name: value for name, value in autoencoder.config.items() if not name.startswith("_")}
    larger = FaceAutoencoder(**facts | {"detail_channels": channels})
    larger.load_state_dict(autoencoder.state_dict(), strict=False)
    silent: Any = [larger.detail_inner, larger.detail_outer, larger.detail_block.conv2, larger.texture.conv2]
    for layer in silent:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return larger


def coarse(crops: torch.Tensor) -> torch.Tensor:
    return functional.avg_pool2d(crops, 4)


def train(
    crops_path: Path, autoencoder: Path, out: Path, minutes: float, config: DecoderTraining, device: str
) -> dict[str, Any]:
    """What came of it: steps, minutes, PSNR with the detail, and how sharp held-out photos are, and imagined again."""
    data = load_crops(crops_path)
    training_rows, held_out_rows = data.split()
    torch.manual_seed(config.seed)
    exact = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}
    model = with_detail(FaceAutoencoder.from_pretrained(autoencoder, **exact), config.detail_channels).to(device)
    model.encoder.requires_grad_(False)
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    discriminator = PatchDiscriminator(config.discriminator_rate, device)

    def write_model() -> None:
        finished = FaceAutoencoder.from_config(model.config)
        finished.load_state_dict(run.averages["model"].values)
        finished.half().save_pretrained(out / "autoencoder")

    run = TrainingRun(
        out / "decoder.pt",
        {"model": model},
        optimizer,
        minutes=minutes,
        decay=config.average_decay,
        seed=config.seed,
        write=write_model,
        others={"discriminator": discriminator.network, "against": discriminator.optimizer},
    )
    told, batch = config.told, config.told + config.imagined
    for step in run.steps():
        generator = step.generator
        rows = training_rows[torch.randint(len(training_rows), (batch,), generator=generator).numpy()]
        crops, valid = to_batch(data, rows, generator, device)
        optimizer.param_groups[0]["lr"] = config.learning_rate * step.rate(config.warmup_steps, floor=0.01)
        with torch.no_grad():
            latent = model.encode(crops).latent
            latent = latent + config.latent_noise * torch.randn(latent.shape, generator=generator).to(device)
        with autocast(device):
            detail = model.encode_detail_raw(crops[:told])
            rounding = (torch.rand(detail.shape, generator=generator) - 0.5).to(device)
            recovered = model.decode(latent[:told], detail + rounding).float()
            imagined = model.decode(latent[told:]).float()
        recovered_loss = reconstruction_loss(recovered, crops[:told], valid[:told])
        photos, weight = crops[told:], valid[told:]
        close = reconstruction_loss(imagined, photos, weight)
        small = reconstruction_loss(coarse(imagined), coarse(photos), coarse(weight))
        own_loss = config.faithful * close + (1 - config.faithful) * small

        against, told_apart = discriminator.play(photos, imagined, weight)
        (own,) = torch.autograd.grad(own_loss, imagined)
        pull = risen(config.pull, config.pull_rises, step.progress)
        gradient = balanced(own, against, pull, own.norm())
        shown = {"recovered": recovered_loss, "imagined": close, "told_apart": told_apart.mean()}
        run.descend(config.told_weight * recovered_loss + (imagined * gradient).sum(), shown=shown)
    finished = FaceAutoencoder.from_pretrained(out / "autoencoder", **exact).to(device).eval()
    psnr = measure_psnr(finished, data, held_out_rows, device)
    some = data.crops[held_out_rows[:128]]
    with torch.no_grad():
        crops = to_tensor(some, device)
        imagined = to_pixels(finished.decode(finished.encode(crops).latent))
    fine = {"photos": round(sharpness(some), 2), "imagined": round(sharpness(imagined), 2)}
    return {"steps": run.step, "minutes": round(run.spent / 60, 1), "held_out_psnr_db": round(psnr, 2), "sharpness": fine}


def main() -> None:
    arguments = read_arguments(__doc__, "crops", "autoencoder", "out", minutes=60.0)
    config = DecoderTraining(seed=arguments.seed)
    print(json.dumps(train(arguments.crops, arguments.autoencoder, arguments.out, arguments.minutes, config, arguments.device)))


if __name__ == "__main__":
    main()
