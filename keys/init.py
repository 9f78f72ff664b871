"""`diffpriv keys init DIR`: one of everything, for trying the system out or as a start.

DIR/recipient.json      public: what a job is given         DIR/recipient.key       private, passphrase: the recovery office's
DIR/log.vkey            public: checks the audit log        DIR/log.key             private, mode 0600: the sequencer's
DIR/release.vkey        public: checks release manifests    DIR/release.key         private, mode 0600: the release gate's
DIR/office.vkey         public: checks receipts             DIR/office.key          private, passphrase: the recovery office's
DIR/policy.json         public: quorum, custodians and their sealing keys, requesters; a job is given it
DIR/people/NAME.json    public identities                   DIR/people/NAME.key     private, passphrase
For real use every private file belongs on another machine, in other hands: docs/formats.md says which.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffpriv.keys.custodians import CustodianKey, CustodyPolicy
from diffpriv.keys.errors import MisuseError
from diffpriv.keys.notes import NoteKey
from diffpriv.keys.recipients import RecipientKey


@dataclass(frozen=True)
class InitializedKeys:
    """Where the files are."""

    recipient: Path
    recipient_key: Path
    log_vkey: Path
    log_key: Path
    policy: Path
    office_key: Path
    office_vkey: Path
    release_key: Path
    release_vkey: Path
    custodians: dict[str, Path]  # private files, by name
    requesters: dict[str, Path]


def init_keys(
    directory: str | os.PathLike[str],
    passphrase: str,
    *,
    custodians: Sequence[str] = ("custodian-1", "custodian-2", "custodian-3"),
    requesters: Sequence[str] = ("requester",),
    quorum: int = 2,
    log_name: str = "diffpriv.local/audit",
    recipient_name: str = "recipient",
    **argon2: int,
) -> InitializedKeys:
    """Create the files; all passphrase files get the same passphrase.

    Raises: MisuseError if the directory holds such files already; nothing is overwritten.
    """
    root = Path(directory)
    people = root / "people"
    for name in (*custodians, *requesters):
        if not name or name.startswith(".") or "/" in name or "\\" in name:
            raise MisuseError(f"{name!r} can't be a file name.")
    keys = {name: CustodianKey.create(name) for name in (*custodians, *requesters)}
    policy = CustodyPolicy(
        quorum,
        tuple(keys[name].custodian for name in custodians),
        tuple(keys[name].custodian for name in requesters),
    )
    if root.exists() and any((root / name).exists() for name in ("recipient.key", "log.key", "policy.json")):
        raise MisuseError(f"{root} holds keys already; they are never overwritten.", advice="Choose another directory.")
    people.mkdir(parents=True, exist_ok=True)
    recipient_key = RecipientKey(os.urandom(32), recipient_name)
    recipient_key.save(root / "recipient.key", passphrase, **argon2)
    recipient_key.recipient.save(root / "recipient.json")
    host = log_name.partition("/")[0]
    for role, name, secret in (
        ("log", log_name, None),
        ("release", f"{host}/release", None),
        ("office", f"{host}/office", passphrase),
    ):
        key = NoteKey.create(name)
        key.save(root / f"{role}.key", secret, role=role, **(argon2 if secret is not None else {}))
        (root / f"{role}.vkey").write_text(key.verifier.vkey + "\n", encoding="utf-8")
    for name, person in keys.items():
        person.save(people / f"{name}.key", passphrase, **argon2)
        person.custodian.save(people / f"{name}.json")
    policy.save(root / "policy.json")
    return InitializedKeys(
        root / "recipient.json",
        root / "recipient.key",
        root / "log.vkey",
        root / "log.key",
        root / "policy.json",
        root / "office.key",
        root / "office.vkey",
        root / "release.key",
        root / "release.vkey",
        {name: people / f"{name}.key" for name in custodians},
        {name: people / f"{name}.key" for name in requesters},
    )
