"""`audit show`: the entries somebody asks for, as rows for a table or as JSON."""

from collections import deque
from collections.abc import Collection
from typing import Any

from diffpriv.keys.audit.events import KINDS, AuditEvent, to_iso
from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.errors import MisuseError


def select_events(
    log: AuditLog,
    *,
    kinds: Collection[str] = (),
    dataset: str | None = None,
    shard: str | None = None,
    run: str | None = None,
    case: str | None = None,
    since: int | None = None,
    until: int | None = None,
    last: int | None = None,
) -> list[tuple[int, AuditEvent]]:
    """(index, event) of the entries that fit every filter given; `last`: only the newest so many.

    Args:
        case: the digest of a recovery request, or its first digits.
        since, until: Unix seconds, both included.
    Raises: MisuseError for a kind that does not exist.
    """
    unknown = set(kinds) - KINDS.keys()
    if unknown:
        raise MisuseError(f"{min(unknown)!r} is no kind of event.", advice=f"There are: {', '.join(sorted(KINDS))}.")
    wanted = {name: value for name, value in (("dataset", dataset), ("shard", shard), ("run", run)) if value is not None}

    def fits(event: AuditEvent) -> bool:
        return (
            (not kinds or event.kind in kinds)
            and all(event.facts.get(name) == value for name, value in wanted.items())
            and (case is None or str(event.facts.get("case", "")).startswith(case))
            and (since is None or event.at >= since)
            and (until is None or event.at <= until)
        )

    # A text that every fitting entry contains spares decoding the others.
    needles = [f'"kind":"{next(iter(kinds))}"'] if len(kinds) == 1 else []
    needles += [f'"case":"{case}'] if case is not None else []
    return list(deque(log.events(*needles, where=fits), maxlen=last))


def event_row(index: int, event: AuditEvent) -> dict[str, Any]:
    """One entry for JSON output; facts stay as they are."""
    return {"index": index, "at": to_iso(event.at), "kind": event.kind, "facts": dict(event.facts)}


def event_text(index: int, event: AuditEvent) -> tuple[str, str, str, str]:
    """One entry for a table: index, time, kind, and the facts in one line with digests cut short."""
    facts = []
    for name, value in sorted(event.facts.items()):
        shown = f"{value[:8]}…" if isinstance(value, str) and len(value) in (32, 64) else value
        if not isinstance(value, dict):
            facts.append(f"{name}={shown}")
    return str(index), to_iso(event.at), event.kind, " ".join(facts)
