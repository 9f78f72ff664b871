"""What attackers learn who train on (original, output) pairs of their own people and are tested on other people.

    python -m benchmarks.natural PHOTOS --cover head --crops head.npz        makes the pairs; they show real people
    python -m benchmarks.attackers head=head.npz face=face.npz --judge human:FOLDER --photos 150 --photos 508 --record

The attackers are those of `diffpriv evaluate`: linear maps of each recogniser's embeddings, the fine-tuned public recogniser,
and an inverter read by each recogniser. Half of the photos train and choose, the other half, of other people, is attacked.
Printed is the true-accept rate at a false-accept rate of 1 % (so 1 % is chance) on the original itself and on another photo of
the person: of the attacker that training chooses, and of the best one with hindsight.
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.figures import Figure, record
from diffpriv.pipelines.evaluation.adaptive import AdaptiveAttacks
from diffpriv.pipelines.evaluation.faces import ORIGINAL, PROTECTED, EvaluatedFaces, Looks
from diffpriv.pipelines.evaluation.judges import load_judge

FAR = "0.01"
KINDS = ("own photo", "other photo")


def read_faces(path: Path, photos: int, seed: int) -> EvaluatedFaces:
    """Pairs of whole people, some `photos` in all, as the evaluation takes them."""
    with np.load(path) as stored:
        originals, outputs, people = stored["originals"], stored["outputs"], stored["people"]
    names, person = np.unique(people, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    first = order[: int(np.searchsorted(np.cumsum(np.bincount(person)[order]), photos) + 1)]
    rows = np.flatnonzero(np.isin(person, first))
    unseen = np.zeros((len(rows), 5, 2)), np.zeros((len(rows), 4))
    looks = {ORIGINAL: Looks(originals[rows], *unseen), PROTECTED: Looks(outputs[rows], *unseen)}
    nothing = np.zeros((0, 128, 128, 3), np.uint8)
    return EvaluatedFaces(looks, person[rows], True, {}, nothing, np.zeros(0, int), [], Counter(), [])


def told(rates: dict[str, Any]) -> str:
    """Own and other photo, percent, with the interval of the second."""
    own, other = (rates[FAR][kind] for kind in KINDS)
    between = f"{100 * other['low']:.1f} to {100 * other['high']:.1f}"
    return f"{100 * own['value']:.1f} / {100 * other['value']:.1f} % ({between})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", metavar="NAME=FILE", help="a name for the table, and the .npz of natural's --crops")
    parser.add_argument("--photos", action="append", type=int, help="how many; half of them are the attacker's; repeatable")
    parser.add_argument("--judge", action="append", default=["builtin"], help="a recogniser whose embeddings are mapped too")
    parser.add_argument("--minutes", type=float, default=6.0, help="CPU minutes of training for each row")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    judges = [load_judge(spec) for spec in arguments.judge]
    found: dict[str, Any] = {}
    figures = []
    command = "python -m benchmarks.attackers head=… face=… --judge human:package --photos 150 --photos 508 --record"
    for spec in arguments.pairs:
        name, _, file = spec.partition("=")
        for photos in arguments.photos or [508]:
            faces = read_faces(Path(file), photos, arguments.seed)
            attacks = AdaptiveAttacks(faces, judges, minutes=arguments.minutes, seed=arguments.seed)
            result = attacks.measure(lambda text: None)
            held, protected = result["attacker"], result["variants"][PROTECTED]
            found[f"{name}, {photos} photos"] = result
            parts = {view: told(part["tar"]) for view, part in result["parts"].items()}
            line = f"{told(protected['tar'])}; best with hindsight {told(protected['worst'])}"
            print(f"{name}: {held['pairs']} pairs, {protected['chosen']}: {line}; {parts}", flush=True)
            what = f"an attacker trained on {held['pairs']} pairs, FAR 1 % (chance 1 %), cover `{name}`: own / other photo"
            figures.append(Figure("Privacy", what, line, command, arguments.seed))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    if arguments.record:
        record("attackers", *figures)


if __name__ == "__main__":
    main()
