"""How well recognisers tell people apart, on labelled photos that the builtin one was never trained on.

`python -m benchmarks.recognition PHOTOS --model FOLDER --judge dlib --judge human:FOLDER` prints a table. All are compared by
the cosine on the same pairs of the same aligned crops. With --write the builtin recogniser's thresholds at false-accept rates
1e-2 and 1e-3 (on impostor pairs of these photos) and the spread of strangers are written to FOLDER/recognizer/config.json:
protection checks faces against them.
"""

import argparse
import json
from pathlib import Path

import torch

from benchmarks.photos import load_photos, verification_rate
from diffpriv.recognizers import load_recognizer
from diffpriv.weights import resolve_model

RATES = (1e-2, 1e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", default="builtin", help='"builtin", a model folder, or a folder that holds recognizer/')
    parser.add_argument("--judge", action="append", default=[], help="another recogniser beside it; may be repeated")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = load_photos(arguments.photos, cache=arguments.cache)
    same, different = data.pairs()
    result: dict = {"photos": len(data.crops), "mated pairs": len(same), "impostor pairs": len(different)}
    spread, thresholds = 1.0, {}
    for spec in (arguments.model, *arguments.judge):
        recognizer = load_recognizer(spec)
        embedded = recognizer.embed(data.crops)
        cosine = embedded @ embedded.T
        found: dict = {"identity": recognizer.identity}
        if spec == arguments.model:
            spread = round(float(1 - cosine[different[:, 0], different[:, 1]].mean()), 4)
        for rate in RATES:
            tar, threshold = verification_rate(cosine, same, different, rate)
            found |= {f"TAR@FAR {rate:g}": round(tar, 4), f"cosine at FAR {rate:g}": round(threshold, 4)}
            if spec == arguments.model:
                thresholds[f"{rate:g}"] = round(1 - (1 - threshold) / spread, 4)
        result[spec.partition(":")[0]] = found
    result["calibration"] = {"spread": spread, "thresholds": thresholds}
    print(json.dumps(result, indent=1))
    if arguments.write:
        path = resolve_model(arguments.model) / "recognizer" / "config.json"
        config = json.loads(path.read_text())
        config |= result["calibration"]
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
