"""Traits: the coarse looks that a prototype of key-E may carry over to a new face, and what a drawing must not have.

Everything is a number: apparent gender as log odds, apparent age in years, hair by shares of places in the head's square. Pure.
"""

import numpy as np

from diffpriv.faces.appearance import NAMES

# Carried by a prototype.
TRAITS = ("male", "age", "beard", "fringe", "crown", "long_hair", "hair_light", "hair_red", "hair_yellow")
# Of a drawing only: how much of the head the frame's upper and side edges cut.
FRAME = ("cut",)
# What `StyleReader` reads of a code, in this order.
READ = (*NAMES, *(name for name in TRAITS if name not in NAMES), *FRAME)
MALE_BOUND = 4.0  # of the log odds
EYES, UNIT = 0.42 * 32, 32 / 6.0  # of `training.style_labels`: the eyes' row and an eye distance, in pixels of the 32 px maps


def read_traits(labels: dict[str, np.ndarray]) -> np.ndarray:
    """(n, len(READ)) float32 from labels by name, see `training.style_labels`."""
    odds = np.clip(labels["male"].astype(np.float64), 1e-6, 1 - 1e-6)
    hair, person = labels["hair"].astype(np.float32) / 255, labels["person"].astype(np.float32) / 255
    sides = np.concatenate([_box(hair, 1.1, 2.2, -1.7, -0.75), _box(hair, 1.1, 2.2, 0.75, 1.7)], 1)
    columns = {
        **{name: labels["appearance"][:, index] for index, name in enumerate(NAMES)},
        "male": np.clip(np.log(odds / (1 - odds)), -MALE_BOUND, MALE_BOUND),
        "age": labels["age"],
        "fringe": _box(hair, -0.95, -0.5, -0.45, 0.45).mean(1),
        "crown": _box(hair, -2.2, -1.2, -1.0, 1.0).mean(1),
        "long_hair": sides.mean(1),
        "hair_light": labels["hair_lab"][:, 0],
        "hair_red": labels["hair_lab"][:, 1],
        "hair_yellow": labels["hair_lab"][:, 2],
        # The frame ends 1.93 eye distances above the eyes and 2.05 beside their middle; beyond, the border is repeated.
        "cut": np.concatenate([_box(person, -2.2, -1.85, -1.0, 1.0), _edge(person)], 1).mean(1),
    }
    return np.stack([np.asarray(columns[name], np.float32) for name in READ], 1)


def _edge(person: np.ndarray) -> np.ndarray:
    left, right = _box(person, -1.9, 0.4, -2.3, -2.0), _box(person, -1.9, 0.4, 2.0, 2.3)
    return np.concatenate([left, right], 1)


def _box(maps: np.ndarray, top: float, bottom: float, left: float, right: float) -> np.ndarray:
    """(n, pixels) of a rectangle, given in eye distances from the middle between the eyes."""
    rows = slice(max(0, round(EYES + top * UNIT)), max(1, round(EYES + bottom * UNIT)))
    columns = slice(max(0, round(16 + left * UNIT)), max(1, round(16 + right * UNIT)))
    return maps[:, rows, columns].reshape(len(maps), -1)
