"""docs/troubleshooting.md is true: its commands, run in such a folder, say what it says they say.

To write the outputs anew: DIFFPRIV_WRITE_DOCS=1 pytest tests/jobs/test_troubleshooting.py
"""

import os
import re
import shlex
from pathlib import Path

import pytest

from diffpriv.jobs.surroundings import write_places
from diffpriv.keys.init import init_keys
from tests.jobs.conftest import PASSPHRASE, ROOT, Program
from tests.pipelines.datasets import astronaut, coffee, encoded

PAGE = ROOT / "docs" / "troubleshooting.md"
BLOCK = re.compile(r"```\n(\$ diffpriv [^\n]*)\n((?:(?!```)[^\n]*\n)*)```")
MISTAKES = BLOCK.findall(PAGE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's folder: keys, places, a protected dataset, a case, a job file with a typo."""
    here = tmp_path_factory.mktemp("tries")
    for name, text in (("passphrase", PASSPHRASE), ("wrong.txt", "not it")):
        (here / name).touch(0o600)
        (here / name).write_text(text)
    (here / "photos").mkdir()
    (here / "photos" / "one.png").write_bytes(encoded(astronaut(256), "PNG"))
    (here / "photos" / "two.jpg").write_bytes(encoded(coffee(), "JPEG"))
    (here / "job.yaml").write_text("rules:\n  min_sise: 30\n")
    made = init_keys(here / "keys", PASSPHRASE, iterations=1, lanes=1, memory_kib=64)
    public = {"recipient": made.recipient, "log_key": made.log_key, "log_vkey": made.log_vkey, "policy": made.policy}
    public |= {"office_key": made.office_key, "release_key": made.release_key}
    assert write_places(here, **public)
    run = Program(here)
    run("sanitize", "photos", "protected", "--engine", "beam", "--transform", "fill", "--recovery", "exact")
    face = ("--shard", "files-00000", "--sample", "one.png", "--purpose", "check")
    run(
        "recover", "request", "case.json", "--data", "protected", *face, "--requester-key", "keys/people/requester.key", "--yes"
    )
    return here


def _said(command: str, folder: Path) -> str:
    environment = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    answer = Program(folder)(*shlex.split(command)[2:], expect=None, **environment)
    assert answer.status in (1, 2), answer.out
    text = (answer.out + answer.err).replace(f"{folder}/", "")
    text = re.sub(r"\b[0-9a-f]{8,12}…", "3f2a91bc…", text)  # cases and keys are new each time
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def test_the_page_lists_ten_mistakes() -> None:
    assert len(MISTAKES) >= 10


@pytest.mark.parametrize(("command", "said"), MISTAKES, ids=range(1, len(MISTAKES) + 1))
def test_a_mistake_is_answered_as_the_page_says(folder: Path, command: str, said: str) -> None:
    answer = _said(command, folder)
    if os.environ.get("DIFFPRIV_WRITE_DOCS"):
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(text.replace(f"```\n{command}\n{said}```", f"```\n{command}\n{answer}```"), encoding="utf-8")
        return
    assert answer == said
    assert not any((folder / name).exists() for name in ("other", "look", "photos/protected")), "nothing was written"
