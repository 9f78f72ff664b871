"""The InsightFace route, through insightface's own loaders, with toy packs made here: real weights are not free to ship."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from diffpriv.config import TransformConfig
from diffpriv.detectors import load_detector
from diffpriv.errors import DetectorError, MisuseError, ModelError
from diffpriv.faces.alignment import CANONICAL_LANDMARKS, face_to_crop_matrix, warp_to_crop
from diffpriv.recognizers.insightface_recognizer import ARCFACE_LANDMARKS, InsightFaceRecognizer
from diffpriv.transforms import load_transform
from tests.diffpriv.face_pictures import astronaut, texture


def save_bright_spot_detector(path) -> None:
    """SCRFD's nine outputs (scores, boxes, landmarks at strides 8, 16, 32; two anchors): whatever is bright is a face."""
    nodes, weights, outputs = [], [], []
    for kind, width, bias in (
        ("score", 1, [-20.0]),
        ("box", 4, [4.0, 4, 4, 4]),
        ("kps", 10, [-1.4, -1, 1.4, -1, 0, 0.5, -1.2, 1.8, 1.2, 1.8]),
    ):
        for stride in (8, 16, 32):
            name = f"{kind}{stride}"
            kernel = np.zeros((2 * width, 3, stride, stride), np.float32)
            if kind == "score":
                kernel[:] = 30.0 / (3 * stride * stride)
            bias_value = np.tile(np.array(bias, np.float32), 2)
            weights += [
                numpy_helper.from_array(kernel, name + "_w"),
                numpy_helper.from_array(bias_value, name + "_b"),
                numpy_helper.from_array(np.array([-1, width], np.int64), name + "_shape"),
            ]
            nodes.append(helper.make_node("Conv", ["input", name + "_w", name + "_b"], [name + "_c"], strides=[stride, stride]))
            nodes.append(helper.make_node("Transpose", [name + "_c"], [name + "_t"], perm=[0, 2, 3, 1]))
            last = name + "_r" if kind == "score" else name
            nodes.append(helper.make_node("Reshape", [name + "_t", name + "_shape"], [last]))
            if kind == "score":
                nodes.append(helper.make_node("Sigmoid", [last], [name]))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"n{stride}{kind}", width]))
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, "height", "width"])
    save(path, nodes, image, outputs, weights)


def save_pooling_recognizer(path) -> None:
    """ArcFace's shape of model: 112 px in, one vector out; here the picture's coarse colours."""
    nodes = [
        helper.make_node("AveragePool", ["input"], ["pooled"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Flatten", ["pooled"], ["embedding"]),
    ]
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 112, 112])
    save(path, nodes, image, [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, 147])], [])


def save(path, nodes, image, outputs, weights) -> None:
    graph = helper.make_graph(nodes, "toy", [image], outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


@pytest.fixture
def pack(tmp_path):
    save_bright_spot_detector(tmp_path / "det_toy.onnx")
    save_pooling_recognizer(tmp_path / "w_toy.onnx")
    return tmp_path


@pytest.mark.parametrize("name", ["buffalo_l", "antelopev2"])
def test_absent_weights_raise_with_what_to_fetch_and_where_to_put_it(tmp_path, name):
    (tmp_path / "models" / name).mkdir(parents=True)  # what an interrupted download leaves
    with pytest.raises(DetectorError) as caught:
        load_detector(f"insightface:{name}", root=str(tmp_path))
    text = str(caught.value)
    for part in (f"{name}.zip", str(tmp_path / "models" / name), "non-commercial", "centerface"):
        assert part in text


def test_a_missing_folder_raises_and_downloads_nothing(tmp_path):
    with pytest.raises(DetectorError, match="does not exist"):
        load_detector(f"insightface:{tmp_path}/nowhere")
    with pytest.raises(DetectorError, match=r"no \.onnx file"):
        load_detector(f"insightface:{tmp_path}")
    assert list(tmp_path.iterdir()) == []


def test_a_pack_the_user_brings_detects_in_picture_coordinates(pack):
    detector = load_detector(f"insightface:{pack}")
    picture = np.zeros((500, 620, 3), np.uint8)
    picture[300:332, 400:432] = 255
    faces, none = detector.detect([picture, np.zeros((300, 300, 3), np.uint8)])
    assert none == []
    assert faces
    for face in faces:
        assert face.box[0] < 432
        assert face.box[2] > 400
        assert face.box[1] < 332
        assert face.box[3] > 300
        assert face.landmarks[0, 0] < face.landmarks[1, 0]
    again = detector.detect([np.zeros((300, 300, 3), np.uint8), picture])[1]
    assert [face.box for face in again] == [face.box for face in faces]
    assert "weights=" in detector.identity


def test_broken_or_incomplete_packs_raise(tmp_path):
    save_pooling_recognizer(tmp_path / "w_toy.onnx")
    with pytest.raises(DetectorError, match="no detector"):
        load_detector(f"insightface:{tmp_path}")
    (tmp_path / "det_10g.onnx").write_bytes(b"not a model")
    with pytest.raises(DetectorError, match="cannot be loaded"):
        load_detector(f"insightface:{tmp_path}")


def test_a_packs_recogniser_embeds_our_crops_to_unit_length_whatever_the_grouping(pack):
    recognizer = InsightFaceRecognizer(str(pack))
    crops = np.stack([texture(128, 128, seed) for seed in range(3)])
    embedded = recognizer.embed(crops)
    assert embedded.shape == (3, recognizer.dim) == (3, 147)
    assert np.allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-6)
    assert np.array_equal(recognizer.embed(crops[1:2])[0], embedded[1])
    assert recognizer.embed(crops[:0]).shape == (0, 147)
    with pytest.raises(DetectorError):
        recognizer.embed(crops.astype(np.float32))


def test_our_crop_carried_over_matches_insightfaces_own_alignment(pack):
    from insightface.utils.face_align import norm_crop

    picture = astronaut()
    landmarks = np.array([[205.0, 105], [247, 104], [226, 128], [208, 145], [245, 145]])
    recognizer = InsightFaceRecognizer(str(pack))
    ours = recognizer.embed(warp_to_crop(picture, face_to_crop_matrix(landmarks))[None])[0]
    theirs = recognizer._model.get_feat(norm_crop(np.ascontiguousarray(picture[:, :, ::-1]), landmarks))[0]
    assert float(ours @ theirs / np.linalg.norm(theirs)) > 0.995
    assert ARCFACE_LANDMARKS.shape == CANONICAL_LANDMARKS.shape


def test_a_threshold_is_measured_or_refused_never_made_up(pack):
    with pytest.raises(ModelError, match=r"0\.001"):
        InsightFaceRecognizer(str(pack)).threshold(1e-3)
    with pytest.raises(ModelError, match=r"0\.001") as caught:  # before any face is made, not at the first one
        load_transform(TransformConfig(recognizer=f"insightface:{pack}"))
    assert "thresholds.json" in caught.value.advice
    with pytest.raises(MisuseError, match="no gradient"):
        load_transform(TransformConfig(recognizer=f"insightface:{pack}", task="hide"))
    (pack / "thresholds.json").write_text('{"0.001": 0.31}')
    assert InsightFaceRecognizer(str(pack)).threshold(1e-3) == 0.31
    (pack / "thresholds.json").write_text("[]")
    with pytest.raises(ModelError, match=r"thresholds\.json"):
        InsightFaceRecognizer(str(pack))
