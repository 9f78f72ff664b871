"""Train what the decoder imagines, on the denoiser's own latents: the block `texture` alone, everything else frozen.

`python -m diffpriv.training.texture CROPS.npz AUTOENCODER MODEL OUT --minutes 15` comes last: MODEL is the run of the denoiser
(unet, msi, scheduler, latents.pt) whose faces are to be decoded. `diffpriv.training.decoder` saw latents of photographs only;
those of new faces are a little off in ways of their own, which it shows as a fine grid. Recovery with a detail does not pass
through this block, and stays as it is to the bit. Resumes from OUT/texture.pt, and writes the folder OUT/autoencoder.

New faces have to be what they were when seen small, and a photo's equal to a discriminator that looks at patches; so have
photos decoded without their detail.
"""

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from diffpriv.crops import to_pixels, to_tensor
from diffpriv.denoising import Denoiser, Surroundings
from diffpriv.errors import MisuseError
from diffpriv.faces.marks import landmark_marks
from diffpriv.metrics.images import sharpness
from diffpriv.models.autoencoder import FaceAutoencoder
from diffpriv.models.msi import MultiScaleInverter
from diffpriv.sampling import Conditions, sample
from diffpriv.scenes import scene_vector
from diffpriv.training.autoencoder import reconstruction_loss, to_batch
from diffpriv.training.dataset import TrainingCrops, load_crops
from diffpriv.training.decoder import coarse
from diffpriv.training.latent_faces import LatentFaces
from diffpriv.training.loop import TrainingRun, autocast, read_arguments
from diffpriv.training.patches import PatchDiscriminator, balanced, risen

SAMPLED = 32  # new faces to a batch while the pool is made


@dataclass(frozen=True)
class TextureTraining:
    """pool: new faces made before, half of them in photos' surroundings and half alone; steps: of their sampling, and
    temperatures of their noise. new, photos: samples of a batch by where their latents come from. pull: of the discriminator,
    against the samples' own loss; it rises from nothing between two shares of the training.
    """

    pool: int = 1024
    steps: int = 6
    temperatures: tuple[float, float] = (1.0, 0.8)
    new: int = 8
    photos: int = 4
    learning_rate: float = 4e-4
    discriminator_rate: float = 4e-4
    warmup_steps: int = 50
    pull: float = 0.8
    pull_rises: tuple[float, float] = (0.08, 0.2)
    average_decay: float = 0.995
    seed: int = 0


