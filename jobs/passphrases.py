"""Where passphrases come from: a file that the user names, or a prompt. Never an argument, which every process could read."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from diffpriv.keys.errors import MisuseError

VARIABLE = "DIFFPRIV_PASSPHRASE_FILE"
PassphraseFile = Annotated[
    Path | None,
    typer.Option("--passphrase-file", envvar=VARIABLE, help="File whose first line is the passphrase; else you are asked."),
]

Pkcs11Module = Annotated[
    Path | None,
    typer.Option(
        "--pkcs11-module", envvar="DIFFPRIV_PKCS11_MODULE", help="PKCS#11 library, for a key on a token; PIN = passphrase."
    ),
]


def passphrase(file: Path | None, what: str, *, new: bool = False) -> str:
    """The passphrase for `what`: first line of `file`, or typed in (twice if `new`).

    Raises:
        MisuseError: the file can't be read, is empty, or others may read it, or there is no terminal to ask at.
    """
    if file is not None:
        from diffpriv.keys.lockbox import read_private_text

        try:
            text = read_private_text(file).partition("\n")[0].rstrip("\r")
        except (OSError, UnicodeDecodeError) as error:
            raise MisuseError(f"passphrase file {file} can't be read: {error}.") from error
        if not text:
            raise MisuseError(f"passphrase file {file} has an empty first line.")
        return text
    if not sys.stdin.isatty():
        raise MisuseError(
            f"the passphrase for {what} is needed, and there is no terminal to ask at.",
            advice=f"Give --passphrase-file FILE, or set {VARIABLE}.",
        )
    typed: str = typer.prompt(f"Passphrase for {what}", hide_input=True, confirmation_prompt=new, err=True)
    return typed


def needs_passphrase(key_file: Path) -> bool:
    """Whether a private key file is locked; unreadable ones are left to whoever opens them."""
    import json

    try:
        return bool(json.loads(key_file.read_bytes())["kdf"]["name"] != "none")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def passphrase_for(key_file: Path, file: Path | None, what: str) -> str | None:
    """The passphrase that `key_file` needs, or None where it has none (or is not there: opening it will say so)."""
    if not os.path.exists(key_file) or not needs_passphrase(key_file):
        return None
    return passphrase(file, f"{what} {key_file}")
