"""`diffpriv evaluate` from shards to the page: both ends of the ruler, pairing of pictures, the report in a browser."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffpriv.config import TransformConfig
from diffpriv.detectors import load_detector
from diffpriv.faces.alignment import CANONICAL_LANDMARKS, face_to_crop_matrix, warp_to_crop
from diffpriv.faces.compositing import face_mask
from diffpriv.faces.types import Face
from diffpriv.generation import generate_faces
from diffpriv.pipelines.errors import MisuseError
from diffpriv.pipelines.evaluation.judges import load_judge
from diffpriv.pipelines.evaluation.labels import Labels
from diffpriv.pipelines.evaluation.reading import PairedPictures
from diffpriv.pipelines.evaluation.report import write_report
from diffpriv.pipelines.evaluation.run import evaluate
from diffpriv.pipelines.evaluation.self_test import SelfTest
from diffpriv.pipelines.evaluation.settings import EvaluationSettings
from diffpriv.weights import builtin_folder
from tests.pipelines.datasets import astronaut, coffee, encoded, gradient, group, sample, write_shards

MADE_UP, PEOPLE = 3, 10
CANVAS, CORNER, SCALE = 320, 72, 1.375  # a face of 176 pixels in the middle of grey


def _photo(face: np.ndarray, mirrored: bool) -> np.ndarray:
    """The face alone on grey, so that nothing around it tells who it is; the second photo is mirrored and darker."""
    size = round(128 * SCALE)
    pixels = np.asarray(Image.fromarray(face[:, ::-1] if mirrored else face).resize((size, size)), np.float32)
    mask = face_mask(size)[:, :, None]
    picture = np.full((CANVAS, CANVAS, 3), 128, np.float32)
    inside = slice(CORNER, CORNER + size)
    picture[inside, inside] = pixels * (0.85 if mirrored else 1) * mask + 128 * (1 - mask)
    return np.rint(picture).astype(np.uint8)


def _cut_out(picture: np.ndarray) -> list[np.ndarray]:
    """Aligned crops of the faces of a photo that ships inside a dependency."""
    found = load_detector("centerface").detect([picture])[0]
    return [warp_to_crop(picture, face_to_crop_matrix(face.landmarks)) for face in found]


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photos of each of ten people, a folder per person, and a manifest with a group."""
    folder = tmp_path_factory.mktemp("people")
    lines = ["file,person,group"]
    faces = [*_cut_out(group()), *_cut_out(astronaut(256)), *generate_faces(MADE_UP, b"faces of nobody, to be evaluated")]
    assert len(faces) == PEOPLE
    for number, face in enumerate(faces):
        for place in range(2):
            file = f"{number:02d}/{place}.png"
            (folder / "photos" / file).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(_photo(face, place == 1)).save(folder / "photos" / file)
            lines.append(f"{file},{number},{'even' if number % 2 == 0 else 'odd'}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def _filled(photos: Path, target: Path) -> Path:
    shutil.copytree(photos, target)
    for path in target.rglob("*.png"):
        pixels = np.array(Image.open(path))
        pixels[CORNER:-CORNER, CORNER:-CORNER] = 128
        Image.fromarray(pixels).save(path)
    return target


@pytest.fixture(scope="module")
def measured(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    settings = EvaluationSettings(
        sample=0,
        identity=str(people / "labels.csv"),
        group="group",
        judges=("builtin",),
        baselines=(),
        attacker_minutes=0.02,
        recovery_faces=0,
    )
    filled = _filled(people / "photos", tmp_path_factory.mktemp("filled") / "photos")
    targets = {"originals": people / "photos", "fill": filled}
    return lambda name: evaluate(str(people / "photos"), str(targets[name]), settings)[0]


@pytest.fixture(scope="module")
def originals(measured: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return measured("originals")


@pytest.fixture(scope="module")
def filled(measured: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return measured("fill")


def test_originals_against_themselves_have_no_privacy_and_full_utility(originals: dict[str, Any]) -> None:
    tar = originals["privacy"]["builtin"]["variants"]["protected"]["tar"]["0.001"]
    clean = originals["privacy"]["builtin"]["variants"]["original"]["tar"]["0.001"]
    assert tar["naive own photo"]["value"] == 1
    assert tar["naive other photo"]["value"] == clean["naive other photo"]["value"] > 0.5
    assert originals["verdict"]["adaptive attacker beats twice chance"] is True
    assert "BEATS" in originals["verdict"]["sentences"][0]
    used = originals["utility"]["protected"]
    assert used["detection rate"]["value"] == 1
    assert used["landmark shift / eye distance"]["value"] == 0
    assert used["downstream"]["kept"] == 1


def test_solid_fill_has_perfect_privacy_and_no_utility(filled: dict[str, Any]) -> None:
    found = filled["privacy"]["builtin"]["variants"]["protected"]
    for attack in ("naive own photo", "naive other photo", "parrot other photo", "averaged other photo"):
        assert found["tar"]["0.01"][attack]["value"] == 0, attack
    assert found["identification"]["naive"]["rank-1"]["value"] == pytest.approx(1 / (2 * PEOPLE - 1), abs=0.05)
    assert filled["verdict"]["adaptive attacker beats twice chance"] is False
    used = filled["utility"]["protected"]
    assert used["detection rate"]["value"] == 0
    assert used["landmarks near"]["value"] == 0
    assert used["downstream"]["kept"] in (None, pytest.approx(0, abs=0.25))


def test_figures_come_by_group_and_the_judges_dependence_is_said(originals: dict[str, Any]) -> None:
    assert set(originals["utility"]["protected"]["groups"]["group"]) == {"even", "odd"}
    assert set(originals["privacy"]["builtin"]["groups"]["group"]) == {"even", "odd"}
    assert originals["verdict"]["independent judge"] is False
    assert "No independent judge" in " ".join(originals["verdict"]["sentences"])


def test_the_report_stands_alone_and_shows_no_face(originals: dict[str, Any], tmp_path: Path) -> None:
    page, data = write_report(str(tmp_path / "report"), originals)
    text = page.read_text()
    assert json.loads(data.read_text()) == originals
    assert "BEATS" in text
    assert "<img" not in text
    assert "<script" not in text
    addresses = text.replace("http://www.w3.org/", "")
    assert "http://" not in addresses
    assert "https://" not in addresses
    ids = [part.partition('"')[0] for part in text.split(' id="')[1:]]
    assert len(ids) == len(set(ids))


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium (apt-get install chromium)")
def test_a_browser_renders_the_report_without_a_complaint(filled: dict[str, Any], tmp_path: Path) -> None:
    page, _ = write_report(str(tmp_path / "report"), filled)
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=400,900"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "Which part leaks" in done.stdout
    assert done.stdout.count("<svg") == 4
    assert "CONSOLE" not in done.stderr


def test_labels_with_markup_are_shown_as_text(originals: dict[str, Any], tmp_path: Path) -> None:
    hostile = json.loads(json.dumps(originals).replace('"even"', '"<b>even</b>"'))
    page, _ = write_report(str(tmp_path / "report"), hostile)
    assert "&lt;b&gt;even&lt;/b&gt;" in page.read_text()


def test_pictures_are_paired_by_shard_and_key_and_strays_are_counted(tmp_path: Path) -> None:
    pictures = [encoded(gradient(number), "JPEG") for number in range(3)]
    before = {
        "shard-0.tar": sample("p/a", 0, pictures[0]) + sample("p/b", 1, pictures[1]),
        "shard-1.tar": sample("q/a", 2, pictures[2]),
    }
    after = {"shard-0.tar": sample("p/b", 1, encoded(coffee(), "JPEG"))}
    write_shards(tmp_path / "before", before)
    write_shards(tmp_path / "after", after)
    pairs = PairedPictures(str(tmp_path / "before"), str(tmp_path / "after"), Labels("folder"), sample=0, seed=0)
    found = list(pairs)
    assert [(one.shard, one.key, one.original) for one in found] == [("shard-0.tar", "p/b", pictures[1])]
    assert sum(pairs.unpaired.values()) == 2
    by_field = PairedPictures(str(tmp_path / "before"), str(tmp_path / "after"), Labels("label"), sample=0, seed=0)
    assert [Labels("label").person(one.shard, one.key, one.facts) for one in by_field] == ["1"]


def test_two_formats_are_no_pair(people: Path, tmp_path: Path) -> None:
    write_shards(tmp_path, {"shard-0.tar": sample("a", 0, encoded(gradient(0), "JPEG"))})
    with pytest.raises(MisuseError, match="webdataset"):
        PairedPictures(str(people / "photos"), str(tmp_path), Labels("folder"), sample=0, seed=0)


def test_a_sample_keeps_the_photos_of_a_person_together(people: Path) -> None:
    photos = str(people / "photos")
    found = list(PairedPictures(photos, photos, Labels("folder"), sample=8, seed=1))
    assert len(found) == 8
    assert len({one.key.partition("/")[0] for one in found}) == 4
    again = PairedPictures(photos, photos, Labels("folder"), sample=8, seed=1)
    assert [one.key for one in again] == [one.key for one in found]


def test_a_manifest_without_its_column_is_refused(people: Path) -> None:
    with pytest.raises(MisuseError, match="has the columns"):
        Labels(str(people / "labels.csv"), ("age",))


def test_a_judge_that_the_job_worked_against_is_not_called_independent() -> None:
    folder = str(builtin_folder() / "recognizer")
    judge = load_judge(folder)
    assert judge.independent
    assert load_judge(folder, ["diffprivacy/1 weights 12 float32 judge and guide other/1 weights=34"]).independent
    assert not load_judge(folder, [f"diffprivacy/1 weights 12 float32 judge and guide {judge.identity}"]).independent


def test_the_self_test_brings_exact_faces_back_and_refuses_wrong_keys(people: Path) -> None:
    picture = np.asarray(Image.open(people / "photos/00/0.png"))
    face = Face((100.0, 90.0, 220.0, 250.0), CANONICAL_LANDMARKS * SCALE + CORNER, 0.9)
    judge = load_judge("builtin")
    config = TransformConfig(transform="fill", recovery="exact")
    found = SelfTest([(picture, face), (picture[:, ::-1].copy(), face)], [judge], {"builtin": {1e-3: 0.9}}, config).recovery()
    for stored in found["tiers"]["exact"].values():
        assert stored["recovered"] == 2
        assert stored["recognised"]["builtin"] == 1
    assert found["tiers"]["exact"]["PNG"]["bit-exact"] == 2
    assert found["wrong keys"]["exact"]["refused, other recipient's key"] == "2 of 2"
