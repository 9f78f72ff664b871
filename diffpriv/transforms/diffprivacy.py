"""The method behind the interface of `FaceTransform`: crops out of pictures, the pipeline's three stages, patches back.

Faces run in micro-batches of one fixed size (the last one padded; a smaller size for second and later attempts), because
kernels may sum in another order for another batch shape: so a face's bytes depend on nothing but its picture, its seed, the
settings and the kind of device.
Every result is checked as it will stand in the picture; a face that is over the limit, or that a detector no longer finds
with its landmarks in place, is tried again with another draw, and where it was over the limit with a stronger push. One that
stays over the limit is filled.
"""

from collections.abc import Sequence

import torch

from diffpriv.arithmetic import resolve_arithmetic
from diffpriv.config import TransformConfig
from diffpriv.crops import to_tensor
from diffpriv.detectors import load_detector
from diffpriv.errors import MisuseError
from diffpriv.faces.alignment import CANONICAL_SIZE, warp_to_crop
from diffpriv.faces.compositing import apply_patches
from diffpriv.faces.types import Patch
from diffpriv.pipeline import DiffPrivacyPipeline
from diffpriv.presets import Preset, load_preset, load_style_settings
from diffpriv.recognition import measured_threshold
from diffpriv.recognizers import DifferentiableRecognizer, Recognizer, load_recognizer
from diffpriv.stages import KeyOutput
from diffpriv.transforms.base import FaceRequest, FaceResult, fill_face, fill_patch
from diffpriv.transforms.face_run import FaceMaker, FaceRun, padded
from diffpriv.transforms.output_check import FALSE_ACCEPT_RATE, SMALLEST_SEEN, DetectionCheck, OutputCheck
from diffpriv.transforms.payloads import encode_exact, encode_image, encode_keys, stored_matrix
from diffpriv.transforms.spatial_faces import SpatialFaces
from diffpriv.transforms.style_faces import StyleFaces
from diffpriv.weights import HeadDrawing, load_head_drawing, load_pipeline, resolve_model, weights_digest

WANTED = 0.5  # of the limit: a face over that is tried again while attempts are left
RETRY_BATCH = 4  # later attempts are few: a large batch would be padding for the most part


