"""Reversible face pseudonymisation of datasets. The public API; everything else may change without notice.

    protect_image, ProtectBatch, ProtectRows    faces in other people's programs, Ray Data or Hugging Face, Beam pipelines
    JobConfig, run                              a whole dataset, as `diffpriv sanitize` does it
    DiffPrivacyPipeline                         the method alone, on aligned crops; a diffusers pipeline
    DiffPrivError and the others                what these raise

Names are imported when they are first asked for: `import diffpriv` loads neither torch nor an engine.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffpriv.errors import DetectorError, ModelError, RecoveryError
    from diffpriv.keys.errors import DiffPrivError, MisuseError, RecoveryRefusedError, StorageError
    from diffpriv.pipeline import DiffPrivacyPipeline
    from diffpriv.pipelines.config import JobConfig
    from diffpriv.pipelines.engines.choice import run
    from diffpriv.pipelines.errors import BadImageError, JobError, LeaseError, ShardError
    from diffpriv.pipelines.rows.beam_transform import ProtectRows
    from diffpriv.pipelines.rows.protector import ProtectBatch, ProtectedImage, protect_image

__all__ = [
    "BadImageError",
    "DetectorError",
    "DiffPrivError",
    "DiffPrivacyPipeline",
    "JobConfig",
    "JobError",
    "LeaseError",
    "MisuseError",
    "ModelError",
    "ProtectBatch",
    "ProtectRows",
    "ProtectedImage",
    "RecoveryError",
    "RecoveryRefusedError",
    "ShardError",
    "StorageError",
    "protect_image",
    "run",
]

_HOMES = {
    "errors": ("DetectorError", "ModelError", "RecoveryError"),
    "keys.errors": ("DiffPrivError", "MisuseError", "RecoveryRefusedError", "StorageError"),
    "pipeline": ("DiffPrivacyPipeline",),
    "pipelines.config": ("JobConfig",),
    "pipelines.engines.choice": ("run",),
    "pipelines.errors": ("BadImageError", "JobError", "LeaseError", "ShardError"),
    "pipelines.rows.beam_transform": ("ProtectRows",),
    "pipelines.rows.protector": ("ProtectBatch", "ProtectedImage", "protect_image"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            globals()[name] = value = getattr(importlib.import_module(f"diffpriv.{module}"), name)
            return value
    raise AttributeError(f"module 'diffpriv' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
