"""From SRC to shards, and the places that must be apart."""

from pathlib import Path

import pytest

from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.errors import DiffPrivError, MisuseError
from diffpriv.pipelines.formats.source import cut_folder, open_source, refuse_overlaps


def touch(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return str(folder)


def test_a_folder_of_tars_and_a_brace_pattern_name_the_same_shards(tmp_path: Path) -> None:
    src = touch(tmp_path / "src", "s-00.tar", "s-01.tar", "sub/s-02.tar.gz", "notes.txt", ".diffpriv/commits/x.tar")
    assert [(one.name, one.format) for one in open_source(src).shards(10)] == [
        ("files-00000", "folder"),  # what lies beside tars is part of the dataset too
        ("s-00.tar", "webdataset"),
        ("s-01.tar", "webdataset"),
        ("sub/s-02.tar.gz", "webdataset"),
    ]
    braces = open_source(f"{src}/s-{{00..01}}.tar")
    assert (braces.url, braces.names) == (src, ("s-00.tar", "s-01.tar"))
    one = open_source(f"{src}/sub/s-02.tar.gz")
    assert (one.url, one.names) == (f"{src}/sub", ("s-02.tar.gz",))
    across = open_source(f"{src}/{{s-00.tar,sub/s-02.tar.gz}}")
    assert across.names == ("s-00.tar", "sub/s-02.tar.gz")


def test_formats_are_told_apart(tmp_path: Path) -> None:
    assert open_source(touch(tmp_path / "p", "a.parquet", "README.md")).format == "parquet"
    assert open_source(touch(tmp_path / "f", "a/1.jpg", "b/2.txt")).format == "folder"


def test_what_img2dataset_writes_is_one_dataset(tmp_path: Path) -> None:
    src = touch(tmp_path, "00000.tar", "00000.parquet", "00000_stats.json", "._00000.tar", "@eaDir/00000.tar", ".DS_Store")
    source = open_source(src)
    assert [(one.name, one.format) for one in source.shards(10)] == [
        ("00000.parquet", "parquet"),
        ("00000.tar", "webdataset"),
        ("files-00000", "folder"),
    ]
    assert source.ignored == (".DS_Store", "._00000.tar", "@eaDir/00000.tar")


@pytest.mark.parametrize(
    "url", ["local:///d", "simplecache::s3://a/b", "zip://a.zip", "https://a/b", "FILE:///d", "dir::file:///d"]
)
def test_only_places_of_their_own_are_read_and_written(url: str) -> None:
    with pytest.raises(MisuseError):
        open_source(url)


def test_a_hub_that_cannot_be_reached_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no network, or nobody answers."""
    pytest.importorskip("huggingface_hub")
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for url in ("hf://datasets/nobody/none", "hf://datasets/nobody/none/train-{0..1}.parquet"):
        with pytest.raises(DiffPrivError, match="hf://datasets/nobody/none"):
            open_source(url)


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


def test_what_is_ignored_is_the_jobs_to_say_and_enters_its_digest(tmp_path: Path) -> None:
    src = touch(tmp_path, "a.jpg", "._a.jpg", "old/b.jpg", "c.bak")
    assert open_source(src).ignored == ("._a.jpg",)
    chosen = open_source(src, ignore=("old", "*.bak"))
    assert (chosen.names, chosen.ignored) == (("._a.jpg", "a.jpg"), ("c.bak", "old/b.jpg"))
    assert {shard.ignore for shard in chosen.shards(10)} == {("old", "*.bak")}
    job = {"src": src, "dst": "/d/faces", "audit": "/a", "transform": {"transform": "fill"}}
    assert JobConfig.from_mapping({**job, "ignore": ["old"]}).digest() != JobConfig.from_mapping(job).digest()
    with pytest.raises(MisuseError, match="without its slashes"):
        JobConfig.from_mapping({**job, "ignore": ["old/b.jpg"]})
