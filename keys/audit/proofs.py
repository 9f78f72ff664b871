"""Proofs as files, and the witness: what someone outside can check without reading the log.

Inclusion proof: C2SP tlog-proof (https://c2sp.org/tlog-proof), text: "c2sp.org/tlog-proof@v1", "extra <base64 of the entry>",
"index <n>", the hashes in base64 one per line, an empty line, the checkpoint. The entry rides in "extra"; its hash checks it.
Consistency proof, JSON: {"format": "diffpriv consistency proof", "version": 1, "old": note, "new": note, "proof": [base64]}.
A witness keeps {"origin", "root", "size"} of the last head it signed in a file of its own, and signs only what extends that.
"""

import base64
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffpriv.keys.audit.checkpoint import Checkpoint, open_checkpoint
from diffpriv.keys.audit.events import AuditEvent
from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.audit.merkle import (
    EMPTY_ROOT,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    range_hash,
    verify_consistency,
    verify_inclusion,
)
from diffpriv.keys.audit.tiles import TileReader
from diffpriv.keys.errors import AuditError, MisuseError, StorageError
from diffpriv.keys.json_text import parse_json
from diffpriv.keys.notes import COSIGNATURE, NoteKey, NoteVerifier

_INCLUSION = "c2sp.org/tlog-proof@v1"
_CONSISTENCY = "diffpriv consistency proof"


@dataclass(frozen=True)
class ProvenEntry:
    """An entry whose proof holds, and the checkpoint it holds for."""

    index: int
    event: AuditEvent
    checkpoint: Checkpoint


def prove_inclusion(log: AuditLog, index: int) -> bytes:
    """A proof that entry `index` is in the log, for whoever holds the log's public key. Raises: AuditError."""
    head = log.checkpoint()
    hashes = inclusion_proof(index, head.size, TileReader(log.location, head.size).node)
    (entry,) = (entry for _, entry in log.entries(index, index + 1))
    proof = b"".join(_b64(one).encode() + b"\n" for one in hashes)
    made = f"{_INCLUSION}\nextra {_b64(entry)}\nindex {index}\n".encode() + proof + b"\n" + head.note
    check_inclusion(made, log.verifier)  # never hand out a proof that does not hold: a damaged tile shows here
    return made


def check_inclusion(proof: bytes, log: NoteVerifier, witnesses: Sequence[NoteVerifier] = ()) -> ProvenEntry:
    """What the proof proves. Raises: AuditError if it does not."""
    head, _, note = proof.partition(b"\n\n")
    try:
        title, extra, place, *lines = head.decode().split("\n")
        if title != _INCLUSION or not extra.startswith("extra ") or not place.startswith("index "):
            raise ValueError("not a tlog-proof")
        entry = _unb64(extra.removeprefix("extra "))
        index = int(place.removeprefix("index "))
        hashes = [_unb64(line) for line in lines]
        if place != f"index {index}":
            raise ValueError("an index in another form")
    except ValueError as error:
        raise AuditError("this is not an inclusion proof (c2sp.org/tlog-proof).") from error
    checkpoint = open_checkpoint(note, log, witnesses, what="the checkpoint in the proof")
    verify_inclusion(index, checkpoint.size, leaf_hash(entry), hashes, checkpoint.root)
    return ProvenEntry(index, AuditEvent.decode(entry, where=f"entry {index}"), checkpoint)


def prove_consistency(log: AuditLog, earlier: bytes) -> bytes:
    """A proof that today's log extends an earlier checkpoint. Raises: AuditError if it does not."""
    old = open_checkpoint(earlier, log.verifier, what="the earlier checkpoint")
    head = log.checkpoint()
    hashes = consistency_proof(old.size, head.size, TileReader(log.location, head.size).node)
    body = {
        "format": _CONSISTENCY,
        "version": 1,
        "old": earlier.decode(),
        "new": head.note.decode(),
        "proof": [_b64(one) for one in hashes],
    }
    made = json.dumps(body, indent=2, ensure_ascii=False).encode() + b"\n"
    check_consistency(made, log.verifier)
    return made


