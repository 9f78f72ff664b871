"""Recognisers by name. Importing this package loads no model; `load_recognizer` does.

Some guide and check protection (the builtin one, an InsightFace pack); others only judge its results and are never seen by
guidance: `human:FOLDER` is the independent judge, dlib's network is the builtin one's ancestor.
"""

from diffpriv.errors import MisuseError
from diffpriv.recognizers.base import Recognizer

__all__ = ["Recognizer", "load_recognizer"]


def load_recognizer(spec: str) -> Recognizer:
    """The recogniser that `spec` names, its weights loaded.

    Args:
        spec: "builtin", "dlib" (extra `judges`), "human:FOLDER" (the unpacked npm package @vladmandic/human, or its models
            folder), "insightface:PACK", or a model folder with the builtin recogniser's files.
    Raises:
        MisuseError: the kind needs a folder and none was given.
        ModelError, DetectorError: the weights are missing or broken.
    """
    kind, _, folder = spec.partition(":")
    if kind in ("human", "insightface") and not folder:
        raise MisuseError(f"{spec!r} names no weights.", advice=f"Give {kind}:FOLDER.")
    if kind == "insightface":
        from diffpriv.recognizers.insightface_recognizer import InsightFaceRecognizer

        return InsightFaceRecognizer(folder)
    if kind == "human":
        from diffpriv.recognizers.human_recognizer import HumanRecognizer

        return HumanRecognizer(folder)
    if spec == "dlib":
        from diffpriv.recognizers.dlib_recognizer import DlibRecognizer

        return DlibRecognizer()
    from diffpriv.recognizers.builtin_recognizer import BuiltinRecognizer

    return BuiltinRecognizer(spec)
