"""Checkpoints, the signed heads of a log: C2SP tlog-checkpoint (https://c2sp.org).

Checkpoint:  a signed note (keys/notes.py) whose text is <origin> \\n <size, decimal> \\n <root hash, base64> \\n
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field

from diffpriv.keys.errors import AuditError
from diffpriv.keys.notes import NoteKey, NoteVerifier, open_note, sign_note


@dataclass(frozen=True)
class Checkpoint:
    """The head of a log: how many entries, under which root."""

    origin: str
    size: int
    root: bytes
    note: bytes = field(default=b"", repr=False)  # the signed note it came in
    witnesses: tuple[tuple[str, int], ...] = ()  # (name, Unix time) of the cosignatures that were checked

    @property
    def text(self) -> bytes:
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n".encode()


def open_checkpoint(
    note: bytes, log: NoteVerifier, witnesses: Sequence[NoteVerifier] = (), *, what: str = "the checkpoint"
) -> Checkpoint:
    """Check the log's signature, and those of `witnesses` that are there. Raises: AuditError."""
    text, signed = open_note(note, [log, *witnesses], what=what)
    if log.vkey not in signed:
        raise AuditError(f"{what} is not signed by the log's key ({log.name}, key ID {log.key_id.hex()}).")
    try:
        origin, size, root, *rest = text.decode().removesuffix("\n").split("\n")
        checkpoint = Checkpoint(
            origin,
            int(size),
            base64.b64decode(root, validate=True),
            note,
            tuple((one.name, time) for one in witnesses if (time := signed.get(one.vkey)) is not None),
        )
    except ValueError as error:
        raise AuditError(f"{what} does not hold an origin, a size and a root hash.") from error
    if rest or checkpoint.text != text or origin != log.name or len(checkpoint.root) != 32:
        raise AuditError(f"{what} is not one of the log {log.name}.")
    return checkpoint


def sign_checkpoint(key: NoteKey, size: int, root: bytes) -> bytes:
    """The head of a log of `size` entries, as a signed note."""
    return sign_note(Checkpoint(key.name, size, root).text, key)
