"""Job files: what is refused, and what the digest stands for."""

from pathlib import Path
from typing import Any

import pytest

from diffpriv.pipelines.config import METHOD_VERSION, JobConfig, load_job
from diffpriv.pipelines.errors import MisuseError

BASE: dict[str, Any] = {"src": "/s", "dst": "/d/faces", "keys": "/k", "audit": "/a", "recipients": ["/r.json"]}
BLUR = {"transform": "blur", "recovery": "exact"}


def test_a_job_file_is_read_and_the_command_line_wins(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(
        "src: /s\ndst: /d/faces\nkeys: /k\naudit: /a\nrecipients: [/r.json]\ntransform: {transform: blur, recovery: exact}\n"
    )
    job = load_job(path, dst="/other", keys=None)
    assert (job.src, job.dst, job.keys, job.dataset, job.transform.transform) == ("/s", "/other", "/k", "other", "blur")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"detektor": "x"}, 'did you mean "detector"'),
        ({"workers": {"protect_actor": 2}}, 'did you mean "workers.protect_actors"'),
        ({"transform": {"transfrom": "blur"}}, "transfrom"),
        ({"transform": {"transform": "sepia"}}, "sepia"),
        ({"keys": None}, "key store"),
        ({"recipients": []}, "recipient"),
        ({"workers": {"protect_gpus": 0.3}}, "exact fraction"),
        ({"max_pixels": 10**12}, "max_pixels"),
        ({"format": "zip"}, "format"),
        ({"dst": "/"}, "name"),
    ],
)
def test_wrong_settings_are_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(MisuseError, match=said):
        JobConfig.from_mapping(BASE | change)


@pytest.mark.parametrize("text", ["", "- a\n", "src: [\n", "\x00", "1: 2\n"])
def test_a_file_that_is_no_job_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(MisuseError, match=r"job\.yaml"):
        load_job(path)
    with pytest.raises(MisuseError, match="cannot be read"):
        load_job(tmp_path / "none.yaml")


def test_another_version_of_the_method_is_another_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    before = JobConfig.from_mapping(BASE).digest()
    monkeypatch.setattr("diffpriv.pipelines.config.METHOD_VERSION", METHOD_VERSION + 1)
    assert JobConfig.from_mapping(BASE).digest() != before


def test_the_digest_names_what_decides_the_output_and_nothing_else() -> None:
    job = JobConfig.from_mapping(BASE | {"transform": BLUR})
    same = {"dst": "/x", "src": "/y", "dataset": "z", "workers": {"protect_batch": 3}, "engine": "beam", "recipients": ["/q"]}
    assert JobConfig.from_mapping(BASE | {"transform": BLUR} | same).digest() == job.digest()
    others = [
        {"transform": {"transform": "mosaic", "recovery": "exact"}},
        {"transform": BLUR, "detector_options": {"threshold": 0.4}},
        {"transform": BLUR, "max_pixels": 1000},
        {"transform": {"recovery": "exact"}},
        {"transform": {"recovery": "exact", "cover": "square"}},
        {"transform": {"recovery": "exact", "keep": 0}},
    ]
    assert len({JobConfig.from_mapping(BASE | other).digest() for other in others} | {job.digest()}) == len(others) + 1
