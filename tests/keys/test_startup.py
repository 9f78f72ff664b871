"""`keys` and `audit` commands start fast: nothing heavy is imported before it is needed."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    "torch",
    "ray",
    "apache_beam",
    "onnxruntime",
    "cv2",
    "pyarrow",
    "boto3",
    "pkcs11",
    "pandas",
    "numpy",
    "fsspec",
    "shamir_mnemonic",
)
ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "keys").rglob("*.py")
    if path.name != "__init__.py"
)


def test_no_module_of_keys_imports_anything_heavy():
    program = f"import sys, {', '.join(MODULES)}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("package", ["diffpriv", "pipelines", "jobs"])
def test_keys_imports_nothing_of_ours(package):
    program = f"import sys, {', '.join(MODULES)}; print({package!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
