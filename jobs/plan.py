"""`diffpriv sanitize --dry-run`: what a job would meet and cost. Writes nothing."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diffpriv.jobs.output import OUTPUT, print_table

if TYPE_CHECKING:
    from rich.console import Console

    from diffpriv.pipelines.config import JobConfig
    from diffpriv.pipelines.run.dry_run import Plan


def show_plan(job: "JobConfig", seconds: float) -> None:
    """Measure and print."""
    from diffpriv.pipelines.run.dry_run import make_plan

    plan = make_plan(job, seconds)
    OUTPUT.result({"dry_run": True, **plan.to_json()}, lambda console: _show(console, plan))


def _show(console: "Console", plan: "Plan") -> None:
    about = "" if plan.measured == 1 else "about "
    rows = [
        ("shards", f"{plan.shards:,}, {plan.bytes / 1e6:,.1f} MB"),
        ("looked at", f"{plan.measured:.1%}" if plan.measured < 1 else "all of it"),
        ("samples", f"{about}{plan.samples:,}"),
        ("faces", f"{about}{plan.faces:,}"),
        ("time, one worker like this machine's", _duration(plan.seconds)),
        ("key store", f"{about}{plan.key_bytes / 1e3:,.1f} kB"),
    ]
    print_table(console, "Plan", ["", "value"], rows)
    tables: list[tuple[str, Mapping[str, Any]]] = [
        ("Picture formats looked at", plan.formats),
        ("Faces looked at, by the box's longer side in pixels", plan.sizes),
        ("Would be left as they are", plan.left),
        ("Would go to quarantine", plan.quarantined),
        ("Shards that cannot be used", plan.problems),
    ]
    for title, counts in tables:
        if counts:
            print_table(console, title, ["", "count"], sorted(counts.items()))
    console.print("Nothing was written.")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
