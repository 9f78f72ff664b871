"""What several commands open: private keys and logs for writing."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.passphrases import passphrase, passphrase_for
from keys.errors import MisuseError

if TYPE_CHECKING:
    from keys.audit.checkpoint import NoteKey
    from keys.audit.log import AuditLog
    from keys.custodians import CustodianKey
    from keys.recipients import RecipientKey, Unwrapper


def recipient_key_file(path: Path, passphrase_file: Path | None) -> "RecipientKey":
    """A private key in a passphrase file."""
    from keys.recipients import RecipientKey

    return RecipientKey.load(path, passphrase_for(path, passphrase_file, "the recipient key"))


def unwrapper(path: Path, passphrase_file: Path | None, pkcs11_module: Path | None = None) -> "Unwrapper":
    """Whatever opens shard keys: a passphrase file, or the public recipient file of a key that KMS or a token keeps."""
    from keys.recipients import Recipient

    locator = _locator(path)
    if locator.startswith("aws-kms:"):
        from keys.aws_kms import KmsRecipientKey

        return KmsRecipientKey(Recipient.load(path))
    if locator.startswith("pkcs11:"):
        from keys.pkcs11 import TokenRecipientKey

        if pkcs11_module is None:
            raise MisuseError(f"{path} names a key on a token.", advice="Give the token's library: --pkcs11-module FILE.")
        pin = passphrase(passphrase_file, f"the PIN of the token of {path}")
        return TokenRecipientKey(Recipient.load(path), str(pkcs11_module), pin)
    return recipient_key_file(path, passphrase_file)


def _locator(path: Path) -> str:
    """Where the private half of a recipient file lives; "" for any other file, whose loader then says what is wrong."""
    try:
        return str(json.loads(path.read_bytes()).get("locator", ""))
    except (OSError, ValueError, AttributeError):
        return ""


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
