"""Tar archives member by member, as a stream, with every header byte kept.

Python's `tarfile` can read but not copy: what it writes back has other headers. A shard that leaves this tool must hold every
untouched member byte for byte, so members are passed on as they came and only the size field of a changed one is rewritten.

Layout (POSIX ustar, blocks of 512 bytes): [extended headers: GNU "L"/"K", pax "x"] header, data padded to a block, ...; then
two zero blocks. In a header: name at 0 (100 bytes), size at 124 (12, octal or base-256), checksum at 148 (8), type at 156.

Stricter than `tarfile` where leniency hides damage: an archive without its end marker counts as truncated, and bytes after the
marker are never passed on.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Protocol

from diffpriv.pipelines.errors import ShardError

BLOCK = 512
RECORD = 20 * BLOCK  # what tar programs pad an archive to
CHUNK = 1 << 20
MAX_EXTENSION = 1 << 20  # a longer name or pax header is an attack, not a name
_ZERO = bytes(BLOCK)
_NO_DATA = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)


class ByteReader(Protocol):
    """What bytes are read from."""

    def read(self, size: int = -1, /) -> bytes: ...


class ByteWriter(Protocol):
    """What bytes are written to."""

    def write(self, data: bytes, /) -> object: ...


@dataclass(eq=False)
class TarMember:
    """One member, with its data still in the stream: use it before asking for the next.

    Attributes:
        name: as stored, UTF-8 with surrogate escapes.
        size: bytes of data.
        plain: a regular file, not sparse. Everything else has nothing that a sample could hold.
        folder: a directory entry.
        head: all header blocks, extended ones included, as they came.
    """

    name: str
    size: int
    plain: bool
    folder: bool
    head: bytes = field(repr=False)
    _stream: ByteReader = field(repr=False)
    _left: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._left = self.size

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes of data; all that is left when negative.

        Raises:
            ShardError: the archive ends inside the member.
        """
        wanted = self._left if size < 0 else min(size, self._left)
        data = _read_exactly(self._stream, wanted, self.name)
        self._left -= wanted
        return data

    def skip(self) -> None:
        """Read past what is left of the data and its padding."""
        pass_over = getattr(self._stream, "pass_over", None)
        if pass_over is not None:
            pass_over(self._left)
            self._left = 0
        while self._left:
            self.read(min(CHUNK, self._left))
        self._finish()

    def copy_to(self, out: ByteWriter, read_before: bytes = b"", *, anew: bool = False) -> None:
        """Pass the member on.

        Args:
            read_before: all that was read of it so far.
            anew: its header says name and size, and nothing else; otherwise it stays as it came.
        """
        out.write(self._new_head(self.size) if anew else self.head)
        out.write(read_before)
        while self._left:
            out.write(self.read(min(CHUNK, self._left)))
        out.write(_padding(self.size))
        self._finish()

    def replace_in(self, out: ByteWriter, data: bytes, *, anew: bool = False) -> None:
        """Pass the member on with other data: its header keeps every byte but size and checksum, or is written `anew`."""
        out.write(self._new_head(len(data)) if anew else self.head[:-BLOCK] + _with_size(self.head[-BLOCK:], len(data)))
        out.write(data)
        out.write(_padding(len(data)))
        self.skip()

    def _new_head(self, size: int) -> bytes:
        info = tarfile.TarInfo(self.name)
        info.size, info.mode = size, 0o644  # and no time: four bytes of anything else would fit there
        return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")

    def _finish(self) -> None:
        if self._stream is not _NOWHERE:
            _read_exactly(self._stream, -self.size % BLOCK, self.name)
            self._stream = _NOWHERE


class _Nowhere:
    def read(self, size: int = -1, /) -> bytes:
        return b""


_NOWHERE = _Nowhere()


