"""`diffpriv doctor`: what works on this machine, what is missing, and what to do about it."""

import importlib
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from jobs.output import FOUND_WRONG, OUTPUT, print_table
from keys.errors import DiffPrivError

if TYPE_CHECKING:
    from rich.console import Console

GIB = 1 << 30


@dataclass(frozen=True)
class Finding:
    """One check. `state`: "ok", "absent" (optional) or "BROKEN" (needed)."""

    what: str
    state: str
    detail: str
    advice: str = ""


def doctor() -> None:
    """Check everything a job needs here. Exits 1 if something needed is broken."""
    findings = [check() for check in CHECKS]

    def show(console: "Console") -> None:
        print_table(
            console, "diffpriv on this machine", ["", "state", "detail"], [(f.what, f.state, f.detail) for f in findings]
        )
        for finding in findings:
            if finding.advice:
                console.print(f"{finding.what}: {finding.advice}", markup=False)

    broken = [finding for finding in findings if finding.state == "BROKEN"]
    OUTPUT.result({"ok": not broken, "findings": [vars(finding) for finding in findings]}, show)
    if broken:
        raise typer.Exit(FOUND_WRONG)


def _python() -> Finding:
    return Finding("Python", "ok", sys.version.split()[0])  # older ones don't install this package


def _machine() -> Finding:
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    except (ValueError, OSError):
        memory = 0.0
    free = shutil.disk_usage(".").free / GIB
    detail = f"{os.cpu_count()} CPUs, {memory:.0f} GiB memory, {free:.0f} GiB free here"
    if 0 < memory < 4:
        return Finding("machine", "ok", detail, "Less than 4 GiB of memory: give --actors 1.")
    return Finding("machine", "ok", detail)


def _module(
    name: str, title: str, *, needed: bool, advice: str, call: Callable[[object], str] | None = None
) -> Callable[[], Finding]:
    def check() -> Finding:
        try:
            module = importlib.import_module(name)
            detail = call(module) if call else str(getattr(module, "__version__", "there"))
        except Exception as error:  # a broken package can fail in any way, and finding that out is the purpose
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            return Finding(title, "BROKEN" if needed else "absent", reason, advice)
        return Finding(title, "ok", detail)

    return check


def _torch(module: object) -> str:
    cuda = module.cuda.is_available()  # type: ignore[attr-defined]
    return f"{module.__version__}, {module.cuda.device_count() if cuda else 'no'} GPU"  # type: ignore[attr-defined]


def _hpke(module: object) -> str:
    module.MLKEM768X25519PrivateKey  # type: ignore[attr-defined]  # noqa: B018 - absent below version 48
    import cryptography

    return f"cryptography {cryptography.__version__}, HPKE with X25519 + ML-KEM-768"


def _detector() -> Finding:
    try:
        from diffpriv.detectors import load_detector

        return Finding("detector centerface", "ok", load_detector("centerface").identity)
    except DiffPrivError as error:
        return Finding("detector centerface", "BROKEN", error.message, error.advice)
    except Exception as error:
        return Finding("detector centerface", "BROKEN", f"{type(error).__name__}: {error}")


def _model() -> Finding:
    try:
        from diffpriv.weights import load_pipeline, resolve_model, weights_digest

        load_pipeline(resolve_model("builtin"))
        return Finding("builtin model", "ok", f"weights {weights_digest(resolve_model('builtin'))[:16]}")
    except DiffPrivError as error:
        return Finding("builtin model", "BROKEN", error.message, error.advice)
    except Exception as error:
        return Finding("builtin model", "BROKEN", f"{type(error).__name__}: {error}")


REINSTALL = 'Install again: pip install -c constraints.txt ".", or "make demo" in a clone.'
CHECKS: tuple[Callable[[], Finding], ...] = (
    _python,
    _machine,
    _module("torch", "PyTorch", needed=True, advice=REINSTALL, call=_torch),
    _module("ray", "Ray", needed=True, advice=REINSTALL),
    _module(
        "cv2",
        "OpenCV",
        needed=True,
        advice="On a machine without libGL: pip install --force-reinstall --no-deps opencv-python-headless "
        "(or apt-get install libgl1 libglib2.0-0).",
    ),
    _module("onnxruntime", "ONNX Runtime", needed=True, advice=REINSTALL),
    _module("cryptography.hazmat.primitives.hpke", "key wrapping", needed=True, advice=REINSTALL, call=_hpke),
    _detector,
    _model,
    _module("dlib", "dlib's recogniser", needed=False, advice='For --recognizer or --judge dlib: pip install ".[judges]".'),
    _module("apache_beam", "Beam engine", needed=False, advice='For --engine beam: pip install -c constraints.txt ".[beam]".'),
    _module("boto3", "AWS (S3, KMS)", needed=False, advice='For s3:// URLs and KMS recipients: pip install ".[aws]".'),
    _module("pkcs11", "PKCS#11 tokens", needed=False, advice='For recipients on a token: pip install ".[pkcs11]".'),
)
