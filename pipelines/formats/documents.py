"""What a file or field that is no picture is, told from its bytes: a text, an array, nothing, or unknown.

Unknown is whatever is not proved to be one of the others, whatever its name says: archives, video, Arrow, pickles, text in no
known encoding. `sanitize` stops at it unless it is told what to do (`--others`); it is never copied in silence.

    text    UTF-8, with or without a byte order mark, no control characters but tab, newline, carriage return and form feed
    array   .npy or .npz by their first bytes, small enough to be opened whole
"""

import codecs
import re
from collections.abc import Callable

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ufffe\uffff]")
_ARRAYS = (b"\x93NUMPY", b"PK\x03\x04")
CHUNK = 1 << 20
RECORDS = "an MXNet RecordIO file"
_NAMED = (  # for wording only: what unknown bytes begin with
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "gzip data"),
    (b"\x28\xb5\x2f\xfd", "zstandard data"),
    (b"BZh", "bzip2 data"),
    (b"\xfd7zXZ\0", "xz data"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"ARROW1", "an Arrow file"),
    (b"\xff\xff\xff\xff", "an Arrow stream"),
    (b"PAR1", "a Parquet file"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (b"OggS", "an Ogg file"),
    (b"%PDF", "a PDF"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x80\x02", "a pickle"),
    (b"\x80\x04", "a pickle"),
    (b"\x80\x05", "a pickle"),
    (b"SQLite", "a database"),
    (b"\x0a\x23\xd7\xce", RECORDS),
)


class TextCheck:
    """Whether a stream of bytes is text, chunk by chunk."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.is_text = True

    def feed(self, data: bytes, *, last: bool = False) -> None:
        if not self.is_text:
            return
        try:
            self.is_text = _CONTROL.search(self._decoder.decode(data, last)) is None
        except UnicodeDecodeError:
            self.is_text = False


def is_text(data: bytes) -> bool:
    """Whether all of `data` is text."""
    check = TextCheck()
    check.feed(data, last=True)
    return check.is_text


def is_array(data: bytes) -> bool:
    """Whether `data` is a .npy file, or a .npz archive, that can be read whole without running code."""
    from diffpriv.pipelines.formats.arrays import read_arrays

    return data.startswith(_ARRAYS) and read_arrays(data) is not None


def what_it_is(head: bytes) -> str:
    """Words for unknown bytes, from their first ones."""
    if head[4:8] == b"ftyp":
        return "a video, or a picture of a kind this tool does not read"
    if head[257:262] == b"ustar":
        return "a tar archive"
    return next((name for start, name in _NAMED if head.startswith(start)), "binary data of no known kind")


def read_document(read: Callable[[int], bytes], keep: int) -> tuple[bytes | None, str]:
    """(the bytes, or None where there are more than `keep`; what it is if unknown, else "").

    Args:
        read: gives up to so many bytes, and none at the end.
    """
    check, parts, size, head = TextCheck(), [], 0, b""
    while chunk := read(CHUNK):
        check.feed(chunk)
        size += len(chunk)
        head = head or chunk[:512]
        if size <= keep:
            parts.append(chunk)
        else:
            parts.clear()
    check.feed(b"", last=True)
    data = b"".join(parts) if size <= keep else None
    known = check.is_text or (data is not None and is_array(data))
    return data, "" if known else what_it_is(head)
