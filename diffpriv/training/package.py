"""Put trained components together as one model folder.

`python -m diffpriv.training.package OUT --crops CROPS.npz --vae F --denoiser F --recognizer F` writes what
`DiffPrivacyPipeline.from_pretrained` and `--model OUT` read: unet, msi and scheduler from the denoiser's run, weights in half
precision. The priors of key-E are fitted here, over the training crops' latents that the run has cached.
"""

import argparse
import json
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from diffpriv.models.autoencoder import FaceAutoencoder
from diffpriv.models.msi import MultiScaleInverter
from diffpriv.models.recognizer import FaceRecognizer
from diffpriv.pipeline import DiffPrivacyPipeline
from diffpriv.scenes import scene_vector
from diffpriv.training.dataset import load_crops


def package(out: Path, crops: Path, vae: Path, denoiser: Path, recognizer: Path, few_steps: bool) -> int:
    """Write the folder; returns the bytes of its weights."""
    half = {"torch_dtype": torch.float16, "low_cpu_mem_usage": False}
    msi = MultiScaleInverter.from_pretrained(denoiser / "msi", torch_dtype=torch.float32, low_cpu_mem_usage=False)
    stored = torch.load(denoiser / "latents.pt", weights_only=True)
    data = load_crops(crops)
    rows = data.split()[0][::2]
    scenes = scene_vector(stored["context"][0][rows].float(), torch.from_numpy(data.landmarks[rows]))
    with torch.no_grad():
        msi.fit_prior(torch.cat([msi(part.float()).features for part in stored["full"][0][rows].split(256)]), scenes)
    pipeline = DiffPrivacyPipeline(
        vae=FaceAutoencoder.from_pretrained(vae, **half),
        unet=UNet2DConditionModel.from_pretrained(denoiser / "unet", **half),
        scheduler=DDIMScheduler.from_pretrained(denoiser / "scheduler"),
        msi=msi.half(),
        recognizer=FaceRecognizer.from_pretrained(recognizer, **half),
        few_steps=few_steps,
    )
    pipeline.save_pretrained(out)
    for config in out.glob("*/config.json"):  # diffusers writes down where a part was read from: a path of this machine
        facts = json.loads(config.read_text())
        facts.pop("_name_or_path", None)
        config.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")
    return sum(path.stat().st_size for path in out.rglob("*.safetensors"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--crops", type=Path, required=True)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--denoiser", type=Path, required=True)
    parser.add_argument("--recognizer", type=Path, required=True)
    parser.add_argument("--few-steps", action="store_true", help="the denoiser was trained to need few steps (an older model)")
    arguments = parser.parse_args()
    parts = arguments.vae, arguments.denoiser, arguments.recognizer
    size = package(arguments.out, arguments.crops, *parts, few_steps=arguments.few_steps)
    print(f"{arguments.out}: {size / 1e6:.1f} MB of weights")


if __name__ == "__main__":
    main()
