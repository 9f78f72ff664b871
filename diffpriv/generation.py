"""Faces of nobody: the builtin model run on no surroundings and on features of nobody, for demonstrations and test data."""

import numpy as np
import torch

from diffpriv.crops import to_pixels
from diffpriv.keyed_noise import keyed_normal
from diffpriv.pipeline import DiffPrivacyPipeline
from diffpriv.weights import load_pipeline, resolve_model

TYPICAL = 0.75  # of the traits' spread: rare people are where a small model fails (truncation, Brock et al. 2019)


def generate_faces(count: int, seed: bytes, pipeline: DiffPrivacyPipeline | None = None) -> np.ndarray:
    """`count` synthetic aligned faces, determined by the seed.

    Args:
        seed: 32 bytes. pipeline: the builtin model by default.
    Returns:
        (count, 128, 128, 3) uint8 RGB.
    """
    pipeline = pipeline or load_pipeline(resolve_model("builtin"))
    faces = [_generate_one(pipeline, seed, index) for index in range(count)]
    return np.concatenate(faces)


@torch.no_grad()
def _generate_one(pipeline: DiffPrivacyPipeline, seed: bytes, index: int) -> np.ndarray:
    msi = pipeline.msi
    person = torch.from_numpy(keyed_normal(seed, f"nobody/{index}", (1, msi.config["prior_rank"]))).to(pipeline.device)
    features = msi.features_of_nobody(TYPICAL * person)

    def draw(step: int) -> torch.Tensor:
        return torch.from_numpy(keyed_normal(seed, f"face/{index}/{step}", (1, *pipeline.latent_shape))).to(pipeline.device)

    return to_pixels(pipeline.generate(features, draw))
