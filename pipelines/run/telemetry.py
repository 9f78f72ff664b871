"""What a run tells machines: Prometheus text at its end, JSON lines while it goes. Counts and shard names only."""

import json
import time
from dataclasses import asdict
from typing import IO, Any

from diffpriv.keys.files import open_location
from diffpriv.pipelines.run.job import Progress
from diffpriv.pipelines.run.report import RunReport

_HELP = {
    "shards": ("gauge", "Shards of the dataset by state."),
    "samples": ("gauge", "Samples of the published shards by outcome."),
    "pictures": ("gauge", "Pictures of the published samples by outcome."),
    "faces": ("gauge", "Faces of the published samples by outcome."),
    "highest_similarity": ("gauge", "Highest similarity of a protected face to its original."),
    "run_seconds": ("gauge", "Length of the last run."),
    "run_ok": ("gauge", "1 when every shard of the dataset is published."),
    "run_finished_timestamp_seconds": ("gauge", "When the last run finished."),
}


def prometheus_text(report: RunReport, finished_at: float) -> str:
    """The report in Prometheus' text format, version 0.0.4, for node_exporter's textfile collector or a push gateway."""
    counts = report.counts
    values: dict[str, dict[str, float]] = {
        "shards": {
            "published": report.shards_done + report.shards_done_before,
            "published_by_this_run": report.shards_done,
            "failed": len(report.shards_failed),
        },
        "samples": {"published": counts["samples_out"], "quarantined": counts["samples_quarantined"]},
        "pictures": {"changed": counts["pictures_changed"], "unchanged": counts["pictures"] - counts["pictures_changed"]},
        "faces": {name: counts[f"faces_{name}"] for name in ("protected", "filled", "left")},
        "run_seconds": {"": report.seconds},
        "run_ok": {"": float(report.ok)},
        "run_finished_timestamp_seconds": {"": finished_at},
    }
    if report.highest_similarity is not None:
        values["highest_similarity"] = {"": report.highest_similarity}
    dataset = report.dataset.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    lines = []
    for name, (kind, text) in _HELP.items():
        if name in values:
            lines += [f"# HELP diffpriv_{name} {text}", f"# TYPE diffpriv_{name} {kind}"]
            for state, value in values[name].items():
                labels = f'dataset="{dataset}"' + (f',state="{state}"' if state else "")
                lines.append(f"diffpriv_{name}{{{labels}}} {value:.10g}")
    return "\n".join(lines) + "\n"


def write_metrics(report: RunReport, url: str, finished_at: float | None = None) -> None:
    """Write the metrics file in one step, so that a scraper never sees half of it.

    Args:
        url: a local path or fsspec URL of the file, by convention ending in .prom.
    """
    folder, _, name = url.rpartition("/")
    open_location(folder or ".").write(
        name, prometheus_text(report, time.time() if finished_at is None else finished_at).encode()
    )


class JsonLines:
    """One JSON object per line and event: "at" (seconds since 1970), "run", "event", and facts. Usable as `progress=`."""

    def __init__(self, stream: IO[str], run: str = "") -> None:
        self._stream, self._run = stream, run

    def event(self, event: str, **facts: Any) -> None:
        line = {"at": round(time.time(), 3), "event": event, **facts}
        run = facts.get("run", self._run)
        self._stream.write(json.dumps(line | ({"run": run} if run else {})) + "\n")
        self._stream.flush()

    def __call__(self, progress: Progress) -> None:
        """With the rate and, once it can be told, the time left."""
        facts = asdict(progress)
        rate = progress.samples_done / progress.seconds if progress.seconds else 0.0
        done = progress.shards_done + progress.shards_failed
        left = progress.seconds / done * (progress.shards - done) if done else None
        self.event("progress", **facts, samples_per_second=round(rate, 3), seconds_left=left)

    def finished(self, report: RunReport) -> None:
        self.event("finished", **{**report.to_json(), "run": report.run_id})
