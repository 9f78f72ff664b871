"""Counts that add up, and what machines are told of them."""

import io
import json
from pathlib import Path

import pytest

from pipelines.errors import JobError
from pipelines.job import Progress
from pipelines.report import RunReport
from pipelines.telemetry import JsonLines, prometheus_text, write_metrics


def report() -> RunReport:
    made = RunReport(
        "run-1", 'a "set"', "0" * 64, shards=3, shards_done=1, shards_done_before=1, shards_failed={"x.tar": "empty"}
    )
    record = {
        "counts": {
            "samples_in": 10,
            "samples_out": 8,
            "samples_quarantined": 2,
            "pictures": 9,
            "pictures_changed": 4,
            "faces": 5,
            "faces_protected": 4,
            "faces_filled": 1,
            "faces_recoverable": 5,
        },
        "reasons": {"quarantined": {"text": 2}, "filled": {"tried 3 times": 1}},
        "sidecars": {"box in json: bbox": 3},
        "highest_similarity": 0.25,
    }
    made.add_record(record)
    made.add_record(record)
    return made


def test_counts_are_summed_over_shards_and_checked() -> None:
    made = report()
    made.check()
    assert made.counts["faces"] == 10
    assert made.quarantined == {"text": 4}
    assert not made.ok
    made.counts["samples_out"] += 1
    with pytest.raises(JobError, match="samples do not add up"):
        made.check()


def test_the_table_names_failures_and_sidecars() -> None:
    rows = dict(report().rows())
    assert rows["failed: x.tar"] == "empty"
    assert rows["beside the pictures: box in json: bbox"].startswith("6")


def test_metrics_are_prometheus_text(tmp_path: Path) -> None:
    text = prometheus_text(report(), 1_700_000_000)
    assert 'diffpriv_faces{dataset="a \\"set\\"",state="filled"} 2\n' in text
    assert 'diffpriv_run_ok{dataset="a \\"set\\""} 0\n' in text
    assert text.count("# TYPE") == text.count("# HELP") == 8
    write_metrics(report(), str(tmp_path / "job.prom"), 1_700_000_000)
    assert (tmp_path / "job.prom").read_text() == text


def test_json_lines_hold_rate_and_time_left() -> None:
    out = io.StringIO()
    log = JsonLines(out, "run-1")
    log(Progress(shards_done=1, shards_failed=0, shards=4, samples_done=50, faces_done=9, seconds=10.0))
    log.finished(report())
    first, last = (json.loads(line) for line in out.getvalue().splitlines())
    assert (first["samples_per_second"], first["seconds_left"], first["run"]) == (5.0, 30.0, "run-1")
    assert (last["event"], last["ok"], last["counts"]["faces"]) == ("finished", False, 10)
