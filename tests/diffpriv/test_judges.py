"""Judges: a TensorFlow.js model computes what its equations say, and recognisers load by name or say what is missing."""

import base64
import contextlib
import json

import numpy as np
import pytest
import torch
from torch.nn import functional

from diffpriv.errors import MisuseError, ModelError
from diffpriv.recognizers import load_recognizer
from diffpriv.recognizers.tfjs_graph import GraphModel
from tests.diffpriv.face_pictures import texture


def text(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


def convolution(name, operation, picture, kernel, stride, padding="SAME"):
    attributes = {
        "strides": {"list": {"i": ["1", str(stride), str(stride), "1"]}},
        "padding": {"s": text(padding)},
        "data_format": {"s": text("NHWC")},
    }
    return {"name": name, "op": operation, "input": [picture, kernel], "attr": attributes}


def constant(name):
    return {"name": name, "op": "Const"}


@pytest.fixture
def weights():
    random = np.random.default_rng(1)
    quantised = random.integers(0, 256, (3, 3, 4, 2)).astype(np.uint8)
    return {
        "kernel": random.normal(size=(3, 3, 3, 4)).astype(np.float16),
        "depth": quantised,
        "shift": random.normal(size=8).astype(np.float32),
        "six": np.array(6, np.float32),
        "axes": np.array([1, 2], np.int32),
        "head": random.normal(size=(8, 5)).astype(np.float32),
        "bias": random.normal(size=5).astype(np.float32),
    }


def write_model(folder, weights, extra=()):
    """Nodes in the wrong order on purpose; weights over two shards, cut inside a tensor."""
    fused = {"fused_ops": {"list": {"s": [text("BiasAdd"), text("Relu")]}}, "transpose_a": {"b": False}}
    nodes = [
        {"name": "share", "op": "Softmax", "input": ["vector"]},
        {"name": "vector", "op": "_FusedMatMul", "input": ["mean", "head", "bias"], "attr": fused},
        {"name": "mean", "op": "Mean", "input": ["capped", "axes"], "attr": {"keep_dims": {"b": False}}},
        {"name": "capped", "op": "Minimum", "input": ["rectified", "six"]},
        {"name": "rectified", "op": "Relu", "input": ["shifted:0", "^first"]},
        {"name": "shifted", "op": "Add", "input": ["second", "shift"]},
        convolution("second", "DepthwiseConv2dNative", "first", "depth", 1, "VALID"),
        convolution("first", "Conv2D", "picture", "kernel", 2),
        {"name": "picture", "op": "Placeholder"},
        *[constant(name) for name in weights],
        *extra,
    ]
    entries, data = [], b""
    for name, value in weights.items():
        entry = {"name": name, "shape": list(value.shape), "dtype": "int32" if value.dtype == np.int32 else "float32"}
        if value.dtype == np.float16:
            entry["quantization"] = {"dtype": "float16"}
        if value.dtype == np.uint8:
            entry["quantization"] = {"dtype": "uint8", "scale": 0.01, "min": -1.25}
        entries.append(entry)
        data += value.tobytes()
    (folder / "one.bin").write_bytes(data[:101])
    (folder / "two.bin").write_bytes(data[101:])
    model = {
        "modelTopology": {"node": nodes},
        "weightsManifest": [{"paths": ["one.bin", "two.bin"], "weights": entries}],
        "signature": {"outputs": {"share": {}}},
    }
    (folder / "model.json").write_text(json.dumps(model))
    return folder / "model.json"


@pytest.mark.parametrize("size", [(9, 12), (10, 11)])
def test_a_graph_computes_what_its_nodes_say(tmp_path, weights, size):
    graph = GraphModel(write_model(tmp_path, weights))
    assert (graph.inputs, graph.outputs) == (["picture"], ["share"])
    picture = torch.from_numpy(np.random.default_rng(2).normal(size=(2, *size, 3)).astype(np.float32))
    mean, share = graph.run(picture, ["mean", "share:0"])

    # The same by hand, kernels applied at every place in turn.
    kernel = weights["kernel"].astype(np.float32)
    padded = []
    for length in size:
        total = max((-(-length // 2) - 1) * 2 + 3 - length, 0)
        padded.append((total // 2, total - total // 2))
    wide = np.pad(picture.numpy(), ((0, 0), *padded, (0, 0)))
    rows, columns = -(-size[0] // 2), -(-size[1] // 2)
    first = np.array(
        [
            [np.einsum("bhwc,hwco->bo", wide[:, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3], kernel) for x in range(columns)]
            for y in range(rows)
        ]
    ).transpose(2, 0, 1, 3)
    depth = weights["depth"].astype(np.float32) * np.float32(0.01) - np.float32(1.25)
    second = np.array(
        [
            [np.einsum("bhwc,hwcm->bcm", first[:, y : y + 3, x : x + 3], depth).reshape(2, 8) for x in range(columns - 2)]
            for y in range(rows - 2)
        ]
    ).transpose(2, 0, 1, 3)
    expected = np.clip(second + weights["shift"], 0, 6).mean((1, 2))
    assert np.allclose(mean.numpy(), expected, atol=1e-4)
    vector = np.maximum(expected @ weights["head"] + weights["bias"], 0)
    assert np.allclose(share.numpy(), functional.softmax(torch.from_numpy(vector), -1).numpy(), atol=1e-4)


def test_an_operation_that_is_not_known_is_refused_by_name(tmp_path, weights):
    path = write_model(tmp_path, weights, extra=[{"name": "odd", "op": "TopKV2", "input": ["vector"]}])
    with pytest.raises(ModelError, match="TopKV2"):
        GraphModel(path)


def test_damaged_models_are_refused(tmp_path, weights):
    path = write_model(tmp_path, weights)
    whole = (tmp_path / "two.bin").read_bytes()
    for data in (whole[:-1], whole + b"."):
        (tmp_path / "two.bin").write_bytes(data)
        with pytest.raises(ModelError, match="not a TensorFlow"):
            GraphModel(path)
    (tmp_path / "two.bin").unlink()
    with pytest.raises(ModelError, match="No such file"):
        GraphModel(path)


def test_a_missing_judge_says_how_to_get_it(tmp_path):
    with pytest.raises(ModelError) as caught:
        load_recognizer(f"human:{tmp_path}")
    assert "npm pack @vladmandic/human" in str(caught.value)
    with pytest.raises(MisuseError, match="human:FOLDER"):
        load_recognizer("human")
    with pytest.raises(ModelError, match="no recogniser weights"):
        load_recognizer(str(tmp_path))


def test_recognisers_embed_to_unit_length_whatever_the_grouping():
    crops = np.stack([texture(128, 128, seed) for seed in range(3)])
    loaded = [load_recognizer("builtin")]
    with contextlib.suppress(ModelError):  # the extra `judges` may not be installed
        loaded.append(load_recognizer("dlib"))
    for recognizer in loaded:
        embedded = recognizer.embed(crops)
        assert embedded.shape == (3, recognizer.dim)
        assert np.allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-5)
        assert np.array_equal(recognizer.embed(crops[1:2])[0], embedded[1])
        assert "weights=" in recognizer.identity
