"""Step 5 of `make train-styles`: heads that guidance leads to, drawn so that the reader learns where it was wrong.

    python -m diffpriv.training.guided_pictures GENERATOR OUT --count N --small HEADS

Guidance follows the reader's gradient to places that the reader never saw, where it reads what it would like to. Each file
OUT/guided-NNNN.npz holds CHUNK codes that a first reader guided to, with random wishes, and their 256 px pictures; labelled
beside the others (`style_labels drawn`) they teach the reader that is shipped (cf. Ross et al. 2011, DAgger). File i is always
the same for a generator, so a run can be cut and resumed.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import torch

from diffpriv.faces.appearance import NAMES, TOLD, coarse
from diffpriv.generator.small_pictures import SmallPictures
from diffpriv.generator.style_generator import StyleGenerator
from diffpriv.generator.wishes import Wishes
from diffpriv.presets import STYLE_SETTINGS
from diffpriv.recognizers.builtin_recognizer import BuiltinRecognizer
from diffpriv.training.style_pictures import Drawer, code_of, jpeg

CHUNK, BITS = 32, 8
FIRST = 1_000_000  # codes from here on give places and originals; lower ones are drawn by `style_pictures`


def random_wishes(generator: StyleGenerator, number: int, seeds: list[bytes]) -> Wishes:
    """What the heads of one file are to be like: places of one random head, looks of a prototype, away from another head."""
    indices = range(FIRST + 2 * number * CHUNK, FIRST + 2 * (number + 1) * CHUNK)
    reading = generator.reader(torch.cat([code_of(index, generator.mapping) for index in indices]))
    columns = [NAMES.index(name) for name in TOLD]
    places = torch.from_numpy(coarse(reading.numbers[:CHUNK, : len(NAMES)].numpy()))[:, columns]
    choices = generator.prototypes.set_of(BITS)
    chosen = torch.randint(len(choices), (CHUNK,), generator=torch.Generator().manual_seed(number))
    looks, originals = choices[chosen], reading.embedding[CHUNK:]
    people = [
        generator.person(look, seed, "person/0", original, 2.0)
        for look, seed, original in zip(looks, seeds, originals, strict=True)
    ]
    return Wishes(places, looks, torch.stack(people), originals, torch.zeros(CHUNK), torch.ones(CHUNK))


def draw_guided(generator: StyleGenerator, drawer: Drawer, number: int, spread: float) -> dict[str, np.ndarray]:
    """What file `number` holds."""
    seeds = [(FIRST + number * CHUNK + row).to_bytes(32, "big") for row in range(CHUNK)]
    wishes = random_wishes(generator, number, seeds)
    codes = generator.codes(wishes, seeds, STYLE_SETTINGS["fast"], spread=spread, keep_hair=number % 4 == 0).codes[:, 0]
    kept = {"codes": codes.numpy()}
    for row in range(CHUNK):
        kept[f"jpeg256/{row}"] = jpeg(drawer.draw(codes[row : row + 1], whole=False).picture, 256)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generator", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=1280)
    parser.add_argument("--small", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    generator = StyleGenerator.from_pretrained(given.generator)
    drawer = Drawer(generator.synthesis, SmallPictures.from_pretrained(given.small).float().eval())
    spread = float(BuiltinRecognizer().network.config["spread"])
    given.out.mkdir(parents=True, exist_ok=True)
    for number in range(given.count // CHUNK):
        path = given.out / f"guided-{number:05d}.npz"
        if not path.exists():
            drawn = draw_guided(generator, drawer, number, spread)
            partial = path.with_suffix(".partial")
            with partial.open("wb") as handle:
                np.savez(handle, **drawn)  # type: ignore[arg-type]
            os.replace(partial, path)


if __name__ == "__main__":
    main()
