"""What the rest of a picture says about a face that may stand in it: the crop as the denoiser sees it, and a short vector.

From the vector the prior of MSI (`StageEmbeddings.features_of_nobody`) tells which features fit: light, tone, turn of the
head, hair.
Nothing of what is under the mask enters but the landmarks.
Pure: no files, no random numbers.
"""

import numpy as np
import torch
from torch.nn import functional

from diffpriv.faces.alignment import CANONICAL_LANDMARKS
from diffpriv.faces.marks import landmark_marks
from diffpriv.faces.masks import blank_mask

CELLS = 4  # the surroundings' latent is averaged down to CELLS x CELLS
LANDMARK_UNIT = 4.0  # canonical pixels: about a standard deviation


def seen_around(crops: torch.Tensor, landmarks: np.ndarray) -> torch.Tensor:
    """Crops with the face region blanked, but for a dot at each landmark: in training and in use.

    Args:
        crops: (n, 3, size, size) in [-1, 1]. landmarks: (n, 5, 2) pixels of the 128 px canonical square.
    """
    size = crops.shape[-1]
    blank = torch.from_numpy(blank_mask(size)).to(crops)[None, None]
    return crops * (1 - blank) + torch.from_numpy(landmark_marks(landmarks, size)).to(crops) * blank


def scene_size(latent_channels: int) -> int:
    """Length of the vector that describes a face's surroundings."""
    return CANONICAL_LANDMARKS.size + latent_channels * CELLS * CELLS


def scene_vector(surroundings: torch.Tensor, landmarks: torch.Tensor) -> torch.Tensor:
    """(n, `scene_size`) float32.

    Args:
        surroundings: latent of the crops with the face blanked, (n, channels, side, side).
        landmarks: (n, 5, 2) pixels of the 128 px canonical square.
    """
    canonical = torch.from_numpy(CANONICAL_LANDMARKS).to(landmarks)
    pose = ((landmarks - canonical) / LANDMARK_UNIT).flatten(1).to(surroundings)
    return torch.cat([pose, functional.adaptive_avg_pool2d(surroundings, CELLS).flatten(1)], 1)
