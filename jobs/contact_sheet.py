"""The demo's contact sheet: one row per picture, columns before and after; below, the recovered face beside its original."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, GAP, TEXT = 300, 220, 14, 24
_PAPER, _INK = (255, 255, 255), (40, 40, 40)


@dataclass(frozen=True)
class Cell:
    """A picture and the words under it."""

    pixels: np.ndarray  # (height, width, 3) uint8 RGB
    label: str


def draw(path: Path, title: str, rows: Sequence[Sequence[Cell]]) -> None:
    """Write the sheet as PNG; rows may differ in length."""
    columns = max(len(row) for row in rows)
    width = GAP + columns * (WIDTH + GAP)
    height = GAP + 2 * TEXT + len(rows) * (HEIGHT + TEXT + GAP)
    sheet = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, GAP), title, fill=_INK, font=ImageFont.load_default(20))
    for row_number, row in enumerate(rows):
        for column, cell in enumerate(row):
            x = GAP + column * (WIDTH + GAP)
            y = GAP + 2 * TEXT + row_number * (HEIGHT + TEXT + GAP)
            _place(sheet, cell.pixels, x, y)
            pen.text((x, y + HEIGHT + 3), cell.label, fill=_INK, font=ImageFont.load_default(14))
    sheet.save(path)


def _place(sheet: Image.Image, pixels: np.ndarray, x: int, y: int) -> None:
    picture = Image.fromarray(pixels)
    scale = min(WIDTH / picture.width, HEIGHT / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    sheet.paste(picture.resize(size, Image.Resampling.LANCZOS), (x, y))
