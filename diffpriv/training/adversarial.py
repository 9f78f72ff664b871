"""Train the denoiser further against two discriminators, so that few steps give sharp faces instead of the mean of many.

`python -m diffpriv.training.adversarial CROPS.npz AUTOENCODER MODEL OUT --minutes 90` starts from the unet, the msi and the
recogniser of a model folder that `diffpriv.training.package` wrote, and resumes from OUT/checkpoint.pt when it is there. MSI
stays as it is, and with it every key-E.

Two discriminators take turns, each a step: one looks at latents (`diffpriv.training.seen_latents`), one at the faces they are
decoded to (`diffpriv.training.seen_faces`), through the features of the model folder's recogniser.

Source: adversarial diffusion distillation (Sauer et al. 2023) and its latent kind (Sauer et al. 2024), with photos as targets
in place of a teacher's samples.

Three kinds of samples, by what the denoiser sees:
    surroundings  the crop with the face blanked, landmarks marked: what `protect` asks for. Adversarial.
    alone         the whole crop blanked, landmarks marked: what `generate` asks for. Adversarial.
    blind         the whole crop blanked, nothing marked: what key-I is inverted under. The denoiser's own loss alone, since
                  inversion needs the trajectories of a diffusion model.
Some of the adversarial ones start from a photo made noisy. Those dreamt start from the denoiser's own samples of somebody who
does not exist, since what it gets wrong there no photo shows (backward simulation, Yin et al. 2024).
"""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from diffpriv.denoising import Denoiser, Prediction, Surroundings
from diffpriv.errors import MisuseError
from diffpriv.faces.marks import landmark_marks
from diffpriv.models.autoencoder import FaceAutoencoder
from diffpriv.models.msi import QUANTISATION_STEP, MultiScaleInverter, stage_of
from diffpriv.models.recognizer import FaceRecognizer
from diffpriv.scenes import scene_vector
from diffpriv.schedules import scheduled_tokens
from diffpriv.training.dataset import load_crops
from diffpriv.training.denoiser import new_denoiser, new_scheduler, weighted_loss
from diffpriv.training.latent_faces import LatentFaces
from diffpriv.training.loop import TrainingRun, autocast, read_arguments
from diffpriv.training.noising import TIMESTEPS, coefficients, on_schedule
from diffpriv.training.samples import save_sample_sheet
from diffpriv.training.seen_faces import SeenFaces
from diffpriv.training.seen_latents import LatentDiscriminator, SeenLatents

EXAMPLES = 64  # photos that the recogniser's features are standardised by
OUTSIDE_WEIGHT = 0.1  # of the denoiser's own loss outside the blanked region


@dataclass(frozen=True)
class AdversarialTraining:
    """alone, blind: samples of these kinds in a batch; the others have surroundings. dreamt, alone_dreamt: how many of those
    with surroundings and of those alone are dreamt. start_share: of the adversarial ones that start from noise. latent_rates:
    of the discriminator of latents, its heads' and its trunk's; highest_noise: timestep up to which it has latents made noisy.
    face_rate: of the discriminator of decoded faces. pulls: of the two, in this order, against the denoiser's own loss; they
    rise from nothing between the timesteps pull_rises.
    """

    batch: int = 32
    dreamt: int = 11
    alone: int = 9
    alone_dreamt: int = 6
    blind: int = 5
    start_share: float = 0.15
    key_dropout: float = 0.15
    learning_rate: float = 1e-4
    latent_rates: tuple[float, float] = (6e-4, 1e-4)
    face_rate: float = 1e-3
    warmup_steps: int = 60
    pulls: tuple[float, float] = (3.0, 3.0)
    pull_rises: tuple[int, int] = (50, 350)
    highest_noise: int = 600
    average_decay: float = 0.995
    seed: int = 0

    def __post_init__(self) -> None:
        surrounded = self.batch - self.blind - self.alone
        if self.dreamt > surrounded or self.alone_dreamt > self.alone:
            raise MisuseError(
                f"Of {surrounded} samples with surroundings {self.dreamt} cannot be dreamt, or of {self.alone} alone "
                f"{self.alone_dreamt}.",
                advice="Dream fewer, or take a larger batch.",
            )


