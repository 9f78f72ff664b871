"""All randomness of a face comes from its seed."""

import numpy as np
import pytest

from diffpriv.keyed_noise import KeyedMap, keyed_bytes, keyed_normal

SEED = bytes(range(32))


def test_the_same_seed_gives_the_same_numbers_whatever_numpy_s_generator_holds():
    np.random.seed(1)
    first = keyed_normal(SEED, "start/0", (8, 16, 16))
    np.random.seed(2)
    assert np.array_equal(first, keyed_normal(SEED, "start/0", (8, 16, 16)))


def test_known_bytes_of_the_stream():
    # Fixed so that a change of the derivation, which would orphan every published face, cannot go unnoticed.
    assert keyed_bytes(SEED, "start/0", 16).hex() == "88f55d1f523c2926fcfaac8542269775"


def test_one_flipped_bit_or_another_label_gives_an_unrelated_noise_map():
    reference = keyed_normal(SEED, "start/0", (8, 16, 16)).ravel()
    flipped = keyed_normal(bytes([SEED[0] ^ 1]) + SEED[1:], "start/0", (8, 16, 16)).ravel()
    other = keyed_normal(SEED, "start/1", (8, 16, 16)).ravel()
    for candidate in (flipped, other):
        assert abs(np.corrcoef(reference, candidate)[0, 1]) < 0.1


def test_normals_are_standard_normal():
    from scipy.stats import kstest

    sample = keyed_normal(SEED, "distribution", (100_000,))
    assert kstest(sample, "norm").pvalue > 1e-3


def test_a_keyed_map_is_undone_by_its_seed_and_by_no_other():
    noise = keyed_normal(SEED, "x", (2048,))
    mapped = KeyedMap.of(SEED, "key-i", noise.size).apply(noise)
    assert np.array_equal(KeyedMap.of(SEED, "key-i", noise.size).undo(mapped), noise)
    flipped = bytes([SEED[0] ^ 1]) + SEED[1:]
    for wrong in (mapped, KeyedMap.of(flipped, "key-i", noise.size).undo(mapped)):
        assert abs(np.corrcoef(wrong, noise)[0, 1]) < 0.1
        assert abs(np.corrcoef(np.abs(wrong), np.abs(noise))[0, 1]) < 0.1


def test_a_short_seed_is_refused():
    with pytest.raises(ValueError, match="32 bytes"):
        keyed_bytes(b"short", "start/0", 4)
