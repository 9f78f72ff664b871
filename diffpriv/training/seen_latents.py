"""The discriminator that looks at latents made noisy again: a copy of the first half of a denoiser, with heads of its own.

Source: latent adversarial diffusion distillation (Sauer et al. 2024), its trunk trained too; relativistic pairs
(Jolicoeur-Martineau 2019). It is told the same surroundings and stage tokens as the denoiser, so it also asks whether a face
fits them.
"""

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from diffpriv.models.msi import stage_of
from diffpriv.training.loop import Step, autocast
from diffpriv.training.noising import coefficients
from diffpriv.training.pairs import gaps, losses, share_right

HEAD_WIDTH = 64
TRUNK_GRADIENT_NORM = 1.0


class LatentDiscriminator(nn.Module):
    """Logits of "real" at each resolution for noisy latents: a head on each level of a denoiser's first half, which it shares
    with the denoiser that it is given.
    """

    def __init__(self, denoiser: UNet2DConditionModel) -> None:
        super().__init__()
        first_half = ("conv_in", "time_proj", "time_embedding", "down_blocks", "mid_block")
        self.trunk = nn.ModuleDict({name: getattr(denoiser, name) for name in first_half})
        self._last_layer = denoiser.config["layers_per_block"] - 1
        widths = [*denoiser.config["block_out_channels"], denoiser.config["block_out_channels"][-1]]
        self.heads = nn.ModuleList([_head(width) for width in widths])

    def forward(self, model_input: torch.Tensor, timestep: torch.Tensor, tokens: torch.Tensor) -> list[torch.Tensor]:
        """At 16 x 16, 8 x 8 and 4 x 4, and after the middle block.

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
        seen.append(trunk["mid_block"](hidden, embedding, encoder_hidden_states=tokens))
        return [head(one) for head, one in zip(self.heads, seen, strict=True)]


def _head(width: int) -> nn.Module:
    return nn.Sequential(
        nn.GroupNorm(16, width),
        nn.Conv2d(width, HEAD_WIDTH, 1),
        nn.SiLU(),
        nn.Conv2d(HEAD_WIDTH, HEAD_WIDTH, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(HEAD_WIDTH, 1, 1),
    )


class SeenLatents:
    """Args:
    network: on its device. alphas: cumulative, of the noise schedule. rates: of learning, the heads' and the trunk's.
    highest_noise: timestep up to which latents are made noisy. warmup_steps: of the training, over which the rates rise.

    Attributes:
        network, optimizer: over its weights.
    """

    def __init__(
        self,
        network: LatentDiscriminator,
        alphas: torch.Tensor,
        rates: tuple[float, float],
        highest_noise: int,
        warmup_steps: int,
        device: str,
    ) -> None:
        self.network, self._alphas, self._rates = network, alphas, rates
        self._highest_noise, self._warmup_steps, self._device = highest_noise, warmup_steps, device
        self._trunk = list(network.trunk.parameters())
        parts: list[dict[str, Any]] = [{"params": network.heads.parameters()}, {"params": self._trunk}]
        self.optimizer = torch.optim.Adam(parts, betas=(0.0, 0.99))

    def play(
        self,
        photos: torch.Tensor,
        made: torch.Tensor,
        weight: torch.Tensor,
        around: torch.Tensor,
        stages: torch.Tensor,
        step: Step,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One step of its own, then its gradient against the latents that it tells from photos', under the same noise.

        Args:
            photos, made: in pairs, (n, 8, 16, 16). weight: of each made one, (n,). around: surroundings and mask,
                (n, 9, 16, 16). stages: tokens of every stage, (n, stages, tokens, token_dim).
        Returns:
            the gradient, shaped as `made`, and the share of pairs told apart before the step.
        """
        # Mostly little noise, which leaves sharpness to be seen; sometimes much, which leaves the shape of the head.
        timestep = (torch.rand(len(made), generator=step.generator).square() * self._highest_noise).long().to(self._device)
        noise = torch.randn(made.shape, generator=step.generator).to(self._device)
        signal, spread = coefficients(self._alphas, timestep)
        tokens = stages[torch.arange(len(made), device=self._device), stage_of(timestep)]

        def look(*latents: torch.Tensor) -> list[list[torch.Tensor]]:
            """Logits of each of several batches."""
            noisy = torch.cat([torch.cat([signal * one + spread * noise, around], 1) for one in latents])
            with autocast(self._device):
                logits = self.network(noisy, timestep.repeat(len(latents)), tokens.repeat(len(latents), 1, 1))
            parts = [one.chunk(len(latents)) for one in logits]
            return [list(one) for one in zip(*parts, strict=True)]

        leaf = made.detach().requires_grad_(True)
        apart = gaps(*look(photos, leaf.detach()))
        warm = min(1.0, (step.index + 1) / self._warmup_steps)
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * warm
        self.optimizer.zero_grad(set_to_none=True)
        losses(apart).mean().backward()
        torch.nn.utils.clip_grad_norm_(self._trunk, TRUNK_GRADIENT_NORM)
        self.optimizer.step()
        with torch.no_grad():
            (real,) = look(photos)
        (fake,) = look(leaf)
        (against,) = torch.autograd.grad((losses(gaps(fake, real)) * weight).mean(), leaf)
        return against, share_right(apart)
