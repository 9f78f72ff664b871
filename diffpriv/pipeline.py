"""The three stages of Diff-Privacy as one diffusers pipeline: create_key, protect, recover.

Source: He et al. 2023, *Diff-Privacy: Diffusion-based Face Privacy Protection* (arXiv 2309.05330). Differences on purpose: MSI
is amortised (one forward pass a face), the denoiser sees the surroundings of the face, and everything random comes from a
face's seed. Works on aligned crops; finding faces and putting them back is `diffpriv.faces`. Knows no files beyond its own
model folder, no engine and no key store.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from torch.nn import functional

from diffpriv.denoising import Denoiser, Surroundings
from diffpriv.energies.hiding import HidingEnergy
from diffpriv.energies.identity import IdentityEnergy
from diffpriv.faces.compositing import face_mask
from diffpriv.faces.masks import blank_mask
from diffpriv.guidance import Energy, guidance_direction, guided
from diffpriv.inversion import invert, regenerate
from diffpriv.keyed_noise import keyed_normal
from diffpriv.latents import LATENT_SCALE, decode_latents, encode_crops
from diffpriv.models.autoencoder import FaceAutoencoder
from diffpriv.models.msi import MultiScaleInverter
from diffpriv.models.recognizer import FaceRecognizer
from diffpriv.presets import Preset
from diffpriv.schedules import scheduled_tokens
from diffpriv.sketches import apply_sketch, make_sketch


@dataclass(frozen=True, eq=False)
class KeyOutput:
    """Stage 1: what recovery needs. key_e (n, 3, 160) int8; key_i (n, *latent_shape) float32 or None; residual (n,) or None."""

    key_e: torch.Tensor
    key_i: torch.Tensor | None
    residual: torch.Tensor | None


@dataclass(frozen=True, eq=False)
class ProtectOutput:
    """Stage 2: crops (n, 3, size, size) in [-1, 1], the new face blended into the original's surroundings."""

    crops: torch.Tensor


