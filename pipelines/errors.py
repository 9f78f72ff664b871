"""Errors of the job. The root is shared with every other layer; see `keys.errors`."""

from diffpriv.keys.errors import DiffPrivError, MisuseError
from diffpriv.pipelines.quarantine import Code

__all__ = [
    "BadImageError",
    "DiffPrivError",
    "JobError",
    "LeaseError",
    "MisuseError",
    "ShardError",
    "SourceChangedError",
    "UnknownContentError",
    "revived",
]


class BadImageError(DiffPrivError):
    """A picture cannot be decoded or is of a kind this tool does not write. Its sample goes to quarantine, under `code`."""

    def __init__(self, message: str, *, code: Code = Code.UNREADABLE, advice: str = "") -> None:
        super().__init__(message, advice=advice)
        self.code = code


class ShardError(DiffPrivError):
    """A whole shard cannot be read or written. Nothing of it is published; a rerun tries it again."""


class SourceChangedError(ShardError):
    """A source shard is not what it was when its faces were looked for; putting the two together could publish a face."""


class UnknownContentError(ShardError):
    """Something in a shard is no picture, no text and no known document, and nobody has said what is to become of it."""


class LeaseError(DiffPrivError):
    """Another run holds this DST, or this run lost it."""


class JobError(DiffPrivError):
    """The engine failed in a way that no sample or shard explains. What was committed stays; a rerun goes on from there."""


def revived(kind: str, message: str, advice: str = "") -> DiffPrivError:
    """An error of ours that another process met: of its class, if that is one a message alone makes, else a `JobError`."""
    made = _classes(DiffPrivError).get(kind, JobError)
    try:
        return made(message, advice=advice)
    except TypeError:  # a class that wants more than a message
        return JobError(message, advice=advice)


def _classes(root: type[DiffPrivError]) -> dict[str, type[DiffPrivError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found |= _classes(child)
    return found
