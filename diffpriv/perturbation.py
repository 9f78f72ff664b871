"""Task `hide` on a finished face: a bounded, smooth change of its pixels after which a chosen recogniser knows the person.

He et al. 2023 (Diff-Privacy), section 3.3.3: E = 1 − cos(f(x̂), f(x)), here over pixels instead of latents, so that the face
stays the natural one that was drawn (projected gradient descent, Madry et al. 2018, under a bound on each pixel; each step
smoothed). The gradient is a mean over views that survive publication: as it is, and through half the size (Athalye et al.
2018). Pure.
"""

import torch
from torch.nn import functional

from diffpriv.recognition import DifferentiableRecognizer

BOUND = 8 / 127.5  # of a pixel's change, in [-1, 1] units: 8 levels
STEPS = 40
STEP = 1.2 / 127.5
SPARED_ABOVE = 4.0  # levels of local variation from which the full bound is used; plain skin gets half


def perturbation(
    crops: torch.Tensor,
    region: torch.Tensor,
    recognizer: DifferentiableRecognizer,
    target: torch.Tensor,
    enough: float,
) -> torch.Tensor:
    """What to add to the crops, (n, 3, size, size) in [-1, 1] units, zero outside the region; no stronger than needed.

    Args:
        crops: (n, 3, size, size) in [-1, 1], as they will be published.
        region: (n, 1, size, size) in [0, 1], where pixels may change.
        recognizer: the one that shall know the person.
        target: (n, dim) embeddings of the originals.
        enough: similarity at which a face is let be.
    """
    bound = BOUND * region * (0.5 + 0.5 * (_variation(crops) / SPARED_ABOVE).clamp(max=1))
    change = torch.zeros_like(crops)
    best, best_likeness = change, torch.full((len(crops),), -1.0, device=crops.device)
    for step in range(STEPS):
        with torch.enable_grad():
            leaf = change.detach().requires_grad_(True)
            likeness = torch.stack([_likeness(view, recognizer, target) for view in _views(crops + leaf)]).amin(0)
            gradient = torch.autograd.grad(likeness.sum(), leaf)[0]
        likeness = likeness.detach()
        better = likeness > best_likeness
        best = torch.where(better[:, None, None, None], change, best)
        best_likeness = torch.where(better, likeness, best_likeness)
        if bool((best_likeness >= enough).all()):
            break
        moved = functional.avg_pool2d(gradient.sign(), 3, 1, 1)
        active = (likeness < enough)[:, None, None, None]
        shrink = 1 - 0.7 * step / STEPS
        change = torch.where(active, change + shrink * STEP * moved, change)
        change = torch.minimum(torch.maximum(change, -bound), bound)
    return best


def _likeness(crops: torch.Tensor, recognizer: DifferentiableRecognizer, target: torch.Tensor) -> torch.Tensor:
    return recognizer.similarity(recognizer.embed_canonical(crops.clamp(-1, 1)), target)


def _views(crops: torch.Tensor) -> list[torch.Tensor]:
    half = functional.avg_pool2d(crops, 2)
    return [crops, functional.interpolate(half, scale_factor=2, mode="bilinear", align_corners=False)]


def _variation(crops: torch.Tensor) -> torch.Tensor:
    """(n, 1, size, size): local standard deviation of the mean colour, levels."""
    grey = crops.mean(1, keepdim=True) * 127.5
    mean = functional.avg_pool2d(grey, 7, 1, 3)
    return (functional.avg_pool2d(grey * grey, 7, 1, 3) - mean * mean).clamp(min=0).sqrt()
