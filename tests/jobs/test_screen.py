"""Commands at a screen: tables fit the terminal, help has panels and examples, places are found, and quiet means quiet."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from diffpriv.jobs.cli import app
from diffpriv.jobs.help import EXAMPLES, TOPICS, dress
from diffpriv.jobs.surroundings import FILE, known_places
from diffpriv.keys.errors import MisuseError
from tests.jobs.conftest import ROOT, Program

REPORT = """
from diffpriv.jobs.output import OUTPUT
from diffpriv.jobs.sanitize import show_report
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.run.report import RunReport
job = JobConfig(src="s", dst="d", audit="a", transform={"transform": "blur"})
failed = {"shard-000.tar": "the archive ends in the middle of a member, at byte 1,234,567, " * 4}
report = RunReport("run", "faces", "digest", shards=2, shards_done=1, shards_failed=failed, filled={"no face " * 20: 3})
show_report(OUTPUT.console(), job, report)
"""


def _on_a_terminal(code: str, columns: int, **environment: str) -> str:
    """What a program prints on a real (pseudo) terminal of so many columns."""
    main, other = pty.openpty()
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": str(columns), "TERM": "xterm", **environment}
    with subprocess.Popen([sys.executable, "-c", code], stdout=other, stderr=other, env=settings, cwd=ROOT) as process:
        os.close(other)
        parts = []
        while True:
            try:
                part = os.read(main, 65536)
            except OSError:  # the other end was closed
                break
            if not part:
                break
            parts.append(part)
    os.close(main)
    assert process.returncode == 0, b"".join(parts).decode()
    return b"".join(parts).decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [80, 60])
def test_a_long_reason_never_makes_a_table_wider_than_the_terminal(columns: int) -> None:
    shown = re.sub(r"\x1b\[[0-9;]*m", "", _on_a_terminal(REPORT, columns))
    table, _, below = shown.partition("data       d")
    assert max(map(len, table.splitlines())) <= columns
    assert "shard-000.tar" in table
    assert "in the middle of a member" in " ".join(table.split())
    assert "keys       none kept" in below


def test_no_color_turns_colours_off() -> None:
    assert "\x1b[" in _on_a_terminal(REPORT, 80)
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", _on_a_terminal(REPORT, 80, NO_COLOR="1"))


def test_every_example_names_options_that_exist() -> None:
    """Two examples for each command that has a page of its own; a renamed option must not stay in one."""
    root = typer.main.get_command(app)
    dress(root)
    for path, examples in EXAMPLES.items():
        for example in examples:
            words = example.split()[1:]
            command = root
            while words and hasattr(command, "commands") and words[0] in command.commands:
                command = command.commands[words.pop(0)]
            known = {one for parameter in command.params for one in (*parameter.opts, *parameter.secondary_opts)}
            assert {word for word in words if word.startswith("--")} <= known, f"{path}: {example}"
        assert len(examples) == 2


def test_every_command_has_its_two_examples() -> None:
    def paths(command: Any, path: str = "") -> Iterator[str]:
        for name, one in getattr(command, "commands", {}).items():
            yield f"{path} {name}".strip()
            yield from paths(one, f"{path} {name}".strip())

    assert set(paths(typer.main.get_command(app))) - EXAMPLES.keys() == set()


def test_help_is_in_panels_and_its_summaries_are_whole(program: Program) -> None:
    answer = program("sanitize", "--help", COLUMNS="80")
    for panel in ("Places", "What a face becomes", "Which faces", "How it runs", "Examples:"):
        assert panel in answer.out
    summaries = program("--help", COLUMNS="80").out
    assert not re.search(r"[a-z,]\.\.\.", summaries)
    assert max(map(len, summaries.splitlines())) <= 80
    assert "--install-completion" in summaries
    assert "complete" in program("--show-completion", "bash", expect=None, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1").out


def test_help_knows_topics_and_commands_and_suggests(program: Program) -> None:
    for topic, text in TOPICS.items():
        assert program("help", topic).out.strip() == text.strip()
    assert "--recovery" in program("help", "sanitize").out
    assert 'diffpriv help places"' in program("help", "place", expect=2).err


def test_doctor_says_nothing_of_other_libraries(program: Program) -> None:
    answer = program("doctor")
    assert answer.err == ""
    assert "WARNING" not in answer.out
    assert "weight files" in answer.out


def test_quiet_prints_nothing_and_the_exit_status_answers(program: Program, key_folder: Path) -> None:
    listed = program("keys", "list", key_folder, "-q")
    assert (listed.out, listed.err) == ("", "")
    missing = program("-q", "keys", "list", "no-such-place", expect=2)
    assert missing.out == ""
    assert "no keys" in missing.err


def test_keys_init_names_places_for_every_command_after_it(program: Program, tmp_path: Path) -> None:
    (tmp_path / "passphrase").touch(0o600)
    (tmp_path / "passphrase").write_text("for tests only")
    here = Program(tmp_path)
    here("keys", "init", "keys")
    assert "names these places" not in here("keys", "init", "more").out, "a file that is there stays"
    assert "0 entries" in here("audit", "verify", expect=None).out
    assert here("audit", "show", "--log-vkey", "keys/log.vkey").out
    refused = here("audit", "verify", "--log-vkey", "keys/none.vkey", expect=1)
    assert "keys/none.vkey" in refused.err, "an option wins over the file"
    refused = here("audit", "verify", expect=1, DIFFPRIV_LOG_VKEY="variable.vkey")
    assert "variable.vkey" in refused.err, "a variable wins over the file"


def test_places_are_relative_to_their_file_and_a_key_beside_the_signing_key_is_found(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('log_key = "k/log.key"\nkeys = "s3://bucket/keys"\n')
    (tmp_path / "k").mkdir()
    (tmp_path / "k" / "log.vkey").write_text("")
    found = known_places(tmp_path, {})
    assert found["keys"] == "s3://bucket/keys"
    assert Path(found["log_key"]) == tmp_path / "k" / "log.key"
    assert Path(found["log_vkey"]) == tmp_path / "k" / "log.vkey"
    assert known_places(tmp_path, {"DIFFPRIV_RECIPIENT": "a.json:b.json"})["recipient"] == ["a.json", "b.json"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kyes = 'x'", 'Did you mean "keys"'),
        ("keys = 3", "in quotes"),
        ("keys = ", "can't be read"),
        ("keys = ['a']", "in quotes"),
    ],
)
def test_a_file_of_places_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(MisuseError) as refused:
        known_places(tmp_path, {})
    assert said in str(refused.value)


def test_a_job_file_wins_over_places_and_a_baseline_says_what_it_keeps(program: Program, tmp_path: Path) -> None:
    (tmp_path / "passphrase").touch(0o600)
    (tmp_path / "passphrase").write_text("for tests only")
    (tmp_path / "job.yaml").write_text("src: photos\ndst: out\naudit: out/log\ntransform: {transform: blur}\n")
    (tmp_path / FILE).write_text('audit = "audit-log"\nkeys = "face-keys"\n')
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").write_text("no picture")
    here = Program(tmp_path)
    answer = here("sanitize", "--config", "job.yaml", expect=2)
    assert "keeps no keys (tier none)" in answer.out
    assert "out/log" in answer.err, "the job's own audit log, which lies inside DST"


def test_a_misspelt_setting_of_any_block_is_suggested(program: Program, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    for text, meant in (
        ("boxes: {field: b, fromat: xyxy}", "boxes.format"),
        ("rules: {min_sise: 3}", "rules.min_size"),
        ("workers: {protect_actor: 3}", "workers.protect_actors"),
        ("pseudonym: {sorce: folder}", "pseudonym.source"),
        ("min_score: 0.4", "rules.min_score"),
        ("preset: fast", "transform.preset"),
        ("detectr: centerface", "detector"),
    ):
        job.write_text(text)
        answer = program("sanitize", "a", "b", "--audit", "c", "--transform", "blur", "--config", job, expect=2)
        assert f'did you mean "{meant}"?' in answer.err, text
