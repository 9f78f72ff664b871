"""Training against a discriminator: what it must notice, and that a cut run loses nothing."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from diffpriv.crops import to_tensor
from diffpriv.faces.alignment import CANONICAL_LANDMARKS
from diffpriv.generation import generate_faces
from diffpriv.training.adversarial import AdversarialTraining, Discriminator, train
from diffpriv.training.checkpoint import load_checkpoint
from diffpriv.training.dataset import TrainingCrops, save_crops
from diffpriv.weights import builtin_folder, load_pipeline

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return generate_faces(16, bytes(31) + b"a")


def test_the_discriminator_learns_to_tell_a_blurred_face_from_a_sharp_one(faces):
    torch.manual_seed(0)
    pipeline = load_pipeline(builtin_folder(), "cpu")
    discriminator = Discriminator(pipeline.unet)
    sharp = pipeline.vae.encode(to_tensor(list(faces))).latent.detach()
    blurred = functional.interpolate(functional.avg_pool2d(sharp, 2), scale_factor=2.0)
    around = pipeline.nothing_around(len(faces))
    tokens = pipeline.msi.null_tokens.expand(len(faces), -1, -1)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-3)

    def features(latent: torch.Tensor) -> list[torch.Tensor]:
        with torch.no_grad():
            model_input = torch.cat([latent, around.latent, around.mask], 1)
            return discriminator.features(model_input, torch.full((len(latent),), 50), tokens)

    def gaps(rows: slice) -> list[torch.Tensor]:
        judged = [discriminator.judge([one[rows] for one in seen]) for seen in (real, false)]
        return [one.mean((1, 2, 3)) - other.mean((1, 2, 3)) for one, other in zip(*judged, strict=True)]

    real, false = features(sharp), features(blurred)
    for _ in range(30):
        loss = sum(functional.softplus(-gap).mean() for gap in gaps(slice(0, 12)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = torch.cat(gaps(slice(12, None))) > 0  # faces that it has not seen
    assert float(right.float().mean()) > 0.9


def test_a_cut_training_goes_on_with_its_discriminator_and_its_optimisers(tmp_path, faces):
    landmarks = np.repeat(CANONICAL_LANDMARKS[None].astype(np.float32), len(faces), 0)
    valid = np.full((len(faces), 128, 128), 255, np.uint8)
    identity = np.arange(len(faces), dtype=np.int32)
    save_crops(tmp_path / "crops.npz", TrainingCrops(faces, valid, landmarks, identity, held_out=1))
    start = tmp_path / "start"
    pipeline = load_pipeline(builtin_folder(), "cpu")
    pipeline.unet.save_pretrained(start / "unet")
    pipeline.msi.save_pretrained(start / "msi")

    def go_on(minutes: float) -> dict:
        config = AdversarialTraining(batch=6, dreamt=2, alone=2, alone_dreamt=1, blind=1, warmup_steps=1)
        train(tmp_path / "crops.npz", builtin_folder() / "vae", start, tmp_path / "run", minutes, config, "cpu")
        return load_checkpoint(tmp_path / "run" / "checkpoint.pt")

    first = go_on(0.01)
    second = go_on(first["spent"] / 60 + 0.01)
    assert second["step"] > first["step"] > 0
    steps = [int(state["others"]["against"]["state"][0]["step"]) for state in (first, second)]
    assert steps == [first["step"], second["step"]]
    heads = [state["others"]["discriminator"]["heads.0.1.weight"] for state in (first, second)]
    assert not torch.equal(*heads)
    assert (tmp_path / "run" / "unet" / "config.json").exists()
    assert (tmp_path / "run" / "samples.png").exists()
