"""The three stages of Diff-Privacy as one diffusers pipeline: create_key, protect, recover.

Source: He et al. 2023, *Diff-Privacy: Diffusion-based Face Privacy Protection* (arXiv 2309.05330). Differences on purpose: MSI
is amortised (one forward pass a face), the denoiser sees the surroundings of the face, and everything random comes from a
face's seed. Works on aligned crops; finding faces and putting them back is `diffpriv.faces`. Knows no files beyond its own
model folder, no engine and no key store.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from torch.nn import functional

from diffpriv.denoising import Conditions, Denoiser, Surroundings
from diffpriv.energies.hiding import HidingEnergy
from diffpriv.energies.identity import IdentityEnergy
from diffpriv.energies.repulsion import CandidateRepulsion
from diffpriv.faces.alignment import CANONICAL_LANDMARKS
from diffpriv.faces.compositing import face_mask, skin_weight
from diffpriv.faces.marks import landmark_marks
from diffpriv.faces.masks import blank_mask
from diffpriv.guidance import Energy, guidance_direction, guided
from diffpriv.identities import PULL, IdentityMaker, SyntheticIdentity, noise_of_step
from diffpriv.inversion import invert, regenerate
from diffpriv.keyed_noise import candidate_seed, keyed_normal
from diffpriv.latents import LATENT_SCALE, decode_latents, encode_crops, encode_detail
from diffpriv.models.autoencoder import FaceAutoencoder
from diffpriv.models.clip_inverter import ClipInverter, clip_features
from diffpriv.models.msi import MultiScaleInverter
from diffpriv.models.recognizer import FaceRecognizer
from diffpriv.noise_schedule import Prediction
from diffpriv.presets import Preset
from diffpriv.recognition import DifferentiableRecognizer
from diffpriv.refinement import refined
from diffpriv.sampling import Draw, Guidance, Guide, Keep, sample
from diffpriv.scenes import scene_vector, seen_around
from diffpriv.schedules import scheduled_tokens
from diffpriv.sketches import apply_sketch, covers_whole, face_places, make_sketch
from diffpriv.stages import KeyOutput, ProtectOutput, SpatialRun

# Of faces that are generated alone.
ALONE_STEPS, ALONE_FEW_STEPS = 14, 10
ALONE_CONTRAST, ALONE_TEMPERATURE = 2.0, 0.8


class DiffPrivacyPipeline(DiffusionPipeline):
    """Reversible pseudonymisation of aligned face crops.

    All methods take crops (n, 3, size, size), float32 RGB in [-1, 1], on the pipeline's device; `crop_size` is 128 for the
    builtin model. n is free, but the bits of a result depend on n (summation order in kernels), so callers that need
    reproducible bytes keep n fixed. `arithmetic` torch.bfloat16 computes convolutions and products of protection and inversion
    in half precision (autocast); recovery is always float32. `guides` are recognisers by name that guide protection beside the
    component `recognizer`; their names enter what is drawn for them, and they are no part of the saved folder. `few_steps` says
    that the denoiser was trained to give faces rather than means of faces, so that few steps do; the folder keeps it.
    """

    _optional_components: ClassVar[list[str]] = ["image_encoder"]  # CLIP's vision tower, which a ClipInverter looks through

    def __init__(
        self,
        vae: FaceAutoencoder | AutoencoderKL,
        unet: UNet2DConditionModel,
        scheduler: DDIMScheduler,
        msi: MultiScaleInverter | ClipInverter,
        recognizer: FaceRecognizer,
        image_encoder: torch.nn.Module | None = None,
        few_steps: bool = False,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae, unet=unet, scheduler=scheduler, msi=msi, recognizer=recognizer, image_encoder=image_encoder
        )
        self.register_to_config(few_steps=few_steps)
        self.denoiser = Denoiser(unet, scheduler)
        self.arithmetic = torch.float32
        self.guides: dict[str, DifferentiableRecognizer] = {}
        self._identities = IdentityMaker(self)

    @property
    def crop_size(self) -> int:
        """Side of the canonical square that this model works on, in pixels."""
        return int(self.unet.config["sample_size"]) * LATENT_SCALE

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        side = int(self.unet.config["sample_size"])
        return int(self.unet.config["out_channels"]), side, side

    @property
    def key_shapes(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...] | None]:
        """Of one face's key-E, key-I and detail, None without."""
        depths, features = self.msi.prior_mean.shape[-2:]
        channels = self.vae.config.get("detail_channels") or 0
        detail = (channels, *self.latent_shape[1:]) if channels else None
        return (depths, features), self.latent_shape, detail

    def surroundings(self, crops: torch.Tensor, landmarks: np.ndarray) -> Surroundings:
        """What the denoiser may see of these crops, see `scenes.seen_around`, and where it is blanked."""
        blank = torch.from_numpy(blank_mask(crops.shape[-1])).to(crops)[None, None]
        mask = functional.avg_pool2d(blank, LATENT_SCALE).expand(len(crops), -1, -1, -1)
        return Surroundings(encode_crops(self.vae, seen_around(crops, landmarks)), mask)

    def nothing_around(self, count: int) -> Surroundings:
        """Surroundings of a crop blanked whole: the condition under which key-I is made and read."""
        blank = torch.zeros(1, 3, self.crop_size, self.crop_size, device=self.device)
        latent = encode_crops(self.vae, blank).expand(count, -1, -1, -1)
        return Surroundings(latent, torch.ones(count, 1, *latent.shape[2:], device=self.device))

    @torch.no_grad()
    def create_key(self, crops: torch.Tensor, preset: Preset, *, noise_map: bool = True) -> KeyOutput:
        """Stage 1. key-E by one pass of MSI, refined if the preset says so, and quantised; key-I by deterministic inversion
        under the quantised key-E.

        Args:
            noise_map: False leaves key-I out (tiers that keep none), which saves nearly all of the cost.
        """
        latent = encode_crops(self.vae, crops)
        features = self.features(crops, latent)
        if not (noise_map or preset.refinement_steps):
            return KeyOutput(self.msi.quantise(features))
        nothing_around = self.nothing_around(len(crops))
        if preset.refinement_steps:
            with self._autocast():
                features = refined(features, latent, self.msi, self.denoiser, nothing_around, steps=preset.refinement_steps)
        key_e = self.msi.quantise(features)
        if not noise_map:
            return KeyOutput(key_e)
        tokens = self.msi.stage_tokens(self.msi.dequantise(key_e))
        with self._autocast():
            output = invert(
                latent,
                tokens,
                nothing_around,
                self.denoiser,
                steps=preset.inversion_steps,
                max_refinements=preset.inversion_refinements,
            )
        return KeyOutput(key_e, output.noise_map, output.residual, encode_detail(self.vae, crops))

    def features(self, crops: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        """What MSI reads from crops and their latents, (n, depths, dim): key-E before it is quantised."""
        if isinstance(self.msi, ClipInverter):
            return self.msi(clip_features(self.image_encoder, crops, self.msi.layers)).features
        return self.msi(latent).features

    @torch.no_grad()
    def embed(self, crops: torch.Tensor) -> list[torch.Tensor]:
        """Embeddings of crops under each recogniser of guidance's ensemble, the component's first, (n, dim) each."""
        return [recognizer.embed_canonical(crops) for recognizer in self._ensemble()]

    def _ensemble(self) -> list[DifferentiableRecognizer]:
        return [self.recognizer, *self.guides.values()]

    @torch.no_grad()
    def protect(
        self,
        crops: torch.Tensor,
        key_e: torch.Tensor,
        seeds: Sequence[bytes],
        task: str,
        preset: Preset,
        *,
        landmarks: np.ndarray | None = None,
        attempt: int = 0,
        pushes: Sequence[int] = (),
        identity_seeds: Sequence[bytes | None] = (),
        targets: Sequence[torch.Tensor] = (),
    ) -> ProtectOutput:
        """Stage 2: a new face for each crop, determined by its seed.

        Args:
            key_e: (n, 3, 160) int8 of the originals. seeds: n times 32 bytes.
            task: "anonymize" or "hide". landmarks: where the new face's are to be, (n, 5, 2) pixels of the
                128 px canonical square; None is the canonical ones, a face from the front.
            attempt: 0, 1, …: enters the noise. pushes: how much harder guidance is to push, 0 for each face by default.
            identity_seeds: n of them where some faces of `anonymize` get an identity that they share (`diffpriv.identities`).
            targets: what `embed` gives for the crops, for who has it already.
        """
        run = self._spatial_run(crops, key_e, seeds, task, preset, landmarks, attempt, identity_seeds, targets)
        conditions = self._conditions(run)
        few_steps = preset.few_steps if self.config["few_steps"] else 0
        strength, noise = 1.0 if few_steps else preset.strength, run.draw(0)
        timesteps = self.denoiser.timesteps(few_steps or preset.steps, strength)
        signal, spread = self.denoiser.coefficients(timesteps[0])
        start = encode_crops(self.vae, run.crops) if strength < 1 else torch.zeros_like(noise)
        sees = self.denoiser.sees_surroundings
        contrast = 1.0 if few_steps else preset.contrast
        region = self._skin(run.crops) if sees else None

        def predict(state: torch.Tensor, timestep: int) -> Prediction:
            return self.denoiser.predict_contrasted(state, timestep, conditions, contrast, region)

        with self._autocast():
            latent = sample(
                signal * start + spread * noise,
                timesteps,
                predict,
                self.denoiser,
                order=1 if few_steps else preset.order,
                guidance=self._guidance(run, pushes),
                keep=None if sees else self._keep(run.crops, noise),
                renew=run.draw if few_steps else None,
            )
        made = self._in_place(latent, run.crops).clamp(-1, 1).unflatten(0, (-1, preset.candidates))
        return ProtectOutput(made[:, 0], made)

    def _spatial_run(
        self,
        crops: torch.Tensor,
        key_e: torch.Tensor,
        seeds: Sequence[bytes],
        task: str,
        preset: Preset,
        landmarks: np.ndarray | None,
        attempt: int,
        identity_seeds: Sequence[bytes | None],
        targets: Sequence[torch.Tensor],
    ) -> SpatialRun:
        """The arguments of `protect`, once for each candidate of each face; nine of them because `protect` has as many."""
        targets, candidates = targets or self.embed(crops), preset.candidates
        crops, key_e, *targets = (tensor.repeat_interleave(candidates, 0) for tensor in (crops, key_e, *targets))
        landmarks = (
            np.repeat(CANONICAL_LANDMARKS[None], len(key_e), 0) if landmarks is None else np.repeat(landmarks, candidates, 0)
        )
        seeds = [candidate_seed(seed, number) for seed in seeds for number in range(candidates)]
        identity_seeds = [one for one in identity_seeds for _ in range(candidates)]
        people = {row: self._identities.identity(one) for row, one in enumerate(identity_seeds) if one is not None}

        def draw(index: int) -> torch.Tensor:
            drawn = self._keyed_normal(seeds, f"start/{attempt}" if not index else f"step/{attempt}/{index}", self.latent_shape)
            for row, person in people.items():
                drawn[row] = noise_of_step(person.noise, index)
            return preset.temperature * drawn

        return SpatialRun(crops, key_e, seeds, task, preset, landmarks, attempt, people, targets, draw)

    def _conditions(self, run: SpatialRun) -> Conditions:
        """Tokens by the task's embedding schedule; below it, those of somebody who does not exist where the model takes
        such."""
        preset = run.preset
        # Later attempts of `anonymize` forget key-E altogether.
        conditional_from = preset.conditional_from if run.task == "hide" or run.attempt == 0 else 1000
        surroundings = self.surroundings(run.crops, run.landmarks)
        traits = self._keyed_normal(run.seeds, f"nobody/{run.attempt}", (int(self.msi.config["prior_rank"]),))
        for row, person in run.people.items():
            traits[row] = person.traits
        nobody = self._features_of_nobody(traits, surroundings, run.landmarks)
        conditional_below = (self.config["few_steps"] and preset.few_steps) or preset.contrast != 1
        tokens = scheduled_tokens(
            self.msi, self.msi.dequantise(run.key_e), conditional_from, nobody if conditional_below else None
        )
        for row in run.people if not conditional_below else ():
            tokens[row] = self.msi.stage_tokens(nobody[row : row + 1])[0]
        return Conditions(tokens, self.msi.null_stage_tokens(len(run.crops)), surroundings)

    def _guidance(self, run: SpatialRun, pushes: Sequence[int]) -> Guidance | None:
        preset = run.preset
        if not preset.guidance_scale:
            return None
        harder = torch.tensor([float(one) for one in pushes or [0] * (len(run.crops) // preset.candidates)], device=self.device)
        scale = preset.guidance_scale * (1 + 0.75 * harder.repeat_interleave(preset.candidates)[:, None, None, None])
        energy = self._energy(run.task, run.crops, preset, run.seeds, run.people, run.targets)
        guide = self._guide(energy, run.crops, scale)
        return Guidance(guide, preset.guidance_every, preset.guidance_above, preset.guidance_last)

    def _features_of_nobody(self, traits: torch.Tensor, surroundings: Surroundings, landmarks: np.ndarray) -> torch.Tensor:
        if not self.denoiser.sees_surroundings:
            return self.msi.features_of_nobody(traits)
        return self.msi.features_of_nobody(traits, scene_vector(surroundings.latent, torch.from_numpy(landmarks).to(traits)))

    @torch.no_grad()
    def generate(self, features: torch.Tensor, draw: Draw) -> torch.Tensor:
        """Whole crops of people who do not exist, from the front: (n, 3, size, size) float32, not clamped; nothing guides.

        Args:
            features: of nobody, (n, depths, dim). draw: standard normal numbers of (n, *latent_shape) for each step's index.
        """
        count, few_steps = len(features), self.config["few_steps"]
        nothing_around = self.nothing_around(count)
        if few_steps:  # it was trained on whole crops blanked, but for the landmarks
            marks = torch.from_numpy(landmark_marks(CANONICAL_LANDMARKS[None], self.crop_size)).to(self.device)
            nothing_around = Surroundings(encode_crops(self.vae, marks).expand(count, -1, -1, -1), nothing_around.mask)
        conditions = Conditions(self.msi.stage_tokens(features), self.msi.null_stage_tokens(count), nothing_around)
        contrast = 1.0 if few_steps else ALONE_CONTRAST

        def cooler(index: int) -> torch.Tensor:
            return ALONE_TEMPERATURE * draw(index)

        def predict(state: torch.Tensor, timestep: int) -> Prediction:
            return self.denoiser.predict_contrasted(state, timestep, conditions, contrast)

        latent = sample(
            cooler(0),
            self.denoiser.timesteps(ALONE_FEW_STEPS if few_steps else ALONE_STEPS),
            predict,
            self.denoiser,
            order=1 if few_steps else 2,
            renew=cooler if few_steps else None,
        )
        return decode_latents(self.vae, latent)

    def _keep(self, crops: torch.Tensor, noise: torch.Tensor) -> Keep:
        """What a denoiser that is not told of the surroundings needs: they are put back, as noisy as the rest, at each step."""
        known = encode_crops(self.vae, crops)
        places = face_places(known.shape[-1]).to(known.device)

        def keep(state: torch.Tensor, timestep: int) -> torch.Tensor:
            signal, spread = self.denoiser.coefficients(timestep)
            return torch.where(places, state, signal * known + spread * noise)

        return keep

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.arithmetic == torch.bfloat16)

    def _keyed_normal(self, seeds: Sequence[bytes], label: str, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.from_numpy(np.stack([keyed_normal(seed, label, shape) for seed in seeds])).to(self.device)

    def _guide(self, energy: Energy, crops: torch.Tensor, scale: torch.Tensor) -> Guide:
        """Energy guidance inside the face mask, for what the viewer would see."""
        region = functional.avg_pool2d(self._blend(crops), LATENT_SCALE)

        def guide(state: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
            return guided(state, guidance_direction(clean, lambda z: self._in_place(z, crops), energy), region, scale)

        return guide

    def _blend(self, crops: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(face_mask(crops.shape[-1])).to(crops)[None, None]

    def _skin(self, crops: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(torch.from_numpy(skin_weight(crops.shape[-1])).to(crops)[None, None], LATENT_SCALE)

    def _in_place(self, latent: torch.Tensor, crops: torch.Tensor) -> torch.Tensor:
        """The decoded face inside the face mask, `crops` outside; not clamped, differentiable."""
        blend = self._blend(crops)
        return blend * decode_latents(self.vae, latent) + (1 - blend) * crops

    def _energy(
        self,
        task: str,
        crops: torch.Tensor,
        preset: Preset,
        seeds: Sequence[bytes],
        people: Mapping[int, SyntheticIdentity],
        targets: Sequence[torch.Tensor],
    ) -> Energy:
        ensemble = self._ensemble()
        if task == "hide":  # for the guide that was brought, or else the model's own
            return HidingEnergy(ensemble[-1], crops, targets[-1], self._blend(crops)[0, 0], push=2.0, distance=0.5)
        labels = ["direction", *(f"direction/{name}" for name in self.guides)]
        directions = [
            functional.normalize(self._keyed_normal(seeds, label, (target.shape[1],)), dim=1)
            for label, target in zip(labels, targets, strict=True)
        ]
        for row, person in people.items():
            for direction, embedding in zip(directions, person.embeddings, strict=True):
                direction[row] = PULL * embedding
        alone = torch.tensor([row not in people for row in range(len(crops))], device=self.device)
        repulsion = CandidateRepulsion(preset.candidates, alone) if preset.candidates > 1 else None
        return IdentityEnergy(ensemble, targets, preset.margin, directions, repulsion)

    @torch.no_grad()
    def recover(
        self, key_e: torch.Tensor, key_i: torch.Tensor, *, steps: int, detail: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Stage 3, tier `keys`: the original crops, (n, 3, size, size) in [-1, 1], from what `create_key` gave alone."""
        tokens = self.msi.stage_tokens(self.msi.dequantise(key_e))
        latent = regenerate(key_i, tokens, self.nothing_around(len(key_e)), self.denoiser, steps=steps)
        return decode_latents(self.vae, latent, detail).clamp(-1, 1)

    @torch.no_grad()
    def sketch(self, crops: torch.Tensor, published: torch.Tensor, *, whole: bool = False) -> np.ndarray:
        """Stage 1 of the tier `image`, made last: what leads from the published face back, (n, numbers) int8.

        Args:
            published: the same squares, cut from the picture as it is published.
            whole: see `make_sketch`.
        """
        return make_sketch(encode_crops(self.vae, crops), encode_crops(self.vae, published), whole=whole)

    @torch.no_grad()
    def recover_in_picture(self, published: torch.Tensor, sketch: np.ndarray) -> torch.Tensor:
        """Stage 3, tier `image`: the original crops, coarser, from the published ones and their sketches.

        Args:
            published: crops of the published picture, (n, 3, size, size).
        """
        seen = encode_crops(self.vae, published)
        latent = apply_sketch(seen, sketch)
        made = decode_latents(self.vae, latent) if covers_whole(seen, sketch) else self._in_place(latent, published)
        return made.clamp(-1, 1)
