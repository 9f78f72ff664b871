"""New faces from the generator: a wish read from the photo, codes sampled for it, the best one drawn and put in place."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from diffpriv.config import TransformConfig
from diffpriv.crops import to_tensor
from diffpriv.faces.alignment import CANONICAL_SIZE, warp_to_crop
from diffpriv.faces.appearance import TOLD, coarse, measure_appearance
from diffpriv.faces.compositing import apply_patches, plane_in_patch
from diffpriv.faces.covers import Drawing, put_in_place
from diffpriv.faces.finish import Finish, measure_sharpness
from diffpriv.faces.head_fit import is_turned_away, rate_drawing
from diffpriv.faces.head_view import HeadView
from diffpriv.faces.types import Patch
from diffpriv.generator.style_generator import DRAWN_LANDMARKS, StyleGenerator, StyleSettings
from diffpriv.generator.traits import TRAITS
from diffpriv.generator.wishes import Wishes
from diffpriv.head_viewer import HeadViewer
from diffpriv.keyed_noise import keyed_uniform
from diffpriv.perturbation import perturbation
from diffpriv.pipeline import DiffPrivacyPipeline
from diffpriv.transforms.face_run import FaceRun, padded

FRAME_WIDTH = 4.1  # of a drawing, in eye distances
OVERSAMPLED = 1.2  # drawing pixels a picture pixel, at least: a head's finest octave is soft
# Of similarity to the original, by the reader, below which nothing pushes: drawn, faces end near strangers'. What a cover
# leaves of the photo looks like its owner, so the less it covers the further the face is pushed.
MARGIN = {"head": 0.0, "square": 0.0, "face": -0.5}
TURNED_AWAY = "turned too far for a whole head: face alone covered"  # counted in the report
TONE = ("light", "green_red", "blue_yellow")
KEYED_HAIR = ("fringe", "crown", "hair_light", "hair_red", "hair_yellow")  # with a head's own hair these come from the key
MALE, ALIKE = TRAITS.index("male"), 0.8  # hair is another prototype's whose apparent gender is about the same
HIDE_MARGIN = 0.25  # of similarity above the limit, so that it lasts through JPEG and resizing


@dataclass(frozen=True, eq=False)
class _Context:
    photo: HeadView
    places: np.ndarray
    looks: torch.Tensor
    finish: Finish


class StyleFaces:
    """Args:
    pipeline: the model. generator, viewer: of its folder. config: of the job. settings: of sampling.
    limit: similarity to the original that is the most (`anonymize`) or the least (`hide`).
    """

    def __init__(
        self,
        pipeline: DiffPrivacyPipeline,
        generator: StyleGenerator,
        viewer: HeadViewer,
        config: TransformConfig,
        settings: StyleSettings,
        limit: float,
    ) -> None:
        self._pipeline, self._generator, self._viewer = pipeline, generator, viewer
        self._config, self._settings, self._limit = config, settings, limit
        self._spread = float(pipeline.recognizer.config["spread"])

    def make(self, faces: Sequence[FaceRun], batch: int, attempt: int) -> list[list[Patch]]:
        """See `FaceMaker`. Codes are sampled in batches of a fixed shape; the rest is done face by face."""
        for face in faces:
            if face.context is None:
                face.context = self._look(face)
        rows = padded(list(faces), batch)
        wishes = self._wishes(rows, attempt)
        seeds = [face.request.seed for face in rows]
        keep_hair = self._config.cover == "face"
        codes = self._generator.codes(
            wishes, seeds, self._settings, spread=self._spread, keep_hair=keep_hair, attempt=attempt
        ).codes
        return [[self._make(face, own)] for face, own in zip(faces, codes, strict=False)]

    def _wishes(self, faces: Sequence[FaceRun], attempt: int) -> Wishes:
        device = self._pipeline.device
        pushes = torch.tensor([float(face.pushes) for face in faces], device=device)
        wishes = Wishes(
            torch.from_numpy(np.stack([face.context.places for face in faces])).to(device),
            torch.stack([face.context.looks for face in faces]),
            torch.stack([self._person(face, attempt) for face in faces]),
            torch.stack([face.targets[0] for face in faces]),
            MARGIN[self._config.cover] - 0.1 * pushes,
            1 + pushes,
        )
        shared = torch.tensor([face.request.identity_seed is not None for face in faces], device=device)
        return self._shared(wishes, shared, faces) if bool(shared.any()) else wishes

    def _shared(self, wishes: Wishes, shared: torch.Tensor, faces: Sequence[FaceRun]) -> Wishes:
        """The same wishes, but where photos share a person all start at that one, and are told its looks."""
        seeds = [face.request.identity_seed or face.request.seed for face in faces]
        start = self._generator.people_latents(seeds, self._settings)
        reading = self._generator.read(start)
        looks = self._generator.prototypes.standardised(reading.numbers)
        return replace(
            wishes,
            looks=torch.where(shared[:, None], looks, wishes.looks),
            person=torch.where(shared[:, None], reading.embedding, wishes.person),
            start=start.masked_fill(~shared[:, None, None], torch.nan),
        )

    def _make(self, face: FaceRun, codes: torch.Tensor) -> Patch:
        """Args:
        codes: (draws, 2, 512), the best first.
        """
        context: _Context = face.context
        cover = self._config.cover
        if cover != "face" and is_turned_away(context.photo):
            cover, face.note = "face", TURNED_AWAY
        drawing = self._draw(codes[0], context.photo) if cover == "face" else self._best_head(codes, context.photo)
        patch = put_in_place(face.request.image, context.photo, drawing, cover, context.finish)
        return self._known_again(face, patch) if self._config.task == "hide" else patch

    def _best_head(self, codes: torch.Tensor, photo: HeadView) -> Drawing:
        """The first drawing that fits, or of a few the one with the smallest fault."""
        best, smallest = None, math.inf
        for code in codes[: self._settings.drawings]:
            drawing = self._draw(code, photo)
            fault = rate_drawing(photo, drawing).fault
            if best is None or fault < smallest:
                best, smallest = drawing, fault
            if fault <= 1:
                break
        if best is None:
            raise ValueError("settings.drawings is zero")
        return best

    def _draw(self, code: torch.Tensor, photo: HeadView) -> Drawing:
        pixels = self._generator.draw(code, self._side(photo))
        return Drawing(pixels, self._viewer.look(pixels, DRAWN_LANDMARKS * len(pixels)))

    def _look(self, face: FaceRun) -> _Context:
        photo = self._viewer.look(face.request.image, face.request.face.landmarks)
        places = coarse(measure_appearance(face.request.image, photo.mesh).vector())
        keys = self._pipeline.msi.dequantise(face.key_e[None])
        looks = self._generator.prototypes.keep(keys, self._config.keep).traits[0]
        if self._config.cover != "face":
            looks = self._other_hair(looks, face.request.seed)
        tone = places[[TOLD.index(name) for name in TONE]]
        return _Context(photo, places, looks, Finish(measure_sharpness(face.request.image, photo.mesh), tone))

    def _other_hair(self, looks: torch.Tensor, seed: bytes) -> torch.Tensor:
        """The looks with hair that the face's key draws: where the photo's own hair goes, nothing of it need be kept but its
        length, which decides what hangs on neck and shoulders."""
        prototypes = self._generator.prototypes
        choices = prototypes.set_of(self._config.keep)
        alike = choices[(choices[:, MALE] - looks[MALE]).abs() < ALIKE]
        if not len(alike):
            return looks
        drawn = alike[int(keyed_uniform(seed, "hair", 1)[0] * len(alike))]
        hair = torch.tensor([name in KEYED_HAIR for name in TRAITS], device=looks.device)
        return torch.where(hair, drawn, looks)

    def _person(self, face: FaceRun, attempt: int) -> torch.Tensor:
        """A face's own stranger."""
        label, unlike = f"person/{attempt}", 1 - (1 + 0.3) * self._spread
        return self._generator.person(face.context.looks, face.request.seed, label, face.targets[0], unlike)

    def _side(self, photo: HeadView) -> int:
        """Pixels a drawing needs to be no softer than its picture."""
        wanted = math.ceil(OVERSAMPLED * FRAME_WIDTH * photo.mesh.eye_distance)
        return min(wanted, self._settings.largest_side)

    def _known_again(self, face: FaceRun, patch: Patch) -> Patch:
        """The patch with the smallest change, within bounds, that lets the guiding recogniser know the person."""
        ensemble = [self._pipeline.recognizer, *self._pipeline.guides.values()]
        published = warp_to_crop(apply_patches(face.request.image, [patch]), face.matrix)
        crop = to_tensor([published], self._pipeline.device)
        region = self._region(face, patch)
        enough = (self._limit if len(ensemble) == 1 else 1 - (1 - ensemble[-1].threshold(1e-3)) / 0.65) + HIDE_MARGIN
        change = perturbation(crop, region, ensemble[-1], face.targets[-1][None], enough)[0]
        levels = change.permute(1, 2, 0).cpu().numpy() * 127.5
        corner, size = (patch.x, patch.y), patch.alpha.shape[::-1]
        added = np.stack([plane_in_patch(levels[..., channel], face.matrix, corner, size) for channel in range(3)], 2)
        pixels = np.clip(np.rint(patch.pixels + added), 0, 255).astype(np.uint8)
        return Patch(patch.x, patch.y, pixels, patch.alpha)

    def _region(self, face: FaceRun, patch: Patch) -> torch.Tensor:
        """(1, 1, 128, 128): where the patch is opaque, in the canonical crop."""
        height, width = face.request.image.shape[:2]
        plane = np.zeros((height, width, 3), np.uint8)
        rows, columns = patch.alpha.shape
        plane[patch.y : patch.y + rows, patch.x : patch.x + columns] = (255 * patch.alpha[..., None]).astype(np.uint8)
        inside = warp_to_crop(plane, face.matrix, CANONICAL_SIZE)[..., 0].astype(np.float32) / 255
        return torch.from_numpy(inside)[None, None].to(self._pipeline.device)
