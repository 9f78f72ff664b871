"""`diffpriv keys shred`: destroy the sealed records of one face, one sample, one person or one dataset, for good.

A shredded row keeps its sample, face index and the date; its record is gone, and a shard key goes with the last record under
it. The log gets, per key file, how many faces went and a salted commitment to which:
    SHA-256(canonical("diffpriv/v1/shredded", salt (16), dataset, shard, then per face: sample, 4 bytes face index))
so it proves the shredding without naming anybody. The salts and names are in the receipt, a note signed by the log's key,
which only the operator (and whoever they show it to) holds. Copies of key files outside the store are not reached: see
docs/formats.md, backups.
"""

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from diffpriv.keys.audit.events import to_iso
from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.context import canonical
from diffpriv.keys.errors import AuditError, MisuseError, UnknownFaceError
from diffpriv.keys.keyfile import Face, KeyFile
from diffpriv.keys.notes import NoteVerifier, open_json, sign_json
from diffpriv.keys.requests import FaceRef
from diffpriv.keys.rewriting import KeyFileRewriter
from diffpriv.keys.store import KeyStore

RECEIPT = "diffpriv shredding receipt"
SCOPES = ("face", "sample", "person", "dataset")


@dataclass(frozen=True)
class Selection:
    """What to shred: a dataset, or one shard, sample or face of it. `None` means all."""

    dataset: str
    shard: str | None = None
    sample: str | None = None
    face_index: int | None = None

    def covers(self, face: Face) -> bool:
        return self.sample in (None, face[0]) and self.face_index in (None, face[1])

    def __str__(self) -> str:
        parts = [
            f"dataset {self.dataset}",
            self.shard,
            self.sample,
            None if self.face_index is None else f"face {self.face_index}",
        ]
        return ", ".join(part for part in parts if part is not None)


@dataclass
class ShredReport:
    """Which faces were destroyed now and before, and the signed receipt."""

    destroyed: list[FaceRef] = field(default_factory=list)
    already: dict[FaceRef, str] = field(default_factory=dict)  # when
    receipt: bytes | None = None  # None if nothing was left to destroy


def shred(store: KeyStore, log: AuditLog, selections: Sequence[Selection], *, scope: str, now: int) -> ShredReport:
    """Destroy the selected records. Running it again destroys nothing more and says since when they are gone.

    Raises:
        UnknownFaceError: a selection fits no row of any key file (a typo destroys nothing: this is checked first).
        KeyFileError: a key file is not the one the log names.
    """
    if scope not in SCOPES:
        raise MisuseError(f"{scope!r} is not one of {', '.join(SCOPES)}.")
    if log.key is None:
        raise MisuseError("shredding is logged, and the log's signing key was not given.")
    rewriter = KeyFileRewriter(store, log)
    targets = _targets(store, rewriter, selections)
    for name in store.location.abandoned():
        store.location.delete(name)  # a process that was killed while writing may have left a copy of what is to go
    report, proven = ShredReport(), []
    for (dataset, shard), chosen in sorted(targets.items()):
        file = rewriter.read(dataset, shard)
        covered = {face for face in file.faces() if any(one.covers(face) for one in chosen)}
        data, destroyed = file.without(covered.__contains__, now)
        for face, at in file.shredded().items():
            if face in covered:
                report.already[FaceRef(dataset, shard, *face)] = to_iso(at)
        if not destroyed:
            continue
        salt = os.urandom(16)
        commitment = commit_shredded(salt, dataset, shard, destroyed)
        facts = {"scope": scope, "faces": len(destroyed), "commitment": commitment}
        rewriter.replace("face shredded", file, data, facts, now)
        report.destroyed += [FaceRef(dataset, shard, *face) for face in destroyed]
        proven.append({"dataset": dataset, "shard": shard, "salt": salt.hex(), "commitment": commitment, "faces": destroyed})
    rewriter.flush()
    if proven:
        head = log.checkpoint()
        place = {"origin": head.origin, "size": head.size, "root": head.root.hex()}
        body = {"version": 1, "scope": scope, "shredded_at": to_iso(now), "log": place, "key_files": proven}
        report.receipt = sign_json(log.key, RECEIPT, body)
    return report


