"""What `evaluate` exports is what other tools read: hifd scores the folder, a spreadsheet the table."""

import csv
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diffpriv.detectors import load_detector
from diffpriv.jobs.evaluate import _export
from diffpriv.pipelines.errors import MisuseError
from diffpriv.pipelines.evaluation.export import write_faces, write_hifd
from diffpriv.pipelines.evaluation.faces import EvaluatedFaces, FaceCollector
from diffpriv.pipelines.evaluation.judges import load_judge
from diffpriv.pipelines.evaluation.labels import Labels
from diffpriv.pipelines.evaluation.privacy import Embeddings
from diffpriv.pipelines.evaluation.reading import PicturePair
from tests.pipelines.datasets import astronaut, encoded, group


@pytest.fixture(scope="module")
def measured() -> tuple[EvaluatedFaces, dict[str, Embeddings]]:
    """Seven faces, published mirrored: other embeddings, features elsewhere, but faces."""

    def pairs() -> Iterator[PicturePair]:
        for key, pixels in (("=one", astronaut(256)), ("six", group())):
            mirrored = encoded(pixels[:, ::-1], "PNG") if key == "six" else encoded(pixels, "JPEG", quality=40)
            yield PicturePair("s.tar", key, "png", encoded(pixels, "PNG"), mirrored, {})

    faces = FaceCollector(load_detector("centerface"), Labels(""), (), (), keep=0, seed=0).collect(pairs())
    return faces, {"builtin": Embeddings(load_judge("builtin", set()), faces)}


def test_the_table_has_a_row_for_every_face_and_no_formula(measured: Any, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces.csv", *measured)
    rows = list(csv.DictReader((tmp_path / "faces.csv").open()))
    assert len(rows) == len(measured[0]) == 7
    (one,) = [row for row in rows if row["sample"] == "'=one"]
    assert float(one["similarity_builtin"]) > 0.8
    assert float(one["sharpness_after"]) > 0
    assert stat.S_IMODE((tmp_path / "faces.csv").stat().st_mode) == 0o600


def test_hifd_reads_and_scores_the_folder(measured: Any, tmp_path: Path) -> None:
    hifd = pytest.importorskip("hifd", reason="the package hifd is not installed")
    write_hifd(tmp_path / "out", *measured)
    folder = tmp_path / "out"
    result = hifd.run_pipeline(
        methods_config=str(folder / "methods.yaml"),
        estimators_config=str(folder / "estimators.yaml"),
        data_dir=str(folder),
        out_dir=str(tmp_path / "scores"),
    )
    scored = result.per_sample_df
    assert set(scored["task"]) == {"landmark", "privacy"}
    assert len(scored[scored["task"] == "privacy"]) == 7
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.rglob("*.json")), "embeddings of originals are private"


def test_an_export_that_nobody_reads_is_refused() -> None:
    assert _export("hifd=scores") == Path("scores")
    for text in ("hifd", "hifd=", "coco=x"):
        with pytest.raises(MisuseError, match="hifd=DIR"):
            _export(text)
