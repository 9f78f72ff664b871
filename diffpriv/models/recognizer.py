"""The builtin recogniser: aligned face crop -> unit vector; differentiable, so that guidance can push against it.

A small residual network that starts with a 4 x 4 pixel-unshuffle (as the autoencoder does) and ends in a global depthwise
convolution (Chen et al. 2018, MobileFaceNets), which weighs each place of the face where plain pooling would blur it.
Input convention is ArcFace's: 112 px, RGB, (x - 127.5) / 127.5, landmarks at the ArcFace template; `from_canonical` resamples
our 128 px crops to it by a fixed map, so the same weights also run as an InsightFace model pack.
"""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional

from diffpriv.faces.alignment import CANONICAL_SIZE
from diffpriv.models.autoencoder import ResidualBlock

INPUT_SIZE = 112
# ArcFace pixel = SCALE * canonical pixel + SHIFT: the least-squares map between the two landmark templates without rotation.
SCALE = 0.971624
SHIFT = (-6.157790, 0.972212)


class FaceRecognizer(ModelMixin, ConfigMixin):
    """Embeds aligned crops; the cosine of two embeddings is the similarity of two faces.

    Args:
        dim: length of the embedding.
        channels: widths at 28 x 28, 14 x 14 and 7 x 7.
        blocks: residual blocks at each.
        thresholds: similarity at which clean impostor pairs match with the false-accept rate of the key ("0.01", "0.001"),
            measured by `diffpriv.training.recognizer` on photos never trained on.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        dim: int = 128,
        channels: tuple[int, int, int] = (64, 128, 224),
        blocks: tuple[int, int, int] = (2, 3, 2),
        thresholds: dict[str, float] | None = None,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(48, channels[0], 3, padding=1)]
        for index, (width, count) in enumerate(zip(channels, blocks, strict=True)):
            if index:
                layers.append(nn.Conv2d(channels[index - 1], width, 3, stride=2, padding=1))
            layers += [ResidualBlock(width) for _ in range(count)]
        self.body = nn.Sequential(*layers)
        self.pool = nn.Conv2d(channels[-1], channels[-1], 7, groups=channels[-1])
        self.head = nn.Linear(channels[-1], dim)

    @staticmethod
    def from_canonical(crop: torch.Tensor) -> torch.Tensor:
        """(batch, 3, size, size) canonical crops -> (batch, 3, 112, 112) at the ArcFace template; differentiable."""
        size = CANONICAL_SIZE
        if crop.shape[-1] != size:
            crop = functional.adaptive_avg_pool2d(crop, size)
        grid = torch.arange(INPUT_SIZE, device=crop.device, dtype=crop.dtype)
        x = (grid - SHIFT[0]) / SCALE
        y = (grid - SHIFT[1]) / SCALE
        normal = torch.stack(torch.broadcast_tensors(x[None, :], y[:, None]), -1) * (2 / (size - 1)) - 1
        return functional.grid_sample(
            crop, normal.expand(len(crop), -1, -1, -1), mode="bilinear", padding_mode="reflection", align_corners=True
        )

    def forward(self, face: torch.Tensor) -> torch.Tensor:
        """face: (batch, 3, 112, 112) in [-1, 1] RGB -> (batch, dim) of unit length."""
        hidden = self.body(functional.pixel_unshuffle(face, 4))
        return functional.normalize(self.head(self.pool(functional.silu(hidden)).flatten(1)), dim=1)

    def embed_canonical(self, crop: torch.Tensor) -> torch.Tensor:
        """Embedding of our own 128 px crops in [-1, 1]."""
        return self(self.from_canonical(crop))
