"""The recognisers that judge, each with what must be known of it: whether guidance ever saw it."""

import importlib.util
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from diffpriv.metrics.verification import unit
from diffpriv.recognizers import Recognizer, load_recognizer

if TYPE_CHECKING:
    from diffpriv.models.recognizer import FaceRecognizer

USED = "used by guidance: what it no longer knows, the method was told to hide from it"
SAME = "the same network as guidance's: no independent judge"
UNSEEN = "guidance never saw it"


@dataclass(frozen=True, eq=False)
class Judge:
    """name: for tables. flag: how independent it is, in words. independent: guidance never saw it or its network."""

    name: str
    identity: str
    flag: str
    independent: bool
    recognizer: Recognizer

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """(n, 128, 128, 3) uint8 -> (n, dim) float64 of unit length."""
        if not len(crops):
            return np.zeros((0, 1))
        return unit(np.asarray(self.recognizer.embed(np.ascontiguousarray(crops)), np.float64))


def default_judges() -> tuple[str, ...]:
    """dlib where it is installed, else the builtin recogniser."""
    installed = all(importlib.util.find_spec(name) is not None for name in ("dlib", "face_recognition_models"))
    return ("dlib",) if installed else ("builtin",)


def load_judge(spec: str, made_by: Collection[str] = ()) -> Judge:
    """The recogniser of a name, and what is known of it.

    Args:
        made_by: identities of the transformations that made what is judged; they name the recognisers that they worked against.
    Raises:
        ModelError, DetectorError: with advice, where its weights are missing.
    """
    recognizer = load_recognizer(spec)
    known = {"dlib": (SAME, False), "builtin": (USED, False)}
    if spec in known:
        return Judge(spec, recognizer.identity, *known[spec], recognizer)
    kind, _, place = spec.partition(":")
    name = f"{kind}:{place.rstrip('/').rpartition('/')[2]}" if place else spec.rstrip("/").rpartition("/")[2]
    if any(recognizer.identity in one for one in made_by):
        return Judge(name, recognizer.identity, USED, False, recognizer)
    return Judge(name, recognizer.identity, UNSEEN, True, recognizer)


@lru_cache(maxsize=1)
def public_recognizer() -> "FaceRecognizer":
    """The builtin recogniser as a network with gradients: every attacker has it, since it is published with the tool."""
    from diffpriv.recognizers.builtin_recognizer import BuiltinRecognizer

    return BuiltinRecognizer().network
