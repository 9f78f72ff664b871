"""Files that nobody means as data, left out by name and counted: what file managers, notebooks and macOS leave beside it."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

IGNORED = ("._*", ".DS_Store", ".Trashes", ".ipynb_checkpoints", "@eaDir", "Thumbs.db:encryptable", "__MACOSX")


def ignored_by(name: str, patterns: Sequence[str]) -> str:
    """The pattern that a part of a path fits, the path's own name or one of its folders; "" for none."""
    parts = name.split("/")
    return next((pattern for pattern in patterns if any(part and fnmatchcase(part, pattern) for part in parts)), "")
