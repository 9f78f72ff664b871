"""Step 7 of `make train-styles`: the network that finds hair, from labels of photos and of drawn heads.

    python -m diffpriv.training.hair LABELS_OF_DRAWN LABELS_OF_PHOTOS OUT [--minutes M]

Prints the intersection over union with the labels of photos that were held out.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from diffpriv.models.hair import HairNet
from diffpriv.training.style_labels import load_labels

BATCH, LEARNING_RATE, SEED, HELD_OUT = 24, 2e-3, 3, 100
DRAWN = 1500  # heads at most


def _augmented(squares: torch.Tensor, hair: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Mirrored, brighter or darker, other colours, and blurred as small faces are."""
    count = len(squares)
    mirrored = torch.rand(count) < 0.5
    squares, hair, weight = (torch.where(_wide(mirrored, one), one.flip(-1), one) for one in (squares, hair, weight))
    squares = squares * (1 + 0.2 * torch.randn(count, 3, 1, 1)) + 0.15 * torch.randn(count, 3, 1, 1)
    blurred = functional.interpolate(functional.avg_pool2d(squares, 2), scale_factor=2, mode="bilinear", align_corners=False)
    squares = torch.where(_wide(torch.rand(count) < 0.3, squares), blurred, squares)
    return squares.clamp(-1, 1), hair, weight


def _wide(chosen: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return chosen.view(-1, *[1] * (like.ndim - 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("drawn", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=6.0)
    given = parser.parse_args()
    torch.manual_seed(SEED)
    photos, drawn = load_labels(given.photos), load_labels(given.drawn)
    squares = np.concatenate([photos["square"], drawn["square"][:DRAWN]])
    hair = np.concatenate([photos["hair128"], drawn["hair128"][:DRAWN]])
    inside = np.concatenate([photos["inside"], np.full_like(drawn["hair128"][:DRAWN], 255)])
    pixels = torch.from_numpy(squares).permute(0, 3, 1, 2)
    labels, weights = torch.from_numpy(hair), torch.from_numpy(inside)
    network = HairNet().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=0.01)
    begun, seconds, steps = time.monotonic(), 60 * given.minutes, 0
    learn = torch.arange(HELD_OUT, len(pixels))
    while (elapsed := time.monotonic() - begun) < seconds:
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, 2 * (1 - elapsed / seconds), (steps + 1) / 50)
        rows = learn[torch.randint(len(learn), (BATCH,))]
        batch = _augmented(pixels[rows].float() / 127.5 - 1, labels[rows].float() / 255, weights[rows].float() / 255)
        loss = functional.binary_cross_entropy_with_logits(network(batch[0]), batch[1], weight=batch[2])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        steps += 1
    network.eval()
    with torch.no_grad():
        found = network(pixels[:HELD_OUT].float() / 127.5 - 1) > 0
    wanted, counted = labels[:HELD_OUT] > 127, weights[:HELD_OUT] > 127
    both, either = (found & wanted & counted).sum(), ((found | wanted) & counted).sum()
    shared = float(both / either)
    print(f"hair: {steps} steps of {BATCH}, {len(learn)} heads; intersection over union {shared:.3f} on {HELD_OUT} photos")
    network.half().save_pretrained(given.out)


if __name__ == "__main__":
    main()
