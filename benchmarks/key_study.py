"""The key study: what comes back with right, wrong, other people's and partly known keys, and who recognises it.

`python -m benchmarks.key_study PHOTOS --judge builtin --judge human:FOLDER --limit 24` prints a table; --json writes it too.

A face record is authenticated: with a wrong face key the program opens nothing. The rows here go one layer down, to an attacker
who has a payload in the clear (it leaked, or the sealing is broken) and tries it with the keys that the row names. "Face key"
is then what undoes the keyed maps (`keyed_noise.KeyedMap`) of key-I and of the sketch. key-E is stored as it is.
`keys` recovers from key-E and key-I and is the same for both tasks; `image` recovers from the published face and the sketch.
TAR: share of recovered faces that a judge takes for the person, on another photo and on the own original, at the threshold of
FAR 1e-3 on clean impostor pairs of these photos. The builtin recogniser and dlib's are one network, which guides protection.
"""

import argparse
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.photos import LabelledCrops, load_photos, publish_crops, verification_rate
from benchmarks.privacy import NO_LIMIT, SEEDS, structural_similarity
from diffpriv.config import TransformConfig
from diffpriv.crops import to_pixels, to_tensor
from diffpriv.inversion import invert, regenerate
from diffpriv.keyed_noise import KeyedMap
from diffpriv.latents import decode_latents, encode_crops, encode_detail
from diffpriv.recognizers import load_recognizer
from diffpriv.recovery import psnr
from diffpriv.transforms.diffprivacy import DiffPrivacyTransform, load_diffprivacy_transform
from diffpriv.transforms.payloads import pack_key_i, unpack_key_i

RATE = 1e-3
KNOWN = 0.75
Maps = list[KeyedMap]


@dataclass(frozen=True, eq=False)
class Judge:
    """One recogniser with the clean photos it compares with: threshold at RATE, and its own success on clean photos."""

    name: str
    embed: Callable[[np.ndarray], np.ndarray]
    clean: np.ndarray  # (photos, dim)
    threshold: float
    clean_tar: float

    @classmethod
    def of(cls, spec: str, data: LabelledCrops) -> "Judge":
        recognizer = load_recognizer(spec)
        clean = recognizer.embed(data.crops)
        tar, threshold = verification_rate(clean @ clean.T, *data.pairs(), RATE)
        return cls(spec.partition(":")[0], recognizer.embed, clean, threshold, tar)

    def rates(self, crops: np.ndarray, data: LabelledCrops) -> tuple[float, float]:
        """(other photo, own original) for recoveries of the first len(crops) photos of `data`."""
        accepted = self.embed(crops) @ self.clean.T > self.threshold
        same = data.person[: len(crops), None] == data.person[None]
        np.fill_diagonal(same, False)
        return float(accepted[same].mean()), float(np.diag(accepted).mean())


def chosen_photos(data: LabelledCrops, limit: int, gallery: int) -> LabelledCrops:
    """`limit` photos of different people who have another photo, then those others, then strangers up to `gallery`."""
    order = np.random.default_rng(7).permutation(len(data.crops))
    first: dict[str, int] = {}
    for index in order:
        if (data.person == data.person[index]).sum() > 1:
            first.setdefault(str(data.person[index]), int(index))
    head = list(first.values())[:limit]
    mates = [index for index in order if index not in head and data.person[index] in data.person[head]]
    rows = np.array(head + mates + [index for index in order if index not in head and index not in mates])
    rows = rows[: max(gallery, len(head) + len(mates))]
    return data.take(rows)


def face_seeds(count: int) -> list[bytes]:
    return [SEEDS[0] + index.to_bytes(8, "big") for index in range(count)]


def maps(seeds: Sequence[bytes], label: str, numbers: int) -> Maps:
    return [KeyedMap.of(seed, label, numbers) for seed in seeds]


def one_bit_off(seed: bytes) -> bytes:
    return bytes([seed[0] ^ 1]) + seed[1:]


def partly_known(right: KeyedMap, number: int, *, places: bool) -> KeyedMap:
    """The map of somebody who knows KNOWN of its signs, and guesses the rest; with `places`, the same of its permutation."""
    rng = np.random.default_rng(number)
    unknown = np.nonzero(rng.random(len(right.order)) >= KNOWN)[0]
    order, signs = right.order.copy(), right.signs.copy()
    signs[unknown] = rng.choice(np.array([-1, 1], np.int8), len(unknown))
    if places:
        order[unknown] = order[rng.permutation(unknown)]
    return KeyedMap(order, signs)


