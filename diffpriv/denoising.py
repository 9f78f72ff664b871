"""One evaluation of the conditional denoiser of spatial latents, shared by sampling and inversion.

Pure: no files, no global random state.
"""

from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from diffpriv.models.msi import stage_of
from diffpriv.noise_schedule import NoiseSchedule, Prediction

CONTRAST_BAND = range(200, 900)  # timesteps; above, all is noise, and below, the face is settled


@dataclass(frozen=True)
class Surroundings:
    """What the denoiser sees of the picture: the latent of the crop with the face blanked, and the blanked region."""

    latent: torch.Tensor  # (batch, 8, 16, 16)
    mask: torch.Tensor  # (batch, 1, 16, 16) in [0, 1], 1 where blanked


@dataclass(frozen=True, eq=False)
class Conditions:
    """What the denoiser is told: stage tokens and null tokens, (batch, 10, tokens, token_dim), and the surroundings."""

    tokens: torch.Tensor
    null_tokens: torch.Tensor
    surroundings: Surroundings


class Denoiser(NoiseSchedule):
    """The noise predictor e(z_t, t, c) with its schedule; stateless between calls."""

    def __init__(self, unet: UNet2DConditionModel, scheduler: DDIMScheduler) -> None:
        super().__init__(scheduler)
        self.unet = unet
        # Stable Diffusion's denoiser takes the noisy latent alone; ours also the surroundings and their mask.
        self.sees_surroundings = unet.config["in_channels"] > unet.config["out_channels"]

    def predict(self, noisy: torch.Tensor, timestep: int, tokens: torch.Tensor, surroundings: Surroundings) -> Prediction:
        """One UNet evaluation.

        Args:
            noisy: (batch, channels, side, side).
            tokens: all stages, (batch, 10, tokens, token_dim).
        """
        stage = stage_of(timestep)
        model_input = torch.cat([noisy, surroundings.latent, surroundings.mask], 1) if self.sees_surroundings else noisy
        dtype = self.unet.dtype
        output = self.unet(model_input.to(dtype), timestep, encoder_hidden_states=tokens[:, stage].to(dtype)).sample.float()
        return self.prediction(output, noisy, timestep)

    def predict_contrasted(
        self,
        noisy: torch.Tensor,
        timestep: int,
        conditions: Conditions,
        contrast: float = 1.0,
        region: torch.Tensor | None = None,
    ) -> Prediction:
        """A prediction with classifier-free guidance (Ho and Salimans 2021, eq. 6), here called contrast.

        It acts on the clean estimate, and only in the middle of the schedule (Kynkäänniemi et al. 2024).

        Args:
            contrast: weight w of the tokens' effect, clean = null + w (conditional - null); 1 asks for no null prediction.
            region: (1, 1, side, side) in [0, 1]: where the tokens' effect counts, and only as it differs from its mean there.
                They tell of somebody else's hair, background and tone too, which are the surroundings' to decide. None is
                everywhere, mean and all.
        """
        conditional = self.predict(noisy, timestep, conditions.tokens, conditions.surroundings)
        if contrast == 1 or timestep not in CONTRAST_BAND:
            return conditional
        unconditional = self.predict(noisy, timestep, conditions.null_tokens, conditions.surroundings)
        effect = conditional.clean - unconditional.clean
        if region is not None:
            effect = region * (effect - (region * effect).sum((2, 3), keepdim=True) / region.sum())
        return self.with_clean(noisy, timestep, unconditional.clean + contrast * effect)
