"""Case files made to hurt the desk, by people who could sign them: refused in words, or shown harmlessly."""

import base64
import copy
import hashlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from diffpriv.jobs import recoveries
from diffpriv.jobs.desk.steps import Places, verify
from diffpriv.keys.audit.events import AuditEvent
from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.changes import Change
from diffpriv.keys.context import canonical
from diffpriv.keys.custodians import CustodianKey, CustodyPolicy
from diffpriv.keys.errors import MisuseError
from diffpriv.keys.lockbox import canonical_json
from diffpriv.keys.recipients import RecipientKey
from diffpriv.keys.requests import RecoveryRequest
from diffpriv.keys.resealing import name_locks
from diffpriv.keys.store import KeyStore
from tests.browser.test_desk import Office, _ask, _entered, _form, office, protected
from tests.pipelines.conftest import PASSPHRASE

__all__ = ["office", "protected"]
NOW = 1_790_000_000
Body = dict[str, Any]


@pytest.fixture
def requester(office: Office) -> CustodianKey:
    return CustodianKey.load(office.person("requester"), PASSPHRASE)


@pytest.fixture
def real(office: Office, requester: CustodianKey) -> Body:
    """A request as the desk writes it: signed, of a locked shard, with a run key."""
    policy = CustodyPolicy.load(office.keyring.files.policy)
    chosen = recoveries.choose_faces(office.job.dst, "shard-000.tar", ["one"], [0])
    options = {"now": NOW, "expires_at": NOW + 3600}
    made, _ = recoveries.request(chosen, office.job.keys or "", "a test", requester, policy, **options)
    return made.to_json()


def signed(body: Body, key: CustodianKey) -> bytes:
    """The file with a signature that fits, whatever it says: requesters sign what they like."""
    bare = {name: value for name, value in body.items() if name != "signature"}
    try:
        case = hashlib.sha256(canonical("diffpriv/v2/request", canonical_json(bare))).hexdigest()
    except ValueError:  # what has no bytes can't be signed
        return json.dumps(body).encode()
    signature = key.sign("diffpriv recovery request", case.encode())
    return json.dumps(bare | {"signature": base64.b64encode(signature).decode()}).encode()


ODD_NUMBERS: list[Any] = [None, True, 0, -1, 1.5, 2**63, 10**400]
ODD_TEXTS: list[Any] = [
    "",
    "x",
    "\0",
    "\x1b[2J\x9b31m",
    "\u202eevil",
    "\ud800",
    "é" * 9000,
    "<script>1</script>",
    "{{ 7 * 7 }}",
    "..",
]
ODD_SHAPES: list[Any] = [[], [[]], {}, {"a": {}}, ["a"] * 2000]
VALUES = ODD_NUMBERS + ODD_TEXTS + ODD_SHAPES


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON document."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        yield from places(one, (*path, name))


def swapped(body: Body, path: tuple[Any, ...], value: Any) -> Body:
    made = copy.deepcopy(body)
    place: Any = made
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return made


@pytest.fixture
def post(office: Office) -> Callable[[bytes], tuple[int, str]]:
    mine = _entered(office)

    def send(data: bytes) -> tuple[int, str]:
        body, kind = _form({"form_token": office.server.session.form_token}, data)
        answer = _ask(office, "POST", "/case", body, **mine, Content_Type=kind)
        return answer.status, answer.read().decode()

    return send


def harmless(text: str) -> bool:
    """No markup of theirs, no control character, nothing that turns text around, no trace of a fault."""
    odd = [one for one in text if not one.isprintable() and one != "\n"]
    return not odd and "<script" not in text and "Traceback" not in text


def test_a_signed_case_with_any_field_swapped_is_refused_or_shown_harmlessly(
    post: Callable[[bytes], tuple[int, str]], real: Body, requester: CustodianKey
) -> None:
    dice = random.Random(20)
    assert post(signed(real, requester))[0] == 200
    every = [(path, value) for path in places(real) for value in VALUES]
    top = [(path, value) for path, value in every if len(path) == 1]
    tries = top + dice.sample(every, 150)
    shown = 0
    for path, value in tries:
        status, text = post(signed(swapped(real, path, value), requester))
        assert status in (200, 400), (path, value)
        assert harmless(text), (path, value)
        shown += status == 200
    assert 0 < shown < len(tries) // 4, "some purposes are text that can be shown; nearly all else is refused"
    assert post(signed(real, requester))[0] == 200


def test_a_signed_case_with_flipped_bits_cut_ends_and_doubled_parts_is_refused(
    post: Callable[[bytes], tuple[int, str]], real: Body, requester: CustodianKey
) -> None:
    dice, whole = random.Random(21), signed(real, requester)
    damaged = []
    for _ in range(120):
        data = bytearray(whole)
        place = dice.randrange(len(data))
        data[place] ^= 1 << dice.randrange(8)
        damaged.append(bytes(data))
    damaged += [whole[: dice.randrange(len(whole))] for _ in range(20)]
    damaged += [whole * 2, whole[:-1] + b',"more":1}', whole.replace(b'"purpose": "a test"', b'"purpose": "a", "purpose": "b"')]
    for data in damaged:
        status, text = post(data)
        assert (status, harmless(text)) == (400, True)


