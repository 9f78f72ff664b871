"""Consistent pseudonyms on labelled photos: do outputs of one person match, and is a corpus of them still of use?

`python -m benchmarks.pseudonyms PHOTOS --judge human:FOLDER` prints how often outputs match each other and the originals.
With `--train FOLDER` it fits a recogniser's head on releases of the same identities instead (per identity, per face, blur,
mosaic) and tests it on clean pairs of people it never saw; `--identities` and `--each` bound the cost.
Thresholds are those of a false-accept rate of 1e-3 on clean pairs of the same photos.
"""

import argparse
import json
import tarfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from benchmarks.photos import LabelledCrops, load_photos, publish_crops, verification_rate
from diffpriv.config import TransformConfig
from diffpriv.faces.alignment import face_to_crop_matrix, map_points, warp_to_crop
from diffpriv.pipelines.pictures.codec import decode
from diffpriv.recognizers import Recognizer, load_recognizer
from diffpriv.transforms import load_transform

FAR = 1e-3
SALT = b"face".ljust(24, b".")
STEPS = 400
SCALE, MARGIN = 16.0, 0.2  # of the additive-margin softmax (Wang et al. 2018)
RELEASES = ("clean", "per identity", "per face", "blur", "mosaic")


def matching(judge: Recognizer, data: LabelledCrops, chosen: np.ndarray, published: np.ndarray) -> dict[str, float]:
    """Rates at the judge's threshold on the clean photos of `data`."""
    clean = judge.embed(data.crops)
    tar, threshold = verification_rate(clean @ clean.T, *data.pairs(), FAR)
    embedded, people = judge.embed(published), data.person[chosen]
    first, second = np.triu_indices(len(chosen), 1)
    match = (embedded @ embedded.T)[first, second] > threshold
    same = people[first] == people[second]
    to_originals = embedded @ clean.T > threshold
    return {
        "clean_tar": tar,
        "same_person": float(match[same].mean()),
        "of_clean": float(match[same].mean() / tar),
        "different_people": float(match[~same].mean()),
        "own_original": float(to_originals[np.arange(len(chosen)), chosen].mean()),
        "any_original": float(to_originals.mean()),
    }


def read_corpus(
    folder: Path, identities: int, each: int, leave_out: frozenset[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(aligned crops, landmarks in them, person) of the identities with most photos in the lfw tars of `folder`.

    Each sample is a .jpg with a .json that has `identity` and `landmarks` (five points).
    """
    by_person: dict[str, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
    for path in sorted(folder.glob("lfw*.tar")):
        with tarfile.open(path) as archive:
            held = {info.name: archive.extractfile(info).read() for info in archive if info.isreg()}  # type: ignore[union-attr]
        for name in sorted(name for name in held if name.endswith(".json")):
            facts = json.loads(held[name])
            if facts["identity"] not in leave_out:
                points = np.array(facts["landmarks"])
                matrix = face_to_crop_matrix(points)
                crop = warp_to_crop(decode(held[f"{name[:-5]}.jpg"]).pixels, matrix)
                by_person[facts["identity"]].append((crop, map_points(points, matrix)))
    people = sorted(by_person, key=lambda one: (-len(by_person[one]), one))[:identities]
    chosen = [(crop, points, one) for one in people for crop, points in by_person[one][:each]]
    crops, landmarks, names = zip(*chosen, strict=True)
    return np.stack(crops), np.stack(landmarks), np.array(names)


def fitted_head(features: np.ndarray, person: np.ndarray, seed: int = 0) -> torch.nn.Module:
    """A two-layer head on a frozen recogniser's embeddings, trained to tell the people apart."""
    torch.manual_seed(seed)
    names, label = np.unique(person, return_inverse=True)
    inputs, labels = torch.from_numpy(features).float(), torch.from_numpy(label)
    dim = features.shape[1]
    head = torch.nn.Sequential(torch.nn.Linear(dim, 256), torch.nn.PReLU(), torch.nn.Linear(256, 128))
    centres = torch.nn.Parameter(torch.randn(len(names), 128))
    optimizer = torch.optim.AdamW([*head.parameters(), centres], lr=2e-3, weight_decay=1e-3)
    for _ in range(STEPS):
        cosine = functional.normalize(head(inputs), dim=1) @ functional.normalize(centres, dim=1).T
        margin = MARGIN * functional.one_hot(labels, len(names))
        loss = functional.cross_entropy(SCALE * (cosine - margin), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head.eval()


def downstream(train: Path, tested: LabelledCrops, base: Recognizer, identities: int, each: int) -> dict[str, dict[str, float]]:
    """Release -> verification of clean pairs by a head that was fitted on it alone."""
    known = frozenset(one.rpartition("/")[2] for one in tested.person)
    crops, landmarks, person = read_corpus(train, identities, each, known)
    corpus = LabelledCrops(crops, landmarks, person, person, len(crops))
    settings = TransformConfig(recovery="none", preset="fast")
    clean = base.embed(tested.crops)
    rows = {}
    for release in RELEASES:
        if release == "clean":
            published = crops
        elif release in ("blur", "mosaic"):
            published, _ = publish_crops(load_transform(replace(settings, transform=release)), corpus, SALT)
        else:
            published, _ = publish_crops(load_transform(settings), corpus, SALT, pseudonyms=release == "per identity")
        head = fitted_head(base.embed(published), person)
        with torch.no_grad():
            embedded = functional.normalize(head(torch.from_numpy(clean).float()), dim=1).numpy()
        same, different = tested.pairs()
        rates = {f"tar_{far:g}": verification_rate(embedded @ embedded.T, same, different, far)[0] for far in (1e-2, 1e-3)}
        rows[release] = {"photos": float(len(crops)), **rates}
        print(release, rows[release], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--judge", action="append", default=[], help="Recogniser that guidance never sees. Repeatable.")
    parser.add_argument("--train", type=Path, help="Folder with lfw*.tar.")
    parser.add_argument("--base", default="", help="Recogniser whose embeddings the head is fitted on; the first judge.")
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--identities", type=int, default=40)
    parser.add_argument("--each", type=int, default=6)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--cache", type=Path, help="Keep the photos' crops in this .npz, outside the repository.")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load_photos(options.photos, cache=options.cache)
    names, counts = np.unique(data.person, return_counts=True)
    people = np.random.default_rng(1).permutation(names[counts >= 2])[: options.people]
    chosen = np.array([place for one in people for place in np.where(data.person == one)[0][:2]])
    document: dict[str, object] = {"people": len(people), "photos": len(chosen)}
    if not options.train:
        transform = load_transform(TransformConfig(recovery="none", preset=options.preset))
        published = publish_crops(transform, data.take(chosen), SALT, pseudonyms=True)[0]
        for spec in options.judge or ["builtin"]:
            document[spec] = matching(load_recognizer(spec), data, chosen, published)
    else:
        base = load_recognizer(options.base or (options.judge or ["builtin"])[0])
        document["downstream"] = downstream(options.train, data, base, options.identities, options.each)
    print(json.dumps(document, indent=1))
    if options.json:
        options.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
