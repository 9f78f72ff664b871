"""Recognisers by name. Importing this package loads no model; `load_recognizer` does.

All of them can check protection. Those that are differentiable can guide it too: the builtin one always does, `human:FOLDER`
where a job names it, and else it is the independent judge. dlib's network is the builtin one's ancestor.
"""

from diffpriv.config import check_recognizer
from diffpriv.recognition import DifferentiableRecognizer, Recognizer

__all__ = ["DifferentiableRecognizer", "Recognizer", "load_recognizer"]


def load_recognizer(spec: str) -> Recognizer:
    """The recogniser that `spec` names, its weights loaded.

    Args:
        spec: "builtin", "dlib" (extra `judges`), "human:FOLDER" (the unpacked npm package @vladmandic/human, or its models
            folder), "insightface:PACK", or a model folder with the builtin recogniser's files.
    Raises:
        MisuseError: see `check_recognizer`.
        ModelError, DetectorError: the weights are missing or broken.
    """
    kind, folder = check_recognizer(spec)
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
