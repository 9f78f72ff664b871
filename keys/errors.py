"""The one error root of the whole program. It lives here because `keys` is the bottom layer and imports nothing of ours.

A message says what happened and where; `advice` says what to do about it. The command line prints both and exits 1
(2 for misuse); programming mistakes stay ordinary exceptions and show a traceback.
"""


class DiffPrivError(Exception):
    """Root of every error a user can act on.

    Args:
        message: what happened, and to which file, shard, sample or key.
        advice: what the user can do next, as one sentence; empty where the message already says it.
    """

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.message} {self.advice}".rstrip()


class MisuseError(DiffPrivError):
    """The request itself is wrong (paths, options, configuration); the command line exits 2."""


class StorageError(DiffPrivError):
    """A file of the key store or the audit log is missing, can't be read or can't be written."""


class RecipientError(DiffPrivError):
    """A recipient, custodian or key file is malformed, or its digest does not fit its contents."""


class PassphraseError(RecipientError):
    """The passphrase does not open the file (or the file was altered: an AEAD can't tell the two apart)."""


class WrongRecipientError(RecipientError):
    """The private key at hand is none of those that a shard key is wrapped to."""


class KeyFileError(DiffPrivError):
    """A key file is not what was written: its bytes, its layout or its context are wrong."""


class RecordError(KeyFileError):
    """One wrapped shard key or one sealed face record fails its authentication."""


class UnknownFaceError(KeyFileError):
    """A key file has no record of the face that was asked for."""


class ShreddedError(KeyFileError):
    """The record of the face was destroyed on purpose; nothing can bring it back."""


class QuorumError(DiffPrivError):
    """A shard is locked under a custody policy, and the shares of too few of its custodians are at hand, or wrong ones."""


class AuditError(DiffPrivError):
    """The audit log, a checkpoint, a segment or a proof is not consistent."""


class WitnessError(AuditError):
    """Too few witnesses have cosigned what must be witnessed before it has an effect. Nothing is wrong: ask them, go on."""


class RecoveryRefusedError(DiffPrivError):
    """A step of a recovery was refused. `reason` is a short, stable code; the refusal is in the audit log."""

    def __init__(self, message: str, *, reason: str, advice: str = "") -> None:
        super().__init__(message, advice=advice)
        self.reason = reason
