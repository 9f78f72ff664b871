"""A dry run says what a job would meet, and writes nothing."""

from pathlib import Path

from tests.jobs.conftest import Program
from tests.pipelines.datasets import astronaut, coffee, encoded, group, sample, write_shards


def test_a_dry_run_counts_what_is_there_and_leaves_no_trace(program: Program, key_folder: Path) -> None:
    base = program.folder / "planned"
    cut = encoded(astronaut(256), "JPEG")
    first = sample("a", 0, encoded(astronaut(256), "PNG"), "png") + sample("b", 1, encoded(coffee(), "JPEG"))
    second = sample("c", 2, encoded(group(), "JPEG", quality=90)) + sample("d", 3, cut[: len(cut) // 2])
    src = write_shards(program.folder / "to-plan", {"0.tar": first, "1.tar": second})
    places = (base / "data", "--keys", base / "store", "--audit", base / "audit", "--recipient", key_folder / "recipient.json")
    options = ("--transform", "fill", "--recovery", "exact", "--dry-run", "--min-size", "40")
    plan = program("--json", "sanitize", src, *places, *options).json()
    assert (plan["measured"], plan["samples"], plan["faces"], plan["problems"]) == (1, 4, 7, {})
    assert plan["formats"] == {"PNG": 1, "JPEG": 3}
    assert sum(plan["sizes"].values()) == 7
    assert sum(plan["quarantined"].values()) == 1
    assert set(plan["left"]) <= {"smaller than 40 pixels"}
    assert plan["seconds"] > 0
    assert plan["key_bytes"] > 7 * 64 * 64
    assert not base.exists()
