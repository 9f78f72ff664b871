"""Commands that need no engine start without one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs.conftest import ROOT

HEAVY = {"torch", "ray", "pyarrow", "numpy", "cv2", "pandas", "PIL", "diffusers", "onnxruntime", "apache_beam", "webdataset"}
PROBE = """
import json, sys
from diffpriv.jobs.cli import main
sys.argv = ["diffpriv", *json.loads(sys.argv[1])]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print("MODULES", json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def _loaded_by(*arguments: str, cwd: Path | None = None, **environment: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout.rpartition("MODULES ")[2]))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("keys", "--help"),
        ("audit", "--help"),
        ("audit", "verify", "--help"),
        ("recover", "--help"),
        ("demo", "--help"),
        ("evaluate", "--help"),
    ],
    ids=" ".join,
)
def test_help_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert not _loaded_by(*arguments) & HEAVY


def test_making_keys_and_reading_a_log_loads_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "passphrase").touch(0o600)
    (tmp_path / "passphrase").write_text("for tests only")
    keys, phrase = str(tmp_path / "keys"), str(tmp_path / "passphrase")
    assert not _loaded_by("keys", "init", keys, "--passphrase-file", phrase, cwd=tmp_path) & HEAVY
    assert not _loaded_by("keys", "list", keys, cwd=tmp_path) & (HEAVY - {"pyarrow"})
    assert not _loaded_by("audit", "verify", str(tmp_path / "audit"), "--log-vkey", f"{keys}/log.vkey", cwd=tmp_path) & HEAVY
