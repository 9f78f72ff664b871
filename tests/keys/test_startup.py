"""`keys` and `audit` commands start fast: nothing heavy is imported before it is needed."""

import json
import subprocess
import sys
from pathlib import Path

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
    ".".join(("diffpriv", *path.relative_to(ROOT).with_suffix("").parts))
    for path in (ROOT / "keys").rglob("*.py")
    if path.name != "__init__.py"
)


def _loaded_with_keys() -> list[str]:
    program = f"import sys, json, {', '.join(MODULES)}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_no_module_of_keys_imports_anything_heavy():
    assert not set(_loaded_with_keys()) & set(HEAVY)


def test_keys_imports_nothing_of_ours():
    ours = {name for name in _loaded_with_keys() if name.partition(".")[0] in ("diffpriv", "keys", "pipelines", "jobs")}
    assert {name for name in ours if not name.startswith("diffpriv.keys")} == {"diffpriv"}
