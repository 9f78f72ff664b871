"""The builtin recogniser as an InsightFace model pack: `python -m diffpriv.training.export_pack OUT [--model builtin]`.

OUT gets w_diffpriv.onnx, which takes what ArcFace models take (faces aligned to ArcFace's five points at 112 px, RGB in
[-1, 1], NCHW, any batch) and gives the embedding, and thresholds.json with the cosines that the model folder's own thresholds
mean. Any tool that reads InsightFace packs can load it; so can `--recognizer insightface:OUT`. The pack holds no detector.

The builtin network looks at a 150 px chip whose lower edge is the chin. ArcFace's square ends higher: the lowest tenth of the
chip lies outside and is mirrored from inside, so that embeddings are close to the builtin ones but not equal. On 465 labelled
photos (`benchmarks.recognition PHOTOS --judge insightface:OUT`) TAR at FAR 1e-3 is 96.1 %, the builtin one's 96.7 %, and the
cosines at FAR 1e-3 are 0.9244 and 0.9237.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from diffpriv.faces.alignment import CANONICAL_LANDMARKS, estimate_similarity, map_points
from diffpriv.models.recognizer import CHIP, CHIP_SIZE, FaceRecognizer
from diffpriv.recognizers.builtin_recognizer import BuiltinRecognizer
from diffpriv.recognizers.insightface_recognizer import ARCFACE_LANDMARKS, INPUT_SIZE, THRESHOLDS_FILE

MODEL_FILE = "w_diffpriv.onnx"
OPSET = 16  # the first with GridSample


def chip_in_arcface() -> np.ndarray:
    """(150, 150, 2) float32: where each pixel (x, y) of the network's chip lies in ArcFace's 112 px square."""
    left, top, side = CHIP
    grid = np.arange(CHIP_SIZE) * (side / (CHIP_SIZE - 1))
    canonical = np.stack(np.meshgrid(left + grid, top + grid), -1)
    matrix = estimate_similarity(CANONICAL_LANDMARKS, ARCFACE_LANDMARKS)
    return map_points(canonical, matrix).astype(np.float32)


def missing_share() -> float:
    """Share of the chip's pixels that lie outside ArcFace's square."""
    places = chip_in_arcface()
    return float(((places < -0.5) | (places > INPUT_SIZE - 0.5)).any(2).mean())


class ArcFaceInput(nn.Module):
    """(batch, 3, 112, 112) in [-1, 1], aligned to ArcFace's points -> (batch, dim) of unit length."""

    recognizer: FaceRecognizer
    grid: torch.Tensor

    def __init__(self, recognizer: FaceRecognizer) -> None:
        super().__init__()
        self.recognizer = recognizer
        self.register_buffer("grid", torch.from_numpy(chip_in_arcface() * (2 / (INPUT_SIZE - 1)) - 1)[None])

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        grid = self.grid.expand(faces.shape[0], -1, -1, -1)
        chips = functional.grid_sample(faces, grid, mode="bilinear", padding_mode="reflection", align_corners=True)
        return self.recognizer(chips)


def export_pack(out: Path, model: str = "builtin") -> Path:
    """Write the pack; returns its folder.

    Raises:
        ModelError: the model folder is missing or cannot be read.
    """
    import onnx

    builtin = BuiltinRecognizer(model)
    network = ArcFaceInput(builtin.network).eval()
    out.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        network,
        (torch.zeros(2, 3, INPUT_SIZE, INPUT_SIZE),),
        out / MODEL_FILE,
        input_names=["data"],
        output_names=["embedding"],
        dynamic_axes={"data": {0: "batch"}, "embedding": {0: "batch"}},
        opset_version=OPSET,
        dynamo=False,  # the newer exporter needs onnxscript
    )
    onnx.checker.check_model(out / MODEL_FILE)
    thresholds = {rate: round(builtin.threshold(float(rate)), 4) for rate in builtin.network.config["thresholds"] or {}}
    (out / THRESHOLDS_FILE).write_text(json.dumps(thresholds, indent=1) + "\n", encoding="utf-8")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="builtin")
    arguments = parser.parse_args()
    out = export_pack(arguments.out, arguments.model)
    size = (out / MODEL_FILE).stat().st_size
    print(
        f"{out}: {MODEL_FILE}, {size / 1e6:.1f} MB; {missing_share():.1%} of the network's chip lies outside ArcFace's square"
    )


if __name__ == "__main__":
    main()
