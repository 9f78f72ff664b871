"""Training crops as the denoiser sees them: latents of faces and of what is around them, held in memory.

The cache holds latents of photographs of real people: keep it out of the repository.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

from diffpriv.crops import to_tensor
from diffpriv.faces.marks import mirrored_landmarks
from diffpriv.faces.masks import blank_mask
from diffpriv.models.autoencoder import FaceAutoencoder
from diffpriv.scenes import seen_around
from diffpriv.training.dataset import TrainingCrops


@dataclass(frozen=True, eq=False)
class LatentBatch:
    """clean, seen: latents of the crops, and of the crops with the face blanked and its landmarks marked, (n, 8, 16, 16).

    valid: share of each cell that really was in the photo, (n, 1, 16, 16). landmarks: (n, 5, 2) pixels of the 128 px square.
    """

    clean: torch.Tensor
    seen: torch.Tensor
    valid: torch.Tensor
    landmarks: torch.Tensor


class LatentFaces:
    """Args:
    cache: the latents' file, read if it exists and else written.

    Attributes:
        face: share of each cell that is blanked, (1, 1, 16, 16). nothing: latent of a crop blanked whole, (1, 8, 16, 16).
    """

    @torch.no_grad()
    def __init__(self, autoencoder: FaceAutoencoder, data: TrainingCrops, device: str, cache: Path) -> None:
        self._device = device
        self._rows = torch.from_numpy(data.split()[0])
        self._full, self._context = _encode_all(autoencoder, data, device, cache)
        self._landmarks = torch.stack([torch.from_numpy(data.landmarks), torch.from_numpy(mirrored_landmarks(data.landmarks))])
        valid = torch.from_numpy(data.valid)[:, None].float().div(255)
        self._valid = torch.cat([functional.avg_pool2d(part, 8) for part in valid.split(512)])
        self.face = functional.avg_pool2d(torch.from_numpy(blank_mask())[None, None].to(device), 8)
        self.nothing = autoencoder.encode(torch.zeros(1, 3, 128, 128, device=device)).latent

    def draw(self, count: int, generator: torch.Generator) -> LatentBatch:
        """Faces that may be trained on, half of them mirrored."""
        rows = self._rows[torch.randint(len(self._rows), (count,), generator=generator)]
        mirror = (torch.rand(count, generator=generator) < 0.5).long()
        valid = torch.where(mirror[:, None, None, None] > 0, self._valid[rows].flip(3), self._valid[rows])
        return LatentBatch(
            self._full[mirror, rows].float().to(self._device),
            self._context[mirror, rows].float().to(self._device),
            valid.to(self._device),
            self._landmarks[mirror, rows].to(self._device),
        )


def _encode_all(
    autoencoder: FaceAutoencoder, data: TrainingCrops, device: str, cache: Path
) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents of all crops, and of what is seen around the face; plain and mirrored: two (2, n, 8, 16, 16) float16 tensors."""
    if cache.exists():
        stored = torch.load(cache, weights_only=True)
        return stored["full"], stored["context"]
    full, context = [], []
    for mirrored in (False, True):
        landmarks = mirrored_landmarks(data.landmarks) if mirrored else data.landmarks
        for start in range(0, len(data.crops), 64):
            part = slice(start, start + 64)
            crops = to_tensor(data.crops[part], device)
            crops = crops.flip(3) if mirrored else crops
            full.append(autoencoder.encode(crops).latent.half().cpu())
            context.append(autoencoder.encode(seen_around(crops, landmarks[part])).latent.half().cpu())
    shape = (2, len(data.crops), *full[0].shape[1:])
    stored = {"full": torch.cat(full).view(shape), "context": torch.cat(context).view(shape)}
    torch.save(stored, cache)
    return stored["full"], stored["context"]
