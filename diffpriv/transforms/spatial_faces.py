"""New faces from spatial latents: in-painted crops, blended over the face's place (Stable Diffusion, and models without
generator)."""

from collections.abc import Sequence

import numpy as np
import torch

from diffpriv.crops import to_pixels
from diffpriv.faces.alignment import CANONICAL_SIZE, map_points
from diffpriv.faces.seam import blend_face
from diffpriv.faces.types import Patch
from diffpriv.pipeline import DiffPrivacyPipeline
from diffpriv.presets import Preset
from diffpriv.transforms.face_run import FaceRun, padded


class SpatialFaces:
    """Args:
    pipeline: the model. task, preset: of the job.
    """

    def __init__(self, pipeline: DiffPrivacyPipeline, task: str, preset: Preset) -> None:
        self._pipeline, self._task, self._preset = pipeline, task, preset

    def make(self, faces: Sequence[FaceRun], batch: int, attempt: int) -> list[list[Patch]]:
        """See `FaceMaker`. Candidates differ by what the face's key drew for them."""
        rows = padded(list(faces), batch)
        output = self._pipeline.protect(
            torch.stack([face.crop for face in rows]),
            torch.stack([face.key_e for face in rows]),
            [face.request.seed for face in rows],
            self._task,
            self._preset,
            landmarks=np.stack([map_points(face.request.face.landmarks, face.matrix) for face in rows]),
            attempt=attempt,
            pushes=[face.pushes for face in rows],
            identity_seeds=[face.request.identity_seed for face in rows],
            targets=[torch.stack(one) for one in zip(*(face.targets for face in rows), strict=True)],
        )
        scale = self._pipeline.crop_size / CANONICAL_SIZE
        made = [to_pixels(output.candidates[:, number]) for number in range(self._preset.candidates)]
        return [
            [blend_face(face.request.image, crops[row], face.matrix * scale, face.request.seed) for crops in made]
            for row, face in enumerate(faces)
        ]
