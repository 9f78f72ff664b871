"""Alignment of a face to the model's canonical square by a similarity transform, and back.

Source: Umeyama 1991, least-squares similarity between two point sets. The canonical points are those that worked on
both training sources; scaled to other crop sizes, they keep eyes level and the whole face, brows to chin, inside.
Pure: numpy and OpenCV's warp, no files, no random numbers.
"""

import cv2
import numpy as np

CANONICAL_SIZE = 128
# (5, 2) pixels in the 128 px square: subject's right eye (picture's left), left eye, nose tip, right and left mouth corner.
CANONICAL_LANDMARKS = np.array([[46.0, 52.0], [82.0, 52.0], [64.0, 73.0], [49.0, 94.0], [79.0, 94.0]])


def estimate_similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares rotation, uniform scale and shift that carries `source` onto `target`; never a reflection.

    Args:
        source, target: (n, 2) points, n >= 2, not all the same.
    Returns:
        (2, 3) float64 affine matrix M with target ≈ M @ [x, y, 1].
    """
    source = np.asarray(source, dtype=np.float64)
    target = np.asarray(target, dtype=np.float64)
    source_mean, target_mean = source.mean(0), target.mean(0)
    source_centred, target_centred = source - source_mean, target - target_mean
    covariance = target_centred.T @ source_centred / len(source)
    left, singular, right = np.linalg.svd(covariance)
    sign = np.ones(2)
    if np.linalg.det(left @ right) < 0:
        sign[1] = -1.0
    rotation = left @ np.diag(sign) @ right
    variance = (source_centred**2).sum() / len(source)
    scale = float((singular * sign).sum() / max(variance, 1e-12))
    matrix = np.empty((2, 3))
    matrix[:, :2] = scale * rotation
    matrix[:, 2] = target_mean - scale * rotation @ source_mean
    return matrix


def face_to_crop_matrix(landmarks: np.ndarray, size: int = CANONICAL_SIZE) -> np.ndarray:
    """(2, 3) matrix from picture pixels to crop pixels for five landmarks of shape (5, 2)."""
    return estimate_similarity(landmarks, CANONICAL_LANDMARKS * (size / CANONICAL_SIZE))


def map_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(..., 2) points carried by a (2, 3) affine matrix."""
    return np.asarray(points) @ matrix[:, :2].T + matrix[:, 2]


def warp_to_crop(image: np.ndarray, matrix: np.ndarray, size: int = CANONICAL_SIZE) -> np.ndarray:
    """Resample a picture into the canonical square; outside the picture its border is mirrored.

    Args:
        image: (height, width, 3) uint8 RGB. matrix: (2, 3) from `face_to_crop_matrix`.
    Returns:
        (size, size, 3) uint8 RGB. When the face is larger than the crop, the picture is averaged first, so that the crop
        holds no aliasing.
    """
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if scale < 0.75:
        # Warp to an integer multiple of the crop and average down: an area filter, where bilinear alone would skip pixels.
        factor = min(8, int(np.ceil(1.0 / scale)))
        large = warp_to_crop_at_scale(image, matrix, size, factor)
        return cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA)
    return warp_to_crop_at_scale(image, matrix, size, 1)


def warp_to_crop_at_scale(image: np.ndarray, matrix: np.ndarray, size: int, factor: int) -> np.ndarray:
    """The crop at `factor` times its resolution, (size * factor, size * factor, 3) uint8, pixel centres kept aligned."""
    scaled = matrix * factor
    scaled[:, 2] += (factor - 1) / 2
    return cv2.warpAffine(
        image, scaled, (size * factor, size * factor), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )


def valid_mask(height: int, width: int, matrix: np.ndarray, size: int = CANONICAL_SIZE) -> np.ndarray:
    """(size, size) float32 in [0, 1]: 1 where the crop shows pixels that really were in the picture, 0 where mirrored."""
    ones = np.full((height, width), 255, np.uint8)
    return cv2.warpAffine(ones, matrix, (size, size), flags=cv2.INTER_LINEAR, borderValue=0).astype(np.float32) / 255.0
