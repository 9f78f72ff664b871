"""Fields of a sample that the job itself reads: boxes, whose photo it is, consent. Named by the settings, never guessed."""

import json
from collections.abc import Iterable
from typing import Any

MAX_FACTS_BYTES = 16 << 20  # of a JSON sidecar that holds a wanted field


def pick(document: Any, wanted: Iterable[str]) -> dict[str, Any]:
    """The wanted fields that `document` has; "a.b" is key b of object a, unless a key is called "a.b" itself."""
    found = {}
    for name in wanted:
        if not isinstance(document, dict):
            break
        value = document.get(name)
        if value is None and "." in name:
            value = document
            for part in name.split("."):
                value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            found[name] = value
    return found


def pick_from_json(data: bytes, wanted: Iterable[str]) -> dict[str, Any]:
    """`pick` from a JSON file; nothing from one that is damaged. Whether a missing field matters is for its reader to say."""
    try:
        return pick(json.loads(data), wanted)
    except (ValueError, RecursionError):
        return {}


def roots(wanted: Iterable[str]) -> set[str]:
    """Names under which wanted fields may begin: the whole name, or what is before its first dot."""
    return {root for name in wanted for root in (name, name.partition(".")[0])}
