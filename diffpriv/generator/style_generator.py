"""Stage 2 in style space: from a wish and a face's seed to a drawn head.

The same algorithm as for spatial latents (`diffpriv.sampling`, `diffpriv.guidance`): keyed noise, a denoiser under an embedding
schedule, an energy's gradient after each step. Here a latent is a style code, the energy looks through the reader instead of a
decoder, and only the code that is chosen in the end is drawn. Files are read and written by `from_pretrained` and
`save_pretrained` alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import DDIMScheduler
from torch import nn

from diffpriv.faces.appearance import NAMES, TOLD
from diffpriv.generator.codes import CODE_STYLES, StyleSpace, level_styles
from diffpriv.generator.mapping import MappingNetwork
from diffpriv.generator.people import SPREAD_RANK, SyntheticPeople
from diffpriv.generator.prototypes import LookPrototypes
from diffpriv.generator.reader import Reading, StyleReader
from diffpriv.generator.small_pictures import SmallPictures, draw_picture
from diffpriv.generator.style_denoiser import StyleDenoiser
from diffpriv.generator.synthesis import SynthesisNetwork
from diffpriv.generator.wishes import WishEnergy, Wishes
from diffpriv.guidance import guidance_direction, guided
from diffpriv.keyed_noise import candidate_seed, keyed_normal
from diffpriv.noise_schedule import NoiseSchedule, Prediction
from diffpriv.sampling import Guidance, sample

# Five landmarks in a drawing, as shares of its side: where the generator puts them, about.
DRAWN_LANDMARKS = np.array([[0.385, 0.47], [0.615, 0.47], [0.5, 0.6], [0.41, 0.71], [0.59, 0.71]])

STRANGENESS = 1.7  # factor on the spread of the strangers whom faces are pulled to
PEOPLE_TEMPERATURE = 1.3  # of the noise of synthetic people that photos share: told nothing, they would be much alike


@dataclass(frozen=True)
class StyleSettings:
    """How codes are sampled.

    Attributes:
        draws: codes a face, rated by the energy; the best is drawn.
        drawings: of a face's best codes that are drawn at most, until one fits.
        steps: of the sampler.
        conditional_from: timesteps at or above this are told the prototype's looks; below, places alone.
        guidance_scale: length of a guided step as a share of the code's RMS.
        guidance_last: guided steps on the finished code, each a little shorter than the one before.
        temperature: factor on the keyed noise.
        truncation: of each style of a finished code, its share of the way from the mean style. Guided codes lie further out
            than what the generator was trained to draw, which shows as blotched skin; above all in the style of colour.
        largest_side: of a drawing, pixels; larger faces are softer than their pictures.
    """

    draws: int
    drawings: int = 3
    steps: int = 24
    conditional_from: int = 300
    guidance_scale: float = 0.06
    guidance_last: int = 24
    temperature: float = 0.9
    truncation: tuple[float, float] = (0.95, 0.6)
    largest_side: int = 1024


@dataclass(frozen=True, eq=False)
class RatedCodes:
    """codes: (n, draws, 2, 512), a face's best first. energies: (n, draws)."""

    codes: torch.Tensor
    energies: torch.Tensor


