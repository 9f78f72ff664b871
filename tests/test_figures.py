"""docs/figures.md is what the benchmarks' JSON says, and each of its rows says when, where and of what."""

import json
from pathlib import Path

import pytest

from benchmarks.figures import PAGE, TOPICS, Figure, read, record, render


def test_the_page_is_made_from_the_results() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(read()), "run make figures"


def test_every_figure_names_its_day_machine_and_commit() -> None:
    figures = read()
    assert figures
    for figure in figures:
        assert figure.date and figure.machine and figure.commit, figure.what  # noqa: PT018
        assert figure.topic in TOPICS, figure.what


def test_a_figure_that_is_measured_again_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    record(
        "speed", Figure("Detection", "faces per second", "1", "x"), Figure("Detection", "memory", "2", "x"), results=tmp_path
    )
    path = record("speed", Figure("Detection", "memory", "3", "x", seed=7), results=tmp_path)
    rows = json.loads(path.read_text())
    assert [(row["what"], row["figure"]) for row in rows] == [("faces per second", "1"), ("memory", "3")]
    assert "`x --seed 7`" in render(read(tmp_path))
    with pytest.raises(ValueError, match="is no topic"):
        record("speed", Figure("Colour", "hue", "1", "x"), results=tmp_path)
