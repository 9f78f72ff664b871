"""Review: what was missed is shown, and a decisions file changes the shards that it names and no other."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from diffpriv.detectors import load_detector
from diffpriv.faces.types import Face, overlap
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.engines.beam_driver import run
from diffpriv.pipelines.errors import MisuseError
from diffpriv.pipelines.review.build import PageSettings, gallery_page, review_page
from diffpriv.pipelines.review.entries import MISSED
from diffpriv.pipelines.review.page import render
from tests.pipelines.conftest import commit_records, published
from tests.pipelines.datasets import encoded, group, write_shards

FILL = {"transform": "fill", "recovery": "exact"}
LOWEST = 0.2
SETTINGS = PageSettings(lowest=LOWEST, near_limit=0.3)


@pytest.fixture(scope="module")
def photos() -> list[tuple[np.ndarray, list[Face]]]:
    """Four blurred versions of a photo of six people, and all that the detector finds at a low threshold."""
    detector = load_detector("centerface", threshold=LOWEST)
    blurred = [np.asarray(Image.fromarray(group()).filter(ImageFilter.GaussianBlur(radius))) for radius in (1, 2, 2.5, 3)]
    return [(picture, detector.detect([picture])[0]) for picture in blurred]


def test_twenty_planted_misses_are_shown_and_decisions_redo_their_shards_only(
    photos: list[tuple[np.ndarray, list[Face]]], tmp_path: Path, config_for: Callable[..., JobConfig]
) -> None:
    """The faces of which the detector is least sure are left out of the boxes that the job trusts."""
    every = sorted(
        ((face.score, place, number) for place, (_, found) in enumerate(photos) for number, face in enumerate(found))
    )
    planted = {(place, number) for _, place, number in every[:20]}
    assert len(planted) == 20
    assert every[0][0] < 0.5
    shards = {}
    for place, (picture, found) in enumerate(photos):
        boxes = [list(face.box) for number, face in enumerate(found) if (place, number) not in planted]
        shards[f"{place}.tar"] = [("a.png", encoded(picture, "PNG")), ("a.json", json.dumps({"boxes": boxes}).encode())]
    src = write_shards(tmp_path / "src", shards)
    settings = {"transform": FILL, "boxes": {"field": "boxes", "detect": "never"}, "faces_table": True}
    job = config_for(src, **settings)
    run(job)
    document = review_page(job.dst, str(src), SETTINGS)
    cases = document["entries"]
    for place, number in planted:
        box = photos[place][1][number].box
        shown = [case for case in cases if case["kind"] == MISSED and case["shard"] == f"{place}.tar"]
        assert any(overlap(tuple(case["box"]), box) > 0.9 for case in shown)
        assert all(case["before"] and case["after"] for case in shown)
    assert len(cases) >= 20
    assert not re.search(r"https?:", render(document))
    assert review_page(job.dst, None, SETTINGS)["entries"] == [], "without originals no missed face can be seen"
    everything = gallery_page(job.dst, str(src), SETTINGS)["entries"]
    assert {case["kind"] for case in everything} >= {MISSED, "protected"}, "the gallery shows them among the others"

    wanted = sorted({case["shard"] for case in cases if case["kind"] == MISSED})[:2]
    decided = {
        shard: [
            {"sample": case["sample"], "field": case["field"], "action": "add", "box": case["box"]}
            for case in cases
            if case["kind"] == MISSED and case["shard"] == shard
        ]
        for shard in wanted
    }
    file = tmp_path / "decisions.json"
    file.write_text(json.dumps({"format": "diffpriv decisions", "version": 1, "dataset": "", "shards": decided}))
    before, kept = published(job.dst), commit_records(job.dst)
    report = run(config_for(src, **settings, decisions=str(file)))
    after = published(job.dst)
    assert [name for name in before if before[name] != after[name]] == wanted
    assert report.shards_done == 2
    assert report.counts["faces"] == sum(record["counts"]["faces"] for record in kept.values()) + sum(
        map(len, decided.values())
    )
    assert run(config_for(src, **settings)).nothing_to_do, "the decisions hold without the file"
    assert not set(wanted) & {case["shard"] for case in review_page(job.dst, str(src), SETTINGS)["entries"]}


def test_a_decisions_file_that_cannot_be_meant_is_refused(tmp_path: Path, config_for: Callable[..., JobConfig]) -> None:
    src = write_shards(tmp_path / "src", {"s.tar": [("a.png", encoded(group(), "PNG"))]})
    head = {"format": "diffpriv decisions", "version": 1}
    bad = [
        ({}, "not a decisions file"),
        ({**head, "shards": {"other.tar": []}}, "SRC does not have"),
        ({**head, "shards": {"s.tar": [{"sample": "a", "field": "png", "action": "add", "box": [1, 2]}]}}, "four numbers"),
        ({**head, "shards": {"s.tar": [{"sample": "a", "field": "png", "action": "shred"}]}}, "no action"),
    ]
    for number, (document, words) in enumerate(bad):
        file = tmp_path / f"{number}.json"
        file.write_text(json.dumps(document))
        with pytest.raises(MisuseError, match=words):
            run(config_for(src, decisions=str(file), transform=FILL))
