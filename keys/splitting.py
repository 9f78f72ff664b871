"""`diffpriv keys split` and `join`: a recovery key in M-of-N shares, as SLIP-39 word lists (package shamir-mnemonic).

What is shared is the recipient key's 32-byte root: one group, M of N, 33 words a share, extendable, iteration exponent 1, no
extra passphrase. A share file is UTF-8 text:
    diffpriv recovery key share
    recipient: <fingerprint>
    share: <number> of <N>, any <M> open
    <empty line>
    <33 words>
Fewer than M shares say nothing about the key. After splitting, destroy the passphrase file: it opens alone.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from diffpriv.keys.cleartext import reveal
from diffpriv.keys.errors import MisuseError, RecipientError
from diffpriv.keys.lockbox import read_private_text, write_private
from diffpriv.keys.recipients import Recipient, RecipientKey

_TITLE = "diffpriv recovery key share"


@dataclass(frozen=True, repr=False)
class Share:
    """One custodian's share: a secret, though one that opens nothing alone."""

    words: str
    recipient: str  # fingerprint
    number: int
    shares: int
    threshold: int

    def __repr__(self) -> str:
        return f"Share({self.number} of {self.shares}, words not shown)"

    def save(self, path: str | os.PathLike[str]) -> None:
        """A file of mode 0600, never over another."""
        head = [_TITLE, f"recipient: {self.recipient}", f"share: {self.number} of {self.shares}, any {self.threshold} open"]
        write_private(path, "\n".join([*head, "", self.words, ""]).encode())


def split(key: RecipientKey, threshold: int, shares: int) -> list[Share]:
    """Raises: MisuseError for numbers that SLIP-39 does not know: 2 <= threshold <= shares <= 16."""
    import shamir_mnemonic

    if not 2 <= threshold <= shares <= 16:
        raise MisuseError(f"{threshold} of {shares} shares can't be made: 2 <= threshold <= shares <= 16.")
    (group,) = shamir_mnemonic.generate_mnemonics(1, [(threshold, shares)], reveal(key))
    return [Share(words, key.fingerprint, number, shares, threshold) for number, words in enumerate(group, 1)]


def join(words: Sequence[str], expected: Recipient | None = None) -> RecipientKey:
    """The key again, from the words of enough shares.

    Raises: RecipientError if they are too few, mistyped, of different keys, or not of the `expected` recipient.
    """
    import shamir_mnemonic

    cleaned = list(dict.fromkeys(" ".join(one.lower().split()) for one in words))
    try:
        root = shamir_mnemonic.combine_mnemonics(cleaned)
    except (shamir_mnemonic.MnemonicError, ValueError) as error:
        raise RecipientError(
            f"the shares don't join: {error}", advice="Check the words, and that enough shares are there."
        ) from None
    key = RecipientKey(root, expected.name if expected else "")
    if expected is not None and key.fingerprint != expected.fingerprint:
        raise RecipientError(f"the shares join to the key of recipient {key.fingerprint}, not of {expected.fingerprint}.")
    return key


def read_share(path: str | os.PathLike[str]) -> str:
    """The words of a share file. Raises: RecipientError."""
    try:
        head, _, words = read_private_text(path).partition("\n\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipientError(f"share file {path} can't be read.") from error
    if not head.startswith(_TITLE) or not words.strip():
        raise RecipientError(f"{path} is not a share of a recovery key.")
    return words.strip()
