"""Refinement of key-E on the shipped model: the denoiser makes less error, and the same bits come out again."""

from dataclasses import replace

import pytest
import torch

from diffpriv.keyed_noise import keyed_normal
from diffpriv.latents import encode_crops
from diffpriv.pipeline import DiffPrivacyPipeline
from diffpriv.presets import load_preset
from diffpriv.refinement import denoising_loss, fixed_noises, refined
from diffpriv.weights import builtin_folder, load_pipeline

STEPS = 12


@pytest.fixture(scope="module")
def pipeline() -> DiffPrivacyPipeline:
    return load_pipeline(builtin_folder(), "cpu")


@pytest.fixture(scope="module")
def crops(pipeline) -> torch.Tensor:
    """Three people who do not exist."""
    prior = torch.from_numpy(keyed_normal(bytes(32), "people", (3, int(pipeline.msi.config["prior_rank"]))))
    features = pipeline.msi.features_of_nobody(prior)

    def draw(step: int) -> torch.Tensor:
        return torch.from_numpy(keyed_normal(bytes(32), f"noise/{step}", (3, *pipeline.latent_shape)))

    return pipeline.generate(features, draw).clamp(-1, 1)


@torch.no_grad()
def test_refinement_lowers_the_loss_on_noises_it_never_saw(pipeline, crops):
    latent = encode_crops(pipeline.vae, crops)
    around = pipeline.nothing_around(3)
    before = pipeline.features(crops, latent)
    after = refined(before, latent, pipeline.msi, pipeline.denoiser, around, steps=STEPS)

    def loss(features: torch.Tensor) -> float:
        stored = pipeline.msi.dequantise(pipeline.msi.quantise(features))
        held_out = fixed_noises(10, latent, "held out")
        losses = [
            denoising_loss(stored, latent, noise, 50 + 100 * number, pipeline.msi, pipeline.denoiser, around)
            for number, noise in enumerate(held_out)
        ]
        return float(torch.stack(losses).mean())

    assert loss(after) < loss(before)


def test_a_refined_key_is_the_same_again_whoever_shares_the_batch(pipeline, crops):
    plain = load_preset("fast", "anonymize")
    preset = replace(plain, refinement_steps=2)
    first = pipeline.create_key(crops[:2].contiguous(), preset, noise_map=False).key_e
    again = pipeline.create_key(crops[[0, 2]], preset, noise_map=False).key_e
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first, pipeline.create_key(crops[:2].contiguous(), plain, noise_map=False).key_e)
