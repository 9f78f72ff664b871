"""Synthetic people: a keyed random embedding for each new face, of somebody who does not exist and is not the original.

Embeddings of drawn heads with given traits are about normal: a mean that is linear in the traits, and a spread of everything
else. A face's stranger has its prototype's traits and a keyed draw of the spread, so pulling towards it turns no prototype. Of
a few draws the first that is unlike the original is taken; which one that is tells an attacker nothing about where the
original lies beyond "not here", and never its opposite. Pure.
"""

from collections.abc import Callable

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch.nn import functional

from diffpriv.generator.traits import TRAITS

SPREAD_RANK = 64
DRAWS = 8  # of a stranger, until one is unlike the original


class SyntheticPeople(ModelMixin, ConfigMixin):
    """Args:
    embedding_dim: of the recogniser.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, embedding_dim: int = 128) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(embedding_dim))
        self.register_buffer("by_traits", torch.zeros(len(TRAITS), embedding_dim))
        self.register_buffer("spread", torch.zeros(SPREAD_RANK, embedding_dim))

    def _untold(self, draws: torch.Tensor) -> torch.Tensor:
        """(batch, dim) of the spread without what would say another gender or age than the traits do."""
        told, lengths = torch.linalg.qr(self.by_traits[[TRAITS.index(name) for name in ("male", "age")]].T)
        told = told[:, lengths.diagonal().abs() > 1e-6]
        return draws - (draws @ told) @ told.T

    def stranger(
        self,
        traits: torch.Tensor,
        draw: Callable[[int], torch.Tensor],
        unlike: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """(batch, dim) unit vectors.

        Args:
            traits: (batch, len(TRAITS)), standardised. draw: number of a try -> (batch, SPREAD_RANK) standard normal.
            unlike: (batch, dim) -> (batch,) bool, whether these will do; None takes the first.
        """
        chosen: torch.Tensor | None = None
        done = torch.zeros(len(traits), dtype=torch.bool, device=traits.device)
        for number in range(DRAWS):
            apart = self._untold(draw(number) @ self.spread)
            person = functional.normalize(self.mean + traits @ self.by_traits + apart, dim=1)
            chosen = person if chosen is None else torch.where(done[:, None], chosen, person)
            if unlike is None:
                break
            done = done | unlike(person)
            if bool(done.all()):
                break
        if chosen is None:
            raise ValueError("DRAWS is zero")
        return chosen
