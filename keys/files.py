"""Durable small files at a URL: a local folder by default, any fsspec filesystem otherwise (s3://, gs://, abfs://, memory://).

What is promised: after `write` returns, the bytes are on stable storage, and a reader at any moment sees the whole old or
the whole new file. Locally that is a temporary file, fsync, rename and fsync of the folder; object stores give it by nature.
fsspec is imported only for URLs that need it.
"""

import contextlib
import os
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from diffpriv.keys.errors import MisuseError, StorageError

_TEMPORARY = ".writing-"
# Of fsspec's: places of their own. Wrappers (simplecache, zip, dir, ...) would keep copies in temporary folders or hide where a
# path leads, and other names of the local file system would get around the rule that keeps data and keys apart.
PROTOCOLS = frozenset(
    ("file", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "memory", "hdfs", "webhdfs", "hf", "oss", "sftp", "ssh")
)
_AT_ONCE = 128  # files that an object store is asked for in one go
_PATIENCE = 60.0  # seconds to wait for a lock
_ABANDONED = 3600.0  # seconds after which a temporary file, or a lock on an object store, is that of a process which died


class Location(ABC):
    """A folder of files. Names are relative, with `/`; they can't climb out."""

    url: str

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Raises: StorageError if it does not exist or can't be read."""

    @abstractmethod
    def read_if_there(self, name: str) -> bytes | None:
        """None where there is no such file. Raises: StorageError if it can't be read."""

    def read_many(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """(name, content) of each, in order; object stores are asked for many at a time. Raises: as `read`."""
        for name in names:
            yield name, self.read(name)

    def write(self, name: str, data: bytes) -> None:
        self.write_many([(name, data)])

    @abstractmethod
    def write_many(self, files: Iterable[tuple[str, bytes]]) -> None:
        """All are durable when this returns; each is atomic, the set is not."""

    @abstractmethod
    def delete(self, name: str) -> bool:
        """True if there was such a file."""

    @abstractmethod
    def names(self, prefix: str = "") -> list[str]:
        """Sorted names of all files at any depth below the folder `prefix`."""

    def abandoned(self) -> list[str]:
        """Half-written files that a process which died left behind more than an hour ago; `names` does not list them."""
        return []

    @abstractmethod
    def locked(self, name: str) -> contextlib.AbstractContextManager[None]:
        """One process at a time. Raises: StorageError if another has held it for a minute."""

    def describe(self, name: str) -> str:
        return f"{self.url.rstrip('/')}/{name}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"


def open_location(url: str | os.PathLike[str], **storage_options: Any) -> Location:
    """`storage_options` go to fsspec (endpoint, credentials); they are not used for local paths."""
    text = os.fspath(url)
    if not text:
        raise MisuseError("the URL of a key store or an audit log is empty")
    if text.startswith("file://"):
        return LocalFolder(text[len("file://") :])
    if "://" in text:
        protocol = text.partition("://")[0].lower()
        if "::" in text or protocol not in PROTOCOLS - {"file"}:
            raise MisuseError(
                f"{text} is of no kind that this tool reads or writes.",
                advice=f"Give a local path, or one URL that begins with: {', '.join(sorted(PROTOCOLS))}.",
            )
        return RemoteFolder(text, **storage_options)
    return LocalFolder(text)


def _checked(name: str) -> str:
    if "\\" in name or "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise MisuseError(f"{name!r} is not a relative file name")
    return name


class LocalFolder(Location):
    """Small files below a folder of this machine."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.root = Path(path).expanduser().absolute()
        self.url = str(self.root)

    def read(self, name: str) -> bytes:
        try:
            return (self.root / _checked(name)).read_bytes()
        except OSError as error:
            raise StorageError(f"{self.describe(name)} can't be read: {error.strerror or error}.") from error

    def read_if_there(self, name: str) -> bytes | None:
        if not (self.root / _checked(name)).exists():
            return None
        return self.read(name)

    def write_many(self, files: Iterable[tuple[str, bytes]]) -> None:
        folders: set[Path] = set()
        made: list[tuple[Path, Path]] = []
        try:
            for name, data in files:
                target = self.root / _checked(name)
                if target.parent not in folders:
                    make_folder_durably(target.parent)
                    folders.add(target.parent)
                temporary = target.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
                made.append((temporary, target))
                temporary.write_bytes(data)
            # Written first, synced after: the kernel then flushes them together instead of one journal commit each.
            for temporary, _ in made:
                fsync_path(temporary)
            for temporary, target in made:
                temporary.replace(target)
            for folder in folders:
                fsync_path(folder)
        except OSError as error:
            for temporary, _ in made:
                temporary.unlink(missing_ok=True)
            raise StorageError(f"{self.url} can't be written: {error.strerror or error}.") from error

    def delete(self, name: str) -> bool:
        path = self.root / _checked(name)
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StorageError(f"{self.describe(name)} can't be deleted: {error.strerror or error}.") from error
        fsync_path(path.parent)
        return True

    def names(self, prefix: str = "") -> list[str]:
        found = []
        for folder, _, files in os.walk(self.root / _checked(prefix) if prefix else self.root):
            relative = Path(folder).relative_to(self.root)
            found += [(relative / file).as_posix() for file in files if not file.startswith(_TEMPORARY)]
        return sorted(found)

    def abandoned(self) -> list[str]:
        found = []
        for path in self.root.rglob(f"{_TEMPORARY}*"):
            with contextlib.suppress(FileNotFoundError):  # a living process just renamed it
                if time.time() - path.stat().st_mtime > _ABANDONED:
                    found.append(path.relative_to(self.root).as_posix())
        return sorted(found)

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        import fcntl

        make_folder_durably(self.root)
        with (self.root / _checked(name)).open("a") as handle:
            deadline = time.monotonic() + _PATIENCE
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise StorageError(
                            f"another process has held {self.describe(name)} for a minute.",
                            advice="Wait for the other run to end and try again.",
                        ) from None
                    time.sleep(0.05)
            yield  # closing the file releases the lock, also when the process dies


def make_folder_durably(folder: Path) -> None:
    """Create a folder and its parents so that a crash cannot lose the entry of any of them."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        fsync_path(one.parent)


def fsync_path(path: Path) -> None:
    """Make a file or folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class RemoteFolder(Location):
    """Small files below a URL of any fsspec file system."""

    def __init__(self, url: str, **storage_options: Any) -> None:
        import fsspec

        self.url = url.rstrip("/")
        try:
            # No listing cache: another machine writes to the same place.
            self._fs, self._root = fsspec.core.url_to_fs(self.url, use_listings_cache=False, **storage_options)
        except (ValueError, ImportError) as error:
            raise MisuseError(f"{self.url} can't be opened: {error}.") from error
        except Exception as error:  # some ask their service at once
            raise StorageError(f"{self.url} can't be opened: {_reason(error)}.") from error
        self._root = self._root.rstrip("/")

    def _path(self, name: str) -> str:
        return f"{self._root}/{_checked(name)}"

    def read(self, name: str) -> bytes:
        try:
            return self._fs.cat_file(self._path(name))
        except Exception as error:  # every backend has its own exceptions
            raise StorageError(f"{self.describe(name)} can't be read: {_reason(error)}.") from error

    def read_if_there(self, name: str) -> bytes | None:
        try:
            return self._fs.cat_file(self._path(name))
        except FileNotFoundError:
            return None
        except Exception as error:
            raise StorageError(f"{self.describe(name)} can't be read: {_reason(error)}.") from error

    def read_many(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        for start in range(0, len(names), _AT_ONCE):
            paths = {name: self._path(name) for name in names[start : start + _AT_ONCE]}
            try:
                found = self._fs.cat(list(paths.values()), on_error="raise") if len(paths) > 1 else {}
            except Exception:
                found = {}  # one of them is the trouble: asked for alone, it is named
            for name, path in paths.items():
                yield name, found[path] if path in found else self.read(name)

    def write_many(self, files: Iterable[tuple[str, bytes]]) -> None:
        for name, data in files:
            path = self._path(name)
            try:
                if "s3" not in self._fs.protocol:
                    self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
                self._fs.pipe_file(path, data)
                size = self._fs.info(path)["size"]
            except Exception as error:
                raise StorageError(f"{self.describe(name)} can't be written: {_reason(error)}.") from error
            if size != len(data):
                raise StorageError(f"{self.describe(name)} has {size} bytes after {len(data)} were written.")

    def delete(self, name: str) -> bool:
        path = self._path(name)
        try:
            if not self._fs.exists(path):
                return False
            self._fs.rm_file(path)
        except FileNotFoundError:  # another process was faster
            return False
        except Exception as error:
            raise StorageError(f"{self.describe(name)} can't be deleted: {_reason(error)}.") from error
        return True

    def names(self, prefix: str = "") -> list[str]:
        start = self._path(prefix) if prefix else self._root
        try:
            found = self._fs.find(start)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise StorageError(f"{self.url} can't be listed: {_reason(error)}.") from error
        return sorted(path[len(self._root) + 1 :] for path in found)

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """A lock object, made only if there is none (S3: If-None-Match; other filesystems as exclusively as fsspec can).

        A process that dies leaves it behind; after an hour it is taken over, before that a person may delete it.
        """
        deadline = time.monotonic() + _PATIENCE
        while not self._try_lock(name):
            if time.monotonic() > deadline:
                raise StorageError(
                    f"another process has held {self.describe(name)} for a minute.",
                    advice="Wait for the other run to end; if it died, delete that file.",
                )
            time.sleep(0.2)
        try:
            yield
        finally:
            self.delete(name)

    def _try_lock(self, name: str) -> bool:
        path = self._path(name)
        try:
            if "s3" not in self._fs.protocol:
                self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            self._fs.pipe_file(path, str(time.time()).encode(), mode="create")
            return True
        except Exception as error:
            held = self.read_if_there(name)
            if held is None and not isinstance(error, FileExistsError):
                raise StorageError(f"{self.describe(name)} can't be written: {_reason(error)}.") from error
        if held is not None and time.time() - _as_time(held) > _ABANDONED:
            self.delete(name)
        return False


def _as_time(data: bytes) -> float:
    try:
        return float(data)
    except ValueError:
        return time.time()


def _reason(error: Exception) -> str:
    """Class and message, without the request object that cloud exceptions like to carry."""
    return f"{type(error).__name__}: {error}"
