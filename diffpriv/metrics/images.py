"""Likeness of two crops as pictures. PSNR is `diffpriv.recovery.psnr`; this adds structural similarity where the face is."""

import numpy as np

from diffpriv.faces.compositing import face_mask


def face_ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004) of two (128, 128, 3) uint8 crops, averaged where the face mask is over 0.5."""
    from skimage.metrics import structural_similarity

    _, everywhere = structural_similarity(first, second, channel_axis=2, full=True)
    return float(everywhere.mean(2)[face_mask(first.shape[0]) > 0.5].mean())
