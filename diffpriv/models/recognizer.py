"""The builtin recogniser: aligned face crop -> unit vector; differentiable, so that guidance can push against it.

Davis King's 29-convolution residual network (dlib, 2017; weights CC0) in PyTorch, its affine layers folded into the
convolutions. Two quirks of the original are kept, since the weights rely on them: strided convolutions and poolings have no
padding, and where a residual sum meets two sizes the smaller one is padded with zeros at the bottom and right.
`diffpriv.training.dlib_export` converts the weights; `from_canonical` resamples our crops to its 150 px chips by a fixed map.
"""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional

from diffpriv.faces.alignment import CANONICAL_SIZE

CHIP_SIZE = 150
# The chip's square in canonical pixels (left, top, side): where dlib's own alignment puts it on average.
CHIP = (13.924, 22.053, 101.487)
PIXEL_MEAN = (122.782, 117.001, 104.298)
PIXEL_SCALE = 256.0
# (channels, halved at the start) of each residual block, from the picture up.
BLOCKS = (
    *[(32, False)] * 3,
    *[(64, True), (64, False), (64, False), (64, False)],
    *[(128, True), (128, False), (128, False)],
    *[(256, True), (256, False), (256, False)],
    (256, True),
)


class _ChipBlock(nn.Module):
    """relu(shortcut + conv(relu(conv(x)))); a halved block strides by two and averages its shortcut."""

    def __init__(self, before: int, channels: int, halved: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride=2 if halved else 1, padding=0 if halved else 1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.halved = halved

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        update = self.conv2(functional.relu(self.conv1(hidden)))
        shortcut = functional.avg_pool2d(hidden, 2) if self.halved else hidden
        return functional.relu(_sum_padded(update, shortcut))


def _sum_padded(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The sum of two maps, each padded with zeros to the larger of their channel counts and sizes."""
    shape = [max(one, two) for one, two in zip(first.shape[1:], second.shape[1:], strict=True)]

    def padded(tensor: torch.Tensor) -> torch.Tensor:
        channels, height, width = (want - have for want, have in zip(shape, tensor.shape[1:], strict=True))
        return functional.pad(tensor, (0, width, 0, height, 0, channels))

    return padded(first) + padded(second)


class FaceRecognizer(ModelMixin, ConfigMixin):
    """Embeds aligned crops, and says how alike two embeddings are.

    Args:
        dim: length of the embedding.
        spread: mean of 1 - cosine over strangers; all of this network's embeddings point roughly one way.
        thresholds: similarity above which clean impostor pairs match with the false-accept rate of the key ("0.01",
            "0.001"), measured by `benchmarks.recognition` on photos never trained on.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, dim: int = 128, spread: float = 1.0, thresholds: dict[str, float] | None = None) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 7, stride=2)
        widths = [32, *(channels for channels, _ in BLOCKS)]
        self.blocks = nn.Sequential(
            *[_ChipBlock(widths[index], channels, halved) for index, (channels, halved) in enumerate(BLOCKS)]
        )
        self.head = nn.Linear(widths[-1], dim, bias=False)
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).view(1, 3, 1, 1), persistent=False)

    @staticmethod
    def from_canonical(crop: torch.Tensor) -> torch.Tensor:
        """(batch, 3, size, size) canonical crops -> (batch, 3, 150, 150) chips, same value range; differentiable."""
        if crop.shape[-1] != CANONICAL_SIZE:
            crop = functional.adaptive_avg_pool2d(crop, CANONICAL_SIZE)
        left, top, side = CHIP
        grid = torch.arange(CHIP_SIZE, device=crop.device, dtype=crop.dtype) * (side / (CHIP_SIZE - 1))
        x, y = torch.broadcast_tensors((grid + left)[None, :], (grid + top)[:, None])
        normal = torch.stack([x, y], -1) * (2 / (CANONICAL_SIZE - 1)) - 1
        return functional.grid_sample(
            crop, normal.expand(len(crop), -1, -1, -1), mode="bilinear", padding_mode="reflection", align_corners=True
        )

    def forward(self, chip: torch.Tensor) -> torch.Tensor:
        """chip: (batch, 3, 150, 150) in [-1, 1] RGB -> (batch, dim) of unit length."""
        return functional.normalize(self.head(self.features(chip, (len(BLOCKS) - 1,))[0].mean((2, 3))), dim=1)

    def features(self, chip: torch.Tensor, after: tuple[int, ...]) -> list[torch.Tensor]:
        """chip: as above -> what each of the residual blocks `after`, counted from 0, gives: (batch, channels, size, size)."""
        pixels = ((chip + 1) * 127.5 - self.pixel_mean) / PIXEL_SCALE
        hidden, seen = functional.max_pool2d(functional.relu(self.stem(pixels)), 3, 2), []
        for index in range(max(after) + 1):
            hidden = self.blocks[index](hidden)
            if index in after:
                seen.append(hidden)
        return seen

    def embed_canonical(self, crop: torch.Tensor) -> torch.Tensor:
        """Embedding of our own crops, (batch, 3, size, size) in [-1, 1]."""
        return self(self.from_canonical(crop))

    def similarity(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """1 - (1 - cosine) / spread: 1 for one and the same picture, 0 on average for strangers, below 0 for the unlike.

        Args:
            first, second: (..., dim), unit length.
        """
        return 1 - (1 - (first * second).sum(-1)) / self.config["spread"]
