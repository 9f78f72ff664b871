"""Reads a TensorFlow.js graph model (model.json + binary shards) and runs it with torch; no TensorFlow, no JavaScript.

Format: `modelTopology.node` is a list of {name, op, input, attr}, strings in attr in base64 and integers as decimal text;
`weightsManifest` is a list of groups, each naming its shards (`paths`, joined end to end) and its tensors in the order of
their bytes, little-endian, dense. A tensor with `quantization` {dtype: float16 | uint8 | uint16, scale, min} is stored in that
type; the two integer types mean value * scale + min. Tensors are in TensorFlow's order: pictures NHWC, kernels HWIO.
Only the operations that the judges' models use are here; any other is a `ModelError`, never a guess.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from diffpriv.errors import ModelError

Attributes = dict[str, Any]
_ELEMENT = {"float32": "<f4", "int32": "<i4", "bool": "?", "float16": "<f2", "uint8": "u1", "uint16": "<u2"}


class GraphModel:
    """One loaded graph.

    Args:
        path: the model's .json file; its shards lie beside it.
    Raises:
        ModelError: a file is missing or cut, or the graph holds an operation that is not known here.
    """

    def __init__(self, path: Path) -> None:
        try:
            described = json.loads(path.read_text(encoding="utf-8"))
            nodes = {node["name"]: node for node in described["modelTopology"]["node"]}
            self.weights, self.digest = _read_weights(path, described["weightsManifest"])
            self.outputs = list(described.get("signature", {}).get("outputs", {}))
            self._steps = _in_order(nodes)
        except OSError as error:
            raise ModelError(f"{path} cannot be read: {error.strerror}.", advice="Unpack the model again.") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(
                f"{path} is not a TensorFlow.js graph model: {type(error).__name__}.", advice="Unpack the model again."
            ) from error
        unknown = sorted({step["op"] for step in self._steps} - set(_OPERATIONS) - {"Const", "Placeholder"})
        if unknown:
            raise ModelError(
                f"{path} needs operations that are not known here: {', '.join(unknown)}.",
                advice="Use the model that is documented.",
            )
        self.inputs = [step["name"] for step in self._steps if step["op"] == "Placeholder"]
        missing = [step["name"] for step in self._steps if step["op"] == "Const" and step["name"] not in self.weights]
        if missing:
            raise ModelError(f"{path} lists no weights for {missing[0]}.", advice="Unpack the model again.")

    def to(self, device: torch.device) -> None:
        """Move the weights; `run` then takes its input there."""
        self.weights = {name: value.to(device) for name, value in self.weights.items()}

    def run(self, given: torch.Tensor, wanted: list[str]) -> list[torch.Tensor]:
        """The values of the nodes `wanted` for the model's one input (TensorFlow's order of axes).

        Raises:
            ModelError: the model has several inputs, there is no such node, or shapes do not fit.
        """
        if len(self.inputs) != 1:
            raise ModelError(f"The model takes {len(self.inputs)} inputs, not one.")
        values: dict[str, torch.Tensor] = {}
        try:
            for step in self._steps:
                if step["op"] == "Placeholder":
                    values[step["name"]] = given
                elif step["op"] == "Const":
                    values[step["name"]] = self.weights[step["name"]]
                else:
                    inputs = [values[_source(name)] for name in _data_inputs(step)]
                    values[step["name"]] = _OPERATIONS[step["op"]](inputs, step.get("attr", {}))
            return [values[_source(name)] for name in wanted]
        except KeyError as error:
            raise ModelError(f"The model has no node or attribute {error}.", advice="Unpack the model again.") from error
        except (RuntimeError, IndexError) as error:
            raise ModelError(f"The model failed: {error}", advice="Check the size of its input.") from error


def _source(name: str) -> str:
    """The node of an input such as "node:0"; every operation here has one output."""
    return name.partition(":")[0]


def _data_inputs(node: dict[str, Any]) -> list[str]:
    return [name for name in node.get("input", []) if not name.startswith("^")]  # ^name only orders execution


def _in_order(nodes: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Every node after its inputs. Files need not be sorted; a loop is a ValueError, a name without node a KeyError."""
    order: list[dict[str, Any]] = []
    state: dict[str, bool] = {}  # False while its inputs are being placed
    for root in nodes:
        stack = [root]
        while stack:
            name = stack[-1]
            if state.get(name):
                stack.pop()
                continue
            waiting = [source for source in map(_source, _data_inputs(nodes[name])) if not state.get(source)]
            if not waiting:
                state[name] = True
                order.append(nodes[stack.pop()])
            elif name in state:
                raise ValueError(f"a loop through {name}")
            else:
                state[name] = False
                stack += waiting
    return order


