"""How well the builtin recogniser tells people apart, beside dlib's, on labelled photos it was never trained on.

`python -m benchmarks.recognition PHOTOS --model FOLDER` prints a table. With --write the thresholds at false-accept rates 1e-2
and 1e-3 (on impostor pairs of these photos) and the spread of strangers are written to FOLDER/recognizer/config.json:
protection checks faces against them.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from benchmarks.photos import load_photos, verification_rate
from diffpriv.errors import ModelError
from diffpriv.models.recognizer import FaceRecognizer
from diffpriv.training.teacher import DlibTeacher

RATES = (1e-2, 1e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", type=Path, required=True, help="a model folder, or a folder that holds recognizer/")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    data = load_photos(arguments.photos, cache=arguments.cache)
    same, different = data.pairs()
    folder = arguments.model / "recognizer"
    model = FaceRecognizer.from_pretrained(folder, torch_dtype=torch.float32, low_cpu_mem_usage=False).eval()
    with torch.no_grad():
        pixels = torch.from_numpy(data.crops).permute(0, 3, 1, 2).float() / 127.5 - 1
        embedded = torch.cat([model.embed_canonical(part) for part in pixels.split(64)]).numpy()
    cosine = embedded @ embedded.T
    spread = float(1 - cosine[different[:, 0], different[:, 1]].mean())
    matrices = {"builtin": 1 - (1 - cosine) / spread}
    try:
        teacher = DlibTeacher().embed(data.crops)
        matrices["dlib"] = -np.linalg.norm(teacher[:, None] - teacher[None], axis=2)
    except ModelError as error:
        print(error)
    result: dict = {"photos": len(data.crops), "mated pairs": len(same), "impostor pairs": len(different)}
    thresholds = {}
    for name, matrix in matrices.items():
        for rate in RATES:
            tar, threshold = verification_rate(matrix, same, different, rate)
            result[f"{name} TAR@FAR {rate:g}"] = round(tar, 4)
            if name == "builtin":
                thresholds[f"{rate:g}"] = round(threshold, 4)
    result |= {"spread": round(spread, 4), "thresholds": thresholds}
    print(json.dumps(result, indent=1))
    if arguments.write:
        path = folder / "config.json"
        config = json.loads(path.read_text())
        config |= {"spread": round(spread, 4), "thresholds": thresholds}
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
