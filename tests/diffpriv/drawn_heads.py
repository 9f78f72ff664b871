"""Heads of coloured areas and what a viewer would see of them: geometry that tests know, with no network and no photo."""

import cv2
import numpy as np

from diffpriv.faces.covers import Drawing
from diffpriv.faces.head_view import EYES_HEIGHT, SIDE, SQUARE_WIDTH, HeadView
from diffpriv.faces.mesh import (
    CHIN,
    LEFT_EYE,
    LEFT_LIDS,
    LIPS_INSIDE,
    MOUTH_CORNERS,
    NOSE_BASE,
    NOSE_TIP,
    OVAL,
    RIGHT_EYE,
    RIGHT_LIDS,
    Mesh,
    square_matrix,
)

SKIN, HAIR, SHIRT = (205, 165, 140), (70, 45, 30), (40, 60, 120)
NEW_SKIN, NEW_HAIR, NEW_SHIRT = (150, 105, 80), (20, 20, 25), (160, 30, 40)


def mesh_at(x: float, y: float, unit: float) -> Mesh:
    """A frontal face.

    Args:
        x, y: the middle between the eyes, pixels. unit: an eye distance.
    """
    points = np.tile(np.array([[0.0, 0.5]]), (468, 1))
    angles = 2 * np.pi * np.arange(len(OVAL)) / len(OVAL)
    points[list(OVAL)] = np.stack([1.15 * np.sin(angles), 0.45 - 1.45 * np.cos(angles)], 1)
    for corners, lids, middle in ((RIGHT_EYE, RIGHT_LIDS, -0.5), (LEFT_EYE, LEFT_LIDS, 0.5)):
        points[list(corners)] = [(middle - 0.2, 0), (middle + 0.2, 0)]
        points[list(lids)] = [(middle, -0.08), (middle, 0.08)]
    points[[NOSE_TIP, NOSE_BASE]] = [(0, 0.55), (0, 0.68)]
    points[list(MOUTH_CORNERS)] = [(-0.35, 1.1), (0.35, 1.1)]
    points[list(LIPS_INSIDE)] = [(0, 1.09), (0, 1.11)]
    points[CHIN] = (0, 1.9)
    placed = np.array([x, y]) + unit * points
    return Mesh(placed.astype(np.float32), np.zeros(468, np.float32), 1.0)


def view_of(mesh: Mesh, width: float = SQUARE_WIDTH, eyes_height: float = EYES_HEIGHT) -> HeadView:
    """Hair above the eyes outside the face, a body below the chin.

    Args:
        width, eyes_height: of the square in which it is seen, see `square_matrix`.
    """
    matrix = square_matrix(mesh.five_landmarks(), width, SIDE, eyes_height)
    unit, eyes = SIDE / width, eyes_height * SIDE
    rows, columns = np.mgrid[:SIDE, :SIDE]
    across, down = (columns - SIDE / 2) / unit, (rows - eyes) / unit
    head = (across / 1.4) ** 2 + ((down - 0.3) / 1.75) ** 2 < 1
    face = (across / 1.15) ** 2 + ((down - 0.45) / 1.45) ** 2 < 1
    body = (down > 1.9) & (abs(across) < 2)
    hair = (head & ~face & (down < 0)).astype(np.float32)
    return HeadView(mesh, hair, (head | body).astype(np.float32), matrix)


def picture_of(mesh: Mesh, size: tuple[int, int], colours: tuple[tuple[int, int, int], ...], seed: int = 3) -> np.ndarray:
    """(height, width, 3) uint8 RGB: the head of `view_of` before a bright background.

    Args:
        size: (width, height). colours: of skin, hair and shirt.
    """
    skin, hair, shirt = colours
    picture = np.full((size[1], size[0], 3), 225, np.uint8)
    x, y = mesh.eyes.mean(0)
    unit = mesh.eye_distance

    def ellipse(down: float, wide: float, high: float, colour: tuple[int, int, int]) -> None:
        middle = (round(x), round(y + down * unit))
        cv2.ellipse(picture, middle, (round(wide * unit), round(high * unit)), 0, 0, 360, colour, -1)

    top = min(size[1], max(0, round(y + 2.1 * unit)))
    picture[top:, max(0, round(x - 2 * unit)) : max(0, round(x + 2 * unit))] = shirt
    ellipse(0.3, 1.4, 1.75, hair)
    ellipse(0.45, 1.15, 1.45, skin)
    ellipse(1.1, 0.35, 0.08, (150, 70, 70))
    noise = np.random.default_rng(seed).normal(0, 3, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def photo_at(x: float, y: float, unit: float, size: tuple[int, int]) -> tuple[np.ndarray, HeadView]:
    mesh = mesh_at(x, y, unit)
    return picture_of(mesh, size, (SKIN, HAIR, SHIRT)), view_of(mesh)


def drawing(side: int = 256) -> Drawing:
    """Another head, with the generator's frame."""
    mesh = mesh_at(0.5 * side, 0.47 * side, 0.23 * side)
    return Drawing(picture_of(mesh, (side, side), (NEW_SKIN, NEW_HAIR, NEW_SHIRT), seed=4), view_of(mesh))
