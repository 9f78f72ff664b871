"""Recovery, and averaging over keys, tried on the evaluated photos: protected in memory under fresh keys of this run.

Nothing of PROTECTED is opened: its faces come back through a recovery case and its quorum only. What is measured is what a
recipient of this method and model would get back from a published picture that was stored or sent on in a lossy way.
"""

import io
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from PIL import Image

from diffpriv.config import TransformConfig
from diffpriv.errors import RecoveryError
from diffpriv.faces.alignment import face_to_crop_matrix, warp_to_crop
from diffpriv.faces.compositing import apply_patches
from diffpriv.faces.types import Face
from diffpriv.keys.context import ShardContext
from diffpriv.keys.errors import DiffPrivError
from diffpriv.keys.keyfile import KeyFile, build_key_file
from diffpriv.keys.recipients import RecipientKey
from diffpriv.keys.sealing import FaceSecret, seal_part
from diffpriv.keys.secrets import FaceKey
from diffpriv.metrics.images import face_ssim
from diffpriv.metrics.verification import unit
from diffpriv.pipelines.evaluation.judges import Judge
from diffpriv.pipelines.evaluation.privacy import FARS
from diffpriv.pipelines.steps.protect import TRANSFORM_LABEL
from diffpriv.recovery import psnr, recover_face
from diffpriv.transforms import FaceRequest, FaceTransform, load_transform

TIERS = ("image", "keys", "exact")
BASELINE_TIERS = ("exact",)
MATCH_FAR = 1e-3
Thresholds = dict[str, dict[float, float]]  # judge -> false-accept rate -> similarity


def _stored(format: str, **options: Any) -> Callable[[np.ndarray], np.ndarray]:
    def degrade(picture: np.ndarray) -> np.ndarray:
        out = io.BytesIO()
        Image.fromarray(picture).save(out, format=format, **options)
        return np.asarray(Image.open(io.BytesIO(out.getvalue())).convert("RGB"))

    return degrade


