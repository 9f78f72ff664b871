"""Crops as pictures: how alike two of them are where the face is, and how sharp they are. PSNR is `diffpriv.recovery.psnr`."""

import cv2
import numpy as np

from diffpriv.faces.compositing import face_mask


def face_ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004) of two (128, 128, 3) uint8 crops, averaged where the face mask is over 0.5."""
    from skimage.metrics import structural_similarity

    _, everywhere = structural_similarity(first, second, channel_axis=2, full=True)
    return float(everywhere.mean(2)[face_mask(first.shape[0]) > 0.5].mean())


def sharpness(crops: np.ndarray) -> float:
    """Mean absolute Laplacian of the brightness of (n, height, width, 3) uint8 crops, in levels of 255."""
    return float(np.mean([np.abs(cv2.Laplacian(crop.mean(2), cv2.CV_64F)).mean() for crop in crops]))
