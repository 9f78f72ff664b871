"""From SRC to shards, and the places that must be apart."""

from pathlib import Path

import pytest

from pipelines.errors import MisuseError
from pipelines.sources import cut_folder, open_source, refuse_overlaps


def touch(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return str(folder)


def test_a_folder_of_tars_and_a_brace_pattern_name_the_same_shards(tmp_path: Path) -> None:
    src = touch(tmp_path / "src", "s-00.tar", "s-01.tar", "sub/s-02.tar.gz", "notes.txt", "_diffpriv/commits/x.tar")
    assert open_source(src).names == ("s-00.tar", "s-01.tar", "sub/s-02.tar.gz")
    braces = open_source(f"{src}/s-{{00..01}}.tar")
    assert (braces.url, braces.names) == (src, ("s-00.tar", "s-01.tar"))
    one = open_source(f"{src}/sub/s-02.tar.gz")
    assert (one.url, one.names) == (f"{src}/sub", ("s-02.tar.gz",))
    across = open_source(f"{src}/{{s-00.tar,sub/s-02.tar.gz}}")
    assert across.names == ("s-00.tar", "sub/s-02.tar.gz")


def test_formats_are_told_apart(tmp_path: Path) -> None:
    assert open_source(touch(tmp_path / "p", "a.parquet", "README.md")).format == "parquet"
    assert open_source(touch(tmp_path / "f", "a/1.jpg", "b/2.txt")).format == "folder"
    both = touch(tmp_path / "b", "a.tar", "b.parquet")
    with pytest.raises(MisuseError, match="both tar and Parquet"):
        open_source(both)
    assert open_source(both, "parquet").names == ("b.parquet",)


@pytest.mark.parametrize("src", ["nothing", "nothing/shard-{0..3}.tar", "empty", "src/s-{0..1.tar", "src/s-{0..9}.tar"])
def test_a_source_that_is_not_there_is_refused(tmp_path: Path, src: str) -> None:
    touch(tmp_path / "src", "s-0.tar")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MisuseError):
        open_source(str(tmp_path / src))


@pytest.mark.parametrize(
    ("src", "dst", "keys", "audit"),
    [
        ("d", "d", "k", "a"),
        ("d", "d/out", "k", "a"),
        ("d/in", "d", "k", "a"),
        ("s", "d", "d/keys", "a"),
        ("s", "d/data", "d", "a"),
        ("s", "d", "s/keys", "a"),
        ("s", "d", "k", "d/audit"),
        ("s", "d", "link/keys", "a"),
        ("s", "d/../s/out", "k", "a"),
    ],
)
def test_places_inside_one_another_are_refused(tmp_path: Path, src: str, dst: str, keys: str, audit: str) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "d")
    with pytest.raises(MisuseError, match=r"inside|same place"):
        refuse_overlaps(*(str(tmp_path / place) for place in (src, dst, keys, audit)))


def test_places_apart_are_fine_and_a_common_beginning_is_no_overlap(tmp_path: Path) -> None:
    refuse_overlaps(*(str(tmp_path / place) for place in ("data", "data-out", "data-keys", "data-audit")))
    refuse_overlaps("s3://a/src", "s3://a/dst", "s3://b/keys", "gs://a/src/audit")
    with pytest.raises(MisuseError):
        refuse_overlaps("s3://a/src", "s3://a/dst", "s3://a/dst/keys", "s3://b")


def test_new_files_of_a_folder_go_to_new_shards() -> None:
    first = cut_folder([f"{number}.jpg" for number in range(5)], 2, {})
    assert [len(files) for files in first.values()] == [2, 2, 1]
    second = cut_folder(["0a.jpg", *(f"{number}.jpg" for number in range(1, 5))], 2, first)
    assert second == {
        "files-00000": ("1.jpg",),
        "files-00001": first["files-00001"],
        "files-00002": ("4.jpg",),
        "files-00003": ("0a.jpg",),
    }
