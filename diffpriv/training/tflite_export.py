"""Conversion of small TensorFlow Lite networks to ONNX, for the operations that MediaPipe's face networks use.

    python -m diffpriv.training.tflite_export NETWORK.tflite OUT.onnx

The networks (Apache-2.0) are in the wheel mediapipe==0.10.14; the packages `tflite` and `flatbuffers` read them. Weights are
kept as float16 where they were, and computed with as float32. Maps are (batch, channels, height, width) inside; the input stays
(1, height, width, channels) as it was, and so do the outputs.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
CUSTOM = 32  # the schema's code of operations that are no builtin
_TRANSPOSED_CONVOLUTION = "Convolution2DTransposeBias"


class Converter:
    """One subgraph, operation by operation, in order.

    Raises:
        ValueError: an operation, or a form of it, that this converter does not know.
    """

    def __init__(self, content: bytes) -> None:
        import tflite

        self._schema: Any = tflite
        self._model = tflite.Model.GetRootAsModel(content, 0)
        self._graph = self._model.Subgraphs(0)
        names = {code: name for name, code in vars(tflite.BuiltinOperator).items() if isinstance(code, int)}
        self._operation_names: dict[int, str] = names
        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self._constants: dict[int, np.ndarray] = {}
        self._fresh = 0

    def convert(self) -> onnx.ModelProto:
        graph = self._graph
        inputs = [self._value(graph.Inputs(number)) for number in range(graph.InputsLength())]
        for number in range(graph.InputsLength()):
            self._add("Transpose", [f"in{graph.Inputs(number)}"], f"t{graph.Inputs(number)}", perm=[0, 3, 1, 2])
        for number in range(graph.OperatorsLength()):
            self._convert_operation(graph.Operators(number))
        outputs = []
        for number in range(graph.OutputsLength()):
            tensor = graph.Outputs(number)
            shape = self._shape(tensor)
            self._add("Transpose", [f"t{tensor}"], f"out{number}", perm=[0, 2, 3, 1])
            outputs.append(helper.make_tensor_value_info(f"out{number}", TensorProto.FLOAT, shape))
        built = helper.make_graph(self._nodes, "converted", inputs, outputs, self._weights)
        model = helper.make_model(built, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        onnx.checker.check_model(model)
        return model

    def _shape(self, tensor: int) -> list[int]:
        return [int(size) for size in self._graph.Tensors(tensor).ShapeAsNumpy()]

    def _value(self, tensor: int) -> Any:
        return helper.make_tensor_value_info(f"in{tensor}", TensorProto.FLOAT, self._shape(tensor))

    def _add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def _name(self) -> str:
        self._fresh += 1
        return f"n{self._fresh}"

    def _weight(self, numbers: np.ndarray) -> str:
        """An initializer; float16 is computed with as float32."""
        name = self._name()
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(numbers), name))
        return self._add("Cast", [name], self._name(), to=TensorProto.FLOAT) if numbers.dtype == np.float16 else name

    def _constant(self, tensor: int) -> np.ndarray | None:
        """A tensor's stored numbers, or None for one that is computed."""
        if tensor in self._constants:
            return self._constants[tensor]
        described = self._graph.Tensors(tensor)
        buffer = self._model.Buffers(described.Buffer())
        if not buffer.DataLength():
            return None
        kinds = {
            self._schema.TensorType.FLOAT32: "<f4",
            self._schema.TensorType.FLOAT16: "<f2",
            self._schema.TensorType.INT32: "<i4",
        }
        return np.frombuffer(buffer.DataAsNumpy().tobytes(), kinds[described.Type()]).reshape(self._shape(tensor))

    def _convert_operation(self, operation: Any) -> None:
        code = self._model.OperatorCodes(operation.OpcodeIndex())
        builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        name = code.CustomCode().decode() if builtin == CUSTOM else self._operation_names[builtin]
        inputs = [int(tensor) for tensor in operation.InputsAsNumpy()]
        output = int(operation.Outputs(0))
        known: dict[str, Callable[[Any, list[int], int], None]] = {
            "DEQUANTIZE": self._dequantize,
            "CONV_2D": self._convolution,
            "DEPTHWISE_CONV_2D": self._depthwise,
            "PRELU": self._prelu,
            "MAX_POOL_2D": self._pool,
            "AVERAGE_POOL_2D": self._pool,
            "PAD": self._pad,
            "RESIZE_BILINEAR": self._resize,
            "CONCATENATION": self._concatenate,
            _TRANSPOSED_CONVOLUTION: self._transposed,
            "MaxPoolingWithArgmax2D": self._pool_with_places,
            "MaxUnpooling2D": self._unpool,
        }
        plain = {"ADD": "Add", "MUL": "Mul", "RELU": "Relu", "LOGISTIC": "Sigmoid", "HARD_SWISH": "HardSwish"}
        if name in plain:
            self._plain(plain[name], operation, inputs, output)
        elif name in known:
            known[name](operation, inputs, output)
        else:
            raise ValueError(f"the operation {name} is not known to this converter")

    def _options(self, operation: Any, kind: str) -> Any:
        options = getattr(self._schema, kind)()
        table = operation.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        return options

    def _operand(self, tensor: int) -> str:
        constant = self._constant(tensor)
        if constant is None:
            return f"t{tensor}"
        return self._weight(constant.transpose(2, 0, 1) if constant.ndim == 3 else constant.reshape(1, -1, 1, 1))

    def _activated(self, name: str, activation: int, output: int) -> None:
        kinds = self._schema.ActivationFunctionType
        if activation == kinds.NONE:
            self._add("Identity", [name], f"t{output}")
        elif activation == kinds.RELU:
            self._add("Relu", [name], f"t{output}")
        elif activation == kinds.RELU6:
            low, high = (self._weight(np.array(bound, np.float32)) for bound in (0, 6))
            self._add("Clip", [name, low, high], f"t{output}")
        else:
            raise ValueError(f"activation {activation} is not known to this converter")

    def _plain(self, kind: str, operation: Any, inputs: list[int], output: int) -> None:
        made = self._add(kind, [self._operand(tensor) for tensor in inputs], self._name())
        activation = 0
        if kind in ("Add", "Mul"):
            activation = self._options(operation, f"{kind}Options").FusedActivationFunction()
        self._activated(made, activation, output)

    def _dequantize(self, operation: Any, inputs: list[int], output: int) -> None:
        constant = self._constant(inputs[0])
        if constant is None:
            raise ValueError("a computed tensor is dequantized; this converter knows stored ones")
        self._constants[output] = constant

    def _padding(self, padding: int) -> str:
        return "SAME_UPPER" if padding == self._schema.Padding.SAME else "VALID"

    def _convolution(self, operation: Any, inputs: list[int], output: int) -> None:
        options = self._options(operation, "Conv2DOptions")
        weight = self._stored(inputs[1]).transpose(0, 3, 1, 2)
        self._convolve(options, inputs, weight, 1, output)

    def _depthwise(self, operation: Any, inputs: list[int], output: int) -> None:
        options = self._options(operation, "DepthwiseConv2DOptions")
        weight = self._stored(inputs[1]).transpose(3, 0, 1, 2)
        self._convolve(options, inputs, weight, weight.shape[0] // max(1, options.DepthMultiplier()), output)

    def _convolve(self, options: Any, inputs: list[int], weight: np.ndarray, groups: int, output: int) -> None:
        dilations = [options.DilationHFactor(), options.DilationWFactor()]
        around: dict[str, Any] = {"auto_pad": self._padding(options.Padding())}
        if max(dilations) > 1 and around["auto_pad"] != "VALID":  # ONNX Runtime pads dilated kernels by numbers only
            pads = [dilation * (size - 1) // 2 for dilation, size in zip(dilations, weight.shape[2:], strict=True)]
            around = {"pads": [*pads, *pads]}
        made = self._add(
            "Conv",
            [f"t{inputs[0]}", self._weight(weight), self._weight(self._stored(inputs[2]))],
            self._name(),
            strides=[options.StrideH(), options.StrideW()],
            dilations=dilations,
            group=groups,
            **around,
        )
        self._activated(made, options.FusedActivationFunction(), output)

    def _stored(self, tensor: int) -> np.ndarray:
        constant = self._constant(tensor)
        if constant is None:
            raise ValueError("weights that are computed are not known to this converter")
        return constant

    def _prelu(self, operation: Any, inputs: list[int], output: int) -> None:
        slope = self._stored(inputs[1]).transpose(2, 0, 1)
        self._add("PRelu", [f"t{inputs[0]}", self._weight(slope)], f"t{output}")

    def _pool(self, operation: Any, inputs: list[int], output: int) -> None:
        options = self._options(operation, "Pool2DOptions")
        code = self._model.OperatorCodes(operation.OpcodeIndex())
        average = max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) == self._schema.BuiltinOperator.AVERAGE_POOL_2D
        self._add(
            "AveragePool" if average else "MaxPool",
            [f"t{inputs[0]}"],
            f"t{output}",
            kernel_shape=[options.FilterHeight(), options.FilterWidth()],
            strides=[options.StrideH(), options.StrideW()],
            auto_pad=self._padding(options.Padding()),
        )

    def _pad(self, operation: Any, inputs: list[int], output: int) -> None:
        before_after = self._stored(inputs[1])[[0, 3, 1, 2]].T.ravel().astype(np.int64)
        self._add("Pad", [f"t{inputs[0]}", self._weight(before_after)], f"t{output}")

    def _resize(self, operation: Any, inputs: list[int], output: int) -> None:
        options = self._options(operation, "ResizeBilinearOptions")
        centres = "asymmetric"
        if options.HalfPixelCenters():
            centres = "half_pixel"
        elif options.AlignCorners():
            centres = "align_corners"
        height, width = (int(size) for size in self._stored(inputs[1]))
        shape = self._shape(output)
        sizes = self._weight(np.array([shape[0], shape[3], height, width], np.int64))
        self._add(
            "Resize", [f"t{inputs[0]}", "", "", sizes], f"t{output}", mode="linear", coordinate_transformation_mode=centres
        )

    def _concatenate(self, operation: Any, inputs: list[int], output: int) -> None:
        self._add("Concat", [self._operand(tensor) for tensor in inputs], f"t{output}", axis=1)

    def _custom_numbers(self, operation: Any) -> list[int]:
        return [int(number) for number in np.frombuffer(operation.CustomOptionsAsNumpy().tobytes(), "<i4")]

    def _transposed(self, operation: Any, inputs: list[int], output: int) -> None:
        _, *strides = self._custom_numbers(operation)
        weight = self._stored(inputs[1]).transpose(3, 0, 1, 2)
        self._add(
            "ConvTranspose",
            [f"t{inputs[0]}", self._weight(weight), self._weight(self._stored(inputs[2]))],
            f"t{output}",
            strides=strides[:2],
            auto_pad="SAME_UPPER",
        )

    def _pool_with_places(self, operation: Any, inputs: list[int], output: int) -> None:
        places = int(operation.Outputs(1))
        self._nodes.append(
            helper.make_node("MaxPool", [f"t{inputs[0]}"], [f"t{output}", f"t{places}"], kernel_shape=[2, 2], strides=[2, 2])
        )

    def _unpool(self, operation: Any, inputs: list[int], output: int) -> None:
        self._add("MaxUnpool", [f"t{inputs[0]}", f"t{inputs[1]}"], f"t{output}", kernel_shape=[2, 2], strides=[2, 2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_bytes(Converter(given.network.read_bytes()).convert().SerializeToString())


if __name__ == "__main__":
    main()
