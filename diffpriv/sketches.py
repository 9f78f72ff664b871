"""Tier `image`: what the original's latent has and the published face's has not, coarse, as small whole numbers.

The published picture is half of the secret: a sketch is a difference, and says nothing definite without the face that it was
taken from. The autoencoder's latents of two faces in one place are so much alike that steps of 3/8 of their unit variance cost
some 300 bytes, where key-E takes 480 and carries pose and light but little likeness.
Pure: same pictures, same numbers, on one device type and batch shape.
"""

import numpy as np
import torch
from torch.nn import functional

from diffpriv.faces.compositing import face_mask
from diffpriv.latents import LATENT_SCALE

STEP = 3 / 8
SEEN = 0.02  # weight in the blend from which a latent pixel counts as the face's


def face_places(side: int) -> torch.Tensor:
    """(side, side) bool: the latent pixels that the new face has any visible part in."""
    mask = torch.from_numpy(face_mask(side * LATENT_SCALE))[None, None]
    return functional.max_pool2d(mask, LATENT_SCALE)[0, 0] > SEEN


def make_sketch(original: torch.Tensor, published: torch.Tensor, *, whole: bool = False) -> np.ndarray:
    """Latents (n, channels, side, side) of the original and of the published crops -> (n, numbers) int8.

    Args:
        whole: of the whole crop, for covers that replace more than the face; else of the face's places.
    """
    places = _places(original.shape[-1], whole).to(original.device)
    steps = ((original - published) / STEP).round().clamp(-127, 127)
    return steps[:, :, places].flatten(1).to(torch.int8).cpu().numpy()


def apply_sketch(published: torch.Tensor, sketch: np.ndarray) -> torch.Tensor:
    """The original's latents, about, from the published crops' and (n, numbers) int8.

    Raises:
        ValueError: the sketch is of another model's latent.
    """
    places = _places(published.shape[-1], covers_whole(published, sketch)).to(published.device)
    steps = torch.from_numpy(sketch.astype(np.float32)).to(published).view(*published.shape[:2], int(places.sum()))
    latent = published.clone()
    latent[:, :, places] += STEP * steps
    return latent


def covers_whole(latent: torch.Tensor, sketch: np.ndarray) -> bool:
    """Whether a sketch (n, numbers) is of whole crops: it then has as many numbers as their latents (n, ...)."""
    return sketch.shape[1] == latent[0].numel()


def _places(side: int, whole: bool) -> torch.Tensor:
    return torch.ones(side, side, dtype=torch.bool) if whole else face_places(side)
