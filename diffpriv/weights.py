"""Loading model folders and naming their weights. The only file access of the method.

A model folder is what `DiffPrivacyPipeline.save_pretrained` writes: one sub-folder per component with config.json and
safetensors. Weights may be stored in half precision; by default they are loaded as float32. Two profiles: the builtin model,
and Stable Diffusion 1.x with an AutoencoderKL, a `ClipInverter` and CLIP's vision tower, which is what
`diffpriv.training.clip_inverter` writes.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

from diffpriv.errors import ModelError
from diffpriv.faces.mesh import FaceMesh
from diffpriv.generator.style_generator import StyleGenerator
from diffpriv.head_viewer import HeadViewer
from diffpriv.models.autoencoder import FaceAutoencoder
from diffpriv.models.clip_inverter import ClipInverter
from diffpriv.models.hair import HairNet
from diffpriv.models.msi import MultiScaleInverter
from diffpriv.models.recognizer import FaceRecognizer
from diffpriv.pipeline import DiffPrivacyPipeline

COMPONENTS = ("vae", "unet", "scheduler", "msi", "recognizer")
TOWER = "image_encoder"  # of the Stable Diffusion profile only
GENERATOR, IN_PLACE = "generator", "in_place"  # of the builtin profile: folders with the networks of stage 2
KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (FaceAutoencoder, AutoencoderKL, UNet2DConditionModel, MultiScaleInverter, ClipInverter, FaceRecognizer)
}


def builtin_folder() -> Path:
    """Where the shipped model lies inside the installed package."""
    return Path(str(files("diffpriv") / "builtin"))


def resolve_model(name: str) -> Path:
    """The folder of a model name: "builtin", or a path."""
    return builtin_folder() if name == "builtin" else Path(name).expanduser()


def load_pipeline(
    folder: Path,
    device: str | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    attention_slicing: bool = False,
    compiled: bool = False,
) -> DiffPrivacyPipeline:
    """Load every component in evaluation mode.

    Args:
        device: default is CUDA where a device is visible, else the CPU.
        dtype: of the autoencoder, the denoiser and the vision tower; MSI and recogniser are float32 always. Half precision
            halves the memory of Stable Diffusion and changes the bits of every result.
        attention_slicing: less memory for attention, at some cost in time. compiled: torch.compile of the denoiser.
    Raises:
        ModelError: a component is missing or cannot be read.
    """
    missing = [name for name in COMPONENTS if not (folder / name).is_dir()]
    if missing:
        raise ModelError(
            f"{folder} is not a model folder: {', '.join(missing)} missing.",
            advice='Use "builtin", or a folder written by DiffPrivacyPipeline.save_pretrained.',
        )
    names = [*COMPONENTS, *([TOWER] if (folder / TOWER).is_dir() else [])]
    parts = {name: _component(folder / name, name, dtype) for name in names}
    if not parts["msi"].fitted:
        raise ModelError(
            f"The model in {folder} has no prior over faces: every new face would be the same one.",
            advice="Fit it with diffpriv.training.package; models made before 2026-11-25 need it again.",
        )
    pipeline = DiffPrivacyPipeline(**parts, few_steps=_needs_few_steps(folder))
    for name in names:
        if name != "scheduler":
            parts[name].eval().requires_grad_(False)
    if attention_slicing:
        pipeline.enable_attention_slicing()
    if compiled:
        pipeline.unet.compile()
    return pipeline.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))


@dataclass(frozen=True, eq=False)
class HeadDrawing:
    """generator: draws new heads. viewer: sees where they go, and what was drawn."""

    generator: StyleGenerator
    viewer: HeadViewer


def load_head_drawing(folder: Path, device: str | None = None) -> HeadDrawing | None:
    """The networks of stage 2 in style space; None of a model that has none.

    Args:
        folder: of the model. device: as for `load_pipeline`; what looks at pictures stays on the CPU.
    Raises:
        ModelError: a part is missing or cannot be read.
    """
    if not (folder / GENERATOR).is_dir():
        return None
    try:
        generator = StyleGenerator.from_pretrained(folder / GENERATOR)
        parts = folder / IN_PLACE
        hair = HairNet.from_pretrained(parts / "hair", local_files_only=True, low_cpu_mem_usage=False).float().eval()
        mesh = FaceMesh((parts / "face_landmark.onnx").read_bytes())
        viewer = HeadViewer(mesh, hair.requires_grad_(False), (parts / "selfie_segmentation.onnx").read_bytes())
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"The generator in {folder} cannot be read: {error}", advice="Copy the model folder again.") from error
    return HeadDrawing(generator.to(device or ("cuda" if torch.cuda.is_available() else "cpu")), viewer)


def _needs_few_steps(folder: Path) -> bool:
    index = folder / "model_index.json"
    return bool(index.exists() and json.loads(index.read_text()).get("few_steps", False))


def _component(folder: Path, name: str, dtype: torch.dtype) -> Any:
    """Raises ModelError: it cannot be read, or is of a class that this code does not know."""
    try:
        if name == "scheduler":
            return DDIMScheduler.from_pretrained(folder, local_files_only=True)
        precision = dtype if name in ("vae", "unet", TOWER) else torch.float32
        if name == TOWER:
            return vision_tower(str(folder), dtype=precision)
        kind = KINDS[json.loads((folder / "config.json").read_text())["_class_name"]]
        return kind.from_pretrained(folder, local_files_only=True, torch_dtype=precision, low_cpu_mem_usage=False)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"The {name} in {folder} cannot be read: {error}", advice="Copy the model folder again.") from error


def vision_tower(name: str, *, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    """CLIP's vision tower from a folder or a hub name.

    Raises:
        ModelError: transformers is not installed.
    """
    try:
        from transformers import CLIPVisionModel
    except ImportError as error:
        raise ModelError(
            "Stable Diffusion's profile needs transformers.", advice='Install it with pip install "diffpriv[sd]".'
        ) from error
    return CLIPVisionModel.from_pretrained(name, dtype=dtype, **options).eval().requires_grad_(False)


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
        if path.suffix in (".json", ".safetensors", ".onnx"):
            content = path.read_bytes()
            total.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
            total.update(content)
    return total.hexdigest()