def undone(mapped: np.ndarray, keyed: Maps) -> np.ndarray:
    return np.stack([one.undo(numbers) for one, numbers in zip(keyed, mapped, strict=True)])


def another(array: np.ndarray) -> np.ndarray:
    """Everybody gets the next person's."""
    return np.roll(array, 1, 0)


def guesses(right: Maps, seeds: list[bytes], label: str, numbers: int) -> Iterator[tuple[str, Maps]]:
    """Ways to be wrong about the face key."""
    yield "wrong", maps([SEEDS[1] + bytes(8)] * len(seeds), label, numbers)
    yield "one bit off", maps([one_bit_off(seed) for seed in seeds], label, numbers)
    yield "another person's", maps(another(np.array(seeds, object)).tolist(), label, numbers)
    identity = KeyedMap(np.arange(numbers), np.ones(numbers, np.int8))
    yield "none (payload as it lies)", [identity] * len(seeds)
    for places, what in ((False, "all places"), (True, f"{KNOWN:.0%} of the places")):
        found = [partly_known(one, index, places=places) for index, one in enumerate(right)]
        yield f"{what}, {KNOWN:.0%} of the signs", found


@torch.no_grad()
def unrounded(transform: DiffPrivacyTransform, originals: np.ndarray) -> np.ndarray:
    """Recovery from keys that were never rounded: the row below it says what quantising costs."""
    pipeline, preset = transform.pipeline, transform.preset
    crops = to_tensor(list(originals), pipeline.device)
    latent = encode_crops(pipeline.vae, crops)
    tokens, around = pipeline.msi.stage_tokens(pipeline.features(crops, latent)), pipeline.nothing_around(len(crops))
    steps, refinements = preset.inversion_steps, preset.inversion_refinements
    found = invert(latent, tokens, around, pipeline.denoiser, steps=steps, max_refinements=refinements)
    back = regenerate(found.noise_map, tokens, around, pipeline.denoiser, steps=steps)
    return to_pixels(decode_latents(pipeline.vae, back, encode_detail(pipeline.vae, crops)))


def keys_rows(transform: DiffPrivacyTransform, originals: np.ndarray) -> Iterator[tuple[dict, np.ndarray]]:
    """Tier `keys`: every combination of right and wrong, then the ways to be wrong about the face key."""
    pipeline, preset, seeds = transform.pipeline, transform.preset, face_seeds(len(originals))
    yield {"key-I": "right, float", "key-E": "right, float", "face key": "no map"}, unrounded(transform, originals)
    keys = [pipeline.create_key(to_tensor([crop], pipeline.device), preset) for crop in originals]
    key_e = np.concatenate([key.key_e.cpu().numpy() for key in keys])
    noise = np.concatenate([key.key_i.cpu().numpy() for key in keys if key.key_i is not None])
    details = [key.detail.cpu().numpy() for key in keys if key.detail is not None]
    stored = {"key-i": noise} | ({"detail": np.concatenate(details)} if details else {})
    mapped: dict[str, np.ndarray] = {}
    readings: dict[str, dict[str, Maps]] = {}  # by label: ways to read the numbers, right and wrong
    for label, numbers in stored.items():
        flat = numbers.reshape(len(numbers), -1)
        right = maps(seeds, label, flat.shape[1])
        mapped[label] = np.stack([one.apply(row) for one, row in zip(right, flat, strict=True)])
        readings[label] = {"right": right} | dict(guesses(right, seeds, label, flat.shape[1]))
    mapped["key-i"] = np.stack([unpack_key_i(pack_key_i(row), row.shape) for row in mapped["key-i"]])

    def recovered(embeddings: np.ndarray, face_key: str, *, own: bool = True) -> np.ndarray:
        """own: the numbers are this person's; else another's, whose face key is the right one."""
        arrays = {"key-e": torch.from_numpy(embeddings.copy()).to(pipeline.device)}
        for label, numbers in stored.items():
            keyed = readings[label][face_key]
            owners = keyed if own or face_key != "right" else keyed[-1:] + keyed[:-1]
            read = undone(mapped[label] if own else another(mapped[label]), owners).reshape(numbers.shape)
            arrays[label] = torch.from_numpy(read).to(pipeline.device)
        keys = arrays["key-e"], arrays["key-i"]
        return to_pixels(pipeline.recover(*keys, steps=preset.inversion_steps, detail=arrays.get("detail")))

    for own_i in (True, False):
        for own_e in (True, False):
            for face_key in ("right", "wrong"):
                row = {"key-I": "right" if own_i else "another's", "key-E": "right" if own_e else "another's"}
                yield row | {"face key": face_key}, recovered(key_e if own_e else another(key_e), face_key, own=own_i)
    for name in readings["key-i"]:
        if name not in ("right", "wrong"):
            yield {"key-I": "right", "key-E": "right", "face key": name}, recovered(key_e, name)


