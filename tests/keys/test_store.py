"""The key store: names of every kind, nothing half-written, nothing outside its folder."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffpriv.keys import files
from diffpriv.keys.errors import MisuseError, StorageError
from diffpriv.keys.files import open_location
from diffpriv.keys.store import KeyStore, key_file_path

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=15)


@settings(deadline=None, max_examples=40)
@given(dataset=NAMES, shard=NAMES, data=st.binary(max_size=50))
def test_any_name_is_stored_found_and_stays_inside(tmp_path_factory, dataset, shard, data):
    root = tmp_path_factory.mktemp("s")
    store = KeyStore(root / "keys")
    receipt = store.put(dataset, shard, data)
    assert store.list() == [(dataset, shard)]
    assert store.list(dataset) == [(dataset, shard)]
    assert store.get(dataset, shard) == data
    assert [path.relative_to(root / "keys").as_posix() for path in root.rglob("*.parquet")] == [receipt.path]
    assert store.unexpected() == []


@pytest.mark.parametrize("name", ["..", ".", "../../etc", "a/../b", "/etc/passwd", "a\\b", ".hidden"])
def test_names_that_would_climb_out_are_encoded(name):
    path = key_file_path(name, name)
    assert path.count("/") == 1
    assert not path.startswith((".", "/"))


def test_a_name_that_no_filesystem_takes_is_refused_at_once():
    with pytest.raises(MisuseError, match="too long: 300 bytes"):
        key_file_path("d", "é" * 50)


def test_raw_names_that_climb_out_are_refused(tmp_path):
    location = open_location(tmp_path)
    for name in ("../x", "/x", "a//b", "", "a/./b"):
        with pytest.raises(MisuseError, match="not a relative file name"):
            location.write(name, b"")
    with pytest.raises(MisuseError, match="is empty"):
        open_location("")
    with pytest.raises(MisuseError, match="of no kind that this tool reads or writes"):
        open_location("nosuchprotocol://x")


@pytest.mark.parametrize("url", ["{folder}", "file://{folder}", "memory://test-store/{folder}"])
def test_a_folder_a_file_url_and_a_remote_filesystem_behave_alike(tmp_path, url):
    store = KeyStore(url.format(folder=tmp_path / "keys"))
    assert store.list() == []
    with pytest.raises(StorageError, match="can't be read"):
        store.get("d", "s")
    assert store.get_if_there("d", "s") is None
    store.put("d", "s", b"one")
    store.put("d", "s", b"two")
    store.put("e", "s", b"three")
    assert store.get("d", "s") == b"two"
    assert store.list("d") == [("d", "s")]
    assert store.delete("d", "s")
    assert not store.delete("d", "s")
    assert store.list() == [("e", "s")]
    store.location.write("stray.txt", b"x")
    assert store.unexpected() == ["stray.txt"]


def test_a_reader_never_sees_half_a_key_file(tmp_path):
    store = KeyStore(tmp_path)
    versions = [bytes([number]) * 200_000 for number in range(2)]
    store.put("d", "s", versions[0])
    stop = threading.Event()

    def rewrite() -> None:
        while not stop.is_set():
            for data in versions:
                store.put("d", "s", data)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        assert all(store.get("d", "s") in versions for _ in range(300))
    finally:
        stop.set()
        writer.join()


@pytest.mark.parametrize("url", ["{folder}", "memory://locks/{folder}"])
def test_a_lock_is_held_by_one_at_a_time_and_an_abandoned_one_is_taken_over(tmp_path, url, monkeypatch):
    monkeypatch.setattr(files, "_PATIENCE", 0.3)
    location = open_location(url.format(folder=tmp_path / "x"))
    with location.locked("lock"):
        with pytest.raises(StorageError, match="another process has held"), location.locked("lock"):
            pass
        with location.locked("another"):
            pass
    with location.locked("lock"):
        pass
    if "memory" in url:
        location.write("lock", b"1000.0")  # left in 1970 by a process that died
        with location.locked("lock"):
            pass


def test_a_folder_that_can_not_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="file/keys can't be written"):
        KeyStore(tmp_path / "file" / "keys").put("d", "s", b"x")
