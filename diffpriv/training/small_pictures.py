"""Step 2 of `make train-styles`: the heads that draw small pictures from the middle of the synthesis network.

    python -m diffpriv.training.small_pictures PICTURES GENERATOR OUT [--minutes M]

PICTURES is what `style_pictures` wrote. The loss is the absolute difference of pictures, and of their differences between
neighbouring pixels at two scales, which keeps edges where they are.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.nn import functional

from diffpriv.generator.small_pictures import SmallPictures
from diffpriv.generator.synthesis import Features, SynthesisNetwork
from diffpriv.training.style_pictures import read_picture

LEARNING_RATE = 2e-3
BATCH, WINDOW = 8, 64  # windows of the features, in their pixels, of as many heads
FITTED_ON = 24  # heads for the linear part
STORED_LEVEL = 5  # the last whose features are stored
SHARES = {5: 0.6, 4: 0.15, 6: 0.25}  # of the time
SEED = 7
HELD_OUT = 32  # pictures


class StoredFeatures:
    """Features and pictures of `style_pictures` files, read as they are asked for.

    Args:
        synthesis: goes on from the stored features where a head stands after a later level.
    """

    def __init__(self, folder: Path, synthesis: SynthesisNetwork) -> None:
        self._synthesis = synthesis
        self._files = [np.load(path) for path in sorted(folder.glob("*.npz"))]
        self.names = [
            (number, key.split("/")[1]) for number, file in enumerate(self._files) for key in file.files if "middle/" in key
        ]
        self._codes = [file["codes"] for file in self._files]

    def read(self, name: tuple[int, str], level: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(channels, s, s) features, (512,) style and (2 s, 2 s, 3) uint8 picture."""
        number, index = name
        file = self._files[number]
        features = file[f"{'small' if level == 4 else 'middle'}/{index}"].astype(np.float32)
        style = self._codes[number][int(index) % len(self._codes[number]), 1]
        side = SmallPictures.side_after(level)
        return features, style, cv2.resize(read_picture(file[f"jpeg512/{index}"]), (side, side), interpolation=cv2.INTER_AREA)

    def batch(self, names: list[tuple[int, str]], level: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rows = [self.read(name, level) for name in names]
        features, styles, pictures = (torch.from_numpy(np.stack(part)) for part in zip(*rows, strict=True))
        if level > STORED_LEVEL:
            every = styles[:, None].expand(-1, self._synthesis.code_levels, -1)
            with torch.no_grad():
                features = self._synthesis.features(every, level, Features(features, STORED_LEVEL)).hidden
        return features, styles, pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def haar_bands(pictures: torch.Tensor) -> torch.Tensor:
    """(batch, 3, 2 s, 2 s) -> (batch, 12, s, s): the inverse of `wavelet.inverse_haar`."""
    first, second = pictures[:, :, 0::2], pictures[:, :, 1::2]
    low, rows = first + second, first - second
    bands = [(half[..., 0::2] + sign * half[..., 1::2]) / 2 for half in (low, rows) for sign in (1, -1)]
    average, columns, down, diagonal = bands
    return torch.cat([average, torch.stack([down, columns, diagonal], 2).flatten(1, 2)], 1)


def fit_straight(head: Any, features: torch.Tensor, pictures: torch.Tensor) -> None:
    """The linear part by least squares, so that training starts from the best one; the rest starts from nothing.

    Args:
        head: one of `SmallPictures.heads`, whose `straight` and `conv2` are set.
    """
    inputs = features.permute(1, 0, 2, 3).flatten(1)
    inputs = torch.cat([inputs, torch.ones(1, inputs.shape[1])]).double()
    bands = haar_bands(pictures).permute(1, 0, 2, 3).flatten(1).double()
    gram = inputs @ inputs.T
    gram += 1e-4 * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    weights = torch.linalg.solve(gram, inputs @ bands.T).T.float()
    with torch.no_grad():
        head.straight.weight.copy_(weights[:, :-1, None, None])
        head.straight.bias.copy_(weights[:, -1])
        head.conv2.weight.zero_()
        head.conv2.bias.zero_()


def windows(batch: tuple[torch.Tensor, ...], order: np.random.Generator) -> tuple[torch.Tensor, ...]:
    """A window of each head."""
    features, styles, pictures = batch
    side = features.shape[-1]
    size = min(WINDOW, side)
    cut = [], []  # type: tuple[list[torch.Tensor], list[torch.Tensor]]
    for row in range(len(features)):
        y, x = (int(order.integers(0, side - size + 1)) for _ in range(2))
        cut[0].append(features[row, :, y : y + size, x : x + size])
        cut[1].append(pictures[row, :, 2 * y : 2 * (y + size), 2 * x : 2 * (x + size)])
    return torch.stack(cut[0]), styles, torch.stack(cut[1])


def picture_loss(drawn: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    total = (drawn - wanted).abs().mean()
    for scale in (1, 2):
        for axis in (2, 3):
            total = total + (drawn.diff(dim=axis) - wanted.diff(dim=axis)).abs().mean() / scale
        drawn, wanted = functional.avg_pool2d(drawn, 2), functional.avg_pool2d(wanted, 2)
    return total


def sharpness(pictures: torch.Tensor) -> float:
    """Standard deviation of the Laplacian of the luma, levels."""
    luma = (pictures * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True) * 127.5
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    return float(functional.conv2d(luma, kernel).std())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("generator", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--levels", type=int, nargs="+", default=list(SHARES), help="others stay as OUT has them")
    given = parser.parse_args()
    torch.manual_seed(SEED)
    synthesis = SynthesisNetwork.from_pretrained(given.generator / "synthesis").float().eval()
    stored, network = StoredFeatures(given.pictures, synthesis), SmallPictures()
    if (given.out / "config.json").exists():
        before = SmallPictures.from_pretrained(given.out).float()
        network.load_state_dict(before.state_dict(), strict=False)
    order = np.random.default_rng(SEED)
    learn, held_out = stored.names[:-HELD_OUT], stored.names[-HELD_OUT:]
    for level in given.levels:
        share = SHARES[level] / sum(SHARES[one] for one in given.levels)
        head = network.heads[str(level)]
        fitted = stored.batch(learn[:: max(1, len(learn) // FITTED_ON)][: FITTED_ON // 2 ** max(0, level - 4)], level)
        fit_straight(head, fitted[0], fitted[2])
        optimiser = torch.optim.Adam(head.parameters(), LEARNING_RATE, betas=(0.9, 0.98))
        seconds, begun, steps = 60 * given.minutes * share, time.monotonic(), 0
        while (elapsed := time.monotonic() - begun) < seconds:
            for group in optimiser.param_groups:
                group["lr"] = LEARNING_RATE * min(1.0, (1 - elapsed / seconds) * 2, (steps + 1) / 50)
            names = [learn[int(row)] for row in order.integers(0, len(learn), BATCH if level <= STORED_LEVEL else BATCH // 4)]
            features, styles, wanted = windows(stored.batch(names, level), order)
            loss = picture_loss(network(features, styles, level), wanted)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            steps += 1
        with torch.no_grad():
            features, styles, wanted = stored.batch(held_out[:16], level)
            drawn = network(features, styles, level)
        error = (drawn.clamp(-1, 1) - wanted).square().mean((1, 2, 3))
        psnr = float((10 * torch.log10(4 / error)).mean())
        print(f"level {level}: {steps} steps, held out {psnr:.1f} dB, sharpness {sharpness(drawn) / sharpness(wanted):.2f}")
    network.half().save_pretrained(given.out)


if __name__ == "__main__":
    main()