def check_consistency(proof: bytes, log: NoteVerifier) -> tuple[Checkpoint, Checkpoint]:
    """The two heads, of which the second extends the first. Raises: AuditError if the proof does not hold."""
    try:
        body = parse_json(proof)
        if body["format"] != _CONSISTENCY or body["version"] != 1:
            raise ValueError("another format")
        hashes = [_unb64(one) for one in body["proof"]]
        notes = [body[which].encode() for which in ("old", "new")]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AuditError("this is not a consistency proof.") from error
    old = open_checkpoint(notes[0], log, what="the earlier checkpoint in the proof")
    new = open_checkpoint(notes[1], log, what="the later checkpoint in the proof")
    verify_consistency(old.size, new.size, old.root, new.root, hashes)
    return old, new


def witness(log: AuditLog, key: NoteKey, state: str | os.PathLike[str], *, now: int) -> bytes:
    """Check that the log only grew since this witness saw it last, remember its head, and sign it.

    Args:
        key: made with NoteKey.create(name, witness=True); `state`: the witness's own file, never in the log's folder.
    Returns: the signature line, for `AuditLog.add_cosignature`.
    Raises: AuditError if the log's past was rewritten or it was cut back; nothing is signed then.
    """
    if key.type != COSIGNATURE:
        raise MisuseError("a witness signs with a witness key, not with a log's.")
    head = log.checkpoint()
    seen_size, seen_root = last_seen(state, head.origin)
    if head.size < seen_size:
        raise AuditError(f"the log has {head.size} entries and had {seen_size} when it was witnessed last: it was cut back.")
    reader = TileReader(log.location, head.size)
    # Also where nothing was seen before: a head whose tiles don't give its root is not worth a signature.
    if range_hash(0, head.size, reader.node) != head.root:
        raise AuditError("the log's tiles don't give the root in its checkpoint.")
    hashes = consistency_proof(seen_size, head.size, reader.node)
    verify_consistency(seen_size, head.size, seen_root, head.root, hashes)
    remember(state, head)
    return key.signature_line(head.text, now)


def witness_mailed(mailed: bytes, log: NoteVerifier, key: NoteKey, state: str | os.PathLike[str], *, now: int) -> bytes:
    """The same without the log at hand: of a mailed consistency proof (`prove_consistency`) from the head that was seen last.

    Args:
        mailed: the proof; or a bare checkpoint, if this witness saw nothing of the log yet, or that very head.
    Raises: AuditError if it does not extend what was seen; nothing is signed then.
    """
    if key.type != COSIGNATURE:
        raise MisuseError("a witness signs with a witness key, not with a log's.")
    if mailed.lstrip().startswith(b"{"):
        old, head = check_consistency(mailed, log)
    else:
        old = head = open_checkpoint(mailed, log, what="the mailed checkpoint")
    seen_size, seen_root = last_seen(state, head.origin)
    if head.size < seen_size:
        raise AuditError(f"the log has {head.size} entries and had {seen_size} when it was witnessed last: it was cut back.")
    if seen_size and (old.size, old.root) != (seen_size, seen_root):
        raise AuditError(
            f"what was mailed does not begin at the head of {seen_size} entries that this witness saw last.",
            advice="Ask the sequencer for: diffpriv audit prove --since, with the checkpoint that you cosigned last.",
        )
    remember(state, head)
    return key.signature_line(head.text, now)


def last_seen(state: str | os.PathLike[str], origin: str) -> tuple[int, bytes]:
    """Size and root of the log when the witness last saw it; size 0 if it never did."""
    try:
        body = parse_json(Path(state).read_bytes())
        if body["origin"] != origin:
            raise AuditError(f"{state} is the witness's memory of the log {body['origin']}, not of {origin}.")
        return int(body["size"]), bytes.fromhex(body["root"])
    except FileNotFoundError:
        return 0, EMPTY_ROOT
    except (OSError, ValueError, KeyError, TypeError) as error:
        # Starting afresh would let a rewritten log through.
        raise AuditError(f"the witness's memory {state} can't be read; it is not replaced.") from error


def remember(state: str | os.PathLike[str], head: Checkpoint) -> None:
    """Store the head that the witness has seen, whole or not at all."""
    path = Path(state)
    body = json.dumps({"origin": head.origin, "size": head.size, "root": head.root.hex()})
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(path)
    except OSError as error:
        raise StorageError(f"the witness's memory {state} can't be written: {error.strerror}.") from error


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unb64(text: str) -> bytes:
    """Only the one canonical form: base64 has unused bits that could be flipped unseen."""
    data = base64.b64decode(text, validate=True)
    if _b64(data) != text:
        raise ValueError("base64 in another form")
    return data
