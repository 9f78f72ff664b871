"""The discriminator that looks at decoded faces through a frozen recogniser's features: it knows from the first step on what an
eye or a mouth is, which the one that looks at latents (`diffpriv.training.seen_latents`) has to learn.

Source: projected discriminators (Sauer et al. 2021), as in adversarial diffusion distillation (Sauer et al. 2023, section 3.2);
relativistic pairs (Jolicoeur-Martineau 2019). Heads have spectral normalisation (Miyato et al. 2018).
"""

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from diffpriv.models.autoencoder import FaceAutoencoder
from diffpriv.models.recognizer import CHIP_SIZE, FaceRecognizer
from diffpriv.training.loop import Step, autocast
from diffpriv.training.pairs import gaps, losses, share_right

HEAD_WIDTH = 64
SMALLEST_WINDOW = 0.7  # of the crop's side: the face without its hair; the largest is all of the crop
SEEN_AFTER = (2, 6, 9, 12)  # blocks of the recogniser: 32, 64, 128 and 256 channels, 35 x 35 to 3 x 3


class SeenFaces:
    """Args:
    autoencoder, recognizer: frozen; gradients pass through them. examples: latents of photos, (n, 8, 16, 16), whose features
    say once how large each channel is. rate: of the heads' learning.

    Attributes:
        heads: logits of "photo" at each resolution of the features. optimizer: over their weights.
    """

    def __init__(
        self, autoencoder: FaceAutoencoder, recognizer: FaceRecognizer, examples: torch.Tensor, rate: float, device: str
    ) -> None:
        self._autoencoder, self._recognizer, self._device = autoencoder, recognizer, device
        self._scales: list[tuple[torch.Tensor, torch.Tensor]] = []
        with torch.no_grad():
            features = self._features(self._look(examples, _whole(len(examples), device)))
        self._scales = [(one.mean((0, 2, 3), True), one.std((0, 2, 3), keepdim=True) + 1e-3) for one in features]
        self.heads = nn.ModuleList([_head(one.shape[1]) for one in features]).to(device)
        self.optimizer = torch.optim.Adam(self.heads.parameters(), lr=rate, betas=(0.0, 0.99))

    def play(
        self, photos: torch.Tensor, made: torch.Tensor, weight: torch.Tensor, step: Step
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One step of the heads, then their gradient against the faces that they tell from photos.

        Args:
            photos, made: latents in pairs, (n, 8, 16, 16). weight: of each made one, (n,).
        Returns:
            the gradient, shaped as `made`, and the share of pairs told apart before the step.
        """
        windows = _windows(len(made), step.generator).to(self._device)
        leaf = made.detach().requires_grad_(True)
        with torch.no_grad(), autocast(self._device):
            real = self._features(self._look(photos, windows))
        with autocast(self._device):
            fake = self._features(self._look(leaf, windows))
            apart = gaps(self._judge(real), self._judge([one.detach() for one in fake]))
        self.optimizer.zero_grad(set_to_none=True)
        losses(apart).mean().backward()
        self.optimizer.step()
        with autocast(self._device):
            behind = gaps(self._judge(fake), self._judge(real))
        (against,) = torch.autograd.grad((losses(behind) * weight).mean(), leaf)
        return against, share_right(apart)

    def _look(self, latents: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        """Decoded, and a window of each at the recogniser's size."""
        grid = functional.affine_grid(windows, [len(latents), 3, CHIP_SIZE, CHIP_SIZE], align_corners=False)
        crops = self._autoencoder.decode(latents)
        return functional.grid_sample(crops, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    def _features(self, chips: torch.Tensor) -> list[torch.Tensor]:
        """Standardised, of (n, 3, 150, 150) in [-1, 1] RGB."""
        seen = self._recognizer.features(chips, SEEN_AFTER)
        if not self._scales:
            return seen
        return [(one - mean) / deviation for one, (mean, deviation) in zip(seen, self._scales, strict=True)]

    def _judge(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        return [head(one) for head, one in zip(self.heads, features, strict=True)]


def _head(width: int) -> nn.Module:
    return nn.Sequential(
        spectral_norm(nn.Conv2d(width, HEAD_WIDTH, 1)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Conv2d(HEAD_WIDTH, HEAD_WIDTH, 3, padding=1)),
        nn.LeakyReLU(0.2),
        nn.Conv2d(HEAD_WIDTH, 1, 1),
    )


def _whole(count: int, device: str) -> torch.Tensor:
    """Windows, affine maps (n, 2, 3), of the whole crop."""
    return torch.eye(2, 3, device=device).expand(count, -1, -1)


def _windows(count: int, generator: torch.Generator) -> torch.Tensor:
    """A window somewhere in each crop: heads that saw one only would be fooled by what stands in one place."""
    side = SMALLEST_WINDOW + (1 - SMALLEST_WINDOW) * torch.rand(count, generator=generator)
    middle = (torch.rand(count, 2, generator=generator) * 2 - 1) * (1 - side)[:, None]
    return torch.cat([torch.eye(2) * side[:, None, None], middle[..., None]], 2)
