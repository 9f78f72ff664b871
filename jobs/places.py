"""What several commands open: private keys and logs for writing."""

from pathlib import Path
from typing import TYPE_CHECKING

from diffpriv.jobs.passphrases import passphrase, passphrase_for
from diffpriv.keys.errors import MisuseError
from diffpriv.keys.json_text import parse_json

if TYPE_CHECKING:
    from diffpriv.keys.audit.log import AuditLog
    from diffpriv.keys.custodians import CustodianKey
    from diffpriv.keys.notes import NoteKey
    from diffpriv.keys.recipients import RecipientKey, Unwrapper


def recipient_key_file(path: Path, passphrase_file: Path | None) -> "RecipientKey":
    """A private key in a passphrase file."""
    from diffpriv.keys.recipients import RecipientKey

    return RecipientKey.load(path, passphrase_for(path, passphrase_file, "the recipient key"))


def unwrapper(path: Path, passphrase_file: Path | None, pkcs11_module: Path | None = None) -> "Unwrapper":
    """Whatever opens shard keys: a passphrase file, or the public recipient file of a key that KMS or a token keeps."""
    from diffpriv.keys.recipients import Recipient

    locator = _locator(path)
    if locator.startswith("aws-kms:"):
        from diffpriv.keys.aws_kms import KmsRecipientKey

        return KmsRecipientKey(Recipient.load(path))
    if locator.startswith("pkcs11:"):
        from diffpriv.keys.pkcs11 import TokenRecipientKey

        if pkcs11_module is None:
            raise MisuseError(f"{path} names a key on a token.", advice="Give the token's library: --pkcs11-module FILE.")
        pin = passphrase(passphrase_file, f"the PIN of the token of {path}")
        return TokenRecipientKey(Recipient.load(path), str(pkcs11_module), pin)
    return recipient_key_file(path, passphrase_file)


def _locator(path: Path) -> str:
    """Where the private half of a recipient file lives; "" for any other file, whose loader then says what is wrong."""
    try:
        return str(parse_json(path.read_bytes()).get("locator", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def person_key(path: Path, passphrase_file: Path | None) -> "CustodianKey":
    """Load a person's private key, asking for its passphrase where needed."""
    from diffpriv.keys.custodians import CustodianKey

    return CustodianKey.load(path, passphrase_for(path, passphrase_file, "the key"))


def read_file(path: Path) -> bytes:
    """A file that a command was given. Raises: MisuseError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise MisuseError(f"{path} can't be read: {error.strerror or error}.") from error


def writable_log(audit: str, log_key: Path, passphrase_file: Path | None) -> "AuditLog":
    """A log that can be appended to: whoever takes a step of a recovery must be able to log it first.

    Its head is kept beside the log's key (keys/audit/heads.py).
    """
    from diffpriv.keys.audit.heads import beside
    from diffpriv.keys.audit.log import AuditLog

    return AuditLog(audit, load_log_key(log_key, passphrase_file), kept=[beside(log_key)])


def open_log(audit: str, log_vkey: Path) -> "AuditLog":
    """A log for reading, its signatures checked with `log_vkey`, beside which its head is kept."""
    from diffpriv.keys.audit.heads import beside
    from diffpriv.keys.audit.log import AuditLog
    from diffpriv.keys.notes import NoteVerifier

    return AuditLog(audit, verifier=NoteVerifier.load(log_vkey), kept=[beside(log_vkey)])


def load_log_key(path: Path, passphrase_file: Path | None) -> "NoteKey":
    """Load the key that signs the audit log."""
    return load_note_key(path, passphrase_file, "log")


def load_note_key(path: Path, passphrase_file: Path | None, role: str) -> "NoteKey":
    """A signing key of one role: log, release, office or witness."""
    from diffpriv.keys.notes import NoteKey

    return NoteKey.load(path, passphrase_for(path, passphrase_file, f"the {role} key"), role=role)
