"""A folder of large files, on this machine and on a store."""

import uuid
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from diffpriv.pipelines.storage import Folder


def filled(url: str) -> Folder:
    folder = Folder(url)
    for name in ("a", "sub/b"):
        with folder.writing(name) as handle:
            handle.write(name.encode())
    return folder


@pytest.mark.parametrize("kind", ["local", "store"])
def test_of_files_asked_for_by_name_those_that_are_there_are_told(tmp_path: Path, kind: str) -> None:
    folder = filled(str(tmp_path) if kind == "local" else f"memory://{uuid.uuid4().hex}")
    found = folder.facts_of(["a", "gone", "sub/b", "sub/gone", "gone/c"])
    assert {name: facts.size for name, facts in found.items()} == {"a": 1, "sub/b": 5}
    assert found == {name: folder.facts(name) for name in found}


def test_a_store_is_asked_once_for_each_of_a_few_files(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = filled(f"memory://{uuid.uuid4().hex}")
    asked: list[str] = []

    def noting(method: Any) -> Any:
        def note(store: MemoryFileSystem, path: str, **options: Any) -> Any:
            asked.append(path.rpartition("/")[2])
            return method(store, path, **options)

        return note

    for name in ("info", "exists", "ls"):
        monkeypatch.setattr(MemoryFileSystem, name, noting(getattr(MemoryFileSystem, name)))
    assert set(folder.facts_of(["a", "gone", "sub/b"])) == {"a", "sub/b"}
    assert sorted(asked) == ["a", "b", "gone"]