class StyleGenerator(nn.Module):
    """All networks of stage 2 in style space; each is a folder of its own below the generator's."""

    PARTS: ClassVar[dict[str, Any]] = {
        "mapping": MappingNetwork,
        "synthesis": SynthesisNetwork,
        "small": SmallPictures,
        "space": StyleSpace,
        "reader": StyleReader,
        "denoiser": StyleDenoiser,
        "prototypes": LookPrototypes,
        "people": SyntheticPeople,
    }

    def __init__(self, scheduler: DDIMScheduler, **parts: nn.Module) -> None:
        super().__init__()
        if set(parts) != set(self.PARTS):
            raise ValueError(f"a generator has the parts {', '.join(self.PARTS)}")
        self.scheduler = scheduler
        self.schedule = NoiseSchedule(scheduler)
        for name, part in parts.items():
            self.add_module(name, part)

    mapping: MappingNetwork
    synthesis: SynthesisNetwork
    small: SmallPictures
    space: StyleSpace
    reader: StyleReader
    denoiser: StyleDenoiser
    prototypes: LookPrototypes
    people: SyntheticPeople

    @classmethod
    def from_pretrained(cls, folder: Path) -> "StyleGenerator":
        """Every part as float32, in evaluation mode."""
        scheduler = DDIMScheduler.from_pretrained(folder / "scheduler", local_files_only=True)
        parts = {
            name: kind.from_pretrained(folder / name, local_files_only=True, low_cpu_mem_usage=False).float()
            for name, kind in cls.PARTS.items()
        }
        return cls(scheduler, **parts).eval().requires_grad_(False)

    def save_pretrained(self, folder: Path) -> None:
        self.scheduler.save_pretrained(folder / "scheduler")
        for name in self.PARTS:
            getattr(self, name).save_pretrained(folder / name)

    @torch.no_grad()
    def person(self, looks: torch.Tensor, seed: bytes, label: str, original: torch.Tensor, limit: float) -> torch.Tensor:
        """(dim,) embedding of a synthetic person with these looks, from a seed.

        Args:
            looks: (len(TRAITS),) standardised. label: of the seed's stream.
            original: (dim,) whom the person must not be like.
            limit: cosine to the original that is unlike enough.
        """

        def draw(number: int) -> torch.Tensor:
            return STRANGENESS * torch.from_numpy(keyed_normal(seed, f"{label}/{number}", (1, SPREAD_RANK))).to(looks)

        return self.people.stranger(looks[None], draw, lambda person: person @ original < limit)[0]

    @torch.no_grad()
    def people_latents(self, seeds: Sequence[bytes], settings: StyleSettings) -> torch.Tensor:
        """(n, 2, 512) latents of synthetic people, told nothing but 32-byte seeds: what all their photos start from."""
        state = PEOPLE_TEMPERATURE * self._noise(seeds, "person code")

        def predict(noisy: torch.Tensor, timestep: int) -> Prediction:
            times = torch.full((len(noisy),), timestep, device=noisy.device)
            return self.schedule.prediction(self.denoiser(noisy, times, None, None), noisy, timestep)

        return sample(state, self.schedule.timesteps(settings.steps), predict, self.schedule)

    @torch.no_grad()
    def read(self, latents: torch.Tensor) -> Reading:
        """What heads of these latents, (n, 2, 512), are like."""
        return self.reader(self.space.code(latents))

    @torch.no_grad()
    def codes(
        self,
        wishes: Wishes,
        seeds: Sequence[bytes],
        settings: StyleSettings,
        *,
        spread: float,
        keep_hair: bool,
        attempt: int = 0,
    ) -> RatedCodes:
        """Codes for n faces, rated; a face's are determined by its wish and seed, and to the bit by n as well.

        Args:
            wishes: what the heads are to be like.
            seeds: 32 bytes each.
            settings: of sampling.
            spread: see `WishEnergy`.
            keep_hair: see `WishEnergy`.
            attempt: enters the noise.
        """
        device, count = self.reader.code_mean.device, len(seeds)
        wishes = wishes.repeated(settings.draws)
        energy = WishEnergy(wishes, self.prototypes, spread, keep_hair)
        places = self._standard_places(wishes.places)
        candidates = [candidate_seed(seed, number) for seed in seeds for number in range(settings.draws)]
        state = settings.temperature * self._noise(candidates, f"code/{attempt}")

        def predict(noisy: torch.Tensor, timestep: int) -> Prediction:
            # The embedding schedule: conditional on the prototype while the layout is decided, on places alone after.
            looks = wishes.looks if timestep >= settings.conditional_from else None
            times = torch.full((len(noisy),), timestep, device=device)
            return self.schedule.prediction(self.denoiser(noisy, times, places, looks), noisy, timestep)

        def total(latent: torch.Tensor) -> torch.Tensor:
            return energy(self.reader(self.space.code(latent)))

        def guide(state: torch.Tensor, clean: torch.Tensor, scale: float = settings.guidance_scale) -> torch.Tensor:
            return guided(state, guidance_direction(clean, lambda latent: latent, total), 1.0, scale)

        timesteps = self.schedule.timesteps(settings.steps)
        latent = wishes.start
        if latent is None or bool(latent.isnan().any()):
            drawn = sample(state, timesteps, predict, self.schedule, guidance=Guidance(guide))
            latent = drawn if latent is None else torch.where(latent.isnan(), drawn, latent)
        for step in range(settings.guidance_last):
            share = 1 - step / settings.guidance_last
            latent = guide(latent, latent, 0.5 * settings.guidance_scale * share)
        mean = self.mapping.mean
        codes = mean + torch.tensor(settings.truncation, device=device)[:, None] * (self.space.code(latent) - mean)
        energies = energy(self.reader(codes)).unflatten(0, (count, -1))
        order = energies.argsort(dim=1, stable=True)
        rows = torch.arange(count, device=device)[:, None]
        return RatedCodes(codes.unflatten(0, (count, -1))[rows, order], energies[rows, order])

    def _noise(self, seeds: Sequence[bytes], label: str) -> torch.Tensor:
        shape = (CODE_STYLES, int(self.mapping.config["dim"]))
        return torch.from_numpy(np.stack([keyed_normal(seed, label, shape) for seed in seeds])).to(self.reader.code_mean.device)

    def _standard_places(self, places: torch.Tensor) -> torch.Tensor:
        columns = [NAMES.index(name) for name in TOLD]
        return (places - self.reader.number_mean[columns]) / self.reader.number_scale[columns]

    @torch.no_grad()
    def draw(self, code: torch.Tensor, side: int) -> np.ndarray:
        """(s, s, 3) uint8 RGB, s the smallest of 128, 256, 512 and 1024 that is at least `side`.

        Args:
            code: (2, 512).
        """
        picture = draw_picture(self.synthesis, self.small, level_styles(code[None]), side)
        return ((picture[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
