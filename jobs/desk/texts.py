"""The desk's words, German and English, from one file: messages.json, {name: {"en": ..., "de": ...}}."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

LANGUAGES = {"en": "English", "de": "Deutsch"}


@cache
def messages() -> dict[str, dict[str, str]]:
    """The desk's words: language -> name -> text."""
    found: dict[str, dict[str, str]] = json.loads(Path(__file__).with_name("messages.json").read_text(encoding="utf-8"))
    return found


def translator(language: str) -> Callable[..., str]:
    """name, values -> text. A name that is not in the file is a programming mistake and raises KeyError."""

    def text(name: str, **values: object) -> str:
        return messages()[name][language].format(**values)

    return text


def preferred(accept_language: str) -> str:
    """The first of the browser's languages that the desk speaks."""
    for part in accept_language.lower().split(","):
        short = part.strip().partition(";")[0].partition("-")[0]
        if short in LANGUAGES:
            return short
    return "en"
