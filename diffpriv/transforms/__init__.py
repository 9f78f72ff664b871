"""Face transformations by name. Importing this package loads no model; `load_transform` does."""

from diffpriv.config import TransformConfig
from diffpriv.faces.types import Patch
from diffpriv.transforms.base import FaceRequest, FaceResult, FaceTransform, fill_face, fill_patch

__all__ = ["FaceRequest", "FaceResult", "FaceTransform", "Patch", "fill_face", "fill_patch", "load_transform"]


def load_transform(config: TransformConfig) -> FaceTransform:
    """The transformation that the settings name, its models loaded.

    Raises:
        MisuseError: a combination of settings that the transformation cannot keep.
        ModelError: its weights are missing or broken.
    """
    if config.transform == "diffprivacy":
        from diffpriv.transforms.diffprivacy import load_diffprivacy_transform

        return load_diffprivacy_transform(config)
    from diffpriv.transforms.baselines import BaselineTransform

    return BaselineTransform(config)
