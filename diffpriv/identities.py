"""Synthetic identities: one face of nobody per identity seed, which all photos of one person are drawn towards.

From the seed come traits, the numbers behind features of nobody (MSI's prior), and a noise map; the model generates a face from
them with no surroundings, in an average scene.
Of a few such candidates, the one least like the others' average stands for the person, so that two identities are told apart.
Three things are kept, and shared by all photos of the person: the traits, which with each photo's scene make the features that
condition the denoiser; the noise of sampling; and the generated face's embeddings, towards which guidance pulls.
Nothing of the person enters: an identity depends on the seed and the model alone.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from diffpriv.keyed_noise import keyed_normal
from diffpriv.sampling import Draw

CANDIDATES = 4
DRAWS = 12  # noise maps, one for each of the few steps of sampling
PULL = 3.0  # weight of the identity's embedding in the energy, against 1 for the push away from the original
REMEMBERED = 1024  # identities per process, about 100 KB each, and 4 KB more with a guide of 1,024 numbers


@dataclass(frozen=True, eq=False)
class SyntheticIdentity:
    """traits (prior_rank,) and noise (DRAWS, *latent_shape), of unit variance; embeddings (dim,) of unit length, one per
    recogniser of the pipeline's ensemble.
    """

    traits: torch.Tensor
    noise: torch.Tensor
    embeddings: list[torch.Tensor]


def noise_of_step(noise: torch.Tensor, index: int) -> torch.Tensor:
    """Of noise maps by step (DRAWS, ...) the one that step `index` takes; the last for any later one."""
    return noise[min(index, len(noise) - 1)]


class FaceModel(Protocol):
    """What of `DiffPrivacyPipeline` makes faces of nobody."""

    msi: Any
    denoiser: Any
    guides: Mapping[str, Any]

    @property
    def device(self) -> torch.device: ...

    @property
    def latent_shape(self) -> tuple[int, int, int]: ...

    def generate(self, features: torch.Tensor, draw: Draw) -> torch.Tensor: ...

    def embed(self, crops: torch.Tensor) -> list[torch.Tensor]: ...


class IdentityMaker:
    """Makes identities and remembers the last ones, since a person's photos often come together."""

    def __init__(self, pipeline: FaceModel) -> None:
        self._pipeline = pipeline
        self._known: OrderedDict[tuple[bytes, ...], SyntheticIdentity] = OrderedDict()

    def identity(self, seed: bytes) -> SyntheticIdentity:
        """The same bits for a seed at every call: candidates always run as one batch, in float32.

        Args:
            seed: 32 bytes, see `FaceRequest.identity_seed`.
        """
        which = (seed, *map(str.encode, self._pipeline.guides))
        known = self._known.pop(which, None)
        self._known[which] = known = known or self._make(seed)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return known

    @torch.no_grad()
    def _make(self, seed: bytes) -> SyntheticIdentity:
        pipeline, msi = self._pipeline, self._pipeline.msi
        person = keyed_normal(seed, "identity/person", (CANDIDATES, int(msi.config["prior_rank"])))
        traits = torch.from_numpy(person).to(pipeline.device)
        average = msi.scene_mean[None] if pipeline.denoiser.sees_surroundings else None
        features = msi.features_of_nobody(traits, average)
        drawn = keyed_normal(seed, "identity/noise", (DRAWS, CANDIDATES, *pipeline.latent_shape))
        noise = torch.from_numpy(drawn).to(pipeline.device)
        crops = pipeline.generate(features, lambda step: noise_of_step(noise, step)).clamp(-1, 1)
        embedded = pipeline.embed(crops)
        # All of a recogniser's embeddings point roughly one way; the candidates' mean tells which.
        chosen = int((embedded[0] @ embedded[0].mean(0)).argmin())
        return SyntheticIdentity(traits[chosen], noise[:, chosen], [one[chosen] for one in embedded])
