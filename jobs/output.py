"""What the commands print: tables and sentences for people, one JSON document for machines, errors without a traceback.

With `--json`, standard output carries exactly one JSON object, also when a command fails; all else goes to standard error.
With `--quiet` it carries nothing: the exit status answers. Colours follow the terminal and NO_COLOR.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffpriv.keys.errors import DiffPrivError, MisuseError

if TYPE_CHECKING:
    from rich.console import Console

DONE, FOUND_WRONG, MISUSE = 0, 1, 2
WIDE = 240


@dataclass
class Output:
    """How to answer; set once from the global options."""

    json: bool = False
    verbose: bool = False
    quiet: bool = False

    def console(self, *, errors: bool = False) -> "Console":
        from rich.console import Console

        class Plain(Console):
            """Prints strings with `clean`: names come from other people's files."""

            def print(self, *objects: Any, **options: Any) -> None:
                super().print(*(clean(one) if isinstance(one, str) else one for one in objects), **options)

        console = Plain(stderr=errors, highlight=False, soft_wrap=True)
        if not console.is_terminal and "COLUMNS" not in os.environ:
            console.width = WIDE  # a file has no edge to fold paths at
        return console

    def result(self, document: Mapping[str, Any], show: Callable[["Console"], None]) -> None:
        """Print the command's result: the document with `--json`, else whatever `show` prints."""
        if self.json:
            print(_json(document))
        elif not self.quiet:
            show(self.console())

    def note(self, text: str) -> None:
        """A line about progress, for people only."""
        if not self.json and not self.quiet:
            self.console().print(text, markup=False)

    def failure(self, error: DiffPrivError) -> int:
        """Print the message and the advice; the exit status."""
        status = MISUSE if isinstance(error, MisuseError) else FOUND_WRONG
        if self.verbose:
            traceback.print_exception(error)
        if self.json:
            body = {"kind": type(error).__name__, "message": error.message, "advice": error.advice, "exit": status}
            print(_json({"error": body}))
        else:
            print(f"diffpriv: {clean(error.message)}", file=sys.stderr)
            if error.advice:
                print(f"          {clean(error.advice)}", file=sys.stderr)
        return status


OUTPUT = Output()


def _json(document: Mapping[str, Any]) -> str:
    """For machines, and harmless to a terminal all the same: what does not print is escaped, as JSON allows."""
    lines = json.dumps(document, indent=2, ensure_ascii=False).split("\n")
    return "\n".join(line if line.isprintable() else _escaped(line) for line in lines)


def _escaped(line: str) -> str:
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in line)


def clean(text: str) -> str:
    """The text with every control character but line breaks and tabs written out, so that no name moves a terminal's cursor."""
    return "".join(one if one.isprintable() or one in "\n\t" else one.encode("unicode_escape").decode() for one in text)


def print_table(
    console: "Console", title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()
) -> None:
    """A plain table, on a terminal never wider than it; the columns named in `right` are numbers."""
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(box=SIMPLE, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(clean(str(value)) for value in row))
    console.print(title, style="bold", markup=False, soft_wrap=False)  # as a title of the table it would wrap at its width
    console.print(table, markup=False, soft_wrap=False)


def print_wrapped(console: "Console", label: str, text: str) -> None:
    """A label and a long text, which goes on under itself and not under the label."""
    from rich.padding import Padding
    from rich.text import Text

    console.print(Text(clean(label)), soft_wrap=False, overflow="fold")
    console.print(Padding(Text(clean(text)), (0, 0, 0, 2), expand=False), soft_wrap=False, overflow="fold")
