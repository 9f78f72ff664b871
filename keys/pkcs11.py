"""A recipient in a PKCS#11 token (an HSM, a smart card, SoftHSM2): an RSA key whose private half never leaves the token.

`token_recipient` exports the public half and finds out whether the token can do OAEP with SHA-256; many only know SHA-1,
which is fine for OAEP (keys/recipients.py). python-pkcs11 is imported on use.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diffpriv.keys.errors import MisuseError, PassphraseError, RecipientError, RecordError
from diffpriv.keys.recipients import RSA_OAEP, RSA_OAEP_SHA1, Recipient, open_bound
from diffpriv.keys.secrets import ShardKey

_PREFIX = "pkcs11:"


def generate_token_key(module: str, token: str, label: str, pin: str, bits: int = 3072) -> None:
    """Make an RSA key pair inside the token; it can decrypt, and can't be read out."""
    import pkcs11

    with _session(module, token, pin, write=True) as session:
        session.generate_keypair(
            pkcs11.KeyType.RSA,
            bits,
            label=label,
            store=True,
            capabilities=pkcs11.MechanismFlag.ENCRYPT | pkcs11.MechanismFlag.DECRYPT,
            private_template={pkcs11.Attribute.SENSITIVE: True, pkcs11.Attribute.EXTRACTABLE: False},
        )


def token_recipient(module: str, token: str, label: str, pin: str, *, name: str = "") -> Recipient:
    """The public half of a token's RSA key, as a recipient. Needs the PIN to try which padding the token can undo.

    Args:
        module: path of the PKCS#11 library.
        token, label: of the token and of the key.
    Raises: RecipientError, PassphraseError.
    """
    import pkcs11
    from pkcs11.util.rsa import encode_rsa_public_key

    with _session(module, token, pin) as session:
        public = encode_rsa_public_key(_key(session, pkcs11.ObjectClass.PUBLIC_KEY, label, token))
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

    spki = load_der_public_key(public).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for kind in (RSA_OAEP, RSA_OAEP_SHA1):
        recipient = Recipient(kind, spki, name, f"{_PREFIX}{token}/{label}")
        probe = ShardKey.generate()
        try:
            if TokenRecipientKey(recipient, module, pin).unwrap(recipient.wrap(probe, b"probe"), b"probe").same_as(probe):
                return recipient
        except (RecordError, RecipientError):
            continue
    raise RecipientError(f"token {token} can't undo RSA-OAEP with its key {label}.")


class TokenRecipientKey:
    """Opens shard keys by asking the token. Holds the PIN while it lives, and opens a session for each unwrapping."""

    def __init__(self, recipient: Recipient, module: str, pin: str) -> None:
        token, slash, label = recipient.locator.removeprefix(_PREFIX).partition("/")
        if not recipient.locator.startswith(_PREFIX) or not slash or recipient.kind not in (RSA_OAEP, RSA_OAEP_SHA1):
            raise MisuseError(f"recipient {recipient.name or recipient.fingerprint} is not a PKCS#11 key.")
        self.recipient, self._module, self._pin, self._token, self._label = recipient, module, pin, token, label

    @property
    def fingerprint(self) -> str:
        return self.recipient.fingerprint

    def __repr__(self) -> str:
        return f"TokenRecipientKey({self.recipient.locator!r}, PIN not shown)"

    def __reduce_ex__(self, protocol: object) -> tuple[object, ...]:
        raise TypeError("TokenRecipientKey holds a PIN and refuses pickling")

    def unwrap(self, wrapped: bytes, info: bytes) -> ShardKey:
        """Raises: RecordError if the token can't open it or the context differs; PassphraseError, RecipientError."""
        import pkcs11

        sha256 = self.recipient.kind == RSA_OAEP
        padding = (
            (pkcs11.Mechanism.SHA256, pkcs11.MGF.SHA256, None) if sha256 else (pkcs11.Mechanism.SHA_1, pkcs11.MGF.SHA1, None)
        )
        with _session(self._module, self._token, self._pin) as session:
            key = _key(session, pkcs11.ObjectClass.PRIVATE_KEY, self._label, self._token)
            try:
                plaintext = key.decrypt(wrapped, mechanism=pkcs11.Mechanism.RSA_PKCS_OAEP, mechanism_param=padding)
            except pkcs11.PKCS11Error:
                raise RecordError(
                    "the token can't open the wrapped shard key: it was altered or belongs to another key"
                ) from None
        return open_bound(plaintext, info)


@contextmanager
def _session(module: str, token: str, pin: str, write: bool = False) -> Iterator[Any]:
    try:
        import pkcs11
    except ImportError as error:
        raise MisuseError(
            "PKCS#11 needs python-pkcs11, which is not installed.", advice='Run "pip install diffpriv[pkcs11]".'
        ) from error
    try:
        with pkcs11.lib(module).get_token(token_label=token).open(user_pin=pin, rw=write) as session:
            yield session
    except (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange, pkcs11.PinLocked) as error:
        raise PassphraseError(f"token {token} refused the PIN ({type(error).__name__}).") from None
    except (pkcs11.NoSuchToken, pkcs11.MultipleTokensReturned) as error:
        raise RecipientError(f"there is not exactly one token called {token}.") from error
    except RuntimeError as error:  # the library itself can't be loaded
        raise RecipientError(f"the PKCS#11 library {module} can't be loaded: {error}.") from error


def _key(session: Any, kind: Any, label: str, token: str) -> Any:
    import pkcs11

    try:
        return session.get_key(object_class=kind, key_type=pkcs11.KeyType.RSA, label=label)
    except (pkcs11.NoSuchKey, pkcs11.MultipleObjectsReturned) as error:
        raise RecipientError(f"token {token} does not hold exactly one RSA key called {label}.") from error
