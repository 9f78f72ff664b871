"""Folders of large files: streamed in, staged out, moved into place. Local paths or any fsspec URL.

Small state files go through `keys.files.Location` (atomic and durable); this adds what data needs: reading without holding a
file in memory, ranges, writing a stream durably, and a move that readers see as one step.
"""

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from diffpriv.keys.errors import StorageError
from diffpriv.keys.files import LocalFolder, Location, RemoteFolder, fsync_path, make_folder_durably, open_location

CHUNK = 1 << 20
SPECIAL = "special"
_WORTH_LISTING = 32  # files, or folders, from which on a listing is cheaper than asking for each
_LINK = "link "
# Where stores' clients define exceptions that are no OSError: no connection, no credentials, no such bucket.
_CLOUD_MODULES = frozenset({"botocore", "aiobotocore", "aiohttp", "google", "gcsfs", "azure", "adlfs", "requests"})
_HUB_MODULES = frozenset({"httpx", "httpx2", "httpcore", "httpcore2", "huggingface_hub"})


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a file is without reading it. Two equal facts mean the same content, as far as a file system can tell.

    Attributes:
        version: modification time in nanoseconds locally, behind "link " for a symbolic link; SPECIAL for what is no file (a
            FIFO, a socket, a device, a link to nowhere); ETag or whatever the store calls its version elsewhere.
    """

    name: str
    size: int
    version: str

    @property
    def regular(self) -> bool:
        """A file of its own: no link, which could lead anywhere, and nothing that blocks its reader."""
        return self.version != SPECIAL and not self.version.startswith(_LINK)


class Folder:
    """Files below one URL. Names are relative, with `/`, and cannot climb out (checked by `Location`).

    Raises:
        StorageError: with the file's name, for whatever the file system or store refuses.
    """

    def __init__(self, url: str) -> None:
        self.small: Location = open_location(url)
        self.url = self.small.url
        self._local = self.small.root if isinstance(self.small, LocalFolder) else None
        self._fs: Any = self.small._fs if isinstance(self.small, RemoteFolder) else None

    @property
    def _root(self) -> str:
        """The folder's path on a remote file system."""
        return cast(RemoteFolder, self.small)._root

    @property
    def local_root(self) -> Path | None:
        """The folder's path where it is on this machine's file system, else None."""
        return self._local

    def path(self, name: str) -> str:
        """Full path for the underlying file system; checks the name."""
        _check_name(name)
        return str(self._local / name) if self._local is not None else cast(RemoteFolder, self.small)._path(name)

    @contextlib.contextmanager
    def open(self, name: str, *, follow: bool = True) -> Iterator[IO[bytes]]:
        """The file's bytes.

        Args:
            follow: whether a symbolic link may stand for the file.
        """
        path = self.path(name)
        with _storage_errors(self, name, "read"):
            handle: IO[bytes] = _open_regular(path, follow) if self._local is not None else self._fs.open(path, "rb")
        with handle:
            yield handle

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """A new file, durable when the block ends. Not atomic: write to staging, then `move`."""
        path = self.path(name)
        with _storage_errors(self, name, "written"):
            if self._local is not None:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                with open(path, "wb") as handle:
                    yield handle
                    handle.flush()
                    os.fsync(handle.fileno())
            else:
                self._make_parent(path)
                with self._fs.open(path, "wb") as handle:
                    yield handle

    def facts(self, name: str) -> FileFacts:
        if "\\" in name:
            return FileFacts(name, 0, SPECIAL)  # a name that means another file elsewhere: nobody opens it
        path = self.path(name)
        with _storage_errors(self, name, "found"):
            if self._local is not None:
                return _local_facts(name, path)
            return _remote_facts(name, self._fs.info(path))

    def listing(self, prefix: str = "") -> dict[str, FileFacts]:
        """Every file below the folder `prefix` with its facts: an object store tells a thousand of them per request."""
        if self._local is not None:
            return {name: self.facts(name) for name in self.names(prefix)}
        with _storage_errors(self, prefix, "listed"):
            try:
                found = self._fs.find(f"{self._root}/{prefix}" if prefix else self._root, detail=True)
            except FileNotFoundError:
                return {}
        return self._by_name(found.values())

    def facts_of(self, names: Sequence[str]) -> dict[str, FileFacts]:
        """The facts of those files that exist; object stores are asked by listing where that takes fewer requests."""
        folders = {name.rpartition("/")[0] for name in names}
        if self._local is not None:
            return {name: self.facts(name) for name in names if self.exists(name)}
        if len(names) < _WORTH_LISTING:
            return {name: facts for name in names if (facts := self._remote_facts_if_there(name)) is not None}
        if len(folders) >= _WORTH_LISTING:
            found = self.listing()
            return {name: found[name] for name in names if name in found}
        there: dict[str, FileFacts] = {}
        for folder in folders:
            with _storage_errors(self, folder, "listed"), contextlib.suppress(FileNotFoundError):
                there |= self._by_name(self._fs.ls(f"{self._root}/{folder}" if folder else self._root, detail=True))
        return {name: there[name] for name in names if name in there}

    def _remote_facts_if_there(self, name: str) -> FileFacts | None:
        """As `facts`, without asking first whether the file exists; None if it does not."""
        path = self.path(name)
        with _storage_errors(self, name, "found"), contextlib.suppress(FileNotFoundError):
            return _remote_facts(name, self._fs.info(path))
        return None

    def _by_name(self, infos: Iterable[Any]) -> dict[str, FileFacts]:
        files = [(str(info["name"])[len(self._root) + 1 :], info) for info in infos if info["type"] == "file"]
        return {name: _remote_facts(name, info) for name, info in sorted(files, key=lambda one: one[0]) if name}

    def exists(self, name: str) -> bool:
        path = self.path(name)
        with _storage_errors(self, name, "looked for"):
            return os.path.lexists(path) if self._local is not None else bool(self._fs.exists(path))

    def is_folder(self) -> bool:
        if self._local is not None:
            return self._local.is_dir()
        with _storage_errors(self, "", "looked for"):
            return bool(self._fs.isdir(self._root))

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        with self.open(name) as handle, _storage_errors(self, name, "read"):
            handle.seek(offset)
            data = handle.read(length)
        if len(data) != length:
            raise StorageError(f"{self.describe(name)} ends before byte {offset + length}.")
        return data

    def sha256(self, name: str) -> str:
        digest = hashlib.sha256()
        with self.open(name) as handle, _storage_errors(self, name, "read"):
            while chunk := handle.read(CHUNK):
                digest.update(chunk)
        return digest.hexdigest()

    def move(self, source: str, target: str) -> None:
        """Replace `target` by `source`: readers see the old or the new file whole, and it is durable when this returns."""
        old, new = self.path(source), self.path(target)
        with _storage_errors(self, target, "written"):
            if self._local is not None:
                make_folder_durably(Path(new).parent)
                os.replace(old, new)
                fsync_path(Path(new).parent)
            else:
                self._make_parent(new)
                self._fs.cp_file(old, new)
                self._fs.rm_file(old)

    def remove(self, name: str) -> bool:
        return self.small.delete(name)

    def remove_tree(self, name: str) -> None:
        path = self.path(name)
        if self._local is not None:
            shutil.rmtree(path, ignore_errors=True)
        else:
            with _storage_errors(self, name, "deleted"), contextlib.suppress(FileNotFoundError):
                self._fs.rm(path, recursive=True)

    def names(self, prefix: str = "") -> list[str]:
        """Sorted names of all files at any depth. Links to folders are not followed: they could lead anywhere."""
        return self.small.names(prefix)

    def describe(self, name: str) -> str:
        return self.small.describe(name)

    def _make_parent(self, path: str) -> None:
        if "s3" not in self._fs.protocol:
            self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)


