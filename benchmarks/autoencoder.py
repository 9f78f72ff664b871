"""What the autoencoder keeps of photos that it was never trained on: with the detail, as recovery decodes, and without, as new
faces are decoded.

    python -m benchmarks.autoencoder PHOTOS [--model builtin]

Prints PSNR (mean over aligned 128 px crops, 8 bit), how sharp they are (mean absolute Laplacian in levels of 255), and
how many bytes a face's detail takes as it is stored.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from benchmarks.photos import LabelledCrops, load_photos
from diffpriv.crops import to_pixels, to_tensor
from diffpriv.latents import decode_latents, encode_crops, encode_detail
from diffpriv.metrics.images import sharpness
from diffpriv.recovery import psnr
from diffpriv.transforms.payloads import pack_numbers
from diffpriv.weights import load_pipeline, resolve_model

BATCH = 32
SEED = b"benchmarks.autoencoder".ljust(32, b".")


@torch.no_grad()
def measure(data: LabelledCrops, model: str) -> dict:
    vae = load_pipeline(resolve_model(model), "cpu").vae
    made: dict[str, list[np.ndarray]] = {"with detail": [], "without": []}
    sizes = []
    for start in range(0, len(data.crops), BATCH):
        crops = to_tensor(data.crops[start : start + BATCH])
        latent, detail = encode_crops(vae, crops), encode_detail(vae, crops)
        if detail is not None:
            made["with detail"].append(to_pixels(decode_latents(vae, latent, detail)))
            sizes += [len(pack_numbers(one.numpy().ravel(), SEED, "detail")) for one in detail]
        made["without"].append(to_pixels(decode_latents(vae, latent)))
    report: dict = {"faces": len(data.crops), "photos": {"sharpness": round(sharpness(data.crops), 2)}}
    for name, parts in made.items():
        if parts:
            decoded = np.concatenate(parts)
            decibels = [psnr(one, two) for one, two in zip(decoded, data.crops, strict=True)]
            report[name] = {"psnr_db": round(float(np.mean(decibels)), 2), "sharpness": round(sharpness(decoded), 2)}
    return report | ({"detail_bytes": round(float(np.mean(sizes)))} if sizes else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--cache", type=Path, help="keep the photos' crops in this .npz (real people: not in the repository)")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(json.dumps(measure(load_photos(arguments.photos, cache=arguments.cache), arguments.model), indent=1))


if __name__ == "__main__":
    main()
