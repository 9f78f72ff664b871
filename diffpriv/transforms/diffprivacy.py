"""The method behind the interface of `FaceTransform`: crops out of pictures, the pipeline's three stages, patches back.

Faces run in micro-batches of one fixed size (the last one padded; a smaller size for second and later attempts), because
kernels may sum in another order for another batch shape: so a face's bytes depend on nothing but its picture, its seed, the
settings and the kind of device.
Every result is checked as it will stand in the picture; a face that is over the limit, or that a detector no longer finds
with its landmarks in place, is tried again with another draw, and where it was over the limit with a stronger push. One that
stays over the limit is filled.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from diffpriv.arithmetic import resolve_arithmetic
from diffpriv.config import TransformConfig
from diffpriv.crops import to_pixels, to_tensor
from diffpriv.detectors import load_detector
from diffpriv.errors import MisuseError
from diffpriv.faces.alignment import CANONICAL_SIZE, map_points, warp_to_crop
from diffpriv.faces.compositing import apply_patches
from diffpriv.faces.nudge import nudge
from diffpriv.faces.seam import blend_face
from diffpriv.payloads import encode_exact, encode_image, encode_keys, stored_matrix
from diffpriv.pipeline import DiffPrivacyPipeline, KeyOutput
from diffpriv.presets import Preset, load_preset
from diffpriv.recognizers import DifferentiableRecognizer, Recognizer, load_recognizer
from diffpriv.recognizers.base import measured_threshold
from diffpriv.transforms.base import FaceRequest, FaceResult, Patch, fill_face, fill_patch
from diffpriv.transforms.output_check import FALSE_ACCEPT_RATE, SMALLEST_SEEN, Finding, OutputCheck, Reference
from diffpriv.weights import load_pipeline, resolve_model, weights_digest

RETRY_BATCH = 4  # later attempts are few: a large batch would be padding for the most part


class DiffPrivacyTransform:
    """Args:
    pipeline: the model, in evaluation mode, on its device.
    config: the settings; `similarity_limit` None is the recogniser's threshold at a false-accept rate of 1e-3.
    digest: names the weights.
    judge: a recogniser beside the model's own; results must pass it too, and if it is differentiable it guides them.
    """

    def __init__(
        self, pipeline: DiffPrivacyPipeline, config: TransformConfig, digest: str, judge: Recognizer | None = None
    ) -> None:
        self.pipeline = pipeline
        self.config = config
        self.preset: Preset = load_preset(config.preset, config.task)
        self._digest = digest
        self.similarity_limit = self._resolve_limit()
        self._batch = self.preset.micro_batch
        detector = load_detector("centerface", smallest_face=SMALLEST_SEEN, closer_looks=False)
        self.check = OutputCheck(pipeline.recognizer, detector, judge)
        pipeline.arithmetic = resolve_arithmetic(config.arithmetic, pipeline.device)
        pipeline.guides = {}
        if isinstance(judge, DifferentiableRecognizer):
            judge.to(pipeline.device)
            pipeline.guides = {judge.identity: judge}
        self._judge = judge

    @property
    def identity(self) -> str:
        judge = f" {'judge and guide' if self.pipeline.guides else 'judge'} {self._judge.identity}" if self._judge else ""
        arithmetic = str(self.pipeline.arithmetic).removeprefix("torch.")
        return f"diffprivacy/4 weights {self._digest[:16]} {arithmetic}{judge}"

    def _resolve_limit(self) -> float:
        if self.config.similarity_limit is not None:
            return self.config.similarity_limit
        advice = "Give similarity_limit, or a recogniser whose config.json has thresholds."
        return measured_threshold(self.pipeline.recognizer.config.get("thresholds") or {}, FALSE_ACCEPT_RATE, advice)

    def protect(self, requests: Sequence[FaceRequest]) -> list[FaceResult]:
        """New faces for all requests. The faces that an attempt leaves unsettled share the next attempt's micro-batches."""
        tries: list[_Face] = []
        for start in range(0, len(requests), self._batch):
            tries += self._begin(requests[start : start + self._batch])
        for attempt in range(self.config.max_attempts):
            unsettled = [face for face in tries if not face.settled]
            batch = self._batch if attempt == 0 else RETRY_BATCH
            for start in range(0, len(unsettled), batch):
                self._attempt(unsettled[start : start + batch], batch, attempt)
        return [face.best if face.best is not None else self._fill(face) for face in tries]

    def _begin(self, requests: Sequence[FaceRequest]) -> list["_Face"]:
        """Stage 1 of one micro-batch: crops, keys, and the embeddings that results are compared with."""
        size = self.pipeline.crop_size
        canonical = [stored_matrix(request) for request in requests]
        matrices = [matrix * (size / CANONICAL_SIZE) for matrix in canonical]
        originals = [warp_to_crop(request.image, matrix, size) for request, matrix in zip(requests, matrices, strict=True)]
        crops = to_tensor(_padded(originals, self._batch), self.pipeline.device)
        key = self.pipeline.create_key(crops, self.preset, noise_map=self.config.recovery == "keys")
        targets = list(zip(*self.pipeline.embed(crops), strict=True))
        references = self.check.references(requests, canonical)
        return [
            _Face(
                request,
                canonical[row],
                crops[row],
                key.key_e[row],
                targets[row],
                references[row],
                self._payload(request, key, row),
            )
            for row, request in enumerate(requests)
        ]

    def _attempt(self, faces: Sequence["_Face"], batch: int, attempt: int) -> None:
        """Stage 2 of one micro-batch, and the check of what came out, a candidate at a time until one of a face's passes.

        Candidates differ by what the face's key drew for them, so which one is the first to pass is the key's choice.
        """
        padded = _padded(list(faces), batch)
        crops, key_e = torch.stack([face.crop for face in padded]), torch.stack([face.key_e for face in padded])
        output = self.pipeline.protect(
            crops,
            key_e,
            [face.request.seed for face in padded],
            self.config.task,
            self.preset,
            landmarks=np.stack([map_points(face.request.face.landmarks, face.matrix) for face in padded]),
            attempt=attempt,
            pushes=[face.pushes for face in padded],
            identity_seeds=[face.request.identity_seed for face in padded],
            targets=[torch.stack(one) for one in zip(*(face.targets for face in padded), strict=True)],
        )
        for number in range(self.preset.candidates):
            made = zip(faces, to_pixels(output.candidates[:, number]), strict=False)
            waiting = [(face, pixels) for face, pixels in made if not face.settled]
            if waiting:
                self._settle([face for face, _ in waiting], [pixels for _, pixels in waiting], batch, attempt)

    def _settle(
        self, faces: Sequence["_Face"], made: Sequence[np.ndarray], batch: int, attempt: int, *, nudged: bool = False
    ) -> None:
        """Keep what passes of one new crop a face, (size, size, 3) uint8; those whose landmarks moved are nudged, once.

        Args:
            batch: the shape that checks are padded to.
        """
        padded = _padded(list(faces), batch)
        scale = self.pipeline.crop_size / CANONICAL_SIZE
        patches = [
            blend_face(face.request.image, pixels, face.matrix * scale, face.request.seed)
            for face, pixels in zip(faces, made, strict=True)
        ]
        payloads = self._payloads_after(padded, patches)
        requests, matrices = [face.request for face in faces], [face.matrix for face in faces]
        targets = torch.stack([face.targets[0] for face in padded])
        findings = self.check.examine(requests, patches, matrices, [face.reference for face in faces], targets)
        astray: list[tuple[_Face, np.ndarray]] = []
        for face, pixels, patch, payload, finding in zip(faces, made, patches, payloads, findings, strict=True):
            face.similarity = finding.similarity
            if not self._acceptable(finding):
                face.pushes += 1
                continue
            # With its landmarks elsewhere, or no face to be found, it is private but of less use: kept if nothing better comes.
            if face.best is None or finding.moved < face.moved:
                face.best = FaceResult("protected", "", attempt + 1, finding.similarity, patch, payload)
                face.moved, face.settled = finding.moved, finding.in_place
            if not (finding.in_place or nudged or finding.landmarks is None):
                better = nudge(pixels, finding.landmarks, face.reference.landmarks)
                astray += [(face, better)] if better is not None else []
        for start in range(0, len(astray), RETRY_BATCH):
            again, better_made = zip(*astray[start : start + RETRY_BATCH], strict=True)
            self._settle(again, better_made, RETRY_BATCH, attempt, nudged=True)

    def _acceptable(self, finding: Finding) -> bool:
        if self.config.task == "hide":
            return finding.matched if self._judge else finding.similarity >= self.similarity_limit
        return finding.similarity <= self.similarity_limit and not finding.matched

    def _payload(self, request: FaceRequest, key: KeyOutput, row: int) -> bytes:
        """Material of the tier `keys`, the same whatever becomes of the face; b"" for the others."""
        if self.config.recovery == "keys" and key.key_i is not None:
            detail = None if key.detail is None else key.detail[row].cpu().numpy()
            arrays = key.key_e[row].cpu().numpy(), key.key_i[row].cpu().numpy()
            return encode_keys(request, self.config.task, *arrays, self.preset.inversion_steps, detail)
        return b""

    def _payloads_after(self, padded: Sequence["_Face"], patches: Sequence[Patch]) -> list[bytes]:
        """Payloads of the first len(patches) faces, of those tiers too whose material depends on what stands in the picture.

        Args:
            padded: as many as a micro-batch has.
        """
        faces = padded[: len(patches)]
        if self.config.recovery == "exact":
            return [encode_exact(face.request, patch, self.config.task) for face, patch in zip(faces, patches, strict=True)]
        if self.config.recovery != "image":
            return [face.payload for face in faces]
        size = self.pipeline.crop_size
        published = [
            warp_to_crop(apply_patches(face.request.image, [patch]), face.matrix * (size / CANONICAL_SIZE), size)
            for face, patch in zip(faces, patches, strict=True)
        ]
        crops = torch.stack([face.crop for face in padded])
        sketches = self.pipeline.sketch(crops, to_tensor(_padded(published, len(padded)), self.pipeline.device))
        return [encode_image(face.request, self.config.task, sketch) for face, sketch in zip(faces, sketches, strict=False)]

    def _fill(self, face: "_Face") -> FaceResult:
        side = "still too like" if self.config.task == "anonymize" else "no longer like"
        limit = f"limit {self.similarity_limit:.3f}{f', or by {self._judge.identity}' if self._judge else ''}"
        reason = f"{side} the original after {self.config.max_attempts} attempts ({limit})"
        (payload,) = self._payloads_after(_padded([face], RETRY_BATCH), [fill_patch(face.request)])
        attempts, similarity = self.config.max_attempts, face.similarity
        return fill_face(face.request, reason, attempts=attempts, similarity=similarity, payload=payload)


