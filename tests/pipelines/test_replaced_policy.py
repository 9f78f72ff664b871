"""A nightly job whose custody policy was replaced stops, instead of locking shards to people who left."""

from pathlib import Path

import pytest

from diffpriv.keys.changes import Change
from diffpriv.keys.custodians import CustodianKey, CustodyPolicy
from diffpriv.keys.errors import AuditError, MisuseError
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.rows.protector import Protector
from diffpriv.pipelines.run.dry_run import make_plan
from diffpriv.pipelines.run.job import open_job
from tests.attacks.test_quorum_attacks import LOG_KEY, POLICY, RECIPIENT, World
from tests.keys.test_resealing import NEW, case_for, move
from tests.pipelines.datasets import encoded, gradient, sample, write_shards


@pytest.fixture
def world(tmp_path: Path) -> World:
    """NEW took POLICY's place."""
    world = World(tmp_path / "world")
    change = Change(NEW.digest)
    move(world, case_for(world, change), change)
    return world


def settings(world: World, policy: CustodyPolicy) -> dict[str, object]:
    folder = world.folder
    policy.save(folder / "policy.json")
    RECIPIENT.recipient.save(folder / "recipient.json")
    src = write_shards(folder / "src", {"s.tar": sample("a", 0, encoded(gradient(1, 48), "JPEG"))})
    return {
        "src": str(src),
        "dst": str(folder / "dst"),
        "keys": str(folder / "keys"),
        "audit": world.log.url,
        "dataset": "faces",
        "recipients": [str(folder / "recipient.json")],
        "policy": str(folder / "policy.json"),
        "transform": {"transform": "fill", "recovery": "exact"},
    }


@pytest.mark.parametrize("log_key", [LOG_KEY, None])
def test_a_job_under_a_replaced_policy_is_refused_before_it_begins(world: World, log_key: object) -> None:
    config = JobConfig.from_mapping(settings(world, POLICY))
    with pytest.raises(MisuseError, match="was replaced by"), open_job(config, log_key):  # type: ignore[arg-type]
        pass
    assert not Path(config.dst).exists()


@pytest.mark.parametrize("log_key", [LOG_KEY, None])
def test_a_job_under_a_policy_of_other_people_is_refused_and_under_the_present_or_the_next_is_not(
    world: World, log_key: object
) -> None:
    stranger = CustodyPolicy(1, (CustodianKey.create("mallory").custodian,))
    with (
        pytest.raises(MisuseError, match="neither is that one nor follows it"),
        open_job(JobConfig.from_mapping(settings(world, stranger)), log_key),  # type: ignore[arg-type]
    ):
        pass
    following = CustodyPolicy(1, NEW.custodians, NEW.requesters, previous=NEW.digest)
    for policy in (NEW, following):
        with open_job(JobConfig.from_mapping(settings(world, policy)), log_key) as job:  # type: ignore[arg-type]
            assert len(job.pending) == 1


def test_a_dry_run_and_the_row_api_refuse_it_too(world: World) -> None:
    values = settings(world, POLICY)
    with pytest.raises(MisuseError, match="was replaced by"):
        make_plan(JobConfig.from_mapping(values))
    rows = {name: value for name, value in values.items() if name not in ("src", "dst")}
    with pytest.raises(MisuseError, match="was replaced by"):
        Protector(**rows)


def test_who_hides_the_new_policy_from_a_job_with_the_logs_key_stops_it(world: World) -> None:
    for bundle in (world.log.location.root / "tile/entries").rglob("*.p/*"):
        bundle.write_bytes(bundle.read_bytes().replace(b"policy pinned", b"policy_pinned"))
    with (
        pytest.raises(AuditError, match="an entry was altered"),
        open_job(JobConfig.from_mapping(settings(world, POLICY)), LOG_KEY),
    ):
        pass
