"""The method behind the interface of `FaceTransform`: crops out of pictures, the pipeline's three stages, patches back.

Faces run in micro-batches of one fixed size (the last one padded), because kernels may sum in another order for another
batch shape: so a face's bytes depend on nothing but its picture, its seed, the settings and the kind of device.
Every result is checked as it will stand in the picture; a face that is over the limit, or that a detector no longer finds, is
tried again with another draw and a stronger push. One that stays over the limit is filled.
"""

from collections.abc import Sequence

import numpy as np
import torch

from diffpriv.config import TransformConfig
from diffpriv.detectors import load_detector
from diffpriv.errors import MisuseError, ModelError
from diffpriv.faces.alignment import CANONICAL_SIZE, warp_to_crop
from diffpriv.faces.seam import blend_face
from diffpriv.payloads import encode_exact, encode_image, encode_keys, stored_matrix
from diffpriv.pipeline import DiffPrivacyPipeline, KeyOutput
from diffpriv.presets import Preset, load_preset
from diffpriv.recognizers.base import Recognizer
from diffpriv.transforms.base import FaceRequest, FaceResult, Patch, fill_face, fill_patch
from diffpriv.transforms.output_check import Finding, OutputCheck
from diffpriv.weights import load_pipeline, resolve_model, weights_digest

MICRO_BATCH = 8
LIMIT_FALSE_ACCEPT_RATE = "0.001"


class DiffPrivacyTransform:
    """Args:
    pipeline: the model, in evaluation mode, on its device.
    config: the settings; `similarity_limit` None is the recogniser's threshold at a false-accept rate of 1e-3.
    digest: names the weights.
    """

    def __init__(
        self, pipeline: DiffPrivacyPipeline, config: TransformConfig, digest: str, judge: Recognizer | None = None
    ) -> None:
        self.pipeline = pipeline
        self.config = config
        self.preset: Preset = load_preset(config.preset, config.task)
        self._digest = digest
        self.similarity_limit = self._resolve_limit()
        self.check = OutputCheck(pipeline.recognizer, load_detector("centerface"), MICRO_BATCH, judge)
        self._judge = judge

    @property
    def identity(self) -> str:
        judge = f" judge {self._judge.identity}" if self._judge else ""
        return f"diffprivacy/1 weights {self._digest[:16]}{judge}"

    def _resolve_limit(self) -> float:
        if self.config.similarity_limit is not None:
            return self.config.similarity_limit
        thresholds = self.pipeline.recognizer.config.get("thresholds") or {}
        if LIMIT_FALSE_ACCEPT_RATE not in thresholds:
            raise ModelError(
                "This recogniser's folder names no threshold, so there is no limit to check faces against.",
                advice="Give similarity_limit, or a recogniser whose config.json has thresholds.",
            )
        return float(thresholds[LIMIT_FALSE_ACCEPT_RATE])

    def protect(self, requests: Sequence[FaceRequest]) -> list[FaceResult]:
        """New faces for all requests, micro-batch by micro-batch."""
        results: list[FaceResult] = []
        for start in range(0, len(requests), MICRO_BATCH):
            results += self._protect_batch(requests[start : start + MICRO_BATCH])
        return results

    def _protect_batch(self, requests: Sequence[FaceRequest]) -> list[FaceResult]:
        size = self.pipeline.crop_size
        canonical = [stored_matrix(request) for request in requests]
        matrices = [matrix * (size / CANONICAL_SIZE) for matrix in canonical]
        originals = [warp_to_crop(request.image, matrix, size) for request, matrix in zip(requests, matrices, strict=True)]
        crops = to_tensor(_padded(originals), self.pipeline.device)
        seeds = _padded([request.seed for request in requests])
        key = self.pipeline.create_key(crops, self.preset, noise_map=self.config.recovery == "keys")
        with torch.no_grad():
            target = self.pipeline.recognizer.embed_canonical(crops)
        payloads = [self._payload(request, key, target, row) for row, request in enumerate(requests)]
        best: list[FaceResult | None] = [None] * len(requests)
        settled = [False] * len(requests)
        similarity = [0.0] * len(requests)
        for attempt in range(self.config.max_attempts):
            # The whole batch runs again, settled faces included: its shape, and so every face's bits, must not change.
            output = self.pipeline.protect(crops, key.key_e, seeds, self.config.task, self.preset, attempt=attempt)
            faces = zip(requests, to_pixels(output.crops), matrices, strict=False)
            patches = [blend_face(request.image, pixels, matrix, request.seed) for request, pixels, matrix in faces]
            findings = self.check.examine(requests, patches, canonical, target)
            for row, (request, patch, finding) in enumerate(zip(requests, patches, findings, strict=True)):
                if settled[row]:
                    continue
                similarity[row] = finding.similarity
                # Without a face to be found there it is private but of little use: kept only if no later attempt is better.
                if self._acceptable(finding) and (finding.found or best[row] is None):
                    payload = self._exact(request, patch) or payloads[row]
                    best[row] = FaceResult("protected", "", attempt + 1, finding.similarity, patch, payload)
                    settled[row] = finding.found
            if all(settled):
                break
        return [
            result if result is not None else self._fill(request, payload, value)
            for result, request, payload, value in zip(best, requests, payloads, similarity, strict=True)
        ]

    def _acceptable(self, finding: Finding) -> bool:
        if self.config.task == "hide":
            return finding.similarity >= self.similarity_limit
        return finding.similarity <= self.similarity_limit and not finding.matched

    def _payload(self, request: FaceRequest, key: KeyOutput, target: torch.Tensor, row: int) -> bytes:
        """Material of the tiers `image` and `keys`, the same whatever becomes of the face; b"" for the others."""
        if self.config.recovery == "image":
            return encode_image(request, self.config.task, key.key_e[row].cpu().numpy(), target[row].cpu().numpy())
        if self.config.recovery == "keys" and key.key_i is not None:
            arrays = key.key_e[row].cpu().numpy(), key.key_i[row].cpu().numpy()
            return encode_keys(request, self.config.task, *arrays, self.preset.inversion_steps)
        return b""

    def _exact(self, request: FaceRequest, patch: Patch) -> bytes:
        return encode_exact(request, patch, self.config.task) if self.config.recovery == "exact" else b""

    def _fill(self, request: FaceRequest, payload: bytes, similarity: float) -> FaceResult:
        side = "still too like" if self.config.task == "anonymize" else "no longer like"
        reason = f"{side} the original after {self.config.max_attempts} attempts (limit {self.similarity_limit:.3f})"
        payload = self._exact(request, fill_patch(request)) or payload
        return fill_face(request, reason, attempts=self.config.max_attempts, similarity=similarity, payload=payload)


