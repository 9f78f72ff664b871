"""Stage 3 for one face: from an opened payload back to the crop, and into the published picture.

How close it came is stated with every recovery: whether the keyed digest of the original crop matches (bit-exact), and how many
of the 64 bits of its difference hash differ (a few for a good reconstruction, about 32 for another face).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from diffpriv.errors import RecoveryError
from diffpriv.faces.alignment import CANONICAL_SIZE, warp_to_crop
from diffpriv.faces.compositing import apply_patches, crop_to_patch, face_mask
from diffpriv.faces.types import Patch
from diffpriv.transforms.payloads import RecoveryPayload, crop_digest, decode_payload, difference_hash, hash_distance

if TYPE_CHECKING:
    from diffpriv.pipeline import DiffPrivacyPipeline


@dataclass(frozen=True, eq=False)
class RecoveredFace:
    """One face brought back.

    Attributes:
        crop: (128, 128, 3) uint8 RGB; for tier `exact` cut from the recovered picture.
        picture: the published picture with the face put back, or None where no picture was given.
        tier: "image", "keys" or "exact".
        bit_exact: the crop equals the original crop, by its keyed digest.
        hash_distance: differing bits of 64.
    """

    crop: np.ndarray
    picture: np.ndarray | None
    tier: str
    bit_exact: bool
    hash_distance: int

    def closeness(self) -> str:
        """One phrase for reports."""
        if self.bit_exact:
            return "bit-exact: the keyed digest of the original crop matches"
        return f"{64 - self.hash_distance} of 64 hash bits agree with the original crop"


def recover_face(payload: bytes, seed: bytes, published: np.ndarray | None, *, model: str = "builtin") -> RecoveredFace:
    """Bring one face back.

    Args:
        payload: from the opened face record. seed: derived from the face key, as at protection.
        published: the published picture, (height, width, 3) uint8 RGB, at its published size; tier `keys` works without.
        model: the model that protected the face.
    Raises:
        RecoveryError: nothing was kept, the payload is damaged, or the picture is missing or of another size.
    """
    material = decode_payload(payload, seed)
    if published is not None and published.shape[1::-1] != material.picture_size:
        size, wanted = published.shape[1::-1], material.picture_size
        raise RecoveryError(
            f"The picture is {size[0]} x {size[1]} pixels; the face was protected in one of {wanted[0]} x {wanted[1]}.",
            advice="Give the published picture at its published size.",
        )
    if material.tier == "exact":
        return _recover_exact(material, seed, published)
    if material.tier == "image" and published is None:
        raise RecoveryError(
            "Tier image brings the face back from the published picture, and no picture was given.",
            advice="Give the published picture.",
        )
    crop = _regenerate(material, model, published)
    size = crop.shape[0]
    picture = None
    if published is not None:
        patch = crop_to_patch(published, crop, material.matrix * (size / CANONICAL_SIZE), face_mask(size))
        picture = apply_patches(published, [patch])
    if size != CANONICAL_SIZE:
        crop = cv2.resize(crop, (CANONICAL_SIZE, CANONICAL_SIZE), interpolation=cv2.INTER_AREA)
    return _describe(material, seed, crop, picture)


def _recover_exact(material: RecoveryPayload, seed: bytes, published: np.ndarray | None) -> RecoveredFace:
    if published is None or material.covered is None or material.position is None:
        raise RecoveryError(
            "Tier exact puts the original pixels back into the published picture, and no picture was given.",
            advice="Give the published picture.",
        )
    alpha = np.ones(material.covered.shape[:2], np.float32)
    picture = apply_patches(published, [Patch(*material.position, material.covered, alpha)])
    return _describe(material, seed, warp_to_crop(picture, material.matrix), picture)


def _regenerate(material: RecoveryPayload, model: str, published: np.ndarray | None) -> np.ndarray:
    """The crop at the model's own size, by whichever of the two generative tiers the payload is."""
    from diffpriv.crops import to_pixels, to_tensor

    pipeline = _pipeline(model)

    def on_device(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array.copy())[None].to(pipeline.device)

    if material.key_e is not None and material.key_i is not None:
        _require_fit(pipeline, material.key_e, material.key_i, material.detail)
        keys = on_device(material.key_e), on_device(material.key_i)
        detail = None if material.detail is None else on_device(material.detail)
        return to_pixels(pipeline.recover(*keys, steps=material.inversion_steps, detail=detail))[0]
    if material.sketch is None or published is None:
        raise RecoveryError("The payload holds too little to regenerate a face.", advice="Restore the key file from a backup.")
    size = pipeline.crop_size
    seen = to_tensor([warp_to_crop(published, material.matrix * (size / CANONICAL_SIZE), size)], pipeline.device)
    try:
        return to_pixels(pipeline.recover_in_picture(seen, material.sketch[None]))[0]
    except ValueError as error:
        raise RecoveryError(
            f"The sketch's {len(material.sketch)} numbers do not fit this model.",
            advice="Give the model that protected the face.",
        ) from error


def _require_fit(pipeline: "DiffPrivacyPipeline", key_e: np.ndarray, key_i: np.ndarray, detail: np.ndarray | None) -> None:
    """Raises RecoveryError for keys of another model's shapes; those of another model of the same shapes cannot be told."""
    given = key_e.shape, key_i.shape, None if detail is None else detail.shape
    if given != pipeline.key_shapes:
        raise RecoveryError(
            f"The payload's keys have the shapes {given}; this model's have {pipeline.key_shapes}.",
            advice="Give the model that protected the face.",
        )


@lru_cache(maxsize=1)
def _pipeline(model: str) -> "DiffPrivacyPipeline":
    """Loaded once for all faces of a case."""
    from diffpriv.weights import load_pipeline, resolve_model

    return load_pipeline(resolve_model(model))


def _describe(material: RecoveryPayload, seed: bytes, crop: np.ndarray, picture: np.ndarray | None) -> RecoveredFace:
    exact = crop_digest(seed, crop) == material.crop_digest
    return RecoveredFace(crop, picture, material.tier, exact, hash_distance(difference_hash(crop), material.crop_hash))


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two uint8 pictures in dB; infinite when equal."""
    error = float(np.mean((first.astype(np.float64) - second.astype(np.float64)) ** 2))
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))