class DiffPrivacyPipeline(DiffusionPipeline):
    """Reversible pseudonymisation of aligned face crops.

    All methods take crops (n, 3, size, size), float32 RGB in [-1, 1], on the pipeline's device; `crop_size` is 128 for the
    builtin model. n is free, but the bits of a result depend on n (summation order in kernels), so callers that need
    reproducible bytes keep n fixed. `arithmetic` torch.bfloat16 computes convolutions and products of protection and inversion
    in half precision (autocast); recovery is always float32.
    """

    def __init__(
        self,
        vae: FaceAutoencoder | AutoencoderKL,
        unet: UNet2DConditionModel,
        scheduler: DDIMScheduler,
        msi: MultiScaleInverter,
        recognizer: FaceRecognizer,
    ) -> None:
        super().__init__()
        self.register_modules(vae=vae, unet=unet, scheduler=scheduler, msi=msi, recognizer=recognizer)
        self.denoiser = Denoiser(unet, scheduler)
        self.arithmetic = torch.float32

    @property
    def crop_size(self) -> int:
        """Side of the canonical square that this model works on, in pixels."""
        return int(self.unet.config["sample_size"]) * LATENT_SCALE

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        side = int(self.unet.config["sample_size"])
        return int(self.unet.config["out_channels"]), side, side

    def surroundings(self, crops: torch.Tensor) -> Surroundings:
        """What the denoiser may see of these crops: the face region blanked."""
        blank = torch.from_numpy(blank_mask(crops.shape[-1])).to(crops)[None, None]
        mask = functional.avg_pool2d(blank, LATENT_SCALE).expand(len(crops), -1, -1, -1)
        return Surroundings(encode_crops(self.vae, crops * (1 - blank)), mask)

    def nothing_around(self, count: int) -> Surroundings:
        """Surroundings of a crop blanked whole: the condition under which key-I is made and read."""
        blank = torch.zeros(1, 3, self.crop_size, self.crop_size, device=self.device)
        latent = encode_crops(self.vae, blank).expand(count, -1, -1, -1)
        return Surroundings(latent, torch.ones(count, 1, *latent.shape[2:], device=self.device))

    @torch.no_grad()
    def create_key(self, crops: torch.Tensor, preset: Preset, *, noise_map: bool = True) -> KeyOutput:
        """Stage 1. key-E by one pass of MSI, quantised; key-I by deterministic inversion under the quantised key-E.

        Args:
            noise_map: False leaves key-I out (tiers that keep none), which saves nearly all of the cost.
        """
        latent = encode_crops(self.vae, crops)
        key_e = self.msi.quantise(self.msi(latent).features)
        if not noise_map:
            return KeyOutput(key_e, None, None)
        tokens = self.msi.stage_tokens(self.msi.dequantise(key_e))
        nothing_around = self.nothing_around(len(crops))
        with self._autocast():
            output = invert(
                latent,
                tokens,
                nothing_around,
                self.denoiser,
                steps=preset.inversion_steps,
                max_refinements=preset.inversion_refinements,
            )
        return KeyOutput(key_e, output.noise_map, output.residual)

    @torch.no_grad()
    def protect(
        self, crops: torch.Tensor, key_e: torch.Tensor, seeds: Sequence[bytes], task: str, preset: Preset, *, attempt: int = 0
    ) -> ProtectOutput:
        """Stage 2: a new face for each crop, determined by its seed.

        Args:
            key_e: (n, 3, 160) int8 of the originals. seeds: n times 32 bytes.
            task: "anonymize" or "hide". attempt: 0, 1, …: enters the noise, and later attempts push harder.
        """
        noise = preset.temperature * self._keyed_noise(seeds, f"start/{attempt}")
        # Later attempts of `anonymize` forget key-E altogether.
        conditional_from = preset.conditional_from if task == "hide" or attempt == 0 else 1000
        tokens = scheduled_tokens(self.msi, self.msi.dequantise(key_e), conditional_from)
        timesteps = self.denoiser.timesteps(preset.steps, preset.strength)
        signal, spread = self.denoiser.coefficients(timesteps[0])
        start = encode_crops(self.vae, crops) if preset.strength < 1 else torch.zeros_like(noise)
        state = signal * start + spread * noise

        scale = preset.guidance_scale * (1 + 0.75 * attempt)
        energy = self._energy(task, crops, preset, seeds)
        with self._autocast():
            latent = self._denoise(state, timesteps, tokens, crops, energy, scale, preset.guidance_every, preset.order)
        return ProtectOutput(self._in_place(latent, crops).clamp(-1, 1))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.arithmetic == torch.bfloat16)

    def _keyed_noise(self, seeds: Sequence[bytes], label: str) -> torch.Tensor:
        drawn = [keyed_normal(seed, label, self.latent_shape) for seed in seeds]
        return torch.from_numpy(np.stack(drawn)).to(self.device)

    def _denoise(
        self,
        state: torch.Tensor,
        timesteps: list[int],
        tokens: torch.Tensor,
        crops: torch.Tensor,
        energy: Energy,
        scale: float,
        every: int,
        order: int,
    ) -> torch.Tensor:
        """From a noisy state to latents of a new face that fits what surrounds the face in `crops`."""
        surroundings = self.surroundings(crops)
        region = functional.avg_pool2d(self._blend(crops), LATENT_SCALE)
        clean: torch.Tensor | None = None
        for index, timestep in enumerate(timesteps):
            following = timesteps[index + 1] if index + 1 < len(timesteps) else -1
            prediction = self.denoiser.predict(state, timestep, tokens, surroundings)
            ahead = prediction
            if order == 2 and clean is not None:
                ahead = self.denoiser.extrapolated(prediction, clean, (timesteps[index - 1], timestep, following))
            state, clean = self.denoiser.step(ahead, following), prediction.clean
            if scale > 0 and (len(timesteps) - 1 - index) % every == 0:
                state = guided(state, guidance_direction(clean, lambda z: self._in_place(z, crops), energy), region, scale)
        return state

    def _blend(self, crops: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(face_mask(crops.shape[-1])).to(crops)[None, None]

    def _in_place(self, latent: torch.Tensor, crops: torch.Tensor) -> torch.Tensor:
        """The decoded face inside the face mask, `crops` outside; not clamped, differentiable."""
        blend = self._blend(crops)
        return blend * decode_latents(self.vae, latent) + (1 - blend) * crops

    def _energy(self, task: str, crops: torch.Tensor, preset: Preset, seeds: Sequence[bytes]) -> Energy:
        if task == "hide":
            region = torch.from_numpy(face_mask(crops.shape[-1])).to(crops)
            return HidingEnergy(self.recognizer, crops, region, push=2.0, distance=0.5)
        drawn = np.stack([keyed_normal(seed, "direction", (self.recognizer.config["dim"],)) for seed in seeds])
        directions = functional.normalize(torch.from_numpy(drawn).to(crops), dim=1)
        return IdentityEnergy([self.recognizer], crops, preset.margin, [directions])

    @torch.no_grad()
    def recover(self, key_e: torch.Tensor, key_i: torch.Tensor, *, steps: int) -> torch.Tensor:
        """Stage 3, tier `keys`: the original crops, (n, 3, size, size) in [-1, 1], from the two keys alone."""
        tokens = self.msi.stage_tokens(self.msi.dequantise(key_e))
        latent = regenerate(key_i, tokens, self.nothing_around(len(key_e)), self.denoiser, steps=steps)
        return decode_latents(self.vae, latent).clamp(-1, 1)

    @torch.no_grad()
    def sketch(self, crops: torch.Tensor, published: torch.Tensor) -> np.ndarray:
        """Stage 1 of the tier `image`, made last: what leads from the published face back, (n, numbers) int8.

        Args:
            published: the same squares, cut from the picture as it is published.
        """
        return make_sketch(encode_crops(self.vae, crops), encode_crops(self.vae, published))

    @torch.no_grad()
    def recover_in_picture(self, published: torch.Tensor, sketch: np.ndarray) -> torch.Tensor:
        """Stage 3, tier `image`: the original crops, coarser, from the published ones and their sketches.

        Args:
            published: crops of the published picture, (n, 3, size, size).
        """
        latent = apply_sketch(encode_crops(self.vae, published), sketch)
        return self._in_place(latent, published).clamp(-1, 1)
