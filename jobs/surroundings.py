"""Where things are, said once: `diffpriv.toml` of the working folder and DIFFPRIV_* variables, for all commands.

    keys = "face-keys"                   key store                      DIFFPRIV_KEYS
    audit = "audit-log"                  audit log                      DIFFPRIV_AUDIT
    log_key = "keys/log.key"             signs the log                  DIFFPRIV_LOG_KEY
    log_vkey = "keys/log.vkey"           checks it                      DIFFPRIV_LOG_VKEY
    office_key = "keys/office.key"       signs receipts                 DIFFPRIV_OFFICE_KEY
    release_key = "keys/release.key"     signs release manifests        DIFFPRIV_RELEASE_KEY
    policy = "keys/policy.json"          who asks, who approves         DIFFPRIV_POLICY
    recipient = ["keys/recipient.json"]  whom face keys are locked to   DIFFPRIV_RECIPIENT
An option wins over a variable, a variable over the file, and a job file over both. Paths are relative to the file's folder.
Where log_vkey is not named, the .vkey beside log_key is taken. Passphrases and private keys of people don't belong here.
"""

import difflib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffpriv.keys.errors import MisuseError

FILE = "diffpriv.toml"
NAMES = ("keys", "audit", "log_key", "log_vkey", "office_key", "release_key", "policy", "recipient")
_LISTS = ("recipient",)


def known_places(folder: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Option name -> value, of what the file and the environment say.

    Raises:
        MisuseError: the file can't be read, or names something that is no place.
    """
    found = _from_file(folder / FILE)
    for name in NAMES:
        value = environment.get(f"DIFFPRIV_{name.upper()}")
        if value:
            found[name] = value.split(os.pathsep) if name in _LISTS else value
    if "log_key" in found and "log_vkey" not in found:
        beside = Path(found["log_key"]).with_suffix(".vkey")
        if beside.is_file():
            found["log_vkey"] = str(beside)
    return found


def _from_file(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise MisuseError(f"{path} can't be read: {error}.", advice="Mend it, or remove it and give options.") from None
    for name, value in values.items():
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, n=1)
            hint = f'Did you mean "{near[0]}"?' if near else f"It may name: {', '.join(NAMES)}."
            raise MisuseError(f"{path}: {name!r} is not a place that this file can name.", advice=hint)
        parts = value if isinstance(value, list) and name in _LISTS else [value]
        if not all(isinstance(part, str) and part for part in parts):
            raise MisuseError(f"{path}: {name} must be {'paths' if name in _LISTS else 'a path or URL'}, in quotes.")
    return {
        name: [_place(path.parent, one) for one in ([value] if isinstance(value, str) else value)]
        if name in _LISTS
        else _place(path.parent, value)
        for name, value in values.items()
    }


def _place(folder: Path, text: str) -> str:
    """A path as seen from the working folder; a URL as it is."""
    return text if "://" in text or os.path.isabs(text) else os.path.normpath(folder / text)


def defaults_for(command: Any, places: Mapping[str, Any]) -> dict[str, Any]:
    """The places as defaults of every option of `command` and its subcommands that has such a name."""
    if hasattr(command, "commands"):
        nested = {name: defaults_for(one, places) for name, one in command.commands.items()}
        return {name: found for name, found in nested.items() if found}
    wanted = {parameter.name for parameter in command.params}
    if command.name == "rotate":
        wanted.discard("policy")  # there it is what to change to, and not where things are
    if command.name == "join":  # its --recipient is one file, to compare with
        return {}
    repeatable = {parameter.name for parameter in command.params if getattr(parameter, "multiple", False)}
    return {
        name: [value] if name in repeatable and isinstance(value, str) else value
        for name, value in places.items()
        if name in wanted
    }


def write_places(
    folder: Path, *, recipient: Path, log_key: Path, log_vkey: Path, policy: Path, office_key: Path, release_key: Path
) -> bool:
    """Write the file for freshly made keys; False where there is one already."""

    def near(path: Path) -> str:
        return os.path.relpath(path, folder).replace(os.sep, "/")

    text = f"""\
# Where diffpriv's commands find things, so that no option has to say it. Options and DIFFPRIV_* variables win over this file.
# Nothing in it is secret. "diffpriv help places" tells more.

keys = "face-keys"  # key store: face keys, locked to the recipients
audit = "audit-log"
log_key = "{near(log_key)}"
log_vkey = "{near(log_vkey)}"
office_key = "{near(office_key)}"
release_key = "{near(release_key)}"
policy = "{near(policy)}"
recipient = ["{near(recipient)}"]
"""
    try:
        with open(folder / FILE, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True
