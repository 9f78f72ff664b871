"""What the commands print: tables and sentences for people, one JSON document for machines, errors without a traceback.

With `--json`, standard output carries exactly one JSON object, also when a command fails; all else goes to standard error.
"""

import json
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keys.errors import DiffPrivError, MisuseError

if TYPE_CHECKING:
    from rich.console import Console

DONE, FOUND_WRONG, MISUSE = 0, 1, 2
WIDE = 240


@dataclass
class Output:
    """How to answer; set once from the global options."""

    json: bool = False
    verbose: bool = False

    def console(self, *, errors: bool = False) -> "Console":
        from rich.console import Console

        console = Console(stderr=errors, highlight=False, soft_wrap=True)
        if not console.is_terminal:
            console.width = WIDE  # a file has no edge to fold paths at
        return console

    def result(self, document: Mapping[str, Any], show: Callable[["Console"], None]) -> None:
        """Print the command's result: the document with `--json`, else whatever `show` prints."""
        if self.json:
            print(json.dumps(document, indent=2, ensure_ascii=False))
        else:
            show(self.console())

    def note(self, text: str) -> None:
        """A line about progress, for people only."""
        if not self.json:
            self.console().print(text, markup=False)

    def failure(self, error: DiffPrivError) -> int:
        """Print the message and the advice; the exit status."""
        status = MISUSE if isinstance(error, MisuseError) else FOUND_WRONG
        if self.verbose:
            traceback.print_exception(error)
        if self.json:
            body = {"kind": type(error).__name__, "message": error.message, "advice": error.advice, "exit": status}
            print(json.dumps({"error": body}, indent=2, ensure_ascii=False))
        else:
            print(f"diffpriv: {error.message}", file=sys.stderr)
            if error.advice:
                print(f"          {error.advice}", file=sys.stderr)
        return status


OUTPUT = Output()


def print_table(
    console: "Console", title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()
) -> None:
    """A plain table; the columns named in `right` are numbers."""
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(title=title, box=SIMPLE, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(str(value) for value in row))
    console.print(table, markup=False)
