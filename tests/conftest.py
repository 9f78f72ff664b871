"""Flags and fixtures for all tests. A test that a flag leaves out is listed by name at the end of the run."""

from collections.abc import Iterator
from typing import Any

import pytest

_FLAGS = {"slow": "takes minutes", "gpu": "needs a CUDA device", "human": "needs the npm package @vladmandic/human, unpacked"}
# What one process of pytest-xdist runs, file after file: two Rays at once leave two cores to neither, and what fixtures of a
# session make (a dataset protected by the program) is made once. Every other file is a group of its own.
_GROUPS = {
    "ray": (
        "pipelines/test_beam_job.py",
        "pipelines/test_examples.py",
        "pipelines/test_faults.py",
        "pipelines/test_gpu_share.py",
        "pipelines/test_kill.py",
        "pipelines/test_ray_job.py",
    ),
    "program": (
        "jobs/test_demo.py",
        "jobs/test_deploy.py",
        "jobs/test_keys_commands.py",
        "jobs/test_recover.py",
        "jobs/test_sanitize.py",
    ),
}
_LEFT_OUT = pytest.StashKey[dict[str, list[str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    for flag, why in _FLAGS.items():
        given: dict[str, Any] = {"metavar": "FOLDER"} if flag == "human" else {"action": "store_true"}
        parser.addoption(f"--{flag}", default=False, help=f"also run tests marked {flag}: {why}", **given)
    parser.addoption("--kills", type=int, default=4, help="how many processes tests/pipelines/test_kill.py kills")
    parser.addoption("--kill-seed", default="", help="repeat the kills of an earlier run")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out: dict[str, list[str]] = {}
    kept = []
    for item in items:
        missing = [flag for flag in _FLAGS if item.get_closest_marker(flag) and not config.getoption(flag)]
        if missing:
            left_out.setdefault(missing[0], []).append(item.nodeid)
        else:
            kept.append(item)
    config.stash[_LEFT_OUT] = left_out
    if left_out:
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return next((name for name, files in _GROUPS.items() if file.endswith(files)), file)

    return ByGroup(config, log)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist tells the process that prints the summary."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash.get(_LEFT_OUT, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash[_LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for flag, names in config.stash.get(_LEFT_OUT, {}).items():
        terminalreporter.section(f"not run: {len(names)} tests that need --{flag} ({_FLAGS[flag]})")
        for name in names:
            terminalreporter.write_line(name)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One real Ray for all tests that want it: four logical CPUs whatever the machine has."""
    import ray

    started = not ray.is_initialized()
    if started:
        ray.init(
            address="local",
            num_cpus=4,
            include_dashboard=False,
            logging_level="ERROR",
            log_to_driver=False,
            object_store_memory=200 << 20,
        )
    yield
    if started:
        ray.shutdown()
