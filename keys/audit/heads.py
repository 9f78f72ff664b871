"""Kept heads: whoever reads or writes a log keeps the last head they saw, and refuses a log that does not extend it.

A kept head is a file of its keeper's own, beside the keeper's key (KEY.head) or in the folder that DIFFPRIV_HEADS names, never
in the log's folder: whoever can rewind the log must not be able to rewind what was seen of it.
    {"format": "diffpriv kept head", "version": 1, "checkpoint": the signed note}
"""

import json
import os
from pathlib import Path

from diffpriv.keys.audit.checkpoint import Checkpoint, open_checkpoint
from diffpriv.keys.audit.merkle import consistency_proof, verify_consistency
from diffpriv.keys.audit.tiles import TileReader
from diffpriv.keys.errors import AuditError, DiffPrivError, StorageError
from diffpriv.keys.files import LocalFolder, Location
from diffpriv.keys.json_text import parse_json
from diffpriv.keys.notes import NoteVerifier

FOLDER = "DIFFPRIV_HEADS"
_FORMAT = "diffpriv kept head"


def beside(key: str | os.PathLike[str]) -> "KeptHead":
    """The head kept beside a key file, or under its name in the folder that DIFFPRIV_HEADS names."""
    path = Path(key).absolute()
    folder = os.environ.get(FOLDER)
    return KeptHead((Path(folder) if folder else path.parent) / f"{path.name}.head")


class KeptHead:
    """One keeper's memory of one log."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()

    def last(self, verifier: NoteVerifier) -> Checkpoint | None:
        """What was seen last; None if nothing was yet.

        Raises: AuditError if the file is not a head of this log: starting afresh would let a rewound log through.
        """
        try:
            body = parse_json(self.path.read_bytes())
            if body["format"] != _FORMAT or body["version"] != 1:
                raise ValueError("another format")
            note = body["checkpoint"].encode()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"the kept head {self.path} can't be read: {error.strerror}.") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise AuditError(f"the kept head {self.path} is damaged; it is not replaced.") from error
        return open_checkpoint(note, verifier, what=f"the kept head {self.path}")

    def check(self, last: Checkpoint | None, head: Checkpoint, location: Location) -> None:
        """Refuse a head that does not extend `last`, which was read before the log was; then keep it.

        Raises: AuditError naming both sizes; nothing is kept then.
        """
        if last is not None:
            self._check_extends(last, head, location)
        if head.note and (last is None or head.size > last.size):
            self.keep(head)

    def _check_extends(self, last: Checkpoint, head: Checkpoint, location: Location) -> None:
        advice = (
            f"Someone restored, copied or rewrote it. The head that was seen is in {self.path}; compare it with a witness's."
        )
        if head.size < last.size:
            message = f"{location.url} has {head.size} entries and had {last.size} when it was seen last: it was cut back."
            raise AuditError(message, advice=advice)
        if (head.size, head.root) == (last.size, last.root):
            return
        try:
            hashes = consistency_proof(last.size, head.size, TileReader(location, head.size).node)
            verify_consistency(last.size, head.size, last.root, head.root, hashes)
        except DiffPrivError as error:
            message = f"{location.url} does not extend the log of {last.size} entries that was seen last: {error.message}"
            raise AuditError(message, advice=advice) from error

    def keep(self, head: Checkpoint) -> None:
        """Raises: StorageError with the way out."""
        body = {"format": _FORMAT, "version": 1, "checkpoint": head.note.decode()}
        try:
            LocalFolder(self.path.parent).write(self.path.name, json.dumps(body, indent=1, ensure_ascii=False).encode())
        except StorageError as error:
            raise StorageError(
                f"the head of the log can't be kept in {self.path}: {error.message}",
                advice=f"Name a folder that can be written, away from the log, in the environment variable {FOLDER}.",
            ) from error
