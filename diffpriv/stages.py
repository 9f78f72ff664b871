"""What the stages of `DiffPrivacyPipeline` take and give back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from diffpriv.identities import SyntheticIdentity
from diffpriv.presets import Preset
from diffpriv.sampling import Draw


@dataclass(frozen=True, eq=False)
class KeyOutput:
    """Stage 1: what recovery needs. key_e (n, 3, 160) int8; key_i (n, *latent_shape) float32 or None; residual (n,) or None.

    detail: with key-I, what the latent leaves out, (n, channels, side, side) int8; None of a model that has none.
    """

    key_e: torch.Tensor
    key_i: torch.Tensor | None = None
    residual: torch.Tensor | None = None
    detail: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class ProtectOutput:
    """Stage 2: new faces in [-1, 1], blended into the original's surroundings.

    candidates: (n, preset.candidates, 3, size, size). crops: the first of each, (n, 3, size, size).
    """

    crops: torch.Tensor
    candidates: torch.Tensor


@dataclass(frozen=True, eq=False)
class SpatialRun:
    """What `protect` was given, a row for each candidate of each face; people: synthetic ones by row."""

    crops: torch.Tensor
    key_e: torch.Tensor
    seeds: Sequence[bytes]
    task: str
    preset: Preset
    landmarks: np.ndarray
    attempt: int
    people: Mapping[int, SyntheticIdentity]
    targets: Sequence[torch.Tensor]
    draw: Draw