def _padded(items: list) -> list:
    return items + [items[-1]] * (MICRO_BATCH - len(items))


def to_tensor(crops: list[np.ndarray], device: torch.device) -> torch.Tensor:
    """uint8 RGB crops -> (n, 3, h, w) float32 in [-1, 1]."""
    return torch.from_numpy(np.stack(crops)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(crops: torch.Tensor) -> np.ndarray:
    """(n, 3, h, w) in [-1, 1] -> (n, h, w, 3) uint8."""
    return ((crops.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def load_diffprivacy_transform(config: TransformConfig) -> DiffPrivacyTransform:
    """The transform of a model folder; "builtin" is the one inside the package.

    With a recogniser other than "builtin", every anonymised face must also be no match for that one. The task `hide` keeps a
    face known to the recogniser that guides it, which has to be differentiable: only the builtin one is.

    Raises:
        ModelError, DetectorError: a model folder is missing or incomplete.
        MisuseError: a recogniser that this task cannot use.
    """
    folder = resolve_model(config.model)
    return DiffPrivacyTransform(load_pipeline(folder), config, weights_digest(folder), _load_judge(config))


def _load_judge(config: TransformConfig) -> Recognizer | None:
    if config.recognizer == "builtin":
        return None
    kind, _, pack = config.recognizer.partition(":")
    if kind != "insightface" or not pack:
        raise MisuseError(f"{config.recognizer!r} is not a recogniser.", advice='Give "builtin" or "insightface:FOLDER".')
    if config.task == "hide":
        raise MisuseError(
            "The task hide is guided by the recogniser, and an InsightFace pack has no gradient.", advice="Use builtin."
        )
    from diffpriv.recognizers.insightface_recognizer import InsightFaceRecognizer

    return InsightFaceRecognizer(pack)
