"""The only place where a secret leaves its class: a reviewer greps for `reveal` and reads every caller.

Callers may hand the bytes to a cipher or seal them; they never log, print, pickle, or write them unsealed.
"""

from diffpriv.keys.secrets import SecretBytes


def reveal(secret: SecretBytes) -> bytes:
    """The secret's bytes."""
    return secret._material
