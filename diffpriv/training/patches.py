"""The discriminator that trainings of the decoder play against: it looks at patches of crops, and is trained as it is asked.

Source: adversarial loss on a decoder, balanced by its gradient (Esser et al. 2021, VQGAN, eq. 7); relativistic pairs
(Jolicoeur-Martineau 2019).
"""

import torch
from torch import nn
from torch.nn import functional

from diffpriv.training.loop import autocast

PATCH = 8  # crop pixels per logit of the discriminator


class PatchDiscriminator:
    """Args:
    rate: of its learning.

    Attributes:
        network: logits of "photo" for patches of crops, (n, 3, 128, 128) -> (n, 1, 16, 16). optimizer: over its weights.
    """

    def __init__(self, rate: float, device: str) -> None:
        self._device = device
        self.network = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, 32, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(32, 64, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(64, 128, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(128, 128, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(128, 1, 1),
        ).to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=rate, betas=(0.0, 0.99))

    def play(self, photos: torch.Tensor, imagined: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One step of its own, then its gradient against the crops that it tells from photos.

        Args:
            photos, imagined: pairs, (n, 3, 128, 128). valid: what really was in the photo, (n, 1, 128, 128).
        Returns:
            the gradient, shaped as `imagined`, and where it told the pairs apart before its step, (n, 1, 16, 16) of 0 and 1.
        """
        patches = functional.avg_pool2d(valid, PATCH)
        with autocast(self._device):
            real = self.network(photos).float()
            gap = real - self.network(imagined.detach()).float()
        self.optimizer.zero_grad(set_to_none=True)
        (functional.softplus(-gap) * patches).mean().backward()
        self.optimizer.step()
        with autocast(self._device):
            made = self.network(imagined).float()
        believed = (functional.softplus(real.detach() - made) * patches).mean()
        (against,) = torch.autograd.grad(believed, imagined)
        return against, (gap > 0).float()


def balanced(own: torch.Tensor, against: torch.Tensor, pull: float, length: torch.Tensor) -> torch.Tensor:
    """The crops' own gradient, and the discriminator's made `pull` times `length` long."""
    return own + pull * length / against.norm().clamp(min=1e-12) * against


def risen(pull: float, rises: tuple[float, float], progress: float) -> float:
    """The pull at a share of the training: it rises from nothing between two shares."""
    low, high = rises
    return pull * min(1.0, max(0.0, (progress - low) / (high - low)))
