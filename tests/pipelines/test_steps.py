"""The pure stages: what a failing detector or transformation does to a sample, and what a face key decides."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffpriv.config import TransformConfig
from diffpriv.detectors import load_detector
from diffpriv.errors import DetectorError
from diffpriv.faces.types import Face
from diffpriv.keys.context import ShardContext
from diffpriv.pipelines.pictures.codec import PictureLimits, decode
from diffpriv.pipelines.records.samples import DetectedSample, Picture, ProtectedSample, QuarantinedSample, Sample
from diffpriv.pipelines.steps.detect import detect
from diffpriv.pipelines.steps.protect import TRANSFORM_LABEL, protect
from diffpriv.transforms import FaceRequest, FaceResult, load_transform
from tests.pipelines.datasets import astronaut, coffee, encoded, group

CONTEXT = ShardContext("faces", "s.tar", "0" * 64)
LIMITS = PictureLimits()


def one(index: int, *pictures: bytes) -> Sample:
    return Sample("s.tar", index, f"k{index}", tuple(Picture(f"{n}.jpg", data) for n, data in enumerate(pictures)))


@pytest.fixture(scope="module")
def detector() -> Any:
    return load_detector("centerface")


@pytest.fixture(scope="module")
def detected(detector: Any) -> list[Any]:
    one_face, six, nobody = encoded(astronaut(), "JPEG"), encoded(group(), "JPEG"), encoded(coffee(), "JPEG")
    return detect([one(0, one_face), one(1, nobody), one(2, nobody, six, one_face), one(3)], detector, LIMITS)


def test_faces_count_through_the_pictures_of_a_sample(detected: list[Any], derived: Callable[[], Any]) -> None:
    assert [len(sample.found) for sample in detected] == [1, 0, 2, 0]
    results, secrets = protect(detected, load_transform(TransformConfig("fill", recovery="exact")), derived(), CONTEXT)
    faces = results[2].faces  # type: ignore[union-attr]
    assert [(face.field, face.face_index) for face in faces] == [("1.jpg", n) for n in range(6)] + [("2.jpg", 6)]
    assert [(secret.sample, secret.face_index) for secret in secrets] == [("k0", 0), *(("k2", n) for n in range(7))]
    for secret in secrets:
        assert secret.key.same_as(derived().face_key(CONTEXT, secret.sample, secret.face_index))


def test_grouping_changes_nothing(detected: list[Any], derived: Callable[[], Any]) -> None:
    transform = load_transform(TransformConfig("blur", recovery="exact"))
    together, _ = protect(detected, transform, derived(), CONTEXT)
    apart = [protect([sample], transform, derived(), CONTEXT)[0][0] for sample in detected]
    assert together == apart


class Failing:
    """A transformation that fails for a call with more than one face, and for the face of one seed."""

    identity = "failing/1"

    def __init__(self, bad_seed: bytes) -> None:
        self._bad, self._good = bad_seed, load_transform(TransformConfig("mosaic", recovery="exact"))

    def protect(self, requests: Sequence[FaceRequest]) -> list[FaceResult]:
        if len(requests) > 1 or requests[0].seed == self._bad:
            raise RuntimeError("secret detail that must not be told")
        return self._good.protect(requests)


def test_a_face_that_cannot_be_transformed_is_filled_and_its_neighbours_are_not(
    detected: list[Any], derived: Callable[[], Any]
) -> None:
    seed = derived().face_key(CONTEXT, "k2", 3).derive(TRANSFORM_LABEL)
    results, secrets = protect(detected, Failing(seed), derived(), CONTEXT)
    faces = {(sample.key, face.face_index): face for sample in results for face in sample.faces}  # type: ignore[union-attr]
    assert {place for place, face in faces.items() if face.status == "filled"} == {("k2", 3)}
    assert faces["k2", 3].reason == "the transformation failed (RuntimeError)"
    assert len(secrets) == 7
    (before, found), (after, *_) = _picture(detected[2], 0), (results[2].changed[0].data,)  # type: ignore[union-attr]
    x0, y0, x1, y1 = (int(value) for value in found[3].box)
    inside = decode(after).pixels[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2]
    assert np.abs(inside.astype(int) - 128).max() < 16, "the face was not covered"
    assert not np.array_equal(decode(before).pixels, decode(after).pixels)


def _picture(sample: DetectedSample, number: int) -> tuple[bytes, tuple[Face, ...]]:
    return sample.found[number].picture.data, sample.found[number].faces


class Blind:
    """A detector that fails on pictures of one width."""

    identity = "blind/1"

    def __init__(self, width: int, error: Exception) -> None:
        self._width, self._error = width, error

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        if any(image.shape[1] == self._width for image in images):
            raise self._error
        return [[] for _ in images]


@pytest.mark.parametrize("error", [DetectorError("its weights are broken."), RuntimeError("a secret detail")])
def test_a_picture_nobody_could_look_at_is_quarantined_not_passed(error: Exception) -> None:
    samples = [one(0, encoded(astronaut(128), "PNG")), one(1, encoded(astronaut(64), "PNG"), encoded(astronaut(128), "PNG"))]
    results = detect([*samples, one(2, encoded(astronaut(64), "PNG"))], Blind(128, error), LIMITS)
    assert [type(result) for result in results] == [QuarantinedSample, QuarantinedSample, DetectedSample]
    assert "detector failed" in results[0].problem.text  # type: ignore[union-attr]
    assert "secret" not in results[0].problem.text  # type: ignore[union-attr]


def test_an_animation_with_a_face_in_a_later_frame_is_cut_to_its_first(detector: Any, derived: Callable[[], Any]) -> None:
    def animation(*frames: np.ndarray) -> bytes:
        out = io.BytesIO()
        first, *rest = (Image.fromarray(frame) for frame in frames)
        first.save(out, format="PNG", save_all=True, append_images=rest)
        return out.getvalue()

    nobody = np.asarray(Image.fromarray(coffee()).resize((256, 256)))
    quiet, sly = animation(nobody, nobody[::-1]), animation(nobody, astronaut())
    found = detect([one(0, quiet), one(1, sly)], detector, LIMITS)
    results, _ = protect(found, load_transform(TransformConfig("fill", recovery="exact")), derived(), CONTEXT)  # type: ignore[arg-type]
    assert isinstance(results[0], ProtectedSample)
    assert isinstance(results[1], ProtectedSample)
    assert results[0].changed == ()
    shown = decode(results[1].changed[0].data)
    assert shown.frames == 1
    assert np.array_equal(shown.pixels, nobody)


def test_a_thumbnail_that_shows_who_was_cropped_away_is_dropped_and_others_stay(
    detector: Any, derived: Callable[[], Any]
) -> None:
    def with_thumbnail(thumbnail: np.ndarray) -> bytes:
        exif = Image.Exif()
        exif[0x010F] = "a camera"
        return encoded(coffee(), "JPEG", exif=exif.tobytes() + encoded(thumbnail, "JPEG"))

    telling, harmless = with_thumbnail(astronaut(160)), with_thumbnail(coffee(160))
    found = detect([one(0, harmless), one(1, telling)], detector, LIMITS)
    results, secrets = protect(found, load_transform(TransformConfig("fill", recovery="exact")), derived(), CONTEXT)  # type: ignore[arg-type]
    assert results[0].changed == ()  # type: ignore[union-attr]
    new = results[1].changed[0].data  # type: ignore[union-attr]
    assert new.count(b"\xff\xd8\xff") == 1
    assert np.abs(decode(new).pixels.astype(int) - decode(telling).pixels).mean() < 1
    assert secrets == []
