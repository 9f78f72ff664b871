"""Loading model folders and naming their weights. The only file access of the method.

A model folder is what `DiffPrivacyPipeline.save_pretrained` writes: one sub-folder per component with config.json and
safetensors. Weights may be stored in half precision; they are loaded as float32, in which everything is computed.
"""

import hashlib
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from diffpriv.errors import ModelError
from diffpriv.models.autoencoder import FaceAutoencoder
from diffpriv.models.msi import MultiScaleInverter
from diffpriv.models.recognizer import FaceRecognizer
from diffpriv.pipeline import DiffPrivacyPipeline

COMPONENTS = {
    "vae": FaceAutoencoder,
    "unet": UNet2DConditionModel,
    "scheduler": DDIMScheduler,
    "msi": MultiScaleInverter,
    "recognizer": FaceRecognizer,
}


def builtin_folder() -> Path:
    """Where the shipped model lies inside the installed package."""
    return Path(str(files("diffpriv") / "builtin"))


def resolve_model(name: str) -> Path:
    """The folder of a model name: "builtin", or a path."""
    return builtin_folder() if name == "builtin" else Path(name).expanduser()


def load_pipeline(folder: Path, device: str | None = None) -> DiffPrivacyPipeline:
    """Load every component as float32 in evaluation mode.

    Args:
        device: default is CUDA where a device is visible, else the CPU.
    Raises:
        ModelError: a component is missing or cannot be read.
    """
    missing = [name for name in COMPONENTS if not (folder / name).is_dir()]
    if missing:
        raise ModelError(
            f"{folder} is not a model folder: {', '.join(missing)} missing.",
            advice='Use "builtin", or a folder written by DiffPrivacyPipeline.save_pretrained.',
        )
    parts = {}
    for name, kind in COMPONENTS.items():
        options = {} if name == "scheduler" else {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}
        try:
            parts[name] = kind.from_pretrained(folder / name, local_files_only=True, **options)
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"The {name} in {folder} cannot be read: {error}", advice="Copy the model folder again."
            ) from error
    pipeline = DiffPrivacyPipeline(**parts)
    for name in ("vae", "unet", "msi", "recognizer"):
        parts[name].eval().requires_grad_(False)
    return pipeline.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))


@lru_cache(maxsize=8)
def weights_digest(folder: Path) -> str:
    """Hex SHA-256 over every file of the model folder: names, lengths and contents in name order.

    Raises:
        ModelError: there is no model folder.
    """
    if not any(folder.rglob("*.safetensors")):
        raise ModelError(f"There are no weights in {folder}.", advice='Use "builtin", or a folder with safetensors files.')
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".json", ".safetensors"):
            content = path.read_bytes()
            total.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
            total.update(content)
    return total.hexdigest()
