"""`diffpriv doctor`: what works on this machine, what is missing, and what to do about it.

In its short form, for an answer in seconds, large libraries are only looked for, and the model's weights are read but not
loaded; `--thorough` imports every library and loads the model. What libraries say about themselves meanwhile is not shown.
"""

import contextlib
import importlib
import importlib.util
import json
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffpriv.jobs.output import FOUND_WRONG, OUTPUT, print_table, print_wrapped
from diffpriv.keys.errors import DiffPrivError

if TYPE_CHECKING:
    from rich.console import Console

GIB = 1 << 30


@dataclass(frozen=True)
class Diagnosis:
    """One check. `state`: "ok", "absent" (optional) or "BROKEN" (needed)."""

    what: str
    state: str
    detail: str
    advice: str = ""


def doctor(
    thorough: Annotated[bool, typer.Option("--thorough", help="Import every library and load the model: ten seconds.")] = False,
) -> None:
    """Check everything a job needs here. Exits 1 if something needed is broken."""
    with _others_quiet():
        findings = [check() for check in (THOROUGH if thorough else SHORT)]

    def show(console: "Console") -> None:
        print_table(
            console, "diffpriv on this machine", ["", "state", "detail"], [(f.what, f.state, f.detail) for f in findings]
        )
        for finding in findings:
            if finding.advice:
                print_wrapped(console, finding.what, finding.advice)
        if not thorough:
            console.print("Libraries were looked for, not loaded: diffpriv doctor --thorough loads them and the model.")

    broken = [finding for finding in findings if finding.state == "BROKEN"]
    OUTPUT.result({"ok": not broken, "findings": [vars(finding) for finding in findings]}, show)
    if broken:
        raise typer.Exit(FOUND_WRONG)


