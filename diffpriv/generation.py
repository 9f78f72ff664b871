"""Synthetic people made by the builtin model alone, for demonstrations and test data: whole portraits, or aligned crops of
them."""

from functools import lru_cache

import numpy as np
import torch

from diffpriv.crops import to_pixels
from diffpriv.errors import ModelError
from diffpriv.faces.alignment import face_to_crop_matrix, warp_to_crop
from diffpriv.generator.codes import CODE_STYLES, draw_codes
from diffpriv.generator.style_generator import DRAWN_LANDMARKS, StyleGenerator
from diffpriv.keyed_noise import keyed_normal
from diffpriv.pipeline import DiffPrivacyPipeline
from diffpriv.weights import load_head_drawing, resolve_model

TYPICAL = 0.75  # of the spread of traits, or of styles: rare people are where models fail (truncation, Brock et al. 2019)
PORTRAIT_SIDE = 256


@torch.no_grad()
def generate_portraits(count: int, seed: bytes, side: int = PORTRAIT_SIDE) -> np.ndarray:
    """`count` heads with shoulders and background, determined by the seed.

    Args:
        seed: 32 bytes.
        side: 128, 256, 512 or 1024 pixels.
    Returns:
        (count, side, side, 3) uint8 RGB.
    Raises:
        ModelError: the builtin model has no generator.
    """
    generator = _builtin_generator()
    drawn = keyed_normal(seed, "portraits", (count, 1, int(generator.mapping.config["dim"])))
    normal = torch.from_numpy(drawn).expand(-1, CODE_STYLES, -1)
    codes = draw_codes(generator.mapping, normal, TYPICAL)
    return np.stack([generator.draw(code, side) for code in codes])


def generate_faces(count: int, seed: bytes, pipeline: DiffPrivacyPipeline | None = None) -> np.ndarray:
    """`count` synthetic aligned faces, determined by the seed.

    Args:
        seed: 32 bytes.
        pipeline: draws them from spatial latents; by default they are cut from portraits of the builtin generator.
    Returns:
        (count, 128, 128, 3) uint8 RGB.
    """
    if pipeline is not None:
        return np.concatenate([_generate_one(pipeline, seed, index) for index in range(count)])
    matrix = face_to_crop_matrix(DRAWN_LANDMARKS * PORTRAIT_SIDE)
    return np.stack([warp_to_crop(portrait, matrix) for portrait in generate_portraits(count, seed)])


@lru_cache(maxsize=1)
def _builtin_generator() -> StyleGenerator:
    drawing = load_head_drawing(resolve_model("builtin"), "cpu")
    if drawing is None:
        raise ModelError("The builtin model has no generator.", advice="Install diffpriv again.")
    return drawing.generator


@torch.no_grad()
def _generate_one(pipeline: DiffPrivacyPipeline, seed: bytes, index: int) -> np.ndarray:
    msi = pipeline.msi
    person = torch.from_numpy(keyed_normal(seed, f"nobody/{index}", (1, msi.config["prior_rank"]))).to(pipeline.device)
    features = msi.features_of_nobody(TYPICAL * person)

    def draw(step: int) -> torch.Tensor:
        return torch.from_numpy(keyed_normal(seed, f"face/{index}/{step}", (1, *pipeline.latent_shape))).to(pipeline.device)

    return to_pixels(pipeline.generate(features, draw))
