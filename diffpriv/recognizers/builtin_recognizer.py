"""The shipped recogniser behind the interface of `Recognizer`; guidance uses the same network, with its gradient."""

import numpy as np
import torch

from diffpriv.errors import ModelError
from diffpriv.models.recognizer import FaceRecognizer
from diffpriv.recognition import measured_threshold
from diffpriv.weights import resolve_model, weights_digest


class BuiltinRecognizer:
    """A `FaceRecognizer` folder, or a model folder that holds one.

    Args:
        name: "builtin" or a path.
    Raises:
        ModelError: the folder is missing or cannot be read.
    """

    def __init__(self, name: str = "builtin") -> None:
        folder = resolve_model(name)
        folder = folder / "recognizer" if (folder / "recognizer").is_dir() else folder
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"There are no recogniser weights in {folder}.",
                advice='Give "builtin", "dlib", human:FOLDER, insightface:FOLDER, or a model folder.',
            )
        try:
            self.network = FaceRecognizer.from_pretrained(folder, local_files_only=True, low_cpu_mem_usage=False)
            self.network.float().eval().requires_grad_(False)
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"The recogniser in {folder} cannot be read: {error}", advice="Copy the model folder again."
            ) from error
        self._digest = weights_digest(folder)

    @property
    def identity(self) -> str:
        return f"builtin-recognizer/1 weights={self._digest[:16]}"

    @property
    def dim(self) -> int:
        return int(self.network.config.dim)

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """See `Recognizer.embed`; one face a call, so that a face's bits never depend on its neighbours."""
        device = self.network.device
        with torch.no_grad():
            pixels = [torch.from_numpy(crop.copy()).to(device).permute(2, 0, 1)[None].float() / 127.5 - 1 for crop in crops]
            rows = [self.network.embed_canonical(one)[0].cpu().numpy() for one in pixels]
        embedded = np.array(rows, np.float32).reshape(len(crops), self.dim)
        if not np.isfinite(embedded).all():
            raise ModelError("The recogniser gave an embedding that is not a number.", advice="Check its weights.")
        return embedded

    def threshold(self, far: float) -> float:
        """See `Recognizer.threshold`; measured by `benchmarks.recognition`, kept in the folder's config.json."""
        similarity = measured_threshold(self.network.config.thresholds or {}, far, "Give a similarity limit.")
        # Kept as `FaceRecognizer.similarity`; this interface compares by the cosine.
        return 1 - (1 - similarity) * float(self.network.config.spread)

    def embed_canonical(self, crop: torch.Tensor) -> torch.Tensor:
        """See `DifferentiableRecognizer`."""
        return self.network.embed_canonical(crop)

    def similarity(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """See `DifferentiableRecognizer`."""
        return self.network.similarity(first, second)

    def to(self, device: torch.device) -> "BuiltinRecognizer":
        self.network.to(device)
        return self
