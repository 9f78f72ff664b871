"""Blur, mosaic and fill: they change the face, only the face, and the same way every time."""

import numpy as np
import pytest

from diffpriv.config import TransformConfig
from diffpriv.faces.compositing import apply_patches
from diffpriv.faces.types import Face
from diffpriv.transforms import FaceRequest, fill_face, load_transform
from tests.diffpriv.face_pictures import astronaut, face_at, texture

SEED = bytes(range(32))
ASTRONAUT_FACE = Face((182, 58, 271, 176), [[205, 105], [247, 104], [226, 128], [208, 145], [245, 145]], 0.9)


@pytest.mark.parametrize("kind", ["blur", "mosaic", "fill"])
def test_a_baseline_changes_the_face_and_nothing_far_from_it(kind):
    picture, face = astronaut(), ASTRONAUT_FACE
    (result,) = load_transform(TransformConfig(transform=kind, recovery="none")).protect([FaceRequest(picture, face, SEED)])
    protected = apply_patches(picture, [result.patch])
    x0, y0, x1, y1 = (int(value) for value in face.box)
    inside = np.abs(protected[y0:y1, x0:x1].astype(int) - picture[y0:y1, x0:x1]).mean()
    assert inside > 10
    assert result.status == "protected"
    assert result.payload == b""
    changed = np.argwhere((protected != picture).any(-1))
    margin = face.height
    assert changed.min(0)[0] > y0 - margin
    assert changed.max(0)[0] < y1 + margin
    assert changed.min(0)[1] > x0 - margin
    assert changed.max(0)[1] < x1 + margin


@pytest.mark.parametrize("kind", ["blur", "mosaic"])
def test_a_baseline_leaves_no_fine_detail_anywhere_in_the_face(kind):
    noisy = np.random.default_rng(3).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    face = face_at(150, 150, 1.0)
    (result,) = load_transform(TransformConfig(transform=kind, recovery="none")).protect([FaceRequest(noisy, face, SEED)])
    x0, y0, x1, y1 = (int(value) for value in face.box)
    protected = apply_patches(noisy, [result.patch])[y0:y1, x0:x1].astype(float)
    assert protected.std() < 0.2 * noisy.std()


def test_one_faces_patch_does_not_depend_on_the_others():
    picture = texture(400, 500)
    requests = [FaceRequest(picture, face_at(x, 200, 0.8), SEED) for x in (120, 250, 380)]
    transform = load_transform(TransformConfig(transform="blur", recovery="none"))
    together = transform.protect(requests)
    for request, result in zip(requests, together, strict=True):
        (alone,) = transform.protect([request])
        assert np.array_equal(alone.patch.pixels, result.patch.pixels)


def test_a_fill_is_solid_opaque_and_works_for_any_face():
    picture = texture(200, 300)
    wild = Face((280, 190, 420, 360), np.array([[-500.0, 0], [900, 20], [5, 5], [5, 5], [5, 5]]), 0.6)
    for face in (face_at(150, 100, 0.5), face_at(0, 0, 2.0), wild):
        result = fill_face(FaceRequest(picture, face, SEED), "the transform failed")
        assert result.status == "filled"
        assert (result.patch.alpha == 1).all()
        assert len(np.unique(result.patch.pixels)) == 1
        protected = apply_patches(picture, [result.patch])
        x0, y0, x1, y1 = (int(np.clip(value, 0, limit)) for value, limit in zip(face.box, (300, 200, 300, 200), strict=True))
        assert (protected[y0:y1, x0:x1] == result.patch.pixels[0, 0]).all()


def test_seeds_and_payloads_are_not_printed():
    request = FaceRequest(texture(64, 64), face_at(32, 32, 0.3), SEED)
    result = fill_face(request, "why", payload=SEED)
    assert "\\x01\\x02" not in repr(request) + repr(result)
    with pytest.raises(ValueError, match="32 bytes"):
        FaceRequest(texture(64, 64), face_at(32, 32, 0.3), b"short")
