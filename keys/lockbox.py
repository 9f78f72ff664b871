"""A private key in a file, under a passphrase: Argon2id, then AES-256-GCM-SIV.

The file is one JSON object, UTF-8:
    format       "diffpriv private key"
    version      1
    kind         what is inside: "recipient", "custodian" or "log"
    public       the public half, an object; shown by tools that need no passphrase
    kdf          {"name": "argon2id", "salt": base64 of 16 bytes, "iterations": int, "lanes": int, "memory_kib": int}
                 or {"name": "none"}: no passphrase, for a log key that a nightly job uses; only the file's mode guards it
    nonce        base64 of 12 bytes
    sealed       base64: AES-256-GCM-SIV(key, nonce, secret, associated data) || tag(16)
Associated data: canonical("diffpriv/v1/lockbox", JSON of {format, version, kind, public, kdf}, sorted keys, no spaces), so no
field can be changed unnoticed. The key is the Argon2id output of the passphrase (UTF-8, NFC), 32 bytes; for kdf "none" it is
32 zero bytes.
Files are written with mode 0600 and never over an existing file, and not read where others could read them too.
"""

import base64
import json
import os
import stat
import unicodedata
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from diffpriv.keys.context import canonical
from diffpriv.keys.errors import MisuseError, PassphraseError, RecipientError
from diffpriv.keys.json_text import parse_json

FORMAT = "diffpriv private key"

# RFC 9106, second recommended option (64 MiB, 3 passes, 4 lanes); raise memory where the machine allows.
ARGON2_ITERATIONS, ARGON2_LANES, ARGON2_MEMORY_KIB = 3, 4, 64 * 1024
_MAX_MEMORY_KIB, _MAX_ITERATIONS, _MAX_LANES = 4 * 1024 * 1024, 64, 64  # a hostile file must not stall the reader


def canonical_json(value: Any) -> bytes:
    """Sorted keys, no spaces, UTF-8, no NaN: one value, one byte string."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def lock(
    kind: str,
    secret: bytes,
    public: dict[str, Any],
    passphrase: str | None,
    *,
    iterations: int = ARGON2_ITERATIONS,
    lanes: int = ARGON2_LANES,
    memory_kib: int = ARGON2_MEMORY_KIB,
) -> bytes:
    """The file's bytes. `passphrase=None` leaves the secret to the file's mode: only for keys that must work unattended."""
    if passphrase is None:
        kdf: dict[str, Any] = {"name": "none"}
    else:
        if not passphrase:
            raise MisuseError("an empty passphrase protects nothing.", advice="Give one, or none at all.")
        salt = base64.b64encode(os.urandom(16)).decode()
        kdf = {"name": "argon2id", "salt": salt, "iterations": iterations, "lanes": lanes, "memory_kib": memory_kib}
    head = {"format": FORMAT, "version": 1, "kind": kind, "public": public, "kdf": kdf}
    nonce = os.urandom(12)
    sealed = AESGCMSIV(_stretch(kdf, passphrase)).encrypt(nonce, secret, _associated(head))
    body = head | {"nonce": base64.b64encode(nonce).decode(), "sealed": base64.b64encode(sealed).decode()}
    return json.dumps(body, indent=2, ensure_ascii=False).encode() + b"\n"


def unlock(data: bytes, kind: str, passphrase: str | None, *, name: str = "the key file") -> tuple[bytes, dict[str, Any]]:
    """(secret, public half). Raises: PassphraseError, RecipientError naming the file."""
    body = _parse(data, kind, name)
    kdf = body["kdf"]
    if kdf["name"] == "argon2id" and passphrase is None:
        raise PassphraseError(f"{name} is protected by a passphrase and none was given.")
    head = {field: body[field] for field in ("format", "version", "kind", "public", "kdf")}
    try:
        nonce, sealed = (base64.b64decode(body[field], validate=True) for field in ("nonce", "sealed"))
        return AESGCMSIV(_stretch(kdf, passphrase)).decrypt(nonce, sealed, _associated(head)), body["public"]
    except InvalidTag:
        raise PassphraseError(f"{name}: the passphrase is wrong, or the file was altered.") from None
    except (ValueError, TypeError, KeyError) as error:
        raise RecipientError(f"{name} is not a {FORMAT} file: its kdf, nonce or sealed field is malformed.") from error


def write_private(path: str | os.PathLike[str], data: bytes) -> None:
    """Create the file with mode 0600. Raises: MisuseError if it exists (a private key is never overwritten)."""
    target = Path(path)
    try:
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise MisuseError(f"{target} exists; a private key is never overwritten.", advice="Choose another name.") from None
    except OSError as error:
        raise MisuseError(f"{target} can't be written: {error.strerror}.") from error
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def check_private(path: str | os.PathLike[str]) -> None:
    """Raises: MisuseError if others than this user could read or change the file; OSError if it is not there.

    A file of another owner may be readable by its group: that is how Kubernetes hands secrets to a user that is not root.
    Pipes and terminals have no readers but this process.
    """
    found = os.stat(path)
    loose = stat.S_IRWXO | stat.S_IWGRP | stat.S_IXGRP
    if os.name == "nt" or not stat.S_ISREG(found.st_mode):
        return
    if found.st_uid == os.geteuid():
        loose |= stat.S_IRGRP
    if found.st_mode & loose:
        mode = stat.S_IMODE(found.st_mode)
        raise MisuseError(
            f"others may read or change {os.fspath(path)} (mode {mode:04o}).", advice=f"chmod 600 {os.fspath(path)}"
        )


def read_private_text(path: str | os.PathLike[str]) -> str:
    """A secret text file, lines ended by "\\n" whatever they ended in. Raises as `check_private` does; UnicodeDecodeError."""
    check_private(path)
    return Path(path).read_text(encoding="utf-8")


def read_private(path: str | os.PathLike[str]) -> bytes:
    """A secret file's bytes. Raises as `check_private` does."""
    check_private(path)
    return Path(path).read_bytes()


def _parse(data: bytes, kind: str, name: str) -> dict[str, Any]:
    try:
        body = parse_json(data)
        known = body["format"] == FORMAT and body["version"] == 1
        parts = (body["kind"], body["kdf"]["name"], body["public"]["fingerprint"], body["nonce"], body["sealed"])
    except (ValueError, KeyError, TypeError) as error:
        raise RecipientError(f"{name} is not a {FORMAT} file.") from error
    if not known or not all(isinstance(part, str) for part in parts):
        raise RecipientError(f"{name} is not a {FORMAT} file of version 1.")
    if body["kind"] != kind:
        raise RecipientError(f"{name} holds a {body['kind']} key, and a {kind} key is needed.")
    return body


def _stretch(kdf: dict[str, Any], passphrase: str | None) -> bytes:
    if kdf["name"] == "none":
        return bytes(32)
    if kdf["name"] != "argon2id" or passphrase is None:
        raise ValueError("unknown key derivation")
    bounds = (("memory_kib", _MAX_MEMORY_KIB), ("iterations", _MAX_ITERATIONS), ("lanes", _MAX_LANES))
    if not all(0 < kdf[name] <= limit for name, limit in bounds):
        raise ValueError("key derivation parameters out of bounds")
    salt = base64.b64decode(kdf["salt"], validate=True)
    stretch = Argon2id(salt=salt, length=32, iterations=kdf["iterations"], lanes=kdf["lanes"], memory_cost=kdf["memory_kib"])
    return stretch.derive(unicodedata.normalize("NFC", passphrase).encode())


def _associated(head: dict[str, Any]) -> bytes:
    return canonical("diffpriv/v1/lockbox", canonical_json(head))
