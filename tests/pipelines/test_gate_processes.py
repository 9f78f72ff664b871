"""The release gate finds the same whatever the number of processes that look."""

from pathlib import Path

from diffpriv.pipelines.engines.beam_driver import run
from diffpriv.pipelines.gate.findings import GateSettings
from diffpriv.pipelines.gate.run import check_release
from tests.pipelines.conftest import Keyring, make_config
from tests.pipelines.datasets import astronaut, encoded, read_tar, sample, tar_bytes, write_shards


def test_findings_do_not_depend_on_the_number_of_processes(tmp_path: Path, keyring: Keyring) -> None:
    face = encoded(astronaut(160), "PNG")
    shards = {f"{name}.tar": sample(name, 0, face, "png") for name in "abc"}
    config = make_config(
        tmp_path, keyring, write_shards(tmp_path / "src", shards), transform={"transform": "fill", "recovery": "none"}
    )
    assert run(config).ok
    leaking = Path(config.dst) / "b.tar"
    leaking.write_bytes(tar_bytes([(name, face if name == "b.png" else data) for name, data in read_tar(leaking)]))
    settings = GateSettings(recognizer="")
    one, two = (check_release(config.src, config.dst, settings, processes=processes) for processes in (1, 2))
    assert two.to_json() == one.to_json()
    assert set(one.over) == {"unprotected face", "altered", "not checked"}  # not checked: a PNG that we did not write
    assert {finding.shard for finding in one.findings if finding.kind == "unprotected face"} == {"b.tar"}
