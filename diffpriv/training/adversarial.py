"""Train the denoiser further against a discriminator, so that few steps give sharp faces instead of the mean of many.

`python -m diffpriv.training.adversarial CROPS.npz AUTOENCODER MODEL OUT --minutes 90` starts from the unet and the msi of a
model folder that `diffpriv.training.package` wrote, and resumes from OUT/checkpoint.pt when it is there. MSI stays as it is,
and with it every key-E.

Source: latent adversarial diffusion distillation (Sauer et al. 2024), with real latents as its targets. The discriminator is a
copy of the first half of the denoiser it starts from, looking at latents made noisy again, with a small head at each
resolution; it is told the same surroundings and stage tokens, so it also asks whether a face fits them. Its losses are
relativistic (Jolicoeur-Martineau 2018): a latent and its photo, under the same noise, are told apart in pairs.

Three kinds of samples, by what the denoiser sees:
    surroundings  the crop with the face blanked, landmarks marked: what `protect` asks for. Adversarial.
    alone         the whole crop blanked, landmarks marked: what `generate` asks for. Adversarial.
    blind         the whole crop blanked, nothing marked: what key-I is inverted under. The denoiser's own loss alone, since
                  inversion needs the trajectories of a diffusion model.
Some of the adversarial ones start from a photo made noisy. Those dreamt start from the denoiser's own samples of somebody who
does not exist, since what it gets wrong there no photo shows (backward simulation, Yin et al. 2024).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn
from torch.nn import functional

from diffpriv.denoising import Denoiser, Prediction, Surroundings
from diffpriv.errors import MisuseError
from diffpriv.faces.marks import landmark_marks
from diffpriv.models.autoencoder import FaceAutoencoder
from diffpriv.models.msi import QUANTISATION_STEP, MultiScaleInverter, stage_of
from diffpriv.scenes import scene_vector
from diffpriv.schedules import scheduled_tokens
from diffpriv.training.dataset import load_crops
from diffpriv.training.denoiser import new_denoiser, new_scheduler, weighted_loss
from diffpriv.training.latent_faces import LatentFaces
from diffpriv.training.loop import TrainingRun, autocast, read_arguments
from diffpriv.training.noising import TIMESTEPS, coefficients, on_schedule
from diffpriv.training.samples import save_sample_sheet

HEAD_WIDTH = 64
TRUNK_GRADIENT_NORM = 1.0
OUTSIDE_WEIGHT = 0.1  # of the denoiser's own loss outside the blanked region


@dataclass(frozen=True)
class AdversarialTraining:
    """alone, blind: samples of these kinds in a batch; the others have surroundings. dreamt, alone_dreamt: how many of those
    with surroundings and of those alone are dreamt. start_share: of the adversarial ones that start from noise. pull: of the
    discriminator, against the denoiser's own loss. pull_rises: timesteps between which it rises from nothing.
    """

    batch: int = 32
    dreamt: int = 11
    alone: int = 9
    alone_dreamt: int = 6
    blind: int = 5
    start_share: float = 0.15
    key_dropout: float = 0.15
    learning_rate: float = 1e-4
    head_learning_rate: float = 6e-4
    trunk_learning_rate: float = 1e-4
    warmup_steps: int = 80
    pull: float = 3.0
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


class Discriminator(nn.Module):
    """Logits of "real" at each resolution for latents made noisy again: a head on each level of a denoiser's first half, which
    it shares with the denoiser that it is given.
    """

    def __init__(self, denoiser: UNet2DConditionModel) -> None:
        super().__init__()
        first_half = ("conv_in", "time_proj", "time_embedding", "down_blocks", "mid_block")
        self.trunk = nn.ModuleDict({name: getattr(denoiser, name) for name in first_half})
        self._last_layer = denoiser.config["layers_per_block"] - 1
        widths = [*denoiser.config["block_out_channels"], denoiser.config["block_out_channels"][-1]]
        self.heads = nn.ModuleList([_head(width) for width in widths])

    def features(self, model_input: torch.Tensor, timestep: torch.Tensor, tokens: torch.Tensor) -> list[torch.Tensor]:
        """Of the trunk at 16 x 16, 8 x 8 and 4 x 4, and after its middle block.

        Args:
            model_input: noisy latent, surroundings and mask, (n, 17, 16, 16). tokens: (n, tokens, token_dim).
        """
        trunk: Any = self.trunk
        embedding = trunk["time_embedding"](trunk["time_proj"](timestep).to(model_input.dtype))
        hidden, seen = trunk["conv_in"](model_input), []
        for block in trunk["down_blocks"]:
            more = {"encoder_hidden_states": tokens} if getattr(block, "has_cross_attention", False) else {}
            hidden, states = block(hidden_states=hidden, temb=embedding, **more)
            seen.append(states[self._last_layer])
        return [*seen, trunk["mid_block"](hidden, embedding, encoder_hidden_states=tokens)]

    def judge(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        return [head(one) for head, one in zip(self.heads, features, strict=True)]


def _head(width: int) -> nn.Module:
    return nn.Sequential(
        nn.GroupNorm(16, width),
        nn.Conv2d(width, HEAD_WIDTH, 1),
        nn.SiLU(),
        nn.Conv2d(HEAD_WIDTH, HEAD_WIDTH, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(HEAD_WIDTH, 1, 1),
    )


def train(
    crops_path: Path, autoencoder_path: Path, start: Path, out: Path, minutes: float, config: AdversarialTraining, device: str
) -> None:
    data = load_crops(crops_path)
    exact = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}
    autoencoder = FaceAutoencoder.from_pretrained(autoencoder_path, **exact).to(device).eval()
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
    discriminator = Discriminator(UNet2DConditionModel.from_pretrained(start / "unet", **exact)).to(device, **layout)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=config.learning_rate, betas=(0.5, 0.99), weight_decay=0.01)
    denoiser = Denoiser(unet, scheduler)
    trunk = list(discriminator.trunk.parameters())
    parts: list[dict[str, Any]] = [{"params": discriminator.heads.parameters()}, {"params": trunk}]
    against_optimizer = torch.optim.Adam(parts, betas=(0.0, 0.99))

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
        others={"discriminator": discriminator, "against": against_optimizer},
    )
    # Rows of a batch by kind: surroundings first, then alone, then blind.
    played = config.batch - config.blind
    surrounded = played - config.alone
    dreamt = slice(surrounded - config.dreamt, surrounded + config.alone_dreamt)
    lived = torch.tensor([row for row in range(config.batch) if not dreamt.start <= row < dreamt.stop], device=device)
    everything = torch.arange(config.batch)[:, None, None, None].to(device) >= surrounded
    ratio = 0.0  # how much stronger the denoiser's own gradient is than the discriminator's: a slow mean
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
            told = stages[torch.arange(config.batch, device=device), stage_of(timestep)]
            predicted = unet(torch.cat([noisy, seen, mask], 1), timestep, encoder_hidden_states=told).sample.float()
        compared = (predicted[lived], target[lived], mask[lived], batch.valid[lived])  # a dream has no photo
        own_loss = weighted_loss(*compared, OUTSIDE_WEIGHT)

        # What stands in the picture then: the new face inside, the photo outside.
        made = (signal * noisy - spread * predicted)[:played]
        shown = mask[:played] * made + (1 - mask[:played]) * clean[:played]
        # Mostly little noise, which leaves sharpness to be seen; sometimes much, which leaves the shape of the head.
        again = (torch.rand(played, generator=generator).square() * config.highest_noise).long().to(device)
        fresh = torch.randn(shown.shape, generator=generator).to(device)
        signal_again, spread_again = coefficients(alphas, again)
        tokens_again = stages[torch.arange(played, device=device), stage_of(again)]
        tokens_again[dreamt] = msi.null_tokens  # else nobody's tokens alone would give a dream away
        around = torch.cat([seen, mask], 1)[:played]

        def look(latents: torch.Tensor) -> list[torch.Tensor]:
            """Features of (several, played, channels, 16, 16), the first two axes as one."""
            several = len(latents)
            renoised = signal_again * latents + spread_again * fresh  # noqa: B023 - called within the step
            seen_again = torch.cat([renoised, around.expand(several, -1, -1, -1, -1)], 2).flatten(0, 1)  # noqa: B023
            with autocast(device):
                return discriminator.features(seen_again, again.repeat(several), tokens_again.repeat(several, 1, 1))  # noqa: B023

        # The discriminator's turn, then the denoiser's, under the same noise.
        pairs = look(torch.stack([clean[:played], shown.detach()]))
        with autocast(device):
            told_apart = _gaps(*zip(*[one.unflatten(0, (2, -1)) for one in discriminator.judge(pairs)], strict=True))
        heads_loss = torch.stack([functional.softplus(-gap).mean() for gap in told_apart]).sum()
        warm = min(1.0, (step.index + 1) / config.warmup_steps)
        rates = config.head_learning_rate, config.trunk_learning_rate
        for group, rate in zip(against_optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * warm
        against_optimizer.zero_grad(set_to_none=True)
        heads_loss.backward()
        torch.nn.utils.clip_grad_norm_(trunk, TRUNK_GRADIENT_NORM)
        against_optimizer.step()
        with torch.no_grad(), autocast(device):
            real = discriminator.judge(look(clean[None, :played]))
        with autocast(device):
            gaps = _gaps(discriminator.judge(look(shown[None])), real)
        believed = torch.stack([functional.softplus(-gap).mean((1, 2, 3)) for gap in gaps]).sum(0)
        low, high = config.pull_rises
        share = ((timestep[:played] - low) / (high - low)).clamp(0, 1)
        (own,) = torch.autograd.grad(own_loss, predicted, retain_graph=True)
        (against,) = torch.autograd.grad((believed * share).sum() / config.batch, predicted, retain_graph=True)
        now = float(own[:played].norm() / against.norm().clamp(min=1e-12))
        ratio = now if not ratio else 0.98 * ratio + 0.02 * now
        pull = config.pull * min(1.0, max(0.0, step.index / config.warmup_steps - 1))
        surrogate = (predicted * (own + pull * ratio * against)).sum()
        right = sum(float((gap.mean((1, 2, 3)) > 0).float().mean()) for gap in told_apart) / len(told_apart)
        run.descend(surrogate, shown={"own": own_loss, "heads": heads_loss, "right": right, "ratio": ratio})
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


def _gaps(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [one.float() - other.float() for one, other in zip(first, second, strict=True)]


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