def _read_weights(path: Path, manifest: list[dict[str, Any]]) -> tuple[dict[str, torch.Tensor], str]:
    weights: dict[str, torch.Tensor] = {}
    digest = hashlib.sha256(path.read_bytes())
    for group in manifest:
        data = b"".join((path.parent / Path(shard).name).read_bytes() for shard in group["paths"])
        digest.update(data)
        start = 0
        for entry in group["weights"]:
            packing = entry.get("quantization", {})
            element = np.dtype(_ELEMENT[packing.get("dtype", entry["dtype"])])
            count = int(np.prod(entry["shape"], dtype=np.int64))
            end = start + count * element.itemsize
            if end > len(data):
                raise ValueError("weights are cut short")
            values = np.frombuffer(data[start:end], element).reshape(entry["shape"])
            if "scale" in packing:
                values = values.astype(np.float32) * np.float32(packing["scale"]) + np.float32(packing["min"])
            weights[entry["name"]] = torch.from_numpy(values.astype(entry["dtype"]))
            start = end
        if start != len(data):
            raise ValueError("weights are longer than their list")
    return weights, digest.hexdigest()


def _text(attributes: Attributes, name: str, default: str = "") -> str:
    try:
        return base64.b64decode(attributes[name]["s"], validate=True).decode("ascii") if name in attributes else default
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ModelError(f"The attribute {name} is damaged.", advice="Unpack the model again.") from error


def _steps_of(attributes: Attributes, name: str) -> tuple[int, int]:
    _, height, width, _ = (int(value) for value in attributes[name]["list"]["i"])
    return height, width


def _convolve(picture: torch.Tensor, kernel: torch.Tensor, attributes: Attributes, groups: int) -> torch.Tensor:
    """`kernel` in torch's order, (out, in, height, width). TensorFlow's SAME puts the odd pixel at the bottom and right."""
    if _text(attributes, "data_format", "NHWC") != "NHWC" or _text(attributes, "padding") not in ("SAME", "VALID"):
        raise ModelError("The model's convolutions are in an order or padding that is not known here.")
    strides = _steps_of(attributes, "strides")
    dilations = _steps_of(attributes, "dilations") if "dilations" in attributes else (1, 1)
    picture = picture.permute(0, 3, 1, 2)  # a view: NHWC in memory is torch's channels_last
    if _text(attributes, "padding") == "SAME":
        sides: list[int] = []
        for size, reach, stride, dilation in zip(picture.shape[2:], kernel.shape[2:], strides, dilations, strict=True):
            total = max((-(-size // stride) - 1) * stride + (reach - 1) * dilation + 1 - size, 0)
            sides = [total // 2, total - total // 2, *sides]  # functional.pad counts from the last axis
        picture = functional.pad(picture, sides)
    return functional.conv2d(picture, kernel, stride=strides, dilation=dilations, groups=groups).permute(0, 2, 3, 1)


def _conv2d(inputs: list[torch.Tensor], attributes: Attributes) -> torch.Tensor:
    return _convolve(inputs[0], inputs[1].permute(3, 2, 0, 1), attributes, groups=1)


def _depthwise(inputs: list[torch.Tensor], attributes: Attributes) -> torch.Tensor:
    height, width, channels, multiplier = inputs[1].shape
    kernel = inputs[1].permute(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)
    return _convolve(inputs[0], kernel, attributes, groups=channels)


def _fused_matmul(inputs: list[torch.Tensor], attributes: Attributes) -> torch.Tensor:
    first, second = (
        matrix.T if attributes.get(flag, {}).get("b") else matrix
        for matrix, flag in zip(inputs[:2], ("transpose_a", "transpose_b"), strict=True)
    )
    value = first @ second
    fused = [base64.b64decode(name).decode("ascii") for name in attributes["fused_ops"]["list"]["s"]]
    for operation in fused:
        if operation == "BiasAdd":
            value = value + inputs[2]
        elif operation == "Relu":
            value = value.relu()
        else:
            raise ModelError(f"The model fuses {operation} into a product, which is not known here.")
    return value


def _mean(inputs: list[torch.Tensor], attributes: Attributes) -> torch.Tensor:
    return inputs[0].mean(tuple(inputs[1].tolist()), keepdim=bool(attributes.get("keep_dims", {}).get("b", False)))


_OPERATIONS: dict[str, Callable[[list[torch.Tensor], Attributes], torch.Tensor]] = {
    "Add": lambda inputs, _: inputs[0] + inputs[1],
    "Mul": lambda inputs, _: inputs[0] * inputs[1],
    "Minimum": lambda inputs, _: torch.minimum(inputs[0], inputs[1]),
    "Maximum": lambda inputs, _: torch.maximum(inputs[0], inputs[1]),
    "Relu": lambda inputs, _: inputs[0].relu(),
    "Sigmoid": lambda inputs, _: inputs[0].sigmoid(),
    "Softmax": lambda inputs, _: inputs[0].softmax(-1),
    "Conv2D": _conv2d,
    "DepthwiseConv2dNative": _depthwise,
    "_FusedMatMul": _fused_matmul,
    "Mean": _mean,
}
