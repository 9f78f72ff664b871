"""Training against a discriminator: what it must notice, and that a cut run loses nothing."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional

from diffpriv.crops import to_tensor
from diffpriv.faces.alignment import CANONICAL_LANDMARKS
from diffpriv.generation import generate_faces
from diffpriv.pipeline import DiffPrivacyPipeline
from diffpriv.training.adversarial import AdversarialTraining, train
from diffpriv.training.checkpoint import load_checkpoint
from diffpriv.training.dataset import TrainingCrops, save_crops
from diffpriv.training.loop import Step
from diffpriv.training.seen_faces import SeenFaces
from diffpriv.training.seen_latents import LatentDiscriminator, SeenLatents
from diffpriv.weights import builtin_folder, load_pipeline

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return generate_faces(10, bytes(31) + b"a")


def new_rival(
    name: str, pipeline: DiffPrivacyPipeline, photos: torch.Tensor
) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """`play` of a new discriminator, of faces in no surroundings."""
    weight = torch.ones(len(photos))
    if name == "faces":
        pipeline.vae.requires_grad_(False)
        faces = SeenFaces(pipeline.vae, pipeline.recognizer.requires_grad_(False), photos, 3e-3, "cpu")
        return lambda photos, made, step: faces.play(photos, made, weight[: len(made)], step)
    alphas = pipeline.scheduler.alphas_cumprod
    latents = SeenLatents(LatentDiscriminator(copy.deepcopy(pipeline.unet)), alphas, (1e-3, 1e-4), 100, 60, "cpu")

    def play(photos: torch.Tensor, made: torch.Tensor, step: Step) -> tuple[torch.Tensor, torch.Tensor]:
        nothing = pipeline.nothing_around(len(made))
        around = torch.cat([nothing.latent, nothing.mask], 1)
        return latents.play(photos, made, weight[: len(made)], around, pipeline.msi.null_stage_tokens(len(made)), step)

    return play


@pytest.mark.parametrize("name", ["latents", "faces"])
def test_a_discriminator_learns_to_tell_blurred_faces_from_sharp_ones_and_says_what_is_missing(faces, name):
    torch.manual_seed(0)
    pipeline = load_pipeline(builtin_folder(), "cpu")
    sharp = pipeline.vae.encode(to_tensor(list(faces))).latent.detach()
    blurred = functional.interpolate(functional.avg_pool2d(sharp, 2), scale_factor=2.0)
    play = new_rival(name, pipeline, sharp)
    for index in range(15):
        step = Step(100 + index, 0.5, torch.Generator().manual_seed(index))
        play(sharp[:6], blurred[:6], step)
    against, right = play(sharp[6:], blurred[6:], step)  # faces that it has not seen
    assert float(right) > 0.9
    # Down its gradient lies what blurring took away.
    assert float((-against * (sharp - blurred)[6:]).sum()) > 0


def test_a_cut_training_goes_on_with_its_discriminator_and_its_optimisers(tmp_path, faces):
    landmarks = np.repeat(CANONICAL_LANDMARKS[None].astype(np.float32), len(faces), 0)
    valid = np.full((len(faces), 128, 128), 255, np.uint8)
    identity = np.arange(len(faces), dtype=np.int32)
    save_crops(tmp_path / "crops.npz", TrainingCrops(faces, valid, landmarks, identity, held_out=1))
    start = tmp_path / "start"
    pipeline = load_pipeline(builtin_folder(), "cpu")
    pipeline.unet.save_pretrained(start / "unet")
    pipeline.msi.save_pretrained(start / "msi")
    pipeline.recognizer.save_pretrained(start / "recognizer")

    def go_on(minutes: float) -> dict:
        config = AdversarialTraining(batch=6, dreamt=2, alone=2, alone_dreamt=1, blind=1, warmup_steps=1)
        train(tmp_path / "crops.npz", builtin_folder() / "vae", start, tmp_path / "run", minutes, config, "cpu")
        return load_checkpoint(tmp_path / "run" / "checkpoint.pt")

    first = go_on(0.01)
    second = go_on(first["spent"] / 60 + 0.01)
    assert second["step"] > first["step"] > 0
    for turn, rival in enumerate(("latents", "faces")):
        for state in (first, second):
            played = state["others"][f"{rival}_optimizer"]["state"]
            assert len(range(turn, state["step"], 2)) == (int(played[0]["step"]) if played else 0)
    turn = ("latents", "faces")[first["step"] % 2]  # whose the first step after the cut was
    before, after = (state["others"][turn] for state in (first, second))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert (tmp_path / "run" / "unet" / "config.json").exists()
    assert (tmp_path / "run" / "samples.png").exists()
