"""The Stable Diffusion profile on a model of its classes with few channels: trained a little, saved, loaded, and used."""

import shutil
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from diffpriv.config import TransformConfig
from diffpriv.crops import to_tensor
from diffpriv.errors import ModelError
from diffpriv.faces.compositing import apply_patches
from diffpriv.latents import decode_latents, encode_crops
from diffpriv.presets import load_preset
from diffpriv.recovery import recover_face
from diffpriv.training.clip_inverter import FrozenModel, InverterTraining, train
from diffpriv.transforms import FaceRequest, load_transform
from diffpriv.weights import load_pipeline
from tests.diffpriv.face_pictures import face_at, texture

pytest.importorskip("transformers")
SIZE = 64
LAYERS = (1, 2, 3, 4, -1)
SEED = bytes(range(32))


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """What a user fetches: an SD 1.x folder and CLIP's vision tower."""
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPVisionConfig, CLIPVisionModel

    folder = tmp_path_factory.mktemp("sources")
    torch.manual_seed(3)
    unet = UNet2DConditionModel(
        sample_size=SIZE // 8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=24,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    with torch.no_grad():
        unet.conv_out.weight *= 0.1  # a denoiser that nobody trained is too rough to be inverted
    unet.save_pretrained(folder / "sd" / "unet")
    AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        scaling_factor=4.0,
    ).save_pretrained(folder / "sd" / "vae")
    PNDMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, skip_prk_steps=True).save_pretrained(
        folder / "sd" / "scheduler"
    )
    tower = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=5, num_attention_heads=2, image_size=32, patch_size=8
    )
    CLIPVisionModel(tower).save_pretrained(folder / "clip")
    return folder


def frozen(sources, dtype=torch.float32) -> FrozenModel:
    return FrozenModel.load(str(sources / "sd"), str(sources / "clip"), "cpu", dtype)


CONFIG = InverterTraining(batch=4, learning_rate=3e-3, warmup_steps=5, layers=LAYERS)
CROPS = np.stack([texture(SIZE, SIZE, seed=number) for number in range(8)])


@pytest.fixture(scope="module")
def folder(sources, tmp_path_factory):
    out = tmp_path_factory.mktemp("training")
    list(train(CROPS, frozen(sources), out, 1e-6, CONFIG, "cpu"))
    return out / "model"


def test_training_lowers_the_loss_of_a_frozen_denoiser(sources, tmp_path):
    model = frozen(sources)
    model.unet.conv_out.weight.mul_(10)  # so that what MSI tells it shows
    before = model.unet.conv_in.weight.clone()
    # A step draws its faces, timesteps and noise from its number, so two runs can be compared step by step.
    idle = list(islice(train(CROPS, model, tmp_path / "idle", 60.0, replace(CONFIG, learning_rate=0.0), "cpu"), 30))
    losses = list(islice(train(CROPS, model, tmp_path / "learns", 60.0, CONFIG, "cpu"), 30))
    assert losses[0] == pytest.approx(idle[0], rel=1e-4)
    assert np.mean(losses[-10:]) < np.mean(idle[-10:])
    assert torch.equal(before, model.unet.conv_in.weight)


def test_the_vision_tower_sees_the_colours_it_was_trained_on():
    from diffpriv.models.clip_inverter import CLIP_MEAN, clip_features

    class Recorder(torch.nn.Module):
        config = type("Config", (), {"image_size": 32})
        dtype = torch.float32

        def forward(self, pixel_values, output_hidden_states):
            self.seen = pixel_values
            return type("Output", (), {"hidden_states": [pixel_values.flatten(2).transpose(1, 2)]})

    tower = Recorder()
    mean_colour = torch.tensor(CLIP_MEAN).view(1, 3, 1, 1) * 2 - 1
    clip_features(tower, mean_colour.expand(1, 3, 64, 64), (0,))
    assert float(tower.seen.abs().max()) < 1e-5


@pytest.mark.parametrize("task", ["anonymize", "hide"])
def test_both_tasks_protect_and_come_back(folder, task):
    pipeline, preset = load_pipeline(folder, "cpu"), replace(load_preset("fast", task), inversion_steps=20)
    crops = to_tensor(list(CROPS[:2]), pipeline.device)
    key = pipeline.create_key(crops, preset)
    assert key.key_e.shape[1] == len(LAYERS)
    assert key.key_e[0].numel() <= 2048
    protected = pipeline.protect(crops, key.key_e, [SEED] * 2, task, preset).crops
    corner = (slice(None), slice(None), slice(0, 8), slice(0, 8))
    assert torch.equal(protected[corner], crops[corner])
    assert not torch.allclose(protected, crops, atol=0.05)
    with torch.no_grad():
        best = decode_latents(pipeline.vae, encode_crops(pipeline.vae, crops)).clamp(-1, 1)
    back = pipeline.recover(key.key_e, key.key_i, steps=preset.inversion_steps)
    wrong = pipeline.recover(key.key_e, key.key_i.flip(0), steps=preset.inversion_steps)
    assert (back - best).square().mean() < 0.25 * (wrong - best).square().mean()


@pytest.mark.parametrize("recovery", ["keys", "image"])
def test_one_picture_through_the_whole_path(folder, recovery):
    config = TransformConfig(model=str(folder), preset="fast", recovery=recovery, max_attempts=1, similarity_limit=1.0)
    request = FaceRequest(texture(200, 240), face_at(120, 100, 0.8), SEED)
    (result,) = load_transform(config).protect([request])
    assert result.status == "protected"
    published = apply_patches(request.image, [result.patch])
    assert not np.array_equal(published, request.image)
    recovered = recover_face(result.payload, SEED, published, model=str(folder))
    assert recovered.tier == recovery
    assert recovered.picture.shape == published.shape


def test_half_precision_and_sliced_attention_are_options(folder):
    pipeline = load_pipeline(folder, "cpu", dtype=torch.bfloat16, attention_slicing=True)
    assert pipeline.unet.dtype == pipeline.vae.dtype == torch.bfloat16
    preset = load_preset("fast", "anonymize")
    crops = to_tensor(list(CROPS[:1]), pipeline.device)
    key = pipeline.create_key(crops, preset)
    protected = pipeline.protect(crops, key.key_e, [SEED], "anonymize", preset).crops
    assert bool(torch.isfinite(protected).all())


def test_a_model_of_an_unknown_kind_is_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    config = tmp_path / "model" / "msi" / "config.json"
    config.write_text(config.read_text().replace("ClipInverter", "SomethingElse"))
    with pytest.raises(ModelError, match="msi"):
        load_pipeline(tmp_path / "model")
