"""The builtin recogniser knows a face again and tells people apart."""

import numpy as np
import pytest
import torch

from diffpriv.crops import to_tensor
from diffpriv.detectors import load_detector
from diffpriv.faces.alignment import face_to_crop_matrix, warp_to_crop
from diffpriv.weights import builtin_folder, load_pipeline
from tests.diffpriv.face_pictures import astronaut, group_photo, rescaled


def crops_of(picture: np.ndarray) -> list[np.ndarray]:
    (faces,) = load_detector("centerface").detect([picture])
    faces = sorted(faces, key=lambda face: face.box[0])
    return [warp_to_crop(picture, face_to_crop_matrix(face.landmarks)) for face in faces]


@pytest.fixture(scope="module")
def recognizer():
    return load_pipeline(builtin_folder(), "cpu").recognizer


def similarities(recognizer, first: list[np.ndarray], second: list[np.ndarray]) -> np.ndarray:
    with torch.no_grad():
        one, two = (recognizer.embed_canonical(to_tensor(crops, torch.device("cpu"))) for crops in (first, second))
        return recognizer.similarity(one[:, None], two[None]).numpy()


def test_seven_people_are_told_apart_and_known_again_at_another_size(recognizer):
    people = crops_of(astronaut()) + crops_of(group_photo())
    again = crops_of(rescaled(astronaut(), 0.6)) + crops_of(rescaled(group_photo(), 0.7))
    assert len(people) == len(again) == 7
    threshold = recognizer.config["thresholds"]["0.001"]
    matrix = similarities(recognizer, people, again)
    assert np.diag(matrix).min() > threshold
    assert (matrix.argmax(1) == np.arange(7)).all()
    strangers = matrix[~np.eye(7, dtype=bool)]
    assert strangers.mean() < 0.5 * threshold


def test_it_has_a_gradient_that_reaches_the_crop(recognizer):
    crop = to_tensor(crops_of(astronaut()), torch.device("cpu")).requires_grad_(True)
    target = recognizer.embed_canonical(crop.detach().flip(3))
    recognizer.similarity(recognizer.embed_canonical(crop), target).sum().backward()
    assert float(crop.grad.abs().max()) > 0


def test_larger_crops_are_averaged_down_first(recognizer):
    (small,) = crops_of(astronaut())
    large = small.repeat(4, 0).repeat(4, 1)
    assert similarities(recognizer, [small], [large])[0, 0] > 0.999