def train(
    crops_path: Path, autoencoder_path: Path, start: Path, out: Path, minutes: float, config: AdversarialTraining, device: str
) -> None:
    data = load_crops(crops_path)
    exact = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}
    autoencoder = FaceAutoencoder.from_pretrained(autoencoder_path, **exact).to(device).eval().requires_grad_(False)
    out.mkdir(parents=True, exist_ok=True)
    faces = LatentFaces(autoencoder, data, device, out / "latents.pt")
    scheduler = new_scheduler()
    alphas = scheduler.alphas_cumprod.to(device)

    torch.manual_seed(config.seed)
    unet = new_denoiser()
    unet.load_state_dict(UNet2DConditionModel.from_pretrained(start / "unet", **exact).state_dict())
    layout: Any = {"memory_format": torch.channels_last}  # a third less time on a CPU
    unet.to(device, **layout)
    msi = MultiScaleInverter.from_pretrained(start / "msi", **exact).to(device).eval().requires_grad_(False)
    if not msi.fitted:
        raise MisuseError(
            f"{start}/msi has no prior over faces.", advice="Start from a folder written by diffpriv.training.package."
        )
    optimizer = torch.optim.AdamW(unet.parameters(), lr=config.learning_rate, betas=(0.5, 0.99), weight_decay=0.01)
    denoiser = Denoiser(unet, scheduler)
    trunk = LatentDiscriminator(UNet2DConditionModel.from_pretrained(start / "unet", **exact)).to(device, **layout)
    seen_latents = SeenLatents(trunk, alphas, config.latent_rates, config.highest_noise, config.warmup_steps, device)
    recognizer = FaceRecognizer.from_pretrained(start / "recognizer", **exact).to(device).eval().requires_grad_(False)
    examples = faces.draw(EXAMPLES, torch.Generator().manual_seed(config.seed)).clean
    seen_faces = SeenFaces(autoencoder, recognizer, examples, config.face_rate, device)

    def write_model() -> None:
        finished = new_denoiser()
        finished.load_state_dict(run.averages["unet"].values)
        finished.half().save_pretrained(out / "unet")
        scheduler.save_pretrained(out / "scheduler")

    run = TrainingRun(
        out / "checkpoint.pt",
        {"unet": unet},
        optimizer,
        minutes=minutes,
        decay=config.average_decay,
        seed=config.seed,
        write=write_model,
        save_seconds=240,
        report_every=20,
        others={
            "latents": seen_latents.network,
            "latents_optimizer": seen_latents.optimizer,
            "faces": seen_faces.heads,
            "faces_optimizer": seen_faces.optimizer,
        },
    )
    # Rows of a batch by kind: surroundings first, then alone, then blind.
    played = config.batch - config.blind
    surrounded = played - config.alone
    dreamt = slice(surrounded - config.dreamt, surrounded + config.alone_dreamt)
    lived = torch.tensor([row for row in range(config.batch) if not dreamt.start <= row < dreamt.stop], device=device)
    everything = torch.arange(config.batch)[:, None, None, None].to(device) >= surrounded
    ratios: dict[str, float] = {}  # how much stronger the denoiser's own gradient is than each discriminator's: slow means
    for step in run.steps():
        generator = step.generator
        batch = faces.draw(config.batch, generator)
        clean = batch.clean
        marks = landmark_marks(batch.landmarks[surrounded:played].cpu().numpy())
        with torch.no_grad():
            marked = autoencoder.encode(torch.from_numpy(marks).to(device)).latent
        seen = torch.cat([batch.seen[:surrounded], marked, faces.nothing.expand(config.blind, -1, -1, -1)])
        mask = torch.where(everything, torch.ones_like(faces.face), faces.face)

        timestep = _timesteps(config, played, generator).to(device)
        noise = torch.randn(clean.shape, generator=generator).to(device)
        drop_key = (torch.rand(config.batch, generator=generator) < config.key_dropout).to(device)[:, None, None]
        rounding = (torch.rand(config.batch, 1, 1, generator=generator) - 0.5).to(device) * QUANTISATION_STEP
        optimizer.param_groups[0]["lr"] = config.learning_rate * step.rate(config.warmup_steps, floor=0.05)

        # Apart from what is differentiated: autocast would hand on weights that it cast without a gradient.
        with torch.no_grad(), autocast(device):
            stages = msi.stage_tokens(msi(clean).features + rounding)
            stages = torch.where(drop_key[..., None], msi.null_tokens, stages)
            scenes = scene_vector(seen[dreamt.start : surrounded], batch.landmarks[dreamt.start : surrounded])
            stages[dreamt] = _nobody(msi, scenes, config.alone_dreamt, generator)
            around_dreams = Surroundings(seen[dreamt], mask[dreamt])
            dreams, timestep[dreamt] = _dream(denoiser, around_dreams, stages[dreamt], generator)
        signal, spread = coefficients(alphas, timestep)
        noisy, target = signal * clean + spread * noise, signal * noise - spread * clean
        noisy[dreamt] = dreams
        with autocast(device):
            tokens = stages[torch.arange(config.batch, device=device), stage_of(timestep)]
            predicted = unet(torch.cat([noisy, seen, mask], 1), timestep, encoder_hidden_states=tokens).sample.float()
        compared = (predicted[lived], target[lived], mask[lived], batch.valid[lived])  # a dream has no photo
        own_loss = weighted_loss(*compared, OUTSIDE_WEIGHT)

        # What stands in the picture then: the new face inside, the photo outside.
        made = (signal * noisy - spread * predicted)[:played]
        shown = mask[:played] * made + (1 - mask[:played]) * clean[:played]
        low, high = config.pull_rises
        share = ((timestep[:played] - low) / (high - low)).clamp(0, 1)
        rival = ("latents", "faces")[step.index % 2]
        if rival == "latents":
            told = stages[:played].clone()
            told[dreamt] = msi.null_tokens  # else nobody's tokens alone would give a dream away
            around = torch.cat([seen, mask], 1)[:played]
            against, right = seen_latents.play(clean[:played], shown, share, around, told, step)
        else:
            against, right = seen_faces.play(clean[:played], shown, share, step)
        (own,) = torch.autograd.grad(own_loss, predicted, retain_graph=True)
        (against,) = torch.autograd.grad(shown, predicted, against, retain_graph=True)
        ratio = float(own[:played].norm() / against.norm().clamp(min=1e-12))
        ratios[rival] = 0.96 * ratios[rival] + 0.04 * ratio if rival in ratios else ratio
        pull = config.pulls[step.index % 2] * min(1.0, max(0.0, step.index / config.warmup_steps - 1))
        surrogate = (predicted * (own + pull * ratios[rival] * against)).sum()
        run.descend(surrogate, shown={"own": own_loss, f"{rival}_right": right, f"{rival}_ratio": ratios[rival]})
    (out / "msi").mkdir(exist_ok=True)
    msi.half().save_pretrained(out / "msi")
    held_out = data.split()[1][:24]
    save_sample_sheet(out, autoencoder, data.crops[held_out], data.landmarks[held_out])


