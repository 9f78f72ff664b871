"""deploy/: every file is well formed; the command line inside each runs for real, and a second time does nothing."""

import ast
import hashlib
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffpriv.pipelines.config import load_job
from tests.jobs.conftest import ROOT, Program
from tests.pipelines.datasets import astronaut, coffee, encoded, sample, write_shards

DEPLOY = ROOT / "deploy"
CRON = re.compile(r"^((?:\S+\s+){5})(\w+)\s+(diffpriv .+)$", re.MULTILINE)


def manifest(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DEPLOY / "kuberay" / name).read_text())
    return document


def airflow_command() -> str:
    tree = ast.parse((DEPLOY / "airflow/diffpriv_sanitize.py").read_text())
    (command,) = [
        ast.literal_eval(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "COMMAND"
    ]
    return str(command)


def line_of(path: str, start: str) -> str:
    (line,) = [line for line in (DEPLOY / path).read_text().splitlines() if line.startswith(start)]
    return line


COMMANDS: dict[str, Callable[[], str]] = {
    "crontab": lambda: CRON.findall((DEPLOY / "crontab").read_text())[0][2],
    "systemd": lambda: line_of("systemd/diffpriv.service", "ExecStart=").partition("=")[2].removeprefix("/opt/diffpriv/bin/"),
    "ray job submit": lambda: line_of("ray-job-submit.sh", "exec ray job submit").partition(" -- ")[2],
    "RayJob": lambda: manifest("rayjob.yaml")["spec"]["entrypoint"],
    "RayCronJob": lambda: manifest("raycronjob.yaml")["spec"]["jobTemplate"]["entrypoint"],
    "Airflow": airflow_command,
}


def test_all_schedules_run_the_same_command() -> None:
    assert len({command().removesuffix(" --json-lines") for command in COMMANDS.values()}) == 1


@pytest.fixture(scope="module")
def machine(program: Program, key_folder: Path) -> Path:
    """The folders that deploy/job.yaml names, under a folder of our own, with its job and a tiny dataset."""
    base = program.folder / "machine"
    (base / "etc/diffpriv").mkdir(parents=True)
    (base / "var/lib/diffpriv").mkdir(parents=True)
    members = sample("a", 0, encoded(astronaut(256), "PNG"), "png") + sample("b", 1, encoded(coffee(), "JPEG"))
    write_shards(base / "data/incoming", {"shard-000.tar": members})
    settings = yaml.safe_load((DEPLOY / "job.yaml").read_text())
    for name in ("src", "dst", "keys", "audit", "log_key"):
        settings[name] = f"{base}{settings[name]}"
    settings["recipients"] = [f"{base}{path}" for path in settings["recipients"]]
    settings["policy"] = f"{base}{settings['policy']}"
    settings["transform"] = {"transform": "fill", "recovery": "exact"}
    settings["engine"] = "beam"  # starts in this process; what is tested is the command line, and Ray has tests of its own
    (base / "etc/diffpriv/job.yaml").write_text(yaml.safe_dump(settings))
    (base / "etc/diffpriv-log").mkdir()
    for place in (settings["log_key"], *settings["recipients"], settings["policy"]):
        shutil.copy(key_folder / Path(place).name, place)
    return base


def state(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but the lease, which every run signs, and the time in the metrics."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in ("lease", "lock", "diffpriv.prom"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def arguments(command: str, machine: Path) -> list[str]:
    """What a shell would hand to the program, its paths moved to the test's machine."""
    name, *rest = shlex.split(command)
    assert name == "diffpriv"
    return [f"{machine}{part}" if part.startswith("/") else part for part in rest]


def test_the_command_lines_run_and_a_second_time_do_nothing(program: Program, machine: Path) -> None:
    first, *others = sorted({command() for command in COMMANDS.values()})
    program(*arguments(first, machine))
    assert 'state="protected"} 1' in (machine / "var/lib/diffpriv/diffpriv.prom").read_text()
    before = state(machine)
    assert any(name.endswith("shard-000.tar") and name.startswith("data/protected") for name in before)
    for command in (first, *others):
        assert "Nothing to do" in program(*arguments(command, machine)).out
        assert state(machine) == before


def test_a_new_shard_is_done_and_the_old_one_left(program: Program, machine: Path) -> None:
    command = COMMANDS["crontab"]()
    program(*arguments(command, machine))
    before = state(machine / "data")
    write_shards(machine / "data/incoming", {"shard-001.tar": sample("c", 2, encoded(coffee(), "PNG"), "png")})
    program(*arguments(command, machine))
    after = state(machine / "data")
    assert "protected/shard-001.tar" in after.keys() - before.keys()
    assert {name: after[name] for name in before if name.startswith("protected/shard")} == {
        name: digest for name, digest in before.items() if name.startswith("protected/shard")
    }


def test_the_job_file_is_a_job() -> None:
    job = load_job(DEPLOY / "job.yaml")
    assert (job.transform.recovery, job.dataset) == ("keys", "faces")


def test_the_crontab_is_one_line_of_five_fields_a_user_and_a_command() -> None:
    lines = [line for line in (DEPLOY / "crontab").read_text().splitlines() if line and not re.match(r"#|\w+=", line)]
    assert len(lines) == 1
    found = CRON.fullmatch(lines[0])
    assert found is not None
    limits = (59, 23, 31, 12, 7)
    for part, limit in zip(found[1].split(), limits, strict=True):
        assert part == "*" or 0 <= int(part) <= limit
    assert "%" not in found[3]  # cron would turn it into a line break


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed here")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    for unit in ("diffpriv.service", "diffpriv.timer"):
        text = (DEPLOY / "systemd" / unit).read_text().replace("/opt/diffpriv/bin/diffpriv", "/bin/true")
        (tmp_path / unit).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "diffpriv.service", tmp_path / "diffpriv.timer"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in done.stderr.splitlines() if "diffpriv" in line] == []
    calendar = line_of("systemd/diffpriv.timer", "OnCalendar=").partition("=")[2]
    assert subprocess.run(["systemd-analyze", "calendar", calendar], capture_output=True, check=False).returncode == 0


def test_the_submit_script_is_shell_that_parses_and_wants_an_address() -> None:
    script = DEPLOY / "ray-job-submit.sh"
    assert subprocess.run(["sh", "-n", script], check=False).returncode == 0
    done = subprocess.run(["sh", script], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "dashboard" in done.stderr


RAY_JOB = {"entrypoint", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "backoffLimit", "rayClusterSpec"}
RAY_CRON_JOB = {"schedule", "suspend", "jobTemplate"}  # all there are in KubeRay 1.6


@pytest.mark.parametrize("name", ["rayjob.yaml", "raycronjob.yaml"])
def test_kuberay_manifests_have_the_fields_of_their_kind(name: str) -> None:
    document = manifest(name)
    assert document["apiVersion"] == "ray.io/v1"
    spec = document["spec"]
    if name == "raycronjob.yaml":
        assert document["kind"] == "RayCronJob"
        assert set(spec) == RAY_CRON_JOB
        assert len(spec["schedule"].split()) == 5
        spec = spec["jobTemplate"]
    else:
        assert document["kind"] == "RayJob"
    assert set(spec) == RAY_JOB
    cluster = spec["rayClusterSpec"]
    assert set(cluster) == {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text().replace("[data]", "")
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        job = yaml.safe_load((DEPLOY / "job.yaml").read_text())
        used = [job[place] for place in ("src", "dst", "keys", "audit", "policy")] + job["recipients"]
        assert all(f"{path}/".startswith(tuple(f"{mount}/" for mount in mounts.values())) for path in used)


@pytest.mark.parametrize("name", ["rayjob.yaml", "raycronjob.yaml"])
def test_the_log_key_is_mounted_where_the_driver_runs_and_nowhere_else(name: str) -> None:
    spec = manifest(name)["spec"]
    cluster = spec.get("jobTemplate", spec)["rayClusterSpec"]
    job = yaml.safe_load((DEPLOY / "job.yaml").read_text())
    head = cluster["headGroupSpec"]["template"]["spec"]
    (secret,) = [volume["secret"] for volume in head["volumes"] if "secret" in volume]
    assert secret["defaultMode"] == 0o400
    mounts = {mount["name"]: mount["mountPath"] for mount in head["containers"][0]["volumeMounts"]}
    assert job["log_key"] == f"{mounts['log-key']}/log.key"
    for worker in cluster["workerGroupSpecs"]:
        assert "secret" not in str(worker)
        assert "log-key" not in str(worker)


@pytest.mark.parametrize("name", ["rayjob.yaml", "raycronjob.yaml"])
def test_data_keys_and_log_lie_on_volumes_of_their_own(name: str) -> None:
    spec = manifest(name)["spec"]
    volumes = spec.get("jobTemplate", spec)["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["volumes"]
    claims = {one["name"]: one["persistentVolumeClaim"]["claimName"] for one in volumes if "persistentVolumeClaim" in one}
    assert len({claims[name] for name in ("data", "keys", "log")}) == 3


def test_the_two_manifests_run_the_same_job() -> None:
    assert manifest("raycronjob.yaml")["spec"]["jobTemplate"] == manifest("rayjob.yaml")["spec"]


def test_the_dag_is_python_that_names_its_schedule_and_runs_once_at_a_time() -> None:
    text = (DEPLOY / "airflow/diffpriv_sanitize.py").read_text()
    compile(text, "diffpriv_sanitize.py", "exec")
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "DAG"]
    (dag,) = calls
    settings = {word.arg: ast.unparse(word.value) for word in dag.keywords}
    assert settings["max_active_runs"] == "1"
    assert settings["catchup"] == "False"
    assert settings["schedule"] == "'30 1 * * *'"


def test_the_dag_imports_where_airflow_is(tmp_path: Path) -> None:
    pytest.importorskip("airflow")
    from airflow.models import DagBag

    bag = DagBag(dag_folder=str(DEPLOY / "airflow"), include_examples=False)
    assert bag.import_errors == {}
    assert set(bag.dags) == {"diffpriv_sanitize"}
