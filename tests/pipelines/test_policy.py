"""Rules: which faces are left, why, and that every record says so."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from diffpriv.detectors import load_detector
from diffpriv.keys.audit.segments import AuditSegments
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.destination.commit import segment_id
from diffpriv.pipelines.engines.beam_driver import run
from diffpriv.pipelines.errors import MisuseError
from tests.pipelines.conftest import published
from tests.pipelines.datasets import encoded, group, read_tar, write_shards

FILL = {"transform": "fill", "recovery": "exact"}
HEIGHT, WIDTH = group().shape[:2]


@pytest.fixture(scope="module")
def boxes() -> list[tuple[float, float, float, float]]:
    (found,) = load_detector("centerface").detect([group()])
    return [face.box for face in found]


@pytest.fixture
def src(tmp_path: Path) -> Path:
    photo = encoded(group(), "PNG")
    members = [("a.png", photo), ("a.json", json.dumps({"consent": True}).encode())]
    members += [("b.png", photo), ("b.json", json.dumps({"consent": False}).encode()), ("c.png", photo)]
    return write_shards(tmp_path / "src", {"s.tar": members})


def grey(picture: np.ndarray, box: tuple[float, float, float, float]) -> bool:
    x, y = int((box[0] + box[2]) / 2), int((box[1] + box[3]) / 2)
    return bool((picture[y - 2 : y + 3, x - 2 : x + 3] == 128).all())


def pictures(job: JobConfig) -> dict[str, np.ndarray]:
    import io

    from PIL import Image

    members = read_tar(Path(job.dst) / "s.tar")
    return {name: np.asarray(Image.open(io.BytesIO(data))) for name, data in members if name.endswith("png")}


def test_consent_leaves_a_samples_bytes_and_is_told_everywhere(src: Path, config_for: Callable[..., JobConfig]) -> None:
    job = config_for(src, transform=FILL, rules={"consent": "consent=true"}, faces_table=True)
    report = run(job)
    assert report.counts["faces"] == 18 == report.counts["faces_left"] + report.counts["faces_protected"]
    assert report.left == {"consent": 6}
    before, after = dict(read_tar(src / "s.tar")), dict(read_tar(Path(job.dst) / "s.tar"))
    assert [name for name in before if before[name] != after[name]] == ["b.png", "c.png"]
    table = pq.read_table(Path(job.dst) / ".diffpriv/faces/s.tar.parquet").to_pylist()
    assert [(row["sample"], row["reason"]) for row in table if row["status"] == "left"] == [("a", "consent")] * 6
    assert not any(row["recoverable"] for row in table if row["status"] == "left")
    (event,) = AuditSegments(f"{job.audit}/segments").get(segment_id("faces", "s.tar")).events()
    assert (event.facts["faces"], event.facts["faces_left"]) == (18, 6)


def test_regions_size_and_score_leave_single_faces_and_treat_wins(
    src: Path, config_for: Callable[..., JobConfig], boxes: list[Any]
) -> None:
    """Each rule on the same photo: exactly the faces that it means stay, unless their region is always treated."""
    centres = [((x0 + x1) / 2 / WIDTH, (y0 + y1) / 2 / HEIGHT) for x0, y0, x1, y1 in boxes]
    left_half = [x < 0.5 for x, _ in centres]
    sides = sorted(min(x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes)
    limit = (sides[2] + sides[3]) / 2
    first = centres[left_half.index(True)]
    around_first = [first[0] - 0.02, first[1] - 0.02, first[0] + 0.02, first[1] + 0.02]
    cases: list[tuple[dict[str, Any], list[bool]]] = [
        ({"leave": [[0, 0, 0.5, 1]]}, left_half),
        ({"min_size": limit}, [min(x1 - x0, y1 - y0) < limit for x0, y0, x1, y1 in boxes]),
        (
            {"leave": [[0, 0, 0.5, 1]], "treat": [around_first]},
            [x < 0.5 and (x, y) != first for x, y in centres],
        ),
    ]
    for number, (rules, stays) in enumerate(cases):
        job = config_for(src, f"case{number}", transform=FILL, rules=rules)
        assert run(job).counts["faces_left"] == 3 * sum(stays)
        shown = pictures(job)["a.png"]
        for box, stay in zip(boxes, stays, strict=True):
            x0, y0, x1, y1 = (round(value) for value in box)
            whole = np.array_equal(shown[y0:y1, x0:x1], group()[y0:y1, x0:x1])
            assert grey(shown, box) != stay
            assert not whole or stay


def test_a_treated_region_is_covered_where_nobody_was_found(src: Path, config_for: Callable[..., JobConfig]) -> None:
    job = config_for(src, transform=FILL, rules={"treat": [[0.0, 0.0, 0.05, 0.05]]})
    assert run(job).counts["faces"] == 21
    assert (pictures(job)["a.png"][:10, :10] == 128).all()


def test_a_gallery_must_be_strict_and_leaves_only_who_is_in_it(
    src: Path, tmp_path: Path, config_for: Callable[..., JobConfig], boxes: list[Any]
) -> None:
    x0, y0, x1, y1 = boxes[0]
    margin = 0.4 * (y1 - y0)
    cut = group()[int(y0 - margin) : int(y1 + margin), int(x0 - margin) : int(x1 + margin)]
    (tmp_path / "gallery").mkdir()
    (tmp_path / "gallery" / "one.png").write_bytes(encoded(cut, "PNG"))
    rules: dict[str, Any] = {"gallery": str(tmp_path / "gallery")}
    with pytest.raises(MisuseError, match="not strict"):
        run(config_for(src, "lax", transform=FILL, rules={**rules, "gallery_similarity": 0.5}))
    job = config_for(src, "strict", transform=FILL, rules={**rules, "gallery_similarity": 0.985})
    report = run(job)
    assert report.left == {"consent (gallery)": 3}
    shown = pictures(job)["a.png"]
    assert [grey(shown, box) for box in boxes] == [False, *[True] * 5]
    with pytest.raises(MisuseError, match="gallery_similarity"):
        config_for(src, rules=rules)


def test_rules_enter_the_digest_and_defaults_do_not(src: Path, config_for: Callable[..., JobConfig]) -> None:
    plain = config_for(src, rules={})
    assert plain.digest() == config_for(src).digest() == config_for(src, faces_table=True).digest()
    assert config_for(src, rules={"min_size": 20}).digest() != plain.digest()
    assert published(plain.dst) == {}
