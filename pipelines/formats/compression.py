"""Compressed shards as streams: gzip, bzip2, xz and Zstandard, told by the file's name.

What is written has fixed settings, no name and no time in its header: the same data gives the same bytes.
"""

import bz2
import contextlib
import gzip
import lzma
import zlib
from collections.abc import Iterator
from typing import Any, cast

from diffpriv.pipelines.errors import ShardError
from diffpriv.pipelines.formats.tar import ByteReader, ByteWriter
from diffpriv.pipelines.storage import HashingReader, HashingWriter

_KINDS = {
    ".gz": "gzip",
    ".tgz": "gzip",
    ".bz2": "bzip2",
    ".tbz2": "bzip2",
    ".xz": "xz",
    ".txz": "xz",
    ".zst": "zstd",
    ".tzst": "zstd",
}
TAR_SUFFIXES = (".tar", *(suffix if suffix.startswith(".t") else f".tar{suffix}" for suffix in _KINDS))
_GZIP_LEVEL = 6
_XZ_PRESET = 3
BOMB_SIZE, BOMB_RATIO = 256 << 20, 200  # unpacked bytes from which the ratio to the packed ones is looked at, and its limit
LARGEST_DICTIONARY = 256 << 20  # bytes that an xz stream may make its reader hold


def compression_of(name: str) -> str:
    """ "gzip", "bzip2", "xz", "zstd", or "" for none."""
    return next((kind for suffix, kind in _KINDS.items() if name.endswith(suffix)), "")


@contextlib.contextmanager
def uncompressed(name: str, raw: HashingReader) -> Iterator[ByteReader]:
    """The stream inside a file, with what the libraries raise on damage as one error.

    Raises:
        ShardError: the compressed data is damaged or truncated.
    """
    kind = compression_of(name)
    try:
        if not kind:
            yield raw
        elif kind == "gzip":
            with gzip.GzipFile(fileobj=raw) as stream:  # type: ignore[call-overload]
                yield _Bounded(cast(ByteReader, stream), raw)
        elif kind == "bzip2":
            with bz2.BZ2File(raw) as stream:  # type: ignore[call-overload]
                yield _Bounded(cast(ByteReader, stream), raw)
        elif kind == "xz":
            yield _Bounded(_XzReader(raw), raw)
        else:
            import pyarrow as pa

            with pa.CompressedInputStream(pa.PythonFile(_File(raw), mode="r"), "zstd") as stream:
                yield _Bounded(_ArrowReader(stream), raw)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise ShardError(f"the archive's compression is damaged: {error}.") from None
    except OSError as error:  # bz2 and Arrow have no error of their own; a store's is a StorageError by now
        raise ShardError(f"the archive's compression is damaged: {str(error).splitlines()[0][:200]}.") from None


@contextlib.contextmanager
def compressing(name: str, out: HashingWriter) -> Iterator[ByteWriter]:
    """A stream into `out`, compressed as the shard's name says, with the same bytes each time."""
    kind = compression_of(name)
    if not kind:
        yield out
    elif kind == "gzip":
        with gzip.GzipFile(filename="", mode="wb", fileobj=out, compresslevel=_GZIP_LEVEL, mtime=0) as stream:
            yield stream
    elif kind == "bzip2":
        with bz2.BZ2File(out, "wb") as stream:
            yield cast(ByteWriter, stream)
    elif kind == "xz":
        with lzma.LZMAFile(out, "wb", preset=_XZ_PRESET) as stream:  # type: ignore[arg-type]
            yield stream
    else:
        import pyarrow as pa

        with pa.CompressedOutputStream(pa.PythonFile(_File(out), mode="w"), "zstd") as stream:
            yield stream


class _Bounded:
    """Ends a stream that unpacks to more than any data does: nobody has to read a bomb to its end."""

    def __init__(self, stream: ByteReader, raw: HashingReader) -> None:
        self._stream, self._raw, self._size = stream, raw, 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._size += len(data)
        if self._size > BOMB_SIZE and self._size > BOMB_RATIO * self._raw.size:
            raise ShardError(f"the archive unpacks to more than {BOMB_RATIO} times its size.")
        return data


class _XzReader:
    """xz with a bound on what the decoder may hold; `lzma.LZMAFile` has none."""

    def __init__(self, raw: HashingReader) -> None:
        self._raw, self._held, self._start = raw, b"", True
        self._decoder = lzma.LZMADecompressor(memlimit=LARGEST_DICTIONARY)

    def read(self, size: int = -1, /) -> bytes:
        while not self._held:
            if self._decoder.eof:
                rest = self._decoder.unused_data or self._raw.read(1 << 16)
                if not rest.strip(b"\0"):
                    if not rest:
                        return b""
                    self._decoder = lzma.LZMADecompressor(memlimit=LARGEST_DICTIONARY)
                    continue
                self._decoder = lzma.LZMADecompressor(memlimit=LARGEST_DICTIONARY)
                self._held = self._decoder.decompress(rest, 1 << 20)
                continue
            data = self._raw.read(1 << 16) if self._decoder.needs_input else b""
            if not data and self._decoder.needs_input:
                raise EOFError("it ends before its end marker")
            self._held = self._decoder.decompress(data, 1 << 20)
        size = len(self._held) if size < 0 else size
        data, self._held = self._held[:size], self._held[size:]
        return data


class _ArrowReader:
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int = -1, /) -> bytes:
        return bytes(self._stream.read(None if size < 0 else size))


class _File:
    """The least of a file object that Arrow reads from or writes to."""

    closed = False

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def read(self, size: int = -1) -> bytes:
        return bytes(self._inner.read(size))

    def write(self, data: Any) -> int:
        return int(self._inner.write(bytes(data)))

    def tell(self) -> int:
        return int(self._inner.size)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def writable(self) -> bool:
        return hasattr(self._inner, "write")

    def readable(self) -> bool:
        return hasattr(self._inner, "read")

    def seekable(self) -> bool:
        return False


arrow_file = _File
