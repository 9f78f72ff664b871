"""Sample sheets while training: what the model makes of held-out surroundings, for a person to look at.

The first columns show held-out photos, so the sheets stay in the run's folder and never enter the repository.
"""

from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from diffpriv.crops import to_pixels, to_tensor
from diffpriv.denoising import Denoiser, Surroundings
from diffpriv.faces.masks import blank_mask
from diffpriv.inversion import invert, regenerate
from diffpriv.models.autoencoder import FaceAutoencoder
from diffpriv.models.msi import MultiScaleInverter
from diffpriv.scenes import seen_around


@torch.no_grad()
def save_sample_sheet(
    folder: Path,
    autoencoder: FaceAutoencoder,
    crops: np.ndarray,
    landmarks: np.ndarray,
    steps: int = 25,
    name: str = "samples.png",
) -> None:
    """Six rows of blocks: photo, context with noise, with key-E, key-E + key-I, no context at all, autoencoder alone."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32).eval()
    msi = MultiScaleInverter.from_pretrained(folder / "msi", torch_dtype=torch.float32).eval()
    denoiser = Denoiser(unet, DDIMScheduler.from_pretrained(folder / "scheduler"))
    autoencoder = autoencoder.cpu()
    photos = to_tensor(crops)
    count = len(photos)
    blank = torch.from_numpy(blank_mask())[None, None]
    mask = torch.nn.functional.avg_pool2d(blank, 8).expand(count, 1, 16, 16)
    seen = Surroundings(autoencoder.encode(seen_around(photos, landmarks)).latent, mask)
    nothing = Surroundings(autoencoder.encode(torch.zeros_like(photos)).latent, torch.ones_like(mask))
    latent = autoencoder.encode(photos).latent
    key = msi.stage_tokens(msi.dequantise(msi.quantise(msi(latent).features)))
    null = msi.null_stage_tokens(count)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(1))
    inverted = invert(latent, key, nothing, denoiser, steps=steps)
    rows = [
        photos,
        autoencoder.decode(regenerate(noise, null, seen, denoiser, steps=steps)),
        autoencoder.decode(regenerate(noise, key, seen, denoiser, steps=steps)),
        autoencoder.decode(regenerate(inverted.noise_map, key, nothing, denoiser, steps=steps)),
        autoencoder.decode(regenerate(noise, null, nothing, denoiser, steps=steps)),
        autoencoder.decode(latent),
    ]
    recovered = rows[3].clamp(-1, 1)
    psnr = 10 * torch.log10(4 / (recovered - photos).square().mean((1, 2, 3)))
    print(f"recovery from key-E and key-I: {float(psnr.mean()):.2f} dB, worst residual {float(inverted.residual.max()):.4f}")
    sheet = np.concatenate([np.concatenate(list(to_pixels(row)), 1) for row in rows], 0)
    cv2.imwrite(str(folder / name), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
