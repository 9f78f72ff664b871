"""Who is in a picture, and what else is known of it: from folders, from fields of the samples, or from a manifest.

A manifest is a CSV file with a header; the column `file`, `key` or `sample` names a sample by its key (for image folders its
path below ORIGINAL), `person` or `identity` the person; other columns are labels. Samples it does not name are left out.
"""

import csv
from pathlib import Path
from typing import Any

from diffpriv.pipelines.errors import MisuseError

KEYS = ("file", "key", "sample")
PEOPLE = ("person", "identity")


class Labels:
    """Args:
        identity: "folder", a field, a .csv file, or "".
        columns: further fields or manifest columns that are wanted.
    Raises:
        MisuseError: the manifest is missing, or lacks a column.
    """

    def __init__(self, identity: str, columns: tuple[str, ...] = ()) -> None:
        self._identity, self._columns = identity, columns
        self._manifest: dict[str, dict[str, str]] | None = None
        if identity.endswith(".csv"):
            self._manifest, self._person_column = _read(Path(identity), columns)

    @property
    def fields(self) -> frozenset[str]:
        """What the reader has to fetch from the samples."""
        if self._manifest is not None:
            return frozenset()
        own = (self._identity,) if self._identity not in ("", "folder") else ()
        return frozenset(own + self._columns)

    def knows(self, key: str) -> bool:
        """False for a sample that the manifest does not name."""
        return self._manifest is None or key in self._manifest

    def person(self, shard: str, key: str, facts: dict[str, Any]) -> str:
        """A name for grouping, never shown; "" where nobody knows."""
        if self._manifest is not None:
            return self._manifest.get(key, {}).get(self._person_column, "")
        if self._identity == "folder":
            return key.rpartition("/")[0]
        return str(facts.get(self._identity, "")) if self._identity else ""

    def value(self, column: str, key: str, facts: dict[str, Any]) -> str:
        """One label; "" where there is none."""
        if self._manifest is not None:
            return self._manifest.get(key, {}).get(column, "")
        return str(facts.get(column, ""))


def _read(path: Path, columns: tuple[str, ...]) -> tuple[dict[str, dict[str, str]], str]:
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            reader = csv.DictReader(handle)
            header = reader.fieldnames or []
            key = next((name for name in KEYS if name in header), None)
            person = next((name for name in PEOPLE if name in header), None)
            missing = [name for name in columns if name not in header]
            if key is None or person is None or missing:
                raise MisuseError(
                    f"{path} has the columns {', '.join(header)}.",
                    advice=f"It needs {' or '.join(KEYS)}, {' or '.join(PEOPLE)}, and: {', '.join(columns) or 'no more'}.",
                )
            return {row[key]: row for row in reader}, person
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MisuseError(f"{path} can't be read: {error}.", advice="Give a CSV file in UTF-8.") from error
