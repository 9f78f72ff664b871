"""Why a sample is in quarantine: a code for the audit log, and words for DST's quarantine list.

Whoever finds the trouble names both. The words may hold names, sizes or a library's message, and stay in DST.
The log, which is never deleted, gets the code and nothing else; the codes are part of its format (docs/formats.md).
"""

from enum import StrEnum
from typing import NamedTuple


class Code(StrEnum):
    """Kinds of trouble with a sample. New ones may come; none is renamed, as logs hold them."""

    TRUNCATED = "truncated"
    NO_PICTURE = "no-picture"  # no picture at all, or one without pixels
    NOT_A_PICTURE = "not-a-picture"  # named as one
    UNREADABLE = "picture-unreadable"
    UNSUPPORTED = "format-unsupported"  # can't be shown to a detector, or not be written back
    TOO_LARGE = "too-large"  # bytes, pixels, frames or pictures within pictures
    METADATA = "metadata-unreadable"
    HIDDEN_FACE = "face-beside-pixels"  # in an alpha channel or the like, where replacing pixels would leave it
    UNKNOWN_CONTENT = "unknown-content"
    NAME = "name-unusable"
    NOT_PLAIN = "not-a-plain-file"  # a link, a device, a path to another file
    AMBIGUOUS = "ambiguous-sample"  # has the same field twice
    SCATTERED = "scattered-sample"  # its members lie too far apart
    BOX = "box-unusable"
    DETECTOR = "detector-failed"
    CRASHED = "ended-its-process"


class Problem(NamedTuple):
    """Why one sample cannot be published."""

    code: Code
    text: str
