"""The autoencoder's two codes: the latent that faces are made in, and the detail that recovery needs beside it."""

import numpy as np
import pytest
import torch

from diffpriv.crops import to_pixels, to_tensor
from diffpriv.detectors import load_detector
from diffpriv.faces.alignment import face_to_crop_matrix, warp_to_crop
from diffpriv.generation import generate_faces
from diffpriv.models.autoencoder import DETAIL_LIMIT, FaceAutoencoder
from diffpriv.recovery import psnr
from diffpriv.training.dataset import TrainingCrops, save_crops
from diffpriv.training.decoder import DecoderTraining, train, with_detail
from diffpriv.weights import builtin_folder, load_pipeline
from tests.diffpriv.face_pictures import astronaut, group_photo

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    pictures = [astronaut(), group_photo()]
    found = load_detector("centerface").detect(pictures)
    pairs = [(picture, face) for picture, faces in zip(pictures, found, strict=True) for face in faces]
    return np.stack([warp_to_crop(picture, face_to_crop_matrix(face.landmarks)) for picture, face in pairs])


@pytest.fixture(scope="module")
def shipped() -> FaceAutoencoder:
    return load_pipeline(builtin_folder(), "cpu").vae


def small() -> FaceAutoencoder:
    torch.manual_seed(0)
    return FaceAutoencoder(channels=(16, 32), decoder_blocks=1).eval()


@torch.no_grad()
def test_a_photo_comes_back_closer_with_its_detail_and_not_with_that_of_another(shipped, photos):
    crops = to_tensor(photos)
    latent, detail = shipped.encode(crops).latent, shipped.encode_detail(crops)
    told, untold, mistold = (to_pixels(shipped.decode(latent, one)) for one in (detail, None, detail.roll(1, 0)))

    def quality(made: np.ndarray) -> float:
        return float(np.mean([psnr(one, two) for one, two in zip(made, photos, strict=True)]))

    assert quality(told) > 33
    assert quality(told) > quality(untold) + 1.5
    assert quality(told) > quality(mistold) + 3


@torch.no_grad()
def test_the_detail_is_what_a_payload_can_hold(shipped, photos):
    detail = shipped.encode_detail(to_tensor(photos))
    assert detail.dtype == torch.int8
    assert detail.shape == (len(photos), shipped.config["detail_channels"], 16, 16)
    assert int(detail.abs().max()) <= DETAIL_LIMIT


@torch.no_grad()
def test_an_autoencoder_that_gains_a_detail_decodes_as_before_until_it_is_trained():
    before = small()
    after = with_detail(before, 8).eval()
    crops = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(1)) * 2 - 1
    assert before.encode_detail(crops) is None
    assert torch.equal(after(crops), before(crops))
    assert with_detail(after, 4) is after


def test_training_the_decoder_leaves_the_latents_alone_and_goes_on_where_it_was_cut(tmp_path):
    faces = generate_faces(8, bytes(31) + b"d")
    valid, landmarks = np.full((len(faces), 128, 128), 255, np.uint8), np.zeros((len(faces), 5, 2), np.float32)
    save_crops(tmp_path / "crops.npz", TrainingCrops(faces, valid, landmarks, np.arange(len(faces)), held_out=2))
    small().save_pretrained(tmp_path / "start")
    places = tmp_path / "crops.npz", tmp_path / "start", tmp_path / "run"
    first = train(*places, 0.02, DecoderTraining(), "cpu")
    second = train(*places, 0.15, DecoderTraining(), "cpu")  # in all: room for a step more on a busy machine
    assert second["steps"] > first["steps"] > 0
    trained = FaceAutoencoder.from_pretrained(tmp_path / "run" / "autoencoder", torch_dtype=torch.float32).eval()
    crops = to_tensor(faces)
    with torch.no_grad():
        assert torch.allclose(trained.encode(crops).latent, small().encode(crops).latent, atol=0.02)  # stored in half precision
        assert not torch.allclose(trained.decode(trained.encode(crops).latent), trained(crops))
