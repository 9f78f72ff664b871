"""What several commands open: private keys and logs for writing."""

from pathlib import Path
from typing import TYPE_CHECKING

from jobs.passphrases import passphrase_for

if TYPE_CHECKING:
    from keys.audit.checkpoint import NoteKey
    from keys.audit.log import AuditLog
    from keys.custodians import CustodianKey
    from keys.recipients import RecipientKey


def recipient_private_key(path: Path, passphrase_file: Path | None) -> "RecipientKey":
    from keys.recipients import RecipientKey

    return RecipientKey.load(path, passphrase_for(path, passphrase_file, "the recipient key"))


def person_key(path: Path, passphrase_file: Path | None) -> "CustodianKey":
    from keys.custodians import CustodianKey

    return CustodianKey.load(path, passphrase_for(path, passphrase_file, "the key"))


def writable_log(audit: str, log_key: Path, passphrase_file: Path | None) -> "AuditLog":
    """A log that can be appended to: whoever takes a step of a recovery must be able to log it first."""
    from keys.audit.log import AuditLog

    return AuditLog(audit, load_log_key(log_key, passphrase_file))


def load_log_key(path: Path, passphrase_file: Path | None) -> "NoteKey":
    from keys.audit.checkpoint import NoteKey

    return NoteKey.load(path, passphrase_for(path, passphrase_file, "the log key"))
