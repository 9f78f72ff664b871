"""Counts that add up, and what machines are told of them."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from diffpriv.pipelines.destination.record import RECORD_VERSION, CommitRecord
from diffpriv.pipelines.errors import JobError
from diffpriv.pipelines.run.job import Progress
from diffpriv.pipelines.run.report import RunReport
from diffpriv.pipelines.run.telemetry import JsonLines, prometheus_text, write_metrics


def record_of(**values: Any) -> CommitRecord:
    """A commit record of which a report reads these."""
    others = dict.fromkeys(("dataset", "shard", "attempt", "run", "config_digest", "format"), "x")
    empty: dict[str, Any] = {"quarantined": [], "faces": [], "files": [], "key_file": None, "made_by": {}}
    places = {"source": {"files": [], "sha256": ""}, "segment": {"id": "", "sha256": ""}}
    return CommitRecord.from_json({"version": RECORD_VERSION, **others, **empty, **places, **values})


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
        "reasons": {
            "quarantined": {"text": 2},
            "filled": {"tried 3 times": 1},
            "covered otherwise": {"turned too far": 1},
        },
        "sidecars": {"box in json: bbox": 3},
        "highest_similarity": 0.25,
    }
    made.add_record(record_of(**record))
    made.add_record(record_of(**record))
    return made


def test_counts_are_summed_over_shards_and_checked() -> None:
    made = report()
    made.check()
    assert made.counts["faces"] == 10
    assert made.quarantined == {"text": 4}
    assert made.otherwise == {"turned too far": 2}
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


def test_a_job_that_saw_no_picture_says_so_and_lost_frames_are_counted() -> None:
    made = RunReport("run-1", "set", "0" * 64, shards=1, shards_done=1)
    record = {
        "counts": {"samples_in": 2, "samples_out": 2},
        "reasons": {"quarantined": {}, "filled": {}},
        "sidecars": {"file left out in ._*": 4},
        "highest_similarity": None,
    }
    made.add_record(record_of(**record))
    assert made.ok
    assert made.saw_nothing
    assert ("beside the pictures: file left out in ._*", "4, left out") in made.rows()
    made.add_record(record_of(**record | {"counts": {"samples_in": 1, "samples_out": 1, "pictures": 1, "frames_dropped": 2}}))
    assert not made.saw_nothing
    assert ("frames and pages left out", "2") in made.rows()


def test_files_of_src_that_are_left_out_by_name_are_in_the_table() -> None:
    made = RunReport("run-1", "set", "0" * 64, shards=1, shards_done=1)
    made.add_litter(["._a.jpg", "b/._c.jpg", "@eaDir/a.jpg/thumb.jpg", ".ipynb_checkpoints/x.json"])
    rows = dict(made.rows())
    assert rows["beside the pictures: file left out in ._*"] == "2, left out"
    assert rows["beside the pictures: file left out in @eaDir"] == "1, left out"
    assert rows["beside the pictures: file left out in .ipynb_checkpoints"] == "1, left out"
