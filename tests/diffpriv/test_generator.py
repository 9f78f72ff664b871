"""The generator's parts: exact where they promise it, bounded where they bound."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from diffpriv.crops import to_tensor
from diffpriv.faces.appearance import STEPS, TOLD, coarse
from diffpriv.generator.codes import StyleSpace, draw_codes, level_styles
from diffpriv.generator.mapping import MappingNetwork
from diffpriv.generator.people import SPREAD_RANK, SyntheticPeople
from diffpriv.generator.prototypes import MOST_BITS, LookPrototypes
from diffpriv.generator.traits import TRAITS
from diffpriv.generator.wavelet import inverse_haar
from diffpriv.perturbation import BOUND, perturbation
from diffpriv.training.small_pictures import haar_bands
from tests.diffpriv.face_pictures import texture

pytestmark = pytest.mark.usefixtures("one_thread")


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_inverse_haar_transform_undoes_the_transform_and_keeps_energy():
    pictures = normal(2, 3, 8, 12)
    bands = haar_bands(pictures)
    assert torch.allclose(inverse_haar(bands), pictures, atol=1e-6)
    assert float(bands.square().sum()) == pytest.approx(float(pictures.square().sum()), rel=1e-5)


def test_an_average_band_alone_gives_a_picture_of_flat_blocks():
    bands = torch.zeros(1, 4, 1, 2)
    bands[0, 0, 0] = torch.tensor([2.0, 4.0])
    assert inverse_haar(bands)[0, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2]]


@pytest.fixture(scope="module")
def mapping() -> MappingNetwork:
    torch.manual_seed(4)
    return MappingNetwork(dim=16, depth=3).eval().requires_grad_(False)


def test_style_codes_come_back_from_their_standard_coordinates(mapping):
    codes = draw_codes(mapping, normal(500, 2, 16), 0.9)
    space = StyleSpace(dim=16)
    space.fit(codes.flatten(0, 1))
    latents = space.latent(codes)
    assert torch.allclose(space.code(latents), codes, atol=1e-4)
    assert abs(float(latents.mean())) < 0.05
    assert 0.9 < float(latents.std()) < 1.1


def test_truncation_draws_codes_to_their_mean_each_by_its_own_factor(mapping):
    numbers = normal(3, 2, 16)
    codes = draw_codes(mapping, numbers, torch.tensor([[0.0], [0.5], [1.0]]))
    whole = draw_codes(mapping, numbers, 1.0)
    assert torch.allclose(codes[0], mapping.mean.expand(2, -1))
    assert torch.allclose(codes[1], (whole[1] + mapping.mean) / 2, atol=1e-6)
    assert torch.equal(codes[2], whole[2])


def test_the_coarse_levels_take_the_first_style_and_the_fine_ones_the_second():
    styles = level_styles(torch.stack([torch.zeros(1, 4), torch.ones(1, 4)], 1))
    assert styles[0, :, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.fixture(scope="module")
def prototypes() -> LookPrototypes:
    made = LookPrototypes(key_size=24)
    made.projection.copy_(normal(24, len(TRAITS), seed=5))
    made.centres.copy_(normal(*made.centres.shape, seed=6))
    return made


@pytest.mark.parametrize("bits", range(MOST_BITS + 1))
def test_no_more_than_the_bits_that_are_kept_reach_a_new_face(prototypes, bits):
    kept = prototypes.keep(3 * normal(3000, 3, 8, seed=7), bits)
    looks = torch.unique(kept.traits, dim=0)
    assert len(looks) <= 2**bits
    assert len(looks) > 2 ** (bits - 1) * 0.6  # and the bits that are granted are used
    assert int(kept.index.max()) < 2**bits
    # What is passed on is a function of the index alone.
    for index in torch.unique(kept.index):
        assert len(torch.unique(kept.traits[kept.index == index], dim=0)) == 1


@pytest.mark.parametrize("bits", [-1, MOST_BITS + 1])
def test_bits_out_of_range_are_refused(prototypes, bits):
    with pytest.raises(ValueError, match=f"keep has {bits} bits"):
        prototypes.keep(normal(1, 3, 8), bits)


def test_what_a_face_is_told_of_places_comes_in_whole_steps():
    measured = np.random.default_rng(1).normal(0, 20, (200, 11)).astype(np.float32)
    told = coarse(measured)
    steps = told / np.array([STEPS[name] for name in TOLD])
    assert np.allclose(steps, np.round(steps), atol=1e-3)
    nudged = measured.copy()
    nudged[:, len(TOLD) :] += 5  # what is not in TOLD is never told
    assert np.array_equal(coarse(nudged), told)


def test_a_stranger_is_the_first_draw_unlike_the_original_and_of_unit_length():
    people = SyntheticPeople(embedding_dim=12)
    people.spread.copy_(normal(SPREAD_RANK, 12, seed=8))
    original = functional.normalize(normal(4, 12, seed=9), dim=1)
    draws = [normal(4, SPREAD_RANK, seed=20 + number) for number in range(8)]
    traits = torch.zeros(4, len(TRAITS))
    chosen = people.stranger(traits, draws.__getitem__, lambda person: (person * original).sum(1) < 0)
    first = people.stranger(traits, draws.__getitem__)
    assert torch.allclose(chosen.norm(dim=1), torch.ones(4), atol=1e-5)
    assert ((chosen * original).sum(1) < 0).all()
    already = (first * original).sum(1) < 0
    assert torch.equal(chosen[already], first[already])
    assert not already.all()


class _Linear(nn.Module):
    """A recogniser that is known by heart: a few weighted averages of the crop."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = normal(8, 3 * 32 * 32, seed=3)

    def embed_canonical(self, crops: torch.Tensor) -> torch.Tensor:
        return functional.normalize(functional.avg_pool2d(crops, 4).flatten(1) @ self.weights.T, dim=1)

    def similarity(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return (first * second).sum(-1)


def test_hiding_changes_no_pixel_by_more_than_eight_levels_and_none_outside_the_region():
    recognizer = _Linear()
    crops, original = (to_tensor([texture(128, 128, seed)]) for seed in (1, 2))
    region = torch.zeros(1, 1, 128, 128)
    region[..., 24:110, 30:100] = 1
    target = recognizer.embed_canonical(original)
    change = perturbation(crops, region, recognizer, target, 2.0)  # never enough: as strong as it gets
    assert float(change.abs().max()) <= BOUND + 1e-6 <= 8.001 / 127.5
    assert not change[(region == 0).expand_as(change)].any()
    before, after = (recognizer.similarity(recognizer.embed_canonical(one), target) for one in (crops, crops + change))
    assert float(after) > float(before) + 0.05


def test_hiding_is_no_stronger_than_it_needs_to_be():
    recognizer, crops = _Linear(), to_tensor([texture(128, 128, 1)])
    change = perturbation(crops, torch.ones(1, 1, 128, 128), recognizer, recognizer.embed_canonical(crops), 0.9)
    assert not change.any()


def test_what_makes_a_stranger_says_nothing_of_gender_or_age():
    people = SyntheticPeople(embedding_dim=8)
    people.mean.copy_(torch.eye(8)[0])
    for row, name in enumerate(("male", "age"), start=1):
        people.by_traits[TRAITS.index(name)] = 0.2 * torch.eye(8)[row]
    people.spread.copy_(normal(SPREAD_RANK, 8, seed=9))
    strangers = torch.cat(
        [people.stranger(torch.zeros(1, len(TRAITS)), lambda _, s=seed: normal(1, SPREAD_RANK, seed=s)) for seed in range(20)]
    )
    assert strangers[:, 1:3].abs().max() < 1e-5
    assert strangers[:, 3:].std(0).min() > 0.1
