"""The offline detector finds the faces that are there, says the same whatever the batch, and never says "nobody" by mistake."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from diffpriv.detectors import load_detector
from diffpriv.detectors.base import box_landmarks, plausible_landmarks
from diffpriv.detectors.centerface import default_weights, suppress
from diffpriv.detectors.scales import TILE_OVERLAP, close_view, plan_views
from diffpriv.errors import DetectorError, MisuseError
from tests.diffpriv.face_pictures import astronaut, face_at, group_photo, rescaled, texture


@pytest.fixture(scope="module")
def detector():
    return load_detector("centerface")


@pytest.mark.parametrize("scale", [0.2, 0.5, 1.0, 2.0, 4.0])
def test_the_one_face_of_the_astronaut_is_found_at_every_scale(detector, scale):
    (faces,) = detector.detect([rescaled(astronaut(), scale)])
    assert len(faces) == 1
    box = np.array(faces[0].box) / scale
    assert np.abs(box - (182, 58, 271, 176)).max() < 16


@pytest.mark.parametrize("scale", [0.2, 0.5, 1.0, 2.0])
def test_the_six_faces_of_the_group_are_found_at_every_scale(detector, scale):
    (faces,) = detector.detect([rescaled(group_photo(), scale)])
    assert len(faces) == 6
    assert [face.score for face in faces] == sorted((face.score for face in faces), reverse=True)
    assert all(plausible_landmarks(face.box, face.landmarks) for face in faces)


def test_a_face_that_fills_the_frame_and_a_tiny_one_in_a_large_picture_are_found(detector):
    close = rescaled(np.ascontiguousarray(astronaut()[50:190, 165:290]), 6.0)
    far = np.full((1600, 2400, 3), 90, np.uint8)
    tiny = rescaled(astronaut(), 24 / 118)
    far[1200 : 1200 + len(tiny), 2000 : 2000 + len(tiny)] = tiny
    faces_close, faces_far = detector.detect([close, far])
    assert len(faces_close) == 1
    assert len(faces_far) == 1
    assert faces_far[0].box[0] > 2000


def test_a_pictures_faces_do_not_depend_on_its_batch(detector):
    pictures = [astronaut(), group_photo(), np.ascontiguousarray(astronaut()[:, ::-1]), texture(300, 512), astronaut()]
    small = load_detector("centerface", batch_pixels=1)
    together = detector.detect(pictures)
    for alone, faces in zip([small.detect([picture])[0] for picture in pictures], together, strict=True):
        assert [face.box for face in alone] == [face.box for face in faces]
        assert [face.score for face in alone] == [face.score for face in faces]
        assert all(np.array_equal(a.landmarks, b.landmarks) for a, b in zip(alone, faces, strict=True))


def test_pictures_without_faces_give_none_and_odd_sizes_work(detector):
    blank = [np.zeros(shape, np.uint8) for shape in ((1, 1, 3), (3, 900, 3), (700, 2, 3), (33, 65, 3))]
    assert detector.detect(blank) == [[], [], [], []]
    assert detector.detect([]) == []


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((10, 10), np.uint8),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((10, 10, 3), np.float32),
        np.zeros((0, 9, 3), np.uint8),
        None,
    ],
)
def test_what_is_not_a_picture_raises_instead_of_having_no_face(detector, picture):
    with pytest.raises(DetectorError):
        detector.detect([astronaut(), picture])


def test_missing_or_broken_weights_raise(tmp_path):
    with pytest.raises(DetectorError, match="cannot be read"):
        load_detector("centerface", weights=tmp_path / "none.onnx")
    (tmp_path / "cut.onnx").write_bytes(default_weights().read_bytes()[:100_000])
    with pytest.raises(DetectorError, match="cannot be loaded"):
        load_detector("centerface", weights=tmp_path / "cut.onnx")


def test_a_network_that_gives_no_numbers_raises_instead_of_finding_nobody(tmp_path):
    model = onnx.load(default_weights())
    consumed = {name for node in model.graph.node if "537" in node.output for name in node.input}
    layers = [node for node in model.graph.node if consumed & set(node.output)]
    names = {name for node in layers for name in node.input}
    (chosen, *_) = [weights for weights in model.graph.initializer if weights.name in names]
    broken = np.full_like(numpy_helper.to_array(chosen), np.nan)
    chosen.CopyFrom(numpy_helper.from_array(broken, chosen.name))
    onnx.save(model, tmp_path / "nan.onnx")
    broken_detector = load_detector("centerface", weights=tmp_path / "nan.onnx")
    with pytest.raises(DetectorError, match="not numbers"):
        broken_detector.detect([astronaut()])


def test_an_unknown_detector_or_option_is_misuse():
    for spec in ("haar", "centerface:x", "insightface", ""):
        with pytest.raises(MisuseError):
            load_detector(spec)
    with pytest.raises(MisuseError, match="speed"):
        load_detector("centerface", speed="fast")


def test_implausible_landmarks_are_recognised():
    face = face_at(300, 200, 1.3, 25)
    assert plausible_landmarks(face.box, face.landmarks)
    assert plausible_landmarks(face.box, box_landmarks(face.box))
    assert not plausible_landmarks(face.box, face.landmarks + 150)
    assert not plausible_landmarks(face.box, np.full((5, 2), 300.0))
    assert not plausible_landmarks(face.box, (face.landmarks - 300) * 0.2 + 300)
    assert not plausible_landmarks(face.box, face.landmarks[[3, 1, 4, 0, 2]])


@pytest.mark.parametrize("size", [(40, 30), (512, 512), (1280, 886), (6000, 4000), (300, 9000)])
def test_views_cover_the_picture_and_every_face_is_whole_in_one_of_them(size):
    height, width = size
    views = plan_views(height, width, 20)
    assert max(view.height * view.width for view in views) <= 1_300_000
    rng = np.random.default_rng(11)
    for _ in range(300):
        side = float(np.exp(rng.uniform(np.log(20), np.log(max(21, min(height, width))))))
        x, y = rng.uniform(0, max(width - side, 1)), rng.uniform(0, max(height - side, 1))
        box = np.array([[x, y, min(x + side, width), min(y + side, height)]])
        inside = [
            view
            for view in views
            if view.left <= box[0, 0] and view.top <= box[0, 1] and view.right >= box[0, 2] and view.bottom >= box[0, 3]
        ]
        whole = [side / view.scale[1] for view in inside if view.whole(box)[0]]
        assert any(14 <= shown <= 850 for shown in whole) or side / max(view.scale[1] for view in views) > TILE_OVERLAP


def test_a_close_view_lies_inside_the_picture_and_holds_the_candidate():
    for box in ([10, 10, 30, 34], [-5, -5, 20, 20], [480, 500, 515, 515], [0, 0, 512, 512]):
        view = close_view(np.array(box, float), 512, 512)
        assert 0 <= view.left < view.right <= 512
        assert 0 <= view.top < view.bottom <= 512
        assert view.left <= max(box[0], 0)
        assert view.right >= min(box[2], 512)


def test_everybody_in_a_crowd_of_small_faces_is_found(detector):
    small = rescaled(np.ascontiguousarray(astronaut()[0:250, 110:350]), 0.19)  # a face of 22 pixels
    rows, columns = 15, 18
    (faces,) = detector.detect([np.tile(small, (rows, columns, 1))])
    assert len(faces) == rows * columns


def test_a_weak_box_inside_a_strong_one_goes_only_from_its_middle():
    def row(x0, y0, x1, y1, score):
        return [x0, y0, x1, y1, score, *[0.0] * 10]

    face, nose, behind = row(0, 0, 100, 130, 0.9), row(35, 60, 65, 90, 0.6), row(2, 2, 25, 30, 0.7)
    kept = suppress(np.array([nose, face, behind]))
    assert kept[:, 4].tolist() == [0.9, 0.7]
    same = row(8, 5, 108, 128, 0.8)
    assert suppress(np.array([same, face]))[:, 4].tolist() == [0.9]
    assert suppress(np.empty((0, 15))).shape == (0, 15)