@contextlib.contextmanager
def _others_quiet() -> Iterator[None]:
    """Keep what libraries log or warn of while they are imported off the screen; their errors are findings."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _python() -> Diagnosis:
    return Diagnosis("Python", "ok", sys.version.split()[0])  # older ones don't install this package


def _machine() -> Diagnosis:
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    except (ValueError, OSError):
        memory = 0.0
    free = shutil.disk_usage(".").free / GIB
    detail = f"{os.cpu_count()} CPUs, {memory:.0f} GiB memory, {free:.0f} GiB free here"
    if 0 < memory < 4:
        return Diagnosis("machine", "ok", detail, "Less than 4 GiB of memory: give --actors 1.")
    return Diagnosis("machine", "ok", detail)


def _module(
    name: str, title: str, *, needed: bool, advice: str, call: Callable[[object], str] | None = None
) -> Callable[[], Diagnosis]:
    def check() -> Diagnosis:
        try:
            module = importlib.import_module(name)
            detail = call(module) if call else str(getattr(module, "__version__", "there"))
        except Exception as error:  # a broken package can fail in any way, and finding that out is the purpose
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            return Diagnosis(title, "BROKEN" if needed else "absent", reason, advice)
        return Diagnosis(title, "ok", detail)

    return check


def _installed(
    name: str, title: str, *, needed: bool, advice: str, package: str = "", call: Callable[[], str] | None = None
) -> Callable[[], Diagnosis]:
    """A check that a library is there, without importing it. `package`: its distribution, where that has another name."""

    def check() -> Diagnosis:
        try:
            found = importlib.util.find_spec(name) is not None
            detail = (version(package or name) + (call() if call else "")) if found else "not installed"
        except (PackageNotFoundError, ImportError, ValueError) as error:
            found, detail = False, str(error) or type(error).__name__
        if not found:
            return Diagnosis(title, "BROKEN" if needed else "absent", detail, advice)
        return Diagnosis(title, "ok", detail)

    return check


def _gpus() -> str:
    """What the driver says; whether PyTorch can use it, `--thorough` finds out."""
    try:
        count = len(os.listdir("/proc/driver/nvidia/gpus"))
    except OSError:
        count = 0
    return f", {count or 'no'} NVIDIA GPU"


def _torch(module: object) -> str:
    cuda = module.cuda.is_available()  # type: ignore[attr-defined]
    return f"{module.__version__}, {module.cuda.device_count() if cuda else 'no'} GPU"  # type: ignore[attr-defined]


def _hpke(module: object) -> str:
    module.MLKEM768X25519PrivateKey  # type: ignore[attr-defined]  # noqa: B018 - absent below version 48
    import cryptography

    return f"cryptography {cryptography.__version__}, HPKE with X25519 + ML-KEM-768"


def _detector() -> Diagnosis:
    try:
        from diffpriv.detectors import load_detector

        return Diagnosis("detector centerface", "ok", load_detector("centerface").identity)
    except DiffPrivError as error:
        return Diagnosis("detector centerface", "BROKEN", error.message, error.advice)
    except Exception as error:
        return Diagnosis("detector centerface", "BROKEN", f"{type(error).__name__}: {error}")


def _weights() -> Diagnosis:
    """Every weight file is whole, by its own table of contents; nothing is loaded."""
    from importlib.resources import files

    folder, size, count = Path(str(files("diffpriv") / "builtin")), 0, 0
    try:
        for path in sorted(folder.glob("*/*.safetensors")):
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                tensors = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"]
            if path.stat().st_size != 8 + length + max(ends):
                return Diagnosis("builtin model", "BROKEN", f"{path.parent.name}/{path.name} is cut short", REINSTALL)
            size, count = size + path.stat().st_size, count + 1
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Diagnosis("builtin model", "BROKEN", f"{type(error).__name__}: {error}", REINSTALL)
    if not count:
        return Diagnosis("builtin model", "BROKEN", f"no weights in {folder}", REINSTALL)
    return Diagnosis("builtin model", "ok", f"{count} weight files, {size / 1e6:.0f} MB")


def _model() -> Diagnosis:
    try:
        from diffpriv.weights import load_pipeline, resolve_model, weights_digest

        load_pipeline(resolve_model("builtin"))
        return Diagnosis("builtin model", "ok", f"weights {weights_digest(resolve_model('builtin'))[:16]}")
    except DiffPrivError as error:
        return Diagnosis("builtin model", "BROKEN", error.message, error.advice)
    except Exception as error:
        return Diagnosis("builtin model", "BROKEN", f"{type(error).__name__}: {error}")


REINSTALL = 'Install again: pip install -c constraints.txt ".", or "make demo" in a clone.'
LIBGL = (
    "On a machine without libGL: pip install --force-reinstall --no-deps opencv-python-headless "
    "(or apt-get install libgl1 libglib2.0-0)."
)
OPTIONAL = (
    ("dlib", "dlib's recogniser", "dlib-bin", 'For --recognizer or --judge dlib: pip install ".[judges]".'),
    ("apache_beam", "Beam engine", "apache-beam", 'For --engine beam: pip install -c constraints.txt ".[beam]".'),
    ("boto3", "AWS (S3, KMS)", "boto3", 'For s3:// URLs and KMS recipients: pip install ".[aws]".'),
    ("pkcs11", "PKCS#11 tokens", "python-pkcs11", 'For recipients on a token: pip install ".[pkcs11]".'),
)
_LIGHT: tuple[Callable[[], Diagnosis], ...] = (
    _module("cv2", "OpenCV", needed=True, advice=LIBGL),
    _module("onnxruntime", "ONNX Runtime", needed=True, advice=REINSTALL),
    _module("cryptography.hazmat.primitives.hpke", "key wrapping", needed=True, advice=REINSTALL, call=_hpke),
    _detector,
)
SHORT: tuple[Callable[[], Diagnosis], ...] = (
    _python,
    _machine,
    _installed("torch", "PyTorch", needed=True, advice=REINSTALL, call=_gpus),
    _installed("ray", "Ray", needed=True, advice=REINSTALL),
    *_LIGHT,
    _weights,
    *(_installed(name, title, needed=False, advice=advice, package=package) for name, title, package, advice in OPTIONAL),
)
THOROUGH: tuple[Callable[[], Diagnosis], ...] = (
    _python,
    _machine,
    _module("torch", "PyTorch", needed=True, advice=REINSTALL, call=_torch),
    _module("ray", "Ray", needed=True, advice=REINSTALL),
    *_LIGHT,
    _model,
    *(_module(name, title, needed=False, advice=advice) for name, title, _, advice in OPTIONAL),
)