class DiffPrivacyTransform:
    """Args:
    pipeline: the model, in evaluation mode, on its device.
    config: the settings; `similarity_limit` None is the recogniser's threshold at a false-accept rate of 1e-3.
    digest: names the weights.
    judge: a recogniser beside the model's own; results must pass it too, and if it is differentiable it guides them.
    drawing: the generator and what puts its heads in place; None draws new faces from spatial latents.
    """

    def __init__(
        self,
        pipeline: DiffPrivacyPipeline,
        config: TransformConfig,
        digest: str,
        judge: Recognizer | None = None,
        drawing: HeadDrawing | None = None,
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
        self._maker: FaceMaker = SpatialFaces(pipeline, config.task, self.preset)
        settings = load_style_settings(config.preset)
        if drawing is not None and settings is not None:
            self._maker = StyleFaces(pipeline, drawing.generator, drawing.viewer, config, settings, self.similarity_limit)

    @property
    def identity(self) -> str:
        judge = f" {'judge and guide' if self.pipeline.guides else 'judge'} {self._judge.identity}" if self._judge else ""
        arithmetic = str(self.pipeline.arithmetic).removeprefix("torch.")
        return f"diffprivacy/7 weights {self._digest[:16]} {arithmetic}{judge}"

    def _resolve_limit(self) -> float:
        if self.config.similarity_limit is not None:
            return self.config.similarity_limit
        advice = "Give similarity_limit, or a recogniser whose config.json has thresholds."
        return measured_threshold(self.pipeline.recognizer.config.get("thresholds") or {}, FALSE_ACCEPT_RATE, advice)

    def protect(self, requests: Sequence[FaceRequest]) -> list[FaceResult]:
        """New faces for all requests. The faces that an attempt leaves unsettled share the next attempt's micro-batches."""
        tries: list[FaceRun] = []
        for start in range(0, len(requests), self._batch):
            tries += self._begin(requests[start : start + self._batch])
        for attempt in range(self.config.max_attempts):
            unsettled = [face for face in tries if not face.settled]
            batch = self._batch if attempt == 0 else RETRY_BATCH
            for start in range(0, len(unsettled), batch):
                self._attempt(unsettled[start : start + batch], batch, attempt)
        return [face.best if face.best is not None else self._fill(face) for face in tries]

    def _begin(self, requests: Sequence[FaceRequest]) -> list[FaceRun]:
        """Stage 1 of one micro-batch: crops, keys, and the embeddings that results are compared with."""
        size = self.pipeline.crop_size
        canonical = [stored_matrix(request) for request in requests]
        matrices = [matrix * (size / CANONICAL_SIZE) for matrix in canonical]
        originals = [warp_to_crop(request.image, matrix, size) for request, matrix in zip(requests, matrices, strict=True)]
        crops = to_tensor(padded(originals, self._batch), self.pipeline.device)
        key = self.pipeline.create_key(crops, self.preset, noise_map=self.config.recovery == "keys")
        targets = list(zip(*self.pipeline.embed(crops), strict=True))
        references = self.check.references(requests, canonical)
        return [
            FaceRun(
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

    def _attempt(self, faces: Sequence[FaceRun], batch: int, attempt: int) -> None:
        """Stage 2 of one micro-batch, and the check of what came out, a candidate at a time until one of a face's passes.

        Candidates differ by what the face's key drew for them, so which one is the first to pass is the key's choice.
        """
        made = self._maker.make(faces, batch, attempt)
        for number in range(max(len(candidates) for candidates in made)):
            waiting = [(face, own[number]) for face, own in zip(faces, made, strict=True) if not face.settled]
            if waiting:
                self._settle([face for face, _ in waiting], [patch for _, patch in waiting], batch, attempt)

    def _settle(self, faces: Sequence[FaceRun], patches: Sequence[Patch], batch: int, attempt: int) -> None:
        """Keep what passes of one patch a face.

        Args:
            batch: the shape that checks are padded to.
        """
        rows = padded(list(faces), batch)
        payloads = self._payloads_after(rows, patches)
        requests, matrices = [face.request for face in faces], [face.matrix for face in faces]
        targets = torch.stack([face.targets[0] for face in rows])
        found = self.check.examine(requests, patches, matrices, [face.reference for face in faces], targets)
        for face, patch, payload, check in zip(faces, patches, payloads, found, strict=True):
            face.similarity = check.similarity
            if not self._acceptable(check):
                face.pushes += 1
                continue
            # With its landmarks elsewhere, or no face to be found, it is private but of less use, and nearer to the original
            # than strangers mostly are, it is of use but less private: kept if nothing better comes.
            nearer = 0.0 if self.config.task == "hide" else max(0.0, check.similarity - WANTED * self.similarity_limit)
            if face.best is None or check.moved + nearer < face.shortfall:
                face.best = FaceResult("protected", face.note, attempt + 1, check.similarity, patch, payload)
                face.shortfall, face.settled = check.moved + nearer, check.in_place and not nearer
            face.pushes += bool(nearer)

    def _acceptable(self, check: DetectionCheck) -> bool:
        if self.config.task == "hide":
            return check.matched if self._judge else check.similarity >= self.similarity_limit
        return check.similarity <= self.similarity_limit and not check.matched

    def _payload(self, request: FaceRequest, key: KeyOutput, row: int) -> bytes:
        """Material of the tier `keys`, the same whatever becomes of the face; b"" for the others."""
        if self.config.recovery == "keys" and key.key_i is not None:
            detail = None if key.detail is None else key.detail[row].cpu().numpy()
            arrays = key.key_e[row].cpu().numpy(), key.key_i[row].cpu().numpy()
            return encode_keys(request, self.config.task, *arrays, self.preset.inversion_steps, detail)
        return b""

    def _payloads_after(self, rows: Sequence[FaceRun], patches: Sequence[Patch]) -> list[bytes]:
        """Payloads of the first len(patches) faces, of those tiers too whose material depends on what stands in the picture.

        Args:
            rows: as many as a micro-batch has.
        """
        faces = rows[: len(patches)]
        if self.config.recovery == "exact":
            return [encode_exact(face.request, patch, self.config.task) for face, patch in zip(faces, patches, strict=True)]
        if self.config.recovery != "image":
            return [face.payload for face in faces]
        size = self.pipeline.crop_size
        published = [
            warp_to_crop(apply_patches(face.request.image, [patch]), face.matrix * (size / CANONICAL_SIZE), size)
            for face, patch in zip(faces, patches, strict=True)
        ]
        crops = torch.stack([face.crop for face in rows])
        seen = to_tensor(padded(published, len(rows)), self.pipeline.device)
        whole = isinstance(self._maker, StyleFaces) and self.config.cover != "face"
        sketches = self.pipeline.sketch(crops, seen, whole=whole)
        return [encode_image(face.request, self.config.task, sketch) for face, sketch in zip(faces, sketches, strict=False)]

    def _fill(self, face: FaceRun) -> FaceResult:
        side = "still too like" if self.config.task == "anonymize" else "no longer like"
        limit = f"limit {self.similarity_limit:.3f}{f', or by {self._judge.identity}' if self._judge else ''}"
        reason = f"{side} the original after {self.config.max_attempts} attempts ({limit})"
        (payload,) = self._payloads_after(padded([face], RETRY_BATCH), [fill_patch(face.request)])
        attempts, similarity = self.config.max_attempts, face.similarity
        return fill_face(face.request, reason, attempts=attempts, similarity=similarity, payload=payload)


def load_diffprivacy_transform(config: TransformConfig) -> DiffPrivacyTransform:
    """The transform of a model folder; "builtin" is the one inside the package.

    With a recogniser other than "builtin", every anonymised face must also be no match for that one, which guides as well if it
    is differentiable. The task `hide` keeps a face known to the recogniser that guides it, so that one has to be.

    Raises:
        ModelError, DetectorError: a model folder is missing or incomplete, or the recogniser has no measured threshold.
        MisuseError: a recogniser that this task cannot use.
    """
    folder = resolve_model(config.model)
    drawing = load_head_drawing(folder)
    if drawing is None and (config.cover, config.keep) != (TransformConfig.cover, TransformConfig.keep):
        raise MisuseError(
            f"The model {config.model} has no generator, so cover and keep mean nothing to it.",
            advice="Leave both out, or use the builtin model.",
        )
    return DiffPrivacyTransform(load_pipeline(folder), config, weights_digest(folder), _load_judge(config), drawing)


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
