"""The method on the shipped model: new faces that are faces, unlike the original, and that come back."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from diffpriv.config import TransformConfig
from diffpriv.crops import to_tensor
from diffpriv.detectors import load_detector
from diffpriv.errors import ModelError
from diffpriv.faces.alignment import warp_to_crop
from diffpriv.faces.compositing import apply_patches
from diffpriv.generation import generate_faces
from diffpriv.inversion import invert, regenerate
from diffpriv.pipeline import DiffPrivacyPipeline
from diffpriv.presets import load_preset
from diffpriv.recovery import psnr, recover_face
from diffpriv.transforms import FaceRequest, load_transform
from diffpriv.transforms.payloads import decode_payload, stored_matrix
from diffpriv.transforms.style_faces import TURNED_AWAY
from diffpriv.weights import builtin_folder, load_pipeline, weights_digest
from tests.diffpriv.face_pictures import astronaut, group_photo

pytestmark = pytest.mark.usefixtures("one_thread")


def seed(number: int) -> bytes:
    return number.to_bytes(32, "big")


@pytest.fixture(scope="module")
def requests() -> list[FaceRequest]:
    """The faces of two photos that ship inside dependencies: seven people."""
    pictures = [astronaut(), group_photo()]
    found = load_detector("centerface").detect(pictures)
    faces = [(picture, face) for picture, faces in zip(pictures, found, strict=True) for face in faces]
    return [FaceRequest(picture, face, seed(number)) for number, (picture, face) in enumerate(faces)]


@pytest.fixture(scope="module")
def transform():
    return load_transform(TransformConfig(preset="fast"))


@pytest.fixture(scope="module")
def results(transform, requests):
    return transform.protect(requests)


def through_jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, "JPEG", quality=quality)
    return np.asarray(Image.open(encoded))


def original_crop(request: FaceRequest) -> np.ndarray:
    return warp_to_crop(request.image, stored_matrix(request))


def test_no_result_is_nearer_to_its_original_than_the_limit(transform, results):
    protected = [result for result in results if result.status == "protected"]
    assert len(protected) >= len(results) - 1
    assert all(result.similarity <= transform.similarity_limit for result in protected)
    assert all(result.reason for result in results if result.status == "filled")


def test_a_detector_still_finds_a_face_where_each_one_was(requests, results):
    detector = load_detector("centerface")
    for picture in {id(request.image): request.image for request in requests}.values():
        mine = [(request, result) for request, result in zip(requests, results, strict=True) if request.image is picture]
        published = apply_patches(picture, [result.patch for _, result in mine])
        centres = [face.landmarks.mean(0) for face in detector.detect([published])[0]]
        for request, result in mine:
            eyes = np.linalg.norm(request.face.landmarks[0] - request.face.landmarks[1])
            near = any(np.linalg.norm(centre - request.face.landmarks.mean(0)) < 0.5 * eyes for centre in centres)
            assert near or result.status == "filled"


def test_a_result_depends_on_its_seed_and_on_nothing_else_in_the_call(transform, requests, results):
    shuffled = transform.protect([requests[4], requests[0], requests[2]])
    for number, result in zip((4, 0, 2), shuffled, strict=True):
        assert np.array_equal(result.patch.pixels, results[number].patch.pixels)
        assert result.payload == results[number].payload
    other = transform.protect([FaceRequest(requests[0].image, requests[0].face, seed(99))])[0]
    assert not np.array_equal(other.patch.pixels, results[0].patch.pixels)


def test_a_head_turned_too_far_is_covered_as_a_face_and_the_result_says_so(transform, requests, results, monkeypatch):
    assert {result.reason for result in results if result.status == "protected"} == {"", TURNED_AWAY}
    assert not results[0].reason
    monkeypatch.setattr("diffpriv.faces.head_fit.MOST_YAW", -1.0)
    narrower = transform.protect(requests[:1])[0]
    assert narrower.status == "protected"
    assert narrower.reason == TURNED_AWAY
    assert narrower.patch.alpha.sum() < results[0].patch.alpha.sum()
    assert narrower.similarity <= transform.similarity_limit


def test_keys_bring_the_face_back_without_the_picture(requests, results):
    quality = []
    for request, result in zip(requests, results, strict=True):
        recovered = recover_face(result.payload, request.seed, None)
        quality.append(psnr(recovered.crop, original_crop(request)))
        assert recovered.hash_distance <= 8
    assert np.mean(quality) >= 28


def test_the_right_payload_with_noise_of_another_key_gives_another_face(requests, results):
    material = decode_payload(results[0].payload, requests[0].seed)
    stranger = decode_payload(results[1].payload, requests[1].seed)
    pipeline = load_pipeline(builtin_folder())
    keys = [torch.from_numpy(array.copy())[None] for array in (stranger.key_e, stranger.key_i)]
    crop = pipeline.recover(keys[0], keys[1], steps=material.inversion_steps)
    original = to_tensor([original_crop(requests[0])], pipeline.device)
    with torch.no_grad():
        embed = pipeline.recognizer.embed_canonical
        similarity = pipeline.recognizer.similarity(embed(crop), embed(original))
    assert float(similarity) < pipeline.recognizer.config["thresholds"]["0.001"]


def test_recovered_picture_differs_from_the_published_one_inside_the_face_only(requests, results):
    picture = requests[0].image
    published = apply_patches(picture, [results[0].patch])
    recovered = recover_face(results[0].payload, requests[0].seed, published).picture
    patch = results[0].patch
    changed = np.any(recovered != published, axis=2)
    rows, columns = patch.alpha.shape
    inside = changed[patch.y : patch.y + rows, patch.x : patch.x + columns]
    assert inside.any()
    assert changed.sum() == inside.sum()
    assert psnr(recovered, picture) > psnr(published, picture)


def test_tier_image_turns_the_published_face_back_towards_the_original(requests):
    request = requests[0]
    result = load_transform(TransformConfig(preset="fast", recovery="image")).protect([request])[0]
    assert len(result.payload) < 1100
    published = through_jpeg(apply_patches(request.image, [result.patch]), quality=75)
    recovered = recover_face(result.payload, request.seed, published)
    wrong = recover_face(result.payload, seed(98), published)
    assert psnr(recovered.crop, original_crop(request)) > 28
    assert psnr(wrong.crop, original_crop(request)) < 24
    recognizer = load_pipeline(builtin_folder()).recognizer
    with torch.no_grad():
        original, now, back = recognizer.embed_canonical(
            to_tensor(
                [original_crop(request), warp_to_crop(published, stored_matrix(request)), recovered.crop], torch.device("cpu")
            )
        )
    threshold = recognizer.config["thresholds"]["0.001"]
    assert float(recognizer.similarity(now, original)) < threshold < float(recognizer.similarity(back, original))
    assert not recovered.bit_exact


def test_hidden_faces_are_still_known_to_the_recogniser(requests):
    transform = load_transform(TransformConfig(task="hide", preset="fast", recovery="none"))
    (result,) = transform.protect([requests[0]])
    assert result.status == "filled" or result.similarity >= transform.similarity_limit
    assert result.payload == b""


def test_inversion_undone_gives_the_latent_back():
    pipeline = load_pipeline(builtin_folder(), "cpu")
    crops = to_tensor(list(generate_faces(2, seed(5), pipeline)), pipeline.device)
    preset = load_preset("quality", "anonymize")
    with torch.no_grad():
        latent = pipeline.vae.encode(crops).latent
        tokens = pipeline.msi.stage_tokens(pipeline.msi(latent).features)
        nothing = pipeline.nothing_around(2)
        output = invert(latent, tokens, nothing, pipeline.denoiser, steps=preset.inversion_steps, max_refinements=8)
        back = regenerate(output.noise_map, tokens, nothing, pipeline.denoiser, steps=preset.inversion_steps)
    assert float(output.residual.max()) < 0.05
    assert float((back - latent).square().mean().sqrt()) < 0.1
    assert 0.7 < float(output.noise_map.std()) < 1.3


def test_generated_faces_are_faces_of_different_people():
    faces = generate_faces(4, seed(11))
    padded = [np.pad(face, ((64, 64), (64, 64), (0, 0)), mode="edge") for face in faces]
    assert all(found for found in load_detector("centerface").detect(padded))
    assert np.array_equal(faces, generate_faces(4, seed(11)))


def test_the_pipeline_is_an_ordinary_diffusers_folder(tmp_path):
    pipeline = DiffPrivacyPipeline.from_pretrained(builtin_folder(), torch_dtype=torch.float32)
    pipeline.save_pretrained(tmp_path / "copy")
    again = load_pipeline(tmp_path / "copy")
    first, second = (one.unet.conv_in.weight for one in (pipeline, again))
    assert torch.equal(first, second)


@pytest.mark.parametrize("few_steps", [False, True])
def test_a_model_folder_says_whether_few_steps_do(tmp_path, few_steps):
    shipped = load_pipeline(builtin_folder())
    DiffPrivacyPipeline(**shipped.components, few_steps=few_steps).save_pretrained(tmp_path)
    assert load_pipeline(tmp_path).config["few_steps"] is few_steps
    assert DiffPrivacyPipeline.from_pretrained(tmp_path).config["few_steps"] is few_steps


def test_a_broken_model_folder_is_an_error_with_advice(tmp_path):
    (tmp_path / "vae").mkdir()
    with pytest.raises(ModelError, match="unet") as caught:
        load_pipeline(tmp_path)
    assert caught.value.advice


def test_the_weights_are_small_and_named_by_their_digest():
    folder = builtin_folder()
    assert sum(path.stat().st_size for path in folder.rglob("*.safetensors")) <= 97e6
    assert len(weights_digest(folder)) == 64