def test_deep_wide_and_oversized_cases_are_refused(
    post: Callable[[bytes], tuple[int, str]], real: Body, requester: CustodianKey
) -> None:
    deep: Any = "x"
    for _ in range(300):
        deep = [deep]
    many = [[*real["faces"][0][:3], number, real["faces"][0][4]] for number in range(10_001)]
    hostile = [
        signed(swapped(real, ("purpose",), deep), requester),
        json.dumps(real).encode()[:-1] + b',"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        signed(swapped(real, ("faces",), many), requester),
        signed(swapped(real, ("purpose",), "p" * 4_001), requester),
        signed(swapped(real, ("faces",), [real["faces"][0]] * 2), requester),
    ]
    for data in hostile:
        status, text = post(data)
        assert (status, harmless(text)) == (400, True)


def test_a_purpose_that_paints_over_the_screen_is_shown_as_it_is_written(
    post: Callable[[bytes], tuple[int, str]], real: Body, requester: CustodianKey
) -> None:
    trick = "routine \u202egnihton\u202c\x1b[2J\r{{ 7 * 7 }}<img src=x onerror=alert(1)>"
    status, text = post(signed(swapped(real, ("purpose",), trick), requester))
    assert status == 200
    assert harmless(text)
    assert r"\u202e" in text
    assert "{{ 7 * 7 }}" in text
    assert "<img src=x" not in text


def test_a_log_that_was_cut_back_is_refused_by_a_desk_that_saw_it_longer(office: Office) -> None:
    """Write access to the log's folder, and no key: an earlier copy of it put back."""
    mine, folder = _entered(office), Path(office.job.audit)
    body, kind = _form({"form_token": office.server.session.form_token, "kind": "", "case_starts": ""})
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    log = AuditLog(office.job.audit, office.keyring.log_key)
    log.append([AuditEvent("recovery expired", log.newest(), {"case": "ca" * 32})])
    assert _ask(office, "POST", "/entries", body, **mine, Content_Type=kind).status == 200
    for path in [path for path in folder.rglob("*") if path.is_file() and path not in before]:
        path.unlink()
    for path, data in before.items():
        path.write_bytes(data)
    answer = _ask(office, "POST", "/entries", body, **mine, Content_Type=kind)
    assert answer.status == 400
    assert "it was cut back" in answer.read().decode()


def test_the_desk_shows_what_a_new_policy_changes_and_approves_none_that_it_has_not_seen(
    office: Office, post: Callable[[bytes], tuple[int, str]], requester: CustodianKey
) -> None:
    held, lone = CustodyPolicy.load(office.keyring.files.policy), CustodianKey.create("custodian-1")
    wanted = CustodyPolicy(1, (lone.custodian,), held.requesters, previous=held.digest)
    for to in (wanted, None):
        change = Change(wanted.digest, to=to)
        locks = name_locks(KeyStore(office.job.keys or ""), held, change)
        options = {"now": NOW, "expires_at": NOW + 3600, "run_key": RecipientKey.generate().recipient, "locks": locks}
        made = RecoveryRequest.make((), "routine", requester, held, change=change, **options)
        status, text = post(json.dumps(made.to_json()).encode())
        assert status == 200
        assert wanted.digest in text
        shown = ("2 of 3 -&gt; 1 of 1", lone.custodian.fingerprint, "Another key under a name known before")
        said = shown if to else ("A policy that this desk has not seen",)
        assert all(one in text for one in said)
        if to is None:
            with pytest.raises(MisuseError, match="can't be shown"):
                recoveries.decide(made, lone, "approve", now=NOW, policy=held)


def test_the_auditors_door_compares_the_log_with_the_policy_at_hand(office: Office, tmp_path: Path) -> None:
    """Whoever holds the log's key and serves custodians of their own is found at the desk as on the command line."""
    stranger = CustodyPolicy(1, (CustodianKey.create("mallory").custodian,))
    stranger.save(tmp_path / "other.json")
    (tmp_path / "log.vkey").write_bytes(office.keyring.files.log_vkey.read_bytes())
    job = office.job
    for policy, fits in ((office.keyring.files.policy, True), (tmp_path / "other.json", False)):
        found = verify(Places(policy, job.dst, job.keys, job.audit, tmp_path / "log.vkey"))
        assert found.ok == fits
        assert fits or any("none of those given" in one or "none that was given" in one for one in found.problems)


def test_addresses_that_are_none_are_answered(office: Office) -> None:
    mine = _entered(office)
    for path in ("//[", "//evil.example/case", "/%00", "/case?lang=%ff", "/?lang=xx", "/" + "a" * 8000, "http://[/", "*"):
        assert _ask(office, "GET", path, **mine).status in (200, 404), path
        assert _ask(office, "GET", path).status == 403, "nobody without a session sees more"
    assert _ask(office, "GET", "/..//evil.example?lang=de", **mine).headers["Location"] == "/", "it leads to no other site"
