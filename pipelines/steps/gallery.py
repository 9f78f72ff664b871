"""Consent by photos: a folder of pictures of people who agreed to be shown; a face that matches one is left as it is.

Strict on purpose. Two mistakes are possible, and only one of them harms: a stranger who is taken for somebody in the gallery
stays unprotected. So the similarity must be at or above the recogniser's limit for one false accept in a thousand, and nothing
is left that is too small to be told apart. Gallery photos with no face, or several, are refused.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from diffpriv.detectors import load_detector
from diffpriv.errors import ModelError
from diffpriv.faces.alignment import face_to_crop_matrix, warp_to_crop
from diffpriv.faces.types import Face
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.errors import BadImageError, MisuseError
from diffpriv.pipelines.pictures.codec import PICTURE_EXTENSIONS, decode
from diffpriv.recognizers import Recognizer, load_recognizer

STRICTEST = 0.001  # false-accept rate whose threshold is the least that a gallery may ask for
SMALLEST = 48  # pixels of a face box's shorter side; below, a match is no evidence


def load_gallery(config: JobConfig) -> Callable[[np.ndarray, Face], bool]:
    """A test for faces: whether one is in the gallery.

    Raises:
        MisuseError: the folder has no photos, one shows no face or several, or the similarity asked for is not strict.
    """
    recognizer = load_recognizer(config.transform.recognizer)
    limit = float(config.rules.gallery_similarity or 1.0)
    try:
        least = recognizer.threshold(STRICTEST)
    except ModelError:
        raise MisuseError(f"{recognizer.identity} has no measured threshold, so no similarity can be called strict.") from None
    if limit < least:
        raise MisuseError(
            f"gallery_similarity {limit:g} is not strict.", advice=f"Give {least:.3f} or more (one false accept in a thousand)."
        )
    return _Gallery(recognizer, _photos(Path(config.rules.gallery), recognizer), limit)


class _Gallery:
    def __init__(self, recognizer: Recognizer, people: np.ndarray, limit: float) -> None:
        self._recognizer, self._people, self._limit = recognizer, people, limit

    def __call__(self, pixels: np.ndarray, face: Face) -> bool:
        if min(face.width, face.height) < SMALLEST:
            return False
        return bool((self._people @ _embed(self._recognizer, pixels, face)).max() >= self._limit)


def _photos(folder: Path, recognizer: Recognizer) -> np.ndarray:
    """(n, dim) embeddings; in memory only."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower().lstrip(".") in PICTURE_EXTENSIONS)
    if not files:
        raise MisuseError(f"the gallery {folder} holds no photos.")
    detector = load_detector("centerface")
    embedded = []
    for path in files:
        try:
            pixels = decode(path.read_bytes()).pixels
        except BadImageError as error:
            raise MisuseError(f"the gallery photo {path} cannot be read: {error}.") from None
        (faces,) = detector.detect([pixels])
        if len(faces) != 1:
            raise MisuseError(f"the gallery photo {path} shows {len(faces)} faces.", advice="Crop it to the one who agreed.")
        embedded.append(_embed(recognizer, pixels, faces[0]))
    return np.stack(embedded)


def _embed(recognizer: Recognizer, pixels: np.ndarray, face: Face) -> np.ndarray:
    return recognizer.embed(warp_to_crop(pixels, face_to_crop_matrix(face.landmarks))[None])[0]
