"""Errors of the method. The root is shared with every other layer, so one `except DiffPrivError` catches all of them."""

from diffpriv.keys.errors import DiffPrivError, MisuseError

__all__ = ["DetectorError", "DiffPrivError", "MisuseError", "ModelError", "RecoveryError"]


class ModelError(DiffPrivError):
    """A model folder is missing, incomplete, or of another version or shape than this code reads."""


class DetectorError(DiffPrivError):
    """A detector or recogniser cannot be loaded or failed on an image. Never treated as "no face"."""


class RecoveryError(DiffPrivError):
    """A face cannot be brought back from the material given."""
