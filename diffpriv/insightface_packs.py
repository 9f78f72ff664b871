"""Where InsightFace's model packs are, and what to tell a user who has none.

Their weights are licensed for non-commercial research only and are not shipped: the user brings them. Nothing here downloads
unless the caller allows it.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

from diffpriv.errors import DetectorError

DEFAULT_ROOT = "~/.insightface"  # InsightFace's own; packs lie in ROOT/models/NAME
DOWNLOAD_URL = "https://github.com/deepinsight/insightface/releases/download/model-zoo/{name}.zip"
LICENCE_NOTE = "InsightFace licenses these weights for non-commercial research only."


def resolve_pack(pack: str, *, root: str = DEFAULT_ROOT, allow_download: bool = False) -> Path:
    """The folder of a pack that holds at least one .onnx file.

    Args:
        pack: a folder, or a name such as "buffalo_l", looked up in ROOT/models.
        allow_download: let InsightFace fetch a named pack from GitHub when it is not there.
    Raises:
        DetectorError: no such pack; the advice names what to fetch, from where, and where to put it.
    """
    direct = Path(pack).expanduser()
    looks_like_path = "/" in pack or os.sep in pack or pack.startswith(("~", ".")) or direct.is_dir()
    folder = direct if looks_like_path else Path(root).expanduser() / "models" / pack
    if _has_models(folder):
        return folder
    if looks_like_path:
        state = "holds no .onnx file" if folder.is_dir() else "does not exist"
        raise DetectorError(
            f"The InsightFace pack {folder} {state}.",
            advice=f"Name the folder that holds the pack's .onnx files, such as an unpacked buffalo_l.zip. {LICENCE_NOTE}",
        )
    if allow_download:
        _download(pack, root)
        if _has_models(folder):
            return folder
    raise DetectorError(
        f'The weights of the InsightFace pack "{pack}" are not on this machine ({folder}).',
        advice=(
            f"Download {DOWNLOAD_URL.format(name=pack)} and unpack its .onnx files into {folder}, or give the folder itself as "
            f'"insightface:FOLDER". {LICENCE_NOTE} The detector "centerface" needs no download.'
        ),
    )


def _has_models(folder: Path) -> bool:
    return folder.is_dir() and any(folder.glob("*.onnx"))  # an interrupted download leaves an empty folder


def _download(pack: str, root: str) -> None:
    from insightface.utils import storage

    try:
        storage.download("models", pack, force=True, root=root)
    except Exception as error:  # requests', zipfile's and the operating system's own types
        raise DetectorError(
            f'The InsightFace pack "{pack}" could not be downloaded: {type(error).__name__}.',
            advice=f"Fetch {DOWNLOAD_URL.format(name=pack)} by hand and give its folder. {LICENCE_NOTE}",
        ) from error


def session_settings(threads: int) -> dict[str, Any]:
    """Arguments for InsightFace's loaders: CPU, a fixed number of threads, quiet."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return {"providers": ["CPUExecutionProvider"], "sess_options": options}


def file_digest(path: str | os.PathLike[str]) -> str:
    """Hex SHA-256 of a file."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