def _resized(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    small = cv2.resize(picture, (max(1, width // 2), max(1, height // 2)), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


DEGRADATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "PNG": _stored("PNG"),
    "JPEG 90": _stored("JPEG", quality=90),
    "JPEG 75": _stored("JPEG", quality=75),
    "JPEG 50": _stored("JPEG", quality=50),
    "WebP 80": _stored("WEBP", quality=80),
    "half size and back": _resized,
}


class SelfTest:
    """Args:
    samples: (picture, face): whole pictures of ORIGINAL.
    thresholds: of clean pairs of strangers, per judge.
    """

    def __init__(
        self, samples: list[tuple[np.ndarray, Face]], judges: list[Judge], thresholds: Thresholds, config: TransformConfig
    ) -> None:
        self._samples, self._judges, self._thresholds, self._config = samples, judges, thresholds, config
        self._matrices = [face_to_crop_matrix(face.landmarks) for _, face in samples]
        self._originals = [warp_to_crop(picture, matrix) for (picture, _), matrix in zip(samples, self._matrices, strict=True)]

    def recovery(self) -> dict[str, Any]:
        """Tier -> degradation -> PSNR, SSIM, judges that recognise the original; and what wrong keys give."""
        found: dict[str, Any] = {"faces": len(self._samples), "tiers": {}, "wrong keys": {}}
        for tier in TIERS if self._config.transform == "diffprivacy" else BASELINE_TIERS:
            keys = [FaceKey.generate() for _ in self._samples]
            seeds = [key.derive(TRANSFORM_LABEL) for key in keys]
            requests = [FaceRequest(picture, face, seed) for (picture, face), seed in zip(self._samples, seeds, strict=True)]
            results = self._transform(tier).protect(requests)
            pairs = zip(requests, results, strict=True)
            published = [apply_patches(request.image, [result.patch]) for request, result in pairs]
            payloads = [result.payload for result in results]
            found["tiers"][tier] = {
                name: self._closeness(
                    [self._recover(*one) for one in zip(payloads, seeds, map(degrade, published), strict=True)]
                )
                for name, degrade in DEGRADATIONS.items()
            }
            # Another face's record where the right one should be: the strongest wrong key that still opens something.
            others = [*range(1, len(payloads)), 0]
            mixed = [
                self._recover(payloads[other], seeds[other], _fitted(published[row], self._samples[other][0].shape))
                for row, other in enumerate(others)
            ]
            found["wrong keys"][tier] = {
                "refused, other recipient's key": _refused(keys, payloads),
                "another face's record": self._closeness(mixed),
            }
        return found

    def averaging(self, keys_per_face: int) -> dict[str, Any]:
        """One photo published under many keys: does the mean of its outputs give the person away?"""
        if keys_per_face < 2:
            return {}
        transform = self._transform("none")
        pictures = [one for one in self._samples for _ in range(keys_per_face)]
        requests = [FaceRequest(picture, face, FaceKey.generate().derive(TRANSFORM_LABEL)) for picture, face in pictures]
        results = transform.protect(requests)
        crops = np.stack(
            [
                warp_to_crop(apply_patches(request.image, [result.patch]), face_to_crop_matrix(request.face.landmarks))
                for request, result in zip(requests, results, strict=True)
            ]
        ).reshape(len(self._samples), keys_per_face, *self._originals[0].shape)
        found: dict[str, Any] = {"faces": len(self._samples), "keys per face": keys_per_face, "judges": {}}
        for judge in self._judges:
            single = np.stack([judge.embed(part) for part in crops])
            targets = judge.embed(np.stack(self._originals))
            alike = {
                "one output": (single[:, 0] * targets).sum(1),
                "mean of embeddings": (unit(single.mean(1)) * targets).sum(1),
                "mean of pixels": (judge.embed(np.rint(crops.mean(1)).astype(np.uint8)) * targets).sum(1),
            }
            found["judges"][judge.name] = {
                name: {
                    "similarity": round(float(values.mean()), 4),
                    **{f"matches own original, FAR {far:g}": self._matches(judge, values, far) for far in FARS},
                }
                for name, values in alike.items()
            }
        return found

    def _transform(self, tier: str) -> FaceTransform:
        values = self._config.to_mapping() | {"recovery": tier}
        return load_transform(TransformConfig.from_mapping(values))

    def _recover(self, payload: bytes, seed: bytes, published: np.ndarray) -> np.ndarray | None:
        try:
            return recover_face(payload, seed, published, model=self._config.model).crop
        except RecoveryError:
            return None

    def _closeness(self, crops: list[np.ndarray | None]) -> dict[str, Any]:
        pairs = [(crop, original) for crop, original in zip(crops, self._originals, strict=True) if crop is not None]
        if not pairs:
            return {"recovered": 0}
        decibels = [min(100.0, psnr(crop, original)) for crop, original in pairs]
        back, before = (np.stack(side) for side in zip(*pairs, strict=True))
        return {
            "recovered": len(pairs),
            "PSNR / dB": round(float(np.mean(decibels)), 2),
            "SSIM in the face": round(float(np.mean([face_ssim(*pair) for pair in pairs])), 4),
            "bit-exact": sum(bool((crop == original).all()) for crop, original in pairs),
            "recognised": {
                judge.name: self._matches(judge, (judge.embed(back) * judge.embed(before)).sum(1), MATCH_FAR)
                for judge in self._judges
            },
        }

    def _matches(self, judge: Judge, similarity: np.ndarray, far: float) -> float | None:
        threshold = self._thresholds.get(judge.name, {}).get(far)
        return None if threshold is None else round(float((similarity > threshold).mean()), 4)


def _fitted(picture: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """At the size that the other record expects: recovery would refuse the picture at once otherwise."""
    if picture.shape == shape:
        return picture
    return cv2.resize(picture, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)


def _refused(keys: list[FaceKey], payloads: list[bytes]) -> str:
    """The records sealed to one recipient, asked for with another's key: "n of n"."""
    right, wrong = RecipientKey.generate(), RecipientKey.generate()
    context = ShardContext("self-test", "self-test", "00" * 32)
    secrets = [FaceSecret(f"{row}", 0, key, payload) for row, (key, payload) in enumerate(zip(keys, payloads, strict=True))]
    sealed = KeyFile.parse(build_key_file(context, [seal_part(context, [right.recipient], secrets)]))
    refused = 0
    for row in range(len(keys)):
        try:
            sealed.open_face(f"{row}", 0, wrong)
        except DiffPrivError:
            refused += 1
    return f"{refused} of {len(keys)}"
