"""The recogniser the gate asks, as one interface: builtin weights, a model folder, or an InsightFace pack the user brings.

Fails closed: where weights are missing, loading raises, and the gate reports every shard as not checked.
"""

from statistics import NormalDist

import numpy as np

from diffpriv.errors import ModelError
from diffpriv.recognizers.base import Recognizer

FALSE_ALARM = 0.001  # per output face, whatever the number of originals it is compared with
FALSE_ACCEPT = (0.01, 0.001)  # rates at which builtin recognisers are calibrated


class BuiltinRecognizer:
    """A `diffpriv.models.recognizer.FaceRecognizer` folder behind `diffpriv.recognizers.base.Recognizer`.

    Raises:
        ModelError: the folder is missing or cannot be read.
    """

    def __init__(self, name: str) -> None:
        from diffpriv.models.recognizer import FaceRecognizer
        from diffpriv.weights import resolve_model, weights_digest

        folder = resolve_model(name)
        folder = folder / "recognizer" if (folder / "recognizer").is_dir() else folder
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"there are no recogniser weights in {folder}.",
                advice='Give --gate-recognizer FOLDER or insightface:FOLDER, or install the package with its "builtin" model.',
            )
        try:
            self._model = FaceRecognizer.from_pretrained(folder, local_files_only=True, low_cpu_mem_usage=False).float().eval()
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"the recogniser in {folder} cannot be read: {error}", advice="Copy the model folder again."
            ) from error
        self._digest = weights_digest(folder)

    @property
    def identity(self) -> str:
        return f"builtin-recognizer/1 weights={self._digest[:16]}"

    @property
    def dim(self) -> int:
        return int(self._model.config.dim)

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """See `Recognizer.embed`; one face a call, so that a face's bits never depend on its neighbours."""
        import torch

        with torch.no_grad():
            rows = [
                self._model.embed_canonical(torch.from_numpy(crop.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1)[0].numpy()
                for crop in crops
            ]
        embedded = np.array(rows, np.float32).reshape(len(crops), self.dim)
        if not np.isfinite(embedded).all():
            raise ModelError("the recogniser gave an embedding that is not a number.", advice="Check its weights.")
        return embedded

    def threshold(self, far: float) -> float:
        thresholds = self._model.config.thresholds or {}
        for rate, similarity in thresholds.items():
            if np.isclose(float(rate), far, rtol=1e-6):
                # Kept as `FaceRecognizer.similarity`; this interface compares by the cosine.
                return 1 - (1 - float(similarity)) * float(self._model.config.spread)
        raise ModelError(
            f"no threshold at a false-accept rate of {far:g} is known for this recogniser.", advice="Give --similarity-limit."
        )


def load_recognizer(spec: str) -> Recognizer:
    """Raises: ModelError or DetectorError where the weights are missing or broken."""
    if spec.startswith("insightface:"):
        from diffpriv.recognizers.insightface_recognizer import InsightFaceRecognizer

        return InsightFaceRecognizer(spec.partition(":")[2])
    return BuiltinRecognizer(spec)


def similarity_limits(recognizer: Recognizer, given: float | None, originals: int) -> tuple[float, float]:
    """(limit to a face's own original, limit to the most similar of `originals` others).

    The own limit is `given`, or the recogniser's threshold at a false-accept rate of 0.001. Among many strangers one is always
    somewhat alike: the second limit keeps the rate of false alarms per face at FALSE_ALARM, by the normal distribution through
    the recogniser's thresholds at 0.01 and 0.001. Where only one is known, or a limit was given, both are the same.
    """
    if given is not None:
        return given, given
    own = recognizer.threshold(FALSE_ACCEPT[1])
    try:
        loose = recognizer.threshold(FALSE_ACCEPT[0])
    except ModelError:
        return own, own
    normal = NormalDist()
    z_loose, z_own = (normal.inv_cdf(1 - rate) for rate in FALSE_ACCEPT)
    spread = max(0.0, own - loose) / (z_own - z_loose)
    z_many = normal.inv_cdf(1 - FALSE_ALARM / max(1, originals))
    return own, min(max(own, 0.999), own + spread * max(0.0, z_many - z_own))
