"""Sessions of ONNX Runtime that give the same bits whatever else the machine does: one thread, on the CPU."""

import onnxruntime


def open_session(network: bytes | str) -> onnxruntime.InferenceSession:
    """A session of one network.

    Args:
        network: the content of an ONNX file, or its path.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