def person_selections(path: str | os.PathLike[str], person: str) -> list[Selection]:
    """Everything of one person, from the operator's mapping file: CSV with the columns person, dataset, shard, sample, face.

    An empty shard means any shard of the dataset, an empty face every face of the sample. The file stays with the operator;
    neither the person's name nor the file's name reaches the log.
    Raises: MisuseError naming the line.
    """
    wanted = ["person", "dataset", "shard", "sample", "face"]
    found = []
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames is None or set(wanted) - set(reader.fieldnames):
                raise MisuseError(f"{path} needs a first line with the columns {', '.join(wanted)}.")
            for row in reader:
                if row["person"] == person:
                    found.append(_selection(row, f"{path}, line {reader.line_num}"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MisuseError(f"the mapping file {path} can't be read: {error}.") from error
    if not found:
        raise MisuseError(f"{path} has no line for this person.")
    return found


def check_receipt(note: bytes, log: AuditLog, store: KeyStore | None = None) -> dict[str, Any]:
    """Whether the log bears a shredding receipt out, and with a key store: whether the records are gone.

    Raises: AuditError naming the shard that does not fit.
    """
    body = read_receipt(note, log.verifier)
    logged = {(e.facts["dataset"], e.facts["shard"], e.facts["commitment"]) for _, e in log.events('"kind":"face shredded"')}
    for one in body["key_files"]:
        dataset, shard = one["dataset"], one["shard"]
        faces = [(str(sample), int(index)) for sample, index in one["faces"]]
        commitment = commit_shredded(bytes.fromhex(one["salt"]), dataset, shard, faces)
        if commitment != one["commitment"] or (dataset, shard, commitment) not in logged:
            raise AuditError(f"the log has no entry for the shredding in {shard} of dataset {dataset} that the receipt claims.")
        data = store.get_if_there(dataset, shard) if store is not None else None
        if data is not None:
            file = KeyFile.parse(data, dataset=dataset, shard=shard)
            alive = set(faces) & (set(file.faces()) - file.shredded().keys())
            if alive:
                raise AuditError(f"{len(alive)} shredded faces are back in the key file of {shard}: an old copy was restored.")
    return body


def read_receipt(note: bytes, verifier: NoteVerifier) -> dict[str, Any]:
    """Raises: AuditError unless the log's key signed it."""
    return open_json(note, RECEIPT, verifier, what="the receipt")


def commit_shredded(salt: bytes, dataset: str, shard: str, faces: Iterable[Face]) -> str:
    """Salted digest of destroyed faces: it names nobody, and who has the salt can check it."""
    fields = [salt, dataset.encode(), shard.encode()]
    for sample, index in faces:
        fields += [sample.encode(), index.to_bytes(4, "big")]
    return sha256(canonical("diffpriv/v1/shredded", *fields)).hexdigest()


def _targets(
    store: KeyStore, rewriter: KeyFileRewriter, selections: Sequence[Selection]
) -> dict[tuple[str, str], list[Selection]]:
    """Which key files hold what; every selection must fit at least one row."""
    targets: dict[tuple[str, str], list[Selection]] = {}
    fitting: set[Selection] = set()
    wanted: dict[tuple[str, str], list[Selection]] = {}
    for selection in dict.fromkeys(selections):
        shards = store.list(selection.dataset) if selection.shard is None else [(selection.dataset, selection.shard)]
        for shard in shards:
            wanted.setdefault(shard, []).append(selection)
    for shard, candidates in wanted.items():
        if store.get_if_there(*shard) is None:
            continue
        faces = rewriter.read(*shard).faces()
        chosen = [one for one in candidates if any(one.covers(face) for face in faces)]
        if chosen:
            targets[shard] = chosen
            fitting.update(chosen)
    unknown = [selection for selection in selections if selection not in fitting]
    if unknown:
        raise UnknownFaceError(
            f"no key file has {unknown[0]}; nothing was shredded.", advice="Check the names; nothing was changed."
        )
    return targets


def _selection(row: dict[str, Any], where: str) -> Selection:
    try:
        face = int(row["face"]) if (row["face"] or "").strip() else None
    except ValueError:
        raise MisuseError(f"{where}: the face must be a number or empty.") from None
    if not row["dataset"] or not row["sample"]:
        raise MisuseError(f"{where}: dataset and sample must be given.")
    return Selection(row["dataset"], row["shard"] or None, row["sample"], face)