def through_jpeg(crops: np.ndarray, quality: int) -> np.ndarray:
    """Crops saved at their 128 px and read again."""
    read = []
    for crop in crops:
        encoded = io.BytesIO()
        Image.fromarray(crop).save(encoded, "JPEG", quality=quality)
        read.append(np.asarray(Image.open(encoded)))
    return np.stack(read)


def image_rows(transform: DiffPrivacyTransform, part: LabelledCrops) -> Iterator[tuple[dict, np.ndarray]]:
    """Tier `image`: damage to the published picture, then the ways to be wrong about the face key, sketch or picture."""
    pipeline, seeds = transform.pipeline, face_seeds(len(part.crops))
    published, _ = publish_crops(transform, part, SEEDS[0])
    sketches = pipeline.sketch(to_tensor(list(part.crops), pipeline.device), to_tensor(list(published), pipeline.device))
    right = maps(seeds, "sketch", sketches.shape[1])
    mapped = np.stack([one.apply(numbers) for one, numbers in zip(right, sketches, strict=True)])

    def recovered(seen: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        return to_pixels(pipeline.recover_in_picture(to_tensor(list(seen), pipeline.device), numbers))

    yield {"picture": "published, not recovered"}, published
    yield {"picture": "PNG", "sketch": "right", "face key": "right"}, recovered(published, sketches)
    for quality in (90, 75, 50):
        seen = recovered(through_jpeg(published, quality), sketches)
        yield {"picture": f"JPEG Q{quality}", "sketch": "right", "face key": "right"}, seen
    yield {"picture": "another's", "sketch": "right", "face key": "right"}, recovered(another(published), sketches)
    grey = np.full_like(published, 128)
    yield {"picture": "none (grey)", "sketch": "right", "face key": "right"}, recovered(grey, sketches)
    swapped = recovered(published, undone(another(mapped), right))
    yield {"picture": "PNG", "sketch": "another's", "face key": "right"}, swapped
    for name, keyed in guesses(right, seeds, "sketch", sketches.shape[1]):
        yield {"picture": "PNG", "sketch": "right", "face key": name}, recovered(published, undone(mapped, keyed))


def study(
    photos: Path, tasks: Sequence[str], preset: str, model: str, limit: int, cache: Path | None, specs: list[str]
) -> dict:
    data = chosen_photos(load_photos(photos, cache=cache), limit, gallery=160)
    part = data.take(np.arange(min(limit, len(data.crops))))
    panel = [Judge.of(spec, data) for spec in specs]
    rows: list[dict] = []

    def add(tier: str, task: str, found: Iterator[tuple[dict, np.ndarray]]) -> None:
        for what, crops in found:
            row = {"tier": tier, "task": task, **what}
            decibels = [min(99.0, psnr(one, two)) for one, two in zip(crops, part.crops, strict=True)]
            row["psnr"] = round(float(np.mean(decibels)), 1)
            row["ssim"] = round(structural_similarity(crops, part.crops), 2)
            for judge in panel:
                other, own = judge.rates(crops, data)
                row[judge.name] = {"other photo": round(other, 3), "own original": round(own, 3)}
            rows.append(row)
            print(*(f"{name} {value}" for name, value in row.items()), sep="; ", flush=True)

    add("none", "any", iter([({"picture": "original"}, part.crops)]))
    for number, task in enumerate(tasks):
        config = TransformConfig(task=task, preset=preset, model=model, similarity_limit=NO_LIMIT[task])
        transform = load_diffprivacy_transform(config)
        if number == 0:
            add("keys", "any", keys_rows(transform, part.crops))
        add("image", task, image_rows(transform, part))
    clean = {judge.name: round(judge.clean_tar, 3) for judge in panel}
    return {"faces": limit, "gallery": len(data.crops), "preset": preset, "FAR": RATE, "clean TAR": clean, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--task", action="append", choices=("anonymize", "hide"), help="default: both")
    parser.add_argument("--preset", default="quality")
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--limit", type=int, default=24)
    parser.add_argument("--judge", action="append", default=[], help='a recogniser\'s spec, default "builtin"; may be repeated')
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    options = (arguments.preset, arguments.model, arguments.limit, arguments.cache, arguments.judge or ["builtin"])
    result = study(arguments.photos, arguments.task or ["anonymize", "hide"], *options)
    print(json.dumps({name: value for name, value in result.items() if name != "rows"}))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
