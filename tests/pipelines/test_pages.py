"""A DST of many shards is planned from one listing and its pages of records, and never believes a page over what lies there."""

from pathlib import Path

import pytest

from benchmarks.driver import config_for, make
from diffpriv.pipelines import layout
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.destination import pages
from diffpriv.pipelines.run.job import open_job

SHARDS = 25


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobConfig:
    """Published and closed, with pages of ten shards."""
    monkeypatch.setattr(pages, "PAGE", 10)
    config = config_for(str(tmp_path))
    make(config, SHARDS)
    with open_job(config) as first:
        assert len(first.committed) == SHARDS
        assert first.finish().ok
    return config


def committed(config: JobConfig) -> set[str]:
    with open_job(config) as job:
        return set(job.committed)


def page_files(config: JobConfig) -> list[Path]:
    return sorted((Path(config.dst) / layout.PAGES).iterdir())


def test_records_are_read_from_pages_where_there_are_some(job: JobConfig) -> None:
    assert [path.read_bytes().count(b"\n") for path in page_files(job)] == [10, 10, 5]
    with open_job(job) as again:
        there = again.target.listing()
        known = pages.CommitPages(again.target, "another").known(there)
        assert {record.shard for record in known} == {shard.name for shard in again.shards}
        assert again.finish().nothing_to_do


def test_a_record_that_was_written_anew_is_believed_over_its_page(job: JobConfig) -> None:
    path = Path(job.dst) / layout.commit_record("shard-000003.tar")
    path.write_text(path.read_text().replace("sample-000000", "another-name"))
    other = Path(job.dst) / layout.commit_record("shard-000004.tar")
    other.write_text("{}")
    assert committed(job) == {f"shard-{n:06d}.tar" for n in range(SHARDS)} - {"shard-000004.tar"}


def test_a_shard_whose_file_or_record_is_gone_is_to_be_done(job: JobConfig) -> None:
    (Path(job.dst) / "shard-000001.tar").unlink()
    (Path(job.dst) / layout.commit_record("shard-000002.tar")).unlink()
    (Path(job.dst) / "shard-000007.tar").write_bytes(b"cut")
    with open_job(job) as again:
        assert [shard.name for shard in again.pending] == ["shard-000001.tar", "shard-000002.tar", "shard-000007.tar"]


@pytest.mark.parametrize("damage", [b"", b"{}\n", b"\xff\x00\n", b'{"size": 1, "version": 2, "record": []}\n'])
def test_a_damaged_page_costs_time_and_nothing_else(job: JobConfig, damage: bytes) -> None:
    for path in page_files(job)[:2]:
        path.write_bytes(damage + path.read_bytes()[:300])
    assert len(committed(job)) == SHARDS


def test_short_pages_of_many_runs_are_gathered(job: JobConfig) -> None:
    for number in range(3):
        path = Path(job.dst) / layout.commit_record(f"shard-{number:06d}.tar")
        path.write_text(path.read_text() + " ")
        (Path(job.dst) / layout.RUN).unlink()
        with open_job(job) as run:
            assert run.finish().ok
    assert len(page_files(job)) <= 4
    assert len(committed(job)) == SHARDS
