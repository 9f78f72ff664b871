"""CONTRIBUTING.md names files; they are there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_every_file_that_the_guide_names_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:keys|pipelines|jobs|diffpriv|tests)/[\w/]+\.py)`", text))
    assert len(named) > 30
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_a_stranger_is_asked_25_questions() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Where is it?")[2]
    assert len(re.findall(r"^\| .*\? \| `", table, re.M)) == 25
