"""The command line `diffpriv`. Exit status: 0 done, 1 found something wrong, 2 misuse.

Command groups live in modules of their own. Nothing heavy is imported before a command needs it: `diffpriv --help`, `keys` and
`audit` start without torch, Ray, pyarrow, numpy or OpenCV (tests/jobs/test_startup.py holds us to that).
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from diffpriv.jobs import (
    audit_commands,
    demo,
    describe,
    doctor,
    evaluate,
    gallery,
    keys_commands,
    recover,
    review,
    sanitize,
    scrub,
)
from diffpriv.jobs.desk import command as desk
from diffpriv.jobs.help import dress, help_about
from diffpriv.jobs.output import MISUSE, OUTPUT
from diffpriv.jobs.surroundings import defaults_for, known_places
from diffpriv.keys.errors import DiffPrivError

app = typer.Typer(
    name="diffpriv",
    help="Replace the faces of a dataset by synthetic ones, each under a secret key of its own; bring one back under a quorum.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # locals in a traceback could show a key
    rich_markup_mode="rich",
)
app.add_typer(keys_commands.app, name="keys")
app.add_typer(recover.app, name="recover")
app.add_typer(audit_commands.app, name="audit")
app.command("demo")(demo.demo)
app.command("sanitize")(sanitize.sanitize)
app.command("scrub")(scrub.scrub)
app.command("gallery")(gallery.gallery)
app.command("review")(review.review)
app.command("describe")(describe.describe)
app.command("check-release")(scrub.check_release_copy)
app.command("evaluate")(evaluate.evaluate)
app.command("desk")(desk.desk)
app.command("doctor")(doctor.doctor)
app.command("help")(help_about)
GLOBAL = ("--json", "--verbose", "--quiet", "-q")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"diffpriv {version('diffpriv')}")
        raise typer.Exit


@app.callback()
def options(
    json: Annotated[bool, typer.Option("--json", help="Answer with one JSON document.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show tracebacks and the engine's own log.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors; the exit status answers.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """What every command understands."""
    OUTPUT.json, OUTPUT.verbose, OUTPUT.quiet = json, verbose, quiet


def main() -> None:
    """Entry point of the console script."""
    arguments = _global_options_first(sys.argv[1:])
    command = typer.main.get_command(app)
    dress(command)
    try:
        defaults = defaults_for(command, known_places(Path(), os.environ))
        command(args=arguments, prog_name="diffpriv", default_map=defaults)
    except DiffPrivError as error:
        sys.exit(OUTPUT.failure(error))
    except KeyboardInterrupt:
        print("diffpriv: interrupted; what was committed stays, and the same command goes on from there.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(MISUSE)


def _global_options_first(arguments: list[str]) -> list[str]:
    """`--json`, `--verbose` and `--quiet` may stand anywhere: people add them to the end of a line they already typed."""
    before, after = arguments, []
    if "--" in arguments:
        cut = arguments.index("--")
        before, after = arguments[:cut], arguments[cut:]
    moved = [one for one in GLOBAL if one in before]
    return [*moved, *(one for one in before if one not in moved), *after]


if __name__ == "__main__":
    main()
