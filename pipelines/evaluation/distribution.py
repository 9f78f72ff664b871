"""How far the faces of a variant lie from clean ones as a distribution: clean photos of half the people, the others' variant.

No person is in both, so that a variant can't come close by keeping the very faces. The originals' own row is the floor.
"""

import numpy as np

from diffpriv.metrics.distribution import frechet_distance, kernel_distance

LEAST = 16  # faces in each half


def measure_distribution(spaces: dict[str, tuple[np.ndarray, np.ndarray]], person: np.ndarray, seed: int) -> dict[str, float]:
    """Distances by name; empty where there are too few faces.

    Args:
        spaces: name -> features of clean photos and of the variant, (n, dim) each. person: (n,).
    """
    people = np.unique(person)
    half = np.isin(person, np.random.default_rng(seed).permutation(people)[: len(people) // 2])
    if min(half.sum(), (~half).sum()) < LEAST:
        return {}
    found = {}
    for name, (clean, variant) in spaces.items():
        found[f"Fréchet, {name}"] = round(frechet_distance(clean[half], variant[~half]), 4)
        found[f"kernel, {name}"] = round(kernel_distance(clean[half], variant[~half]), 4)
    return found
