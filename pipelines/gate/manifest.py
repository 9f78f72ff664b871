"""The release manifest: which files passed the gate, as one signed note, and the check of a copy against it.

    text       "diffpriv/v1/release manifest\\n" || canonical JSON || "\\n", signed by the release key (a C2SP signed note;
               `keys.notes.sign_json`)
    JSON       version 1; dataset; made_at (Unix seconds); config_digest; files [[name, SHA-256, size], ...] sorted by name;
               counts, tools, found, limits, allowed_fields, highest_similarity: what the gate looked at, with what, what it
               answered, and which fields passed without being checked

It lies at DST/.diffpriv/release.note. `.diffpriv` itself is never released: it names quarantined samples. Copy the rest, e.g.
`rsync -a --exclude=/.diffpriv DST/ RELEASE/`, and send the note beside the folder, not inside it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diffpriv.keys.errors import AuditError
from diffpriv.keys.notes import NoteKey, NoteVerifier, open_json, sign_json
from diffpriv.pipelines.destination.published import records
from diffpriv.pipelines.gate.findings import KINDS, GateReport
from diffpriv.pipelines.layout import MANIFEST
from diffpriv.pipelines.storage import Folder

LABEL = "diffpriv/v1/release manifest"
VERSION = 1


@dataclass(frozen=True)
class CopyReport:
    """A copy against its manifest; clean if no file is altered, missing or extra.

    Attributes:
        allowed_fields: fields that passed without being looked into.
        lifted: kinds of finding that the gate let pass more of than it would by itself, and how many; None is any number.
    """

    dataset: str
    made_at: int
    files: int
    altered: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    allowed_fields: tuple[str, ...] = ()
    lifted: Mapping[str, int | None] = field(default_factory=dict)

    @property
    def allowances(self) -> tuple[str, ...]:
        """What whoever released it let pass, and whoever takes it has to accept by name."""
        return (*self.allowed_fields, *self.lifted)

    @property
    def clean(self) -> bool:
        return not (self.altered or self.missing or self.extra)


def write_manifest(dst: str, report: GateReport, key: NoteKey, now: int) -> str:
    """Sign what the gate passed and leave it in DST; returns the note's name below DST.

    Raises:
        ValueError: the report is not clean. Such a dataset has no manifest.
    """
    if not report.clean:
        raise ValueError("a dataset that did not pass the gate has no release manifest")
    published = list(records(dst))
    files = sorted([file.name, file.sha256, file.size] for record in published for file in record.files)
    body = {
        "version": VERSION,
        "dataset": report.dataset,
        "made_at": now,
        "config_digest": published[0].config_digest,
        "files": files,
        "tools": report.tools,
        "counts": dict(report.counts),
        "found": report.found,
        "limits": report.to_json()["limits"],
        "allowed_fields": sorted(report.settings.allowed_fields),
        "highest_similarity": {which: round(value, 4) for which, value in report.highest_similarity.items()},
    }
    Folder(dst).small.write(MANIFEST, sign_json(key, LABEL, body))
    return MANIFEST


def withdraw_manifest(dst: str) -> None:
    """Remove the note of an earlier gate: from here on DST may change."""
    Folder(dst).small.delete(MANIFEST)


def read_manifest(note: bytes, verifier: NoteVerifier) -> dict[str, Any]:
    """Raises: AuditError unless `verifier` signed it, and it is a manifest of this version."""
    body = open_json(note, LABEL, verifier, what="the release manifest")
    if not isinstance(body, dict) or body.get("version") != VERSION:
        raise AuditError("the release manifest is of another version.")
    return body


def check_copy(folder: str, note: bytes, verifier: NoteVerifier) -> CopyReport:
    """Every file of the manifest, and no other, with the bytes that passed.

    Raises:
        AuditError: see `read_manifest`.
        StorageError: the folder cannot be read.
    """
    body = read_manifest(note, verifier)
    there = Folder(folder)
    names = set(there.names())
    listed = {name: sha256 for name, sha256, _ in body["files"]}
    return CopyReport(
        body["dataset"],
        body["made_at"],
        len(listed),
        tuple(name for name, sha256 in listed.items() if name in names and there.sha256(name) != sha256),
        tuple(name for name in listed if name not in names),
        tuple(sorted(names - listed.keys())),
        tuple(body.get("allowed_fields", ())),
        {kind: limit for kind, limit in body.get("limits", {}).items() if _lifted(kind, limit)},
    )


def _lifted(kind: str, limit: int | None) -> bool:
    usual = KINDS[kind][0] if kind in KINDS else 0
    return usual is not None and (limit is None or limit > usual)


def note_digest(note: bytes) -> str:
    """Hex SHA-256 of the note, for people to compare by other means."""
    return hashlib.sha256(note).hexdigest()