@dataclass(eq=False)
class _Face:
    """One face on its way through the attempts."""

    request: FaceRequest
    matrix: np.ndarray  # picture to 128 px canonical crop
    crop: torch.Tensor  # (3, size, size)
    key_e: torch.Tensor
    targets: Sequence[torch.Tensor]  # the original's embeddings, under the model's own recogniser and its guides
    reference: Reference
    payload: bytes
    best: FaceResult | None = None
    moved: float = float("inf")  # of the best, see `Finding`
    pushes: int = 0  # attempts so far that were over the limit
    settled: bool = False
    similarity: float = 0.0


def _padded(items: list, size: int) -> list:
    return items + [items[-1]] * (size - len(items))


def load_diffprivacy_transform(config: TransformConfig) -> DiffPrivacyTransform:
    """The transform of a model folder; "builtin" is the one inside the package.

    With a recogniser other than "builtin", every anonymised face must also be no match for that one, which guides as well if it
    is differentiable. The task `hide` keeps a face known to the recogniser that guides it, so that one has to be.

    Raises:
        ModelError, DetectorError: a model folder is missing or incomplete, or the recogniser has no measured threshold.
        MisuseError: a recogniser that this task cannot use.
    """
    folder = resolve_model(config.model)
    return DiffPrivacyTransform(load_pipeline(folder), config, weights_digest(folder), _load_judge(config))


def _load_judge(config: TransformConfig) -> Recognizer | None:
    if config.recognizer == "builtin":
        return None
    judge = load_recognizer(config.recognizer)
    if config.task == "hide" and not isinstance(judge, DifferentiableRecognizer):
        raise MisuseError(
            f"The task hide is guided by the recogniser, and {config.recognizer} has no gradient.",
            advice="Use builtin, human:FOLDER, or a model folder.",
        )
    judge.threshold(FALSE_ACCEPT_RATE)  # an unmeasured one is an error now, not at the first face
    return judge
