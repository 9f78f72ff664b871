"""An image-to-image attacker: a small U-Net that turns an output back into a guess of its original, for a recogniser to read.

All convolutions run at 32 x 32 and below (PixelUnshuffle first), so that minutes on one CPU thread suffice. Loss: L1 of the
pixels, plus 1 - cosine under a differentiable recogniser that everybody has: the attacker wants the person, not the picture.
"""

import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from diffpriv.attacks.pairs import Embed, FacePairs
from diffpriv.crops import to_pixels, to_tensor
from diffpriv.metrics.verification import unit
from diffpriv.models.recognizer import FaceRecognizer

BATCH = 8
IDENTITY_WEIGHT = 0.5
LEARNING_RATE = 2e-3
UNSHUFFLE = 4


class Inverter(nn.Module):
    """(batch, 3, 128, 128) in [-1, 1] -> the same shape; starts as the identity."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        packed = 3 * UNSHUFFLE**2
        self.enter = _block(packed, width)
        self.down = nn.ModuleList([_block(width, 2 * width), _block(2 * width, 3 * width)])
        self.up = nn.ModuleList([_block(3 * width + 2 * width, 2 * width), _block(2 * width + width, width)])
        self.leave = nn.Conv2d(width, packed, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        hidden = self.enter(functional.pixel_unshuffle(crops, UNSHUFFLE))
        kept = []
        for block in self.down:
            kept.append(hidden)
            hidden = block(functional.avg_pool2d(hidden, 2))
        for block in self.up:
            hidden = block(torch.cat([functional.interpolate(hidden, scale_factor=2), kept.pop()], 1))
        return crops + functional.pixel_shuffle(self.leave(hidden), UNSHUFFLE)


def _block(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers += [nn.Conv2d(channels, after, 3, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
    return nn.Sequential(*layers)


class InverterAttack:
    """The inverter, and the recogniser that reads its guesses."""

    def __init__(self, name: str, model: Inverter, embed: Embed) -> None:
        self.name, self._model, self._embed = name, model.eval(), embed

    def invert(self, outputs: np.ndarray) -> np.ndarray:
        """(n, 128, 128, 3) uint8 guesses of the originals."""
        with torch.no_grad():
            parts = [to_tensor(outputs[start : start + 32]) for start in range(0, len(outputs), 32)]
            return np.concatenate([to_pixels(self._model(part)) for part in parts])

    def scores(self, outputs: np.ndarray, gallery: np.ndarray) -> np.ndarray:
        return unit(self._embed(self.invert(outputs))) @ unit(self._embed(gallery)).T

    def read_by(self, name: str, embed: Embed) -> "InverterAttack":
        """The same inverter before another recogniser."""
        return InverterAttack(name, self._model, embed)


def train_inverter(
    name: str, embed: Embed, training: FacePairs, recognizer: FaceRecognizer, *, seconds: float, seed: int
) -> InverterAttack:
    """Train for at most `seconds` of processor time on mirrored pairs, learning rate falling to nothing; at least one step."""
    torch.manual_seed(seed)
    model = Inverter()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    random = np.random.default_rng(seed)
    with torch.no_grad():
        known = torch.cat(
            [recognizer.embed_canonical(to_tensor(training.originals[i : i + 32])) for i in range(0, len(training.persons), 32)]
        )
    started = time.process_time()
    while True:
        chosen = random.integers(0, len(training.persons), BATCH)
        outputs, originals = to_tensor(training.outputs[chosen]), to_tensor(training.originals[chosen])
        if random.random() < 0.5:
            outputs, originals = outputs.flip(3), originals.flip(3)
        guess = model(outputs)
        alike = (recognizer.embed_canonical(guess) * known[torch.from_numpy(chosen)]).sum(1)
        loss = (guess - originals).abs().mean() + IDENTITY_WEIGHT * (1 - alike).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        spent = (time.process_time() - started) / max(seconds, 1e-3)
        if spent >= 1:
            return InverterAttack(name, model, embed)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (0.5 + 0.5 * float(np.cos(np.pi * spent)))