class SeekingReader:
    """A file whose members' data is passed over without reading it."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle

    def read(self, size: int = -1, /) -> bytes:
        return self._handle.read(size)

    def pass_over(self, size: int) -> None:
        self._handle.seek(size, 1)


def members(stream: ByteReader) -> Iterator[TarMember]:
    """Every member up to the end marker, global pax headers left out (they hold comments). Data not read is skipped.

    Raises:
        ShardError: damaged or truncated; says behind which member.
    """
    previous = "the archive's start"
    while (member := _next_member(stream, previous)) is not None:
        previous = member.name
        yield member
        member.skip()


def write_end(out: ByteWriter, written: int, source_size: int) -> None:
    """The end marker, padded to a record where the source was: an archive copied without a change has its source's bytes."""
    end = 2 * BLOCK
    if source_size % RECORD == 0:
        end += -(written + end) % RECORD
    out.write(bytes(end))


def _next_member(stream: ByteReader, previous: str) -> TarMember | None:
    head = b""
    long_name: str | None = None
    pax: dict[str, str] = {}
    while True:
        block = stream.read(BLOCK)
        while 0 < len(block) < BLOCK and (more := stream.read(BLOCK - len(block))):
            block += more
        if len(block) < BLOCK:
            raise ShardError(f"the archive ends without its end marker, after {previous!r}: it is truncated.")
        if block == _ZERO:
            if head:
                raise ShardError(f"the archive ends inside an extended header, after {previous!r}.")
            return None
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise ShardError(f"the archive is damaged after {previous!r}: {error}.") from None
        if info.size < 0:
            raise ShardError(f"the archive is damaged after {previous!r}: negative size.")
        if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, b"X"):
            data = _extension(stream, info, previous)
            if info.type == tarfile.XGLTYPE:
                continue
            head += block + data + _padding(info.size)
            if info.type == tarfile.GNUTYPE_LONGNAME:
                long_name = data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
            elif info.type != tarfile.GNUTYPE_LONGLINK:
                pax |= _pax_records(data, previous)
            continue
        return _member(info, head + block, long_name, pax, stream)


def _extension(stream: ByteReader, info: tarfile.TarInfo, previous: str) -> bytes:
    if info.size > MAX_EXTENSION:
        raise ShardError(f"the archive has an extended header of {info.size} bytes after {previous!r}.")
    data = _read_exactly(stream, info.size, previous)
    _read_exactly(stream, -info.size % BLOCK, previous)
    return data


def _member(info: tarfile.TarInfo, head: bytes, long_name: str | None, pax: dict[str, str], stream: ByteReader) -> TarMember:
    name = pax.get("path", long_name if long_name is not None else info.name)
    size = 0 if info.type in _NO_DATA else info.size
    # A size or sparse map in the pax header overrides the header that `replace_in` rewrites: never a sample's picture.
    strange = "size" in pax or any(key.startswith("GNU.sparse") for key in pax)
    if "size" in pax and info.type not in _NO_DATA:
        if not pax["size"].isdigit():
            raise ShardError(f"the archive's pax header of {name!r} has no valid size.")
        size = int(pax["size"])
    plain = info.type in _PLAIN and not strange
    return TarMember(name, size, plain, info.type == tarfile.DIRTYPE, head, stream)


def _pax_records(data: bytes, previous: str) -> dict[str, str]:
    """Records "<decimal length of the record> <key>=<value>\\n"; UTF-8."""
    records: dict[str, str] = {}
    while data.rstrip(b"\0"):
        length, space, _ = data.partition(b" ")
        end = int(length) if length.isdigit() and len(length) < 8 else 0
        key, equals, value = data[len(length) + 1 : max(end - 1, 0)].partition(b"=")
        if not space or not equals or end > len(data) or data[end - 1 : end] != b"\n":
            raise ShardError(f"the archive has a damaged pax header after {previous!r}.")
        records[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        data = data[end:]
    return records


def _read_exactly(stream: ByteReader, size: int, name: str) -> bytes:
    parts = []
    left = size
    while left:
        part = stream.read(min(left, CHUNK))
        if not part:
            raise ShardError(f"the archive ends inside {name!r}: it is truncated.")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _padding(size: int) -> bytes:
    return bytes(-size % BLOCK)


def _with_size(header: bytes, size: int) -> bytes:
    """The header block with another size (11 octal digits and NUL) and the checksum that goes with it."""
    if size >= 8**11:
        raise ShardError("a picture of 8 GiB does not fit a tar header.")
    block = bytearray(header)
    block[124:136] = b"%011o\0" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)
