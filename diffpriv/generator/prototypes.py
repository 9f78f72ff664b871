"""Prototypes of key-E: the hard bound on what of a covered face's looks may reach the new one.

A linear map takes key-E to the traits of `traits.TRAITS`; `keep` bits choose the nearest of 2 ** bits prototypes, and only the
prototype's traits are passed on: at most `keep` bits of information, whatever the map reads. Prototypes were fitted on training
photos (k-means, a set for each number of bits). Pure.
"""

from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin

from diffpriv.generator.traits import READ, TRAITS

MOST_BITS = 8


@dataclass(frozen=True, eq=False)
class KeptLooks:
    """traits: (batch, len(TRAITS)), standardised, of the prototype. index: (batch,) int64, which one; bits of it are all that
    is kept.
    """

    traits: torch.Tensor
    index: torch.Tensor


class LookPrototypes(ModelMixin, ConfigMixin):
    """Args:
    key_size: how many numbers a key-E has.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, key_size: int = 480) -> None:
        super().__init__()
        self.register_buffer("key_mean", torch.zeros(key_size))
        self.register_buffer("key_scale", torch.ones(key_size))
        self.register_buffer("projection", torch.zeros(key_size, len(TRAITS)))
        self.register_buffer("trait_mean", torch.zeros(len(TRAITS)))
        self.register_buffer("trait_scale", torch.ones(len(TRAITS)))
        # Sets of 1, 2, 4, … 256 prototypes, one after the other.
        self.register_buffer("centres", torch.zeros(2 ** (MOST_BITS + 1) - 1, len(TRAITS)))
        # How much each trait counts for which prototype is nearest.
        self.register_buffer("weights", torch.ones(len(TRAITS)))

    def standardised(self, numbers: torch.Tensor) -> torch.Tensor:
        """(batch, len(READ)) numbers of a reading -> (batch, len(TRAITS)), in units of the prototypes' spread."""
        traits = numbers[:, [READ.index(name) for name in TRAITS]]
        return (traits - self.trait_mean) / self.trait_scale

    def project(self, key_e: torch.Tensor) -> torch.Tensor:
        """(batch, depths, numbers) dequantised key-E -> (batch, len(TRAITS)), standardised: an estimate, not a measurement."""
        return ((key_e.flatten(1).float() - self.key_mean) / self.key_scale) @ self.projection

    def set_of(self, bits: int) -> torch.Tensor:
        """(2 ** bits, len(TRAITS)) standardised traits of the prototypes.

        Raises:
            ValueError: bits out of range.
        """
        if not 0 <= bits <= MOST_BITS:
            raise ValueError(f"keep has {bits} bits; 0 to {MOST_BITS} are possible")
        return self.centres[2**bits - 1 : 2 ** (bits + 1) - 1]

    def keep(self, key_e: torch.Tensor, bits: int) -> KeptLooks:
        """The prototypes of n faces.

        Args:
            key_e: (batch, depths, numbers), dequantised. bits: 0 to MOST_BITS; 0 keeps nothing, one prototype is everybody's.
        Raises:
            ValueError: bits out of range.
        """
        centres = self.set_of(bits)
        distance = torch.cdist(self.project(key_e) * self.weights, centres * self.weights)
        index = distance.argmin(1)
        return KeptLooks(centres[index], index)