def _open_regular(path: str, follow: bool) -> IO[bytes]:
    """Open without waiting for whoever writes into a FIFO, and only what turns out to be a regular file."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW))
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError("it is not a regular file")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _local_facts(name: str, path: str) -> FileFacts:
    status = os.lstat(path)
    version = ""
    if stat.S_ISLNK(status.st_mode):
        version = _LINK
        try:
            status = os.stat(path)
        except OSError:  # it leads nowhere, or in a circle
            return FileFacts(name, 0, SPECIAL)
    if not stat.S_ISREG(status.st_mode):
        return FileFacts(name, 0, SPECIAL)
    return FileFacts(name, status.st_size, f"{version}{status.st_mtime_ns}")


def _remote_facts(name: str, info: Mapping[str, Any]) -> FileFacts:
    if "\\" in name:
        return FileFacts(name, 0, SPECIAL)
    keys = ("ETag", "etag", "md5", "LastModified", "mtime", "created")
    return FileFacts(name, int(info["size"]), next((str(info[key]) for key in keys if info.get(key)), ""))


def _check_name(name: str) -> None:
    if not name or name.startswith("/") or "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise StorageError(f"{name!r} is not a relative file name.")


@contextlib.contextmanager
def _storage_errors(folder: Folder, name: str, verb: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise StorageError(f"{folder.describe(name)} does not exist.") from error
    except OSError as error:
        raise StorageError(f"{folder.describe(name)} can't be {verb}: {error.strerror or error}.") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _CLOUD_MODULES | _HUB_MODULES:
            raise
        raise StorageError(f"{folder.describe(name)} can't be {verb}: {type(error).__name__}.") from error


class HashingReader:
    """A read-only stream that hashes and counts what passes."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self._digest = hashlib.sha256()
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        data = self._handle.read(size)
        self._digest.update(data)
        self.size += len(data)
        return data

    def sha256(self) -> str:
        """Hex, of what was read so far."""
        return self._digest.hexdigest()

    def drain(self) -> str:
        """Read to the end and return the hex SHA-256 of the whole stream."""
        while self.read(CHUNK):
            pass
        return self._digest.hexdigest()


class HashingWriter:
    """A write-only stream that hashes and counts what passes; without a handle it goes nowhere."""

    def __init__(self, handle: IO[bytes] | None) -> None:
        self._handle = handle
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        if self._handle is not None:
            self._handle.write(data)
        self._digest.update(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        if self._handle is not None:
            self._handle.flush()

    def sha256(self) -> str:
        return self._digest.hexdigest()
