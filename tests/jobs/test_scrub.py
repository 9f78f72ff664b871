"""`diffpriv scrub` and `check-release` as a user starts them: exit statuses, the named leak, the signed manifest."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.jobs.conftest import Program
from tests.pipelines.datasets import astronaut, coffee, encoded, read_tar, sample, tar_bytes, write_shards


@dataclass(frozen=True)
class Scrubbed:
    run: Program
    src: Path
    dst: Path
    options: tuple[object, ...]
    keys: Path
    answer: dict[str, object]


@pytest.fixture(scope="module")
def scrubbed(program: Program, key_folder: Path) -> Scrubbed:
    """A face and a picture without one, scrubbed with a job file that names another tier: scrub keeps none."""
    base = program.folder / "scrub"
    members = sample("a", 0, encoded(astronaut(256), "JPEG")) + sample("b", 1, encoded(coffee(), "JPEG"))
    src = write_shards(base / "src", {"shard-000.tar": members})
    options = ("--audit", base / "audit", "--log-key", key_folder / "log.key", "--transform", "fill", "--engine", "beam")
    options += ("--release-key", key_folder / "release.key")
    answer = program("--json", "scrub", src, base / "data", *options, "--report", base / "report.json")
    assert (base / "report.json").is_file()
    return Scrubbed(program, src, base / "data", options, key_folder, answer.json())


def test_a_clean_dataset_is_released_with_a_signed_manifest(scrubbed: Scrubbed, tmp_path: Path) -> None:
    assert scrubbed.answer["gate"]["clean"] is True  # type: ignore[index]
    assert scrubbed.answer["job"]["counts"]["faces_recoverable"] == 0  # type: ignore[index]
    manifest = scrubbed.dst / ".diffpriv/release.note"
    assert str(manifest) == scrubbed.answer["manifest"]["path"]  # type: ignore[index]
    release = tmp_path / "release"
    shutil.copytree(scrubbed.dst, release, ignore=shutil.ignore_patterns(".diffpriv"))
    check = ("check-release", release, manifest, "--release-vkey", scrubbed.keys / "release.vkey")
    assert "The copy is what passed" in scrubbed.run(*check).out
    (release / "more").write_text("x")
    assert "EXTRA: more" in scrubbed.run(*check, expect=1).out


def test_a_planted_face_is_not_released(scrubbed: Scrubbed, tmp_path: Path) -> None:
    dst = tmp_path / "data"
    shutil.copytree(scrubbed.dst, dst)
    original = dict(read_tar(scrubbed.src / "shard-000.tar"))["a.jpg"]
    members = [(name, original if name == "a.jpg" else data) for name, data in read_tar(dst / "shard-000.tar")]
    (dst / "shard-000.tar").write_bytes(tar_bytes(members))
    answer = scrubbed.run("scrub", scrubbed.src, dst, *scrubbed.options, "--gate-only", expect=1)
    assert "unprotected face: shard-000.tar / a / jpg" in answer.out
    assert "NOT RELEASED" in answer.out
    assert not (dst / ".diffpriv/release.note").exists()


def test_a_gate_without_recogniser_weights_fails_closed(scrubbed: Scrubbed, tmp_path: Path) -> None:
    dst = tmp_path / "data"
    shutil.copytree(scrubbed.dst, dst)
    asked = ("--gate-only", "--gate-recognizer", tmp_path / "nothing")
    answer = scrubbed.run("scrub", scrubbed.src, dst, *scrubbed.options, *asked, expect=1)
    assert "not checked: dataset: similarity to the originals: There are no recogniser weights" in answer.out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--allow", "sidecar: boxes"), "nothing the gate looks for"),
        (("--others", "maybe"), "others"),
        (("--allow", "metadata=many"), "no number"),
        (("--similarity-limit", "2"), "cosine"),
        (("--second-detector", "eyes"), "no detector"),
    ],
)
def test_misuse_is_refused(scrubbed: Scrubbed, more: tuple[str, ...], said: str) -> None:
    assert said in scrubbed.run("scrub", scrubbed.src, scrubbed.dst, *scrubbed.options, "--gate-only", *more, expect=2).err


def test_a_manifest_needs_a_key(scrubbed: Scrubbed, tmp_path: Path) -> None:
    """Of its own: the log's key signs no release."""
    given = ("--audit", tmp_path / "a", "--log-key", scrubbed.keys / "log.key", "--transform", "fill")
    answer = scrubbed.run("scrub", scrubbed.src, tmp_path / "d", *given, expect=2)
    assert "--release-key" in answer.err
    wrong = ("--release-key", scrubbed.keys / "log.key", "--gate-only")
    assert "a release key is needed" in scrubbed.run("scrub", scrubbed.src, scrubbed.dst, *given, *wrong, expect=1).err


def test_who_takes_a_release_accepts_by_name_what_the_gate_was_told_to_pass(scrubbed: Scrubbed, tmp_path: Path) -> None:
    dst = tmp_path / "data"
    shutil.copytree(scrubbed.dst, dst)
    scrubbed.run("scrub", scrubbed.src, dst, *scrubbed.options, "--gate-only", "--allow", "sidecar: box=3")
    shutil.copytree(dst, tmp_path / "release", ignore=shutil.ignore_patterns(".diffpriv"))
    check = ("check-release", tmp_path / "release", dst / ".diffpriv/release.note")
    check += ("--release-vkey", scrubbed.keys / "release.vkey")
    refused = scrubbed.run(*check, expect=1).out
    assert "ALLOWED: sidecar: box: up to 3" in refused
    assert "NOT ACCEPTED: sidecar: box" in refused
    scrubbed.run(*check, "--accept", "sidecar: box")
