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