@torch.no_grad()
def new_latents(
    model: Path, faces: LatentFaces, autoencoder: FaceAutoencoder, config: TextureTraining, device: str
) -> torch.Tensor:
    """Latents of faces of nobody as the model makes them, (pool, 8, 16, 16): in turn in surroundings and alone."""
    exact = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}
    unet = UNet2DConditionModel.from_pretrained(model / "unet", **exact).to(device, memory_format=torch.channels_last).eval()
    msi = MultiScaleInverter.from_pretrained(model / "msi", **exact).to(device).eval()
    denoiser = Denoiser(unet, DDIMScheduler.from_pretrained(model / "scheduler"))
    generator, made = torch.Generator().manual_seed(config.seed), []

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(device)

    for number in range(-(-config.pool // SAMPLED)):
        batch, alone = faces.draw(SAMPLED, generator), number % 2
        traits, scenes = normal(SAMPLED, len(msi.prior_basis)), scene_vector(batch.seen, batch.landmarks)
        around = Surroundings(batch.seen, faces.face.expand(SAMPLED, -1, -1, -1))
        if alone:
            marks = torch.from_numpy(landmark_marks(batch.landmarks.cpu().numpy())).to(device)
            around = Surroundings(autoencoder.encode(marks).latent, torch.ones_like(around.mask))
        tokens = msi.stage_tokens(msi.features_of_nobody(traits, None if alone else scenes))

        def renew(index: int, heat: float = config.temperatures[alone]) -> torch.Tensor:
            return heat * normal(SAMPLED, *faces.nothing.shape[1:])

        conditions = Conditions(tokens, msi.null_stage_tokens(SAMPLED), around)
        with autocast(device):
            made.append(sample(renew(0), denoiser.timesteps(config.steps), conditions, denoiser, renew=renew).float())
    return torch.cat(made)[: config.pool]


def train(
    crops_path: Path, autoencoder: Path, model: Path, out: Path, minutes: float, config: TextureTraining, device: str
) -> dict[str, Any]:
    """What came of it: steps, minutes, and how sharp photos are, and what is imagined before and after.

    Raises:
        MisuseError: the autoencoder has no block for texture.
    """
    data = load_crops(crops_path)
    exact = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}
    trained = FaceAutoencoder.from_pretrained(autoencoder, **exact).to(device).requires_grad_(False)
    if not trained.config["detail_channels"]:
        raise MisuseError(f"{autoencoder} imagines nothing.", advice="Train it by diffpriv.training.decoder first.")
    before = copy.deepcopy(trained).eval()
    trained.texture.requires_grad_(True)
    out.mkdir(parents=True, exist_ok=True)
    pool = _pool(out / "new_faces.pt", data, model, before, config, device)

    torch.manual_seed(config.seed)
    optimizer = torch.optim.AdamW(trained.texture.parameters(), lr=config.learning_rate, betas=(0.5, 0.98), weight_decay=0.01)
    discriminator = PatchDiscriminator(config.discriminator_rate, device)

    def write_model() -> None:
        finished = copy.deepcopy(before)
        finished.texture.load_state_dict(run.averages["texture"].values)
        finished.half().save_pretrained(out / "autoencoder")

    run = TrainingRun(
        out / "texture.pt",
        {"texture": trained.texture},
        optimizer,
        minutes=minutes,
        decay=config.average_decay,
        seed=config.seed,
        write=write_model,
        others={"discriminator": discriminator.network, "against": discriminator.optimizer},
    )
    training_rows = data.split()[0]
    for step in run.steps():
        generator = step.generator
        rows = torch.randint(len(training_rows), (config.photos + config.new,), generator=generator)
        photos, valid = to_batch(data, training_rows[rows.numpy()], generator, device)
        some = pool[torch.randint(len(pool), (config.new,), generator=generator).to(device)]
        optimizer.param_groups[0]["lr"] = config.learning_rate * step.rate(config.warmup_steps, floor=0.02)
        with torch.no_grad():
            latent = torch.cat([before.encode(photos[: config.photos]).latent, some])
        with autocast(device):
            imagined = trained.decode(latent).float()
        with torch.no_grad(), autocast(device):
            same = before.decode(latent).float()
        own_loss = _unlike(imagined, same)

        # New faces are paired with any photo: all stand alike in their crops.
        against, told_apart = discriminator.play(photos, imagined, valid)
        (own,) = torch.autograd.grad(own_loss, imagined)
        pull = risen(config.pull, config.pull_rises, step.progress)
        gradient = balanced(own, against, pull, _usual_gradient(same, generator).norm())
        shares = {"told_apart": told_apart[config.photos :].mean(), "told_apart_photos": told_apart[: config.photos].mean()}
        run.descend((imagined * gradient).sum(), shown={"own": own_loss} | shares)
    finished = FaceAutoencoder.from_pretrained(out / "autoencoder", **exact).to(device).eval()
    held_out = data.crops[data.split()[1][:128]]
    with torch.no_grad():
        latents = before.encode(to_tensor(held_out, device)).latent
        fine = {
            "photos": sharpness(held_out),
            "imagined before": sharpness(to_pixels(before.decode(latents))),
            "imagined": sharpness(to_pixels(finished.decode(latents))),
            "new faces before": sharpness(to_pixels(before.decode(pool[:128]))),
            "new faces": sharpness(to_pixels(finished.decode(pool[:128]))),
        }
    rounded = {name: round(value, 2) for name, value in fine.items()}
    return {"steps": run.step, "minutes": round(run.spent / 60, 1), "sharpness": rounded}


def _unlike(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """How far crops differ when seen small."""
    small = coarse(first)
    return reconstruction_loss(small, coarse(second), torch.ones_like(small[:, :1]))


@torch.enable_grad()
def _usual_gradient(crops: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Of `_unlike`, anywhere but where crops are equal, as they are at the start: absolute values pull as hard near as far."""
    astray = (crops + torch.randn(crops.shape, generator=generator).to(crops)).requires_grad_(True)
    (gradient,) = torch.autograd.grad(_unlike(astray, crops), astray)
    return gradient


def _pool(
    cache: Path, data: TrainingCrops, model: Path, autoencoder: FaceAutoencoder, config: TextureTraining, device: str
) -> torch.Tensor:
    """`new_latents`, made once; the cache holds nobody."""
    if cache.exists():
        return torch.load(cache, weights_only=True).to(device)
    faces = LatentFaces(autoencoder, data, device, model / "latents.pt")
    pool = new_latents(model, faces, autoencoder, config, device)
    torch.save(pool, cache)
    return pool


def main() -> None:
    arguments = read_arguments(__doc__, "crops", "autoencoder", "model", "out", minutes=15.0)
    places = arguments.crops, arguments.autoencoder, arguments.model, arguments.out
    print(json.dumps(train(*places, arguments.minutes, TextureTraining(seed=arguments.seed), arguments.device)))


if __name__ == "__main__":
    main()
