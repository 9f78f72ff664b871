"""Errors of the job. The root is shared with every other layer; see `keys.errors`."""

from keys.errors import DiffPrivError, MisuseError

__all__ = ["BadImageError", "DiffPrivError", "JobError", "LeaseError", "MisuseError", "ShardError", "SourceChangedError"]


class BadImageError(DiffPrivError):
    """A picture cannot be decoded or is of a kind this tool does not write. Its sample goes to quarantine."""


class ShardError(DiffPrivError):
    """A whole shard cannot be read or written. Nothing of it is published; a rerun tries it again."""


class SourceChangedError(ShardError):
    """A source shard is not what it was when its faces were looked for; putting the two together could publish a face."""


class LeaseError(DiffPrivError):
    """Another run holds this DST, or this run lost it."""


class JobError(DiffPrivError):
    """The engine failed in a way that no sample or shard explains. What was committed stays; a rerun goes on from there."""
