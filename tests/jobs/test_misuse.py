"""What is asked for wrongly is refused with one clear sentence, before anything is written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffpriv.jobs.output import Output
from tests.jobs.conftest import Program
from tests.pipelines.datasets import coffee, encoded, sample, write_shards

Fresh = Callable[[str], Path]


@pytest.fixture
def settings(program: Program, key_folder: Path, fresh: Fresh) -> dict[str, Any]:
    """A good job; each test spoils one thing."""
    src = write_shards(fresh("src"), {"shard-000.tar": sample("a", 0, encoded(coffee(), "JPEG"))})
    return {
        "src": src,
        "dst": fresh("dst"),
        "--keys": fresh("store"),
        "--audit": fresh("audit"),
        "--log-key": key_folder / "log.key",
        "--recipient": key_folder / "recipient.json",
        "--transform": "fill",
        "--recovery": "exact",
    }


def _command(settings: dict[str, Any]) -> list[object]:
    options = [part for name, value in settings.items() if name.startswith("--") for part in (name, value)]
    return ["sanitize", settings["src"], settings["dst"], *options]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda s: {"src": s["src"] / "missing"}, "is not a folder"),
        (lambda s: {"src": f"{s['src']}/shard-{{000..001}}.tar"}, "1 of 2 files do not exist"),
        (lambda s: {"dst": s["src"] / "out"}, "lies inside SRC"),
        (lambda s: {"dst": s["src"]}, "the same place"),
        (lambda s: {"--keys": s["dst"] / "keys"}, "lies inside DST"),
        (lambda s: {"--audit": s["dst"] / "audit"}, "lies inside DST"),
        (lambda s: {"dst": s["--keys"] / "out"}, "lies inside the key store"),
        (lambda s: {"--transform": "scramble"}, "Choose one of"),
        (lambda s: {"--recovery": "keys"}, "cannot keep the tier"),
        (lambda s: {"--config": s["src"] / "missing.yaml"}, "cannot be read"),
        (lambda s: {"--gpus": "0.3"}, "no exact fraction"),
        (lambda s: {"--cover": "hat"}, "Choose one of: head, face, square"),
        (lambda s: {"--keep": "9"}, "bits from 0 to 8"),
    ],
    ids=[
        "SRC missing",
        "shard missing",
        "DST inside SRC",
        "DST is SRC",
        "keys inside DST",
        "audit inside DST",
        "DST inside keys",
        "unknown transform",
        "tier that a baseline lacks",
        "job file missing",
        "GPU share that fills no GPU",
        "unknown cover",
        "more bits than there are",
    ],
)
def test_a_wrong_job_exits_2_and_writes_nothing(
    program: Program, settings: dict[str, Any], spoil: Callable[[dict[str, Any]], dict[str, Any]], said: str
) -> None:
    answer = program(*_command(settings | spoil(settings)), expect=2)
    assert said in answer.err
    assert not settings["dst"].exists()
    assert not settings["--audit"].exists()


@pytest.mark.parametrize("content", [None, b"not json", b"{}"], ids=["missing", "not JSON", "not a recipient"])
def test_an_unreadable_recipient_is_named_and_nothing_is_written(
    program: Program, settings: dict[str, Any], fresh: Fresh, content: bytes | None
) -> None:
    recipient = fresh("bad-recipient.json")
    if content is not None:
        recipient.write_bytes(content)
    answer = program(*_command(settings | {"--recipient": recipient}), expect=1)
    assert "bad-recipient.json" in answer.err
    assert "diffpriv keys init" in answer.err
    assert not settings["dst"].exists()


def test_a_private_key_is_no_recipient(program: Program, settings: dict[str, Any], key_folder: Path) -> None:
    answer = program(*_command(settings | {"--recipient": key_folder / "recipient.key"}), expect=1)
    assert "not the private key" in answer.err


def test_a_recipient_is_needed_where_keys_are_kept(program: Program, settings: dict[str, Any]) -> None:
    del settings["--recipient"]
    assert "needs at least one recipient" in program(*_command(settings), expect=2).err


def test_a_misspelt_setting_gets_a_suggestion(program: Program, settings: dict[str, Any], fresh: Fresh) -> None:
    job = fresh("job.yaml")
    job.write_text("transform:\n  recoverry: exact\n")
    answer = program(*_command(settings | {"--config": job}), expect=2)
    assert 'Did you mean "recovery"?' in answer.err


def test_unknown_commands_and_options_exit_2(program: Program) -> None:
    for arguments in (["anonymise"], ["keys", "init"], ["sanitize", "--no-such-option"], ["audit", "verify", "x"]):
        program(*arguments, expect=2)


def test_a_passphrase_is_never_guessed(program: Program, fresh: Fresh) -> None:
    answer = program("keys", "init", fresh("keys"), expect=2, DIFFPRIV_PASSPHRASE_FILE=None)
    assert "no terminal to ask at" in answer.err
    assert "--passphrase-file" in answer.err
    assert not fresh("keys").exists()


def test_keys_are_never_overwritten(program: Program, key_folder: Path) -> None:
    before = {path: path.read_bytes() for path in key_folder.rglob("*.key")}
    assert "never overwritten" in program("keys", "init", key_folder, expect=2).err
    assert {path: path.read_bytes() for path in key_folder.rglob("*.key")} == before


def test_an_error_is_one_json_document_with_json(program: Program, settings: dict[str, Any]) -> None:
    answer = program(*_command(settings | {"src": settings["src"] / "missing"}), "--json", expect=2)
    error = answer.json()["error"]
    assert error["kind"] == "MisuseError"
    assert error["advice"]


def test_a_demo_never_removes_what_it_did_not_make(program: Program, fresh: Fresh) -> None:
    fresh("mine").mkdir()
    (fresh("mine") / "thesis.txt").write_text("years of work")
    assert "no demo made it" in program("demo", "--out", fresh("mine"), expect=2).err
    assert (fresh("mine") / "thesis.txt").read_text() == "years of work"


def test_a_strangers_file_name_moves_no_cursor(program: Program) -> None:
    said = program("keys", "list", "none\x1b[2J\u202e", expect=2).err
    assert "\\x1b[2J\\u202e" in said
    assert "\x1b" not in said


def test_json_for_machines_moves_no_terminals_cursor_either(capsys: pytest.CaptureFixture[str]) -> None:
    names = {"name": "a\x1b[2J\x9b31m\u202etxt\U000e0041", "sample": "Grüße 顔"}
    Output(json=True).result(names, lambda console: None)
    printed = capsys.readouterr().out
    assert all(one.isprintable() or one == "\n" for one in printed)
    assert json.loads(printed) == names
    assert "Grüße 顔" in printed