def _dream(
    denoiser: Denoiser, around: Surroundings, stages: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, int]:
    """Where sampling gets to from noise alone, by the denoiser as it is, some way down its few steps.

    Returns:
        noisy latents, (n, channels, 16, 16), and their timestep.
    """
    steps = int(torch.randint(4, 7, (1,), generator=generator))
    taken = int(torch.randint(steps, (1,), generator=generator))
    grid = denoiser.timesteps(steps)[: taken + 1]

    def fresh() -> torch.Tensor:
        return torch.randn(around.latent.shape, generator=generator).to(around.latent)

    state = fresh()
    for here, there in itertools.pairwise(grid):
        clean = denoiser.predict(state, here, stages, around).clean
        state = denoiser.step(Prediction(clean, fresh()), there)
    return state, grid[-1]


def _nobody(msi: MultiScaleInverter, scenes: torch.Tensor, alone: int, generator: torch.Generator) -> torch.Tensor:
    """Stage tokens of people who do not exist: one who fits each scene, then `alone` who fit none."""
    normal = torch.randn(len(scenes) + alone, len(msi.prior_basis), generator=generator).to(scenes)
    fitting = msi.features_of_nobody(normal[: len(scenes)], scenes)
    features = torch.cat([fitting, msi.features_of_nobody(normal[len(scenes) :])])
    return scheduled_tokens(msi, features, TIMESTEPS, features)


def _timesteps(config: AdversarialTraining, played: int, generator: torch.Generator) -> torch.Tensor:
    """(batch,) of adversarial samples, spread evenly over the schedule, some at its start; then of blind ones, evenly too."""
    even = [
        on_schedule((torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count)
        for count in (played, config.batch - played)
    ]
    first = torch.rand(played, generator=generator) < config.start_share
    return torch.cat([torch.where(first, TIMESTEPS - 1, even[0]), even[1]])


def main() -> None:
    arguments = read_arguments(__doc__, "crops", "autoencoder", "model", "out", minutes=90.0)
    train(
        arguments.crops,
        arguments.autoencoder,
        arguments.model,
        arguments.out,
        arguments.minutes,
        AdversarialTraining(seed=arguments.seed),
        arguments.device,
    )


if __name__ == "__main__":
    main()
