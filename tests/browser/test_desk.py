"""The desk in a browser: a case from request to recovered face by three people who see no terminal, and who is refused."""

import http.client
import json
import random
import string
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from diffpriv.jobs.desk.forms import MAX_BODY
from diffpriv.jobs.desk.pages import Desk
from diffpriv.jobs.desk.server import DeskServer
from diffpriv.jobs.desk.steps import Places
from diffpriv.jobs.desk.texts import messages, translator
from diffpriv.keys.audit.events import AuditEvent
from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.notes import NoteKey, NoteVerifier
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.engines.beam_driver import run
from tests.browser.conftest import fits, screenshot, serious_faults
from tests.pipelines.conftest import PASSPHRASE, Keyring, make_config
from tests.pipelines.datasets import astronaut, encoded, sample, write_shards

PURPOSE = "<b>Court order 7/2026</b>: identify the person in picture one"


@dataclass(frozen=True)
class Office:
    """A protected dataset, its people's keys, and a running desk."""

    server: DeskServer
    job: JobConfig
    keyring: Keyring
    out: Path

    def person(self, name: str) -> Path:
        files = self.keyring.files
        return {**files.custodians, **files.requesters}[name]

    def log(self) -> list[Any]:
        vkey = NoteVerifier.load(self.keyring.files.log_vkey)
        return [event for _, event in AuditLog(self.job.audit, verifier=vkey).events()]


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory, keyring: Keyring) -> JobConfig:
    base = tmp_path_factory.mktemp("office")
    src = write_shards(base / "src", {"shard-000.tar": sample("one", 0, encoded(astronaut(256), "PNG"), "png")})
    job = make_config(
        base, keyring, src, transform={"transform": "fill", "recovery": "exact"}, policy=str(keyring.files.policy)
    )
    run(job, log_key=keyring.log_key)
    return job


@pytest.fixture
def office(protected: JobConfig, keyring: Keyring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    files = keyring.files
    monkeypatch.setenv("DIFFPRIV_HEADS", str(tmp_path))  # the keys are other tests' too, and a log's head is kept beside them
    out = tmp_path / "recovered"
    places = Places(
        files.policy, protected.dst, protected.keys, protected.audit, files.log_vkey, files.log_key, files.office_key, out
    )
    places = replace(places, witness_memory=tmp_path / "witnessed.json")
    server = DeskServer(Desk(places))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield Office(server, protected, keyring, out)
    server.shutdown()
    thread.join()
    server.server_close()


def _sign(page: Any, key: Path) -> None:
    page.get_by_label("Your key file").set_input_files(key)
    page.get_by_label("Passphrase", exact=True).fill(PASSPHRASE)


def _saved(page: Any, button: str, path: Path) -> Path:
    with page.expect_download() as download:
        page.get_by_role("link", name=button).click()
    download.value.save_as(path)
    return path


def test_a_case_goes_from_request_to_recovered_face_by_the_desk_alone(
    office: Office, open_page: Callable[..., Any], tmp_path: Path
) -> None:
    page = open_page(office.server.url, locale="en-GB")
    page.get_by_role("link", name="Ask for a face").click()
    page.get_by_role("button", name="Find").click()
    page.get_by_label("Why").fill(PURPOSE)
    _sign(page, office.person("requester"))
    assert serious_faults(page) == []
    page.get_by_role("button", name="Sign the request").click()
    case = _saved(page, "Save the case file", tmp_path / "case.json")
    run_key = _saved(page, "Save the run key", tmp_path / "case.run.key")

    answers = []
    for number, custodian in enumerate(("custodian-1", "custodian-2")):
        page.get_by_role("link", name="Decide").click()
        page.get_by_label("Case file").set_input_files(case)
        page.get_by_role("button", name="Show what is asked").click()
        assert page.locator("blockquote").inner_text() == PURPOSE, "a purpose is text, never markup"
        for word in ("requester", "shard-000.tar", "custodian-3", "2 of"):
            assert word in page.locator("main").text_content()
        assert page.locator(".crops img").count() == 1
        assert serious_faults(page) == []
        screenshot(page, f"desk-decide-{number}")
        page.get_by_label("Yes, the face may be brought back").check()
        _sign(page, office.person(custodian))
        page.get_by_label("I have read").check()
        page.get_by_role("button", name="Sign my answer").click()
        answers.append(_saved(page, "Save the answer", tmp_path / f"{custodian}.json"))
        assert json.loads(answers[-1].read_text())["decision"] == "approve"

    page.get_by_role("link", name="Recover").click()
    page.get_by_label("Case file").set_input_files(case)
    page.get_by_label("The custodians' answers").set_input_files(answers)
    page.get_by_label("The run key of the case").set_input_files(run_key)
    page.get_by_label("The recipient's key file").set_input_files(office.keyring.files.recipient_key)
    page.get_by_label("Passphrase", exact=True).fill(PASSPHRASE)
    page.get_by_role("button", name="Bring it back").click()
    page.locator(".crops img").wait_for()  # one, or it fails; a click does not wait for what it leads to
    assert len(list(office.out.rglob("picture-*.png"))) == 1
    assert serious_faults(page) == []
    screenshot(page, "desk-recovered")

    page.get_by_role("link", name="Log").click()
    page.get_by_role("button", name="Verify everything").click()
    page.get_by_text("fits the signed log").wait_for()
    page.get_by_label("Kind of entry").select_option("recovery approved")
    page.get_by_role("button", name="Search the log").click()
    page.locator("tbody tr").first.wait_for()
    assert page.locator("tbody tr").count() == 2
    assert serious_faults(page) == []
    kinds = [event.kind for event in office.log()]
    assert kinds.count("recovery approved") == 2
    assert kinds.count("recovery released") == 1


def test_a_witness_cosigns_a_mailed_head_and_the_log_itself(
    office: Office, open_page: Callable[..., Any], tmp_path: Path
) -> None:
    witness, log = NoteKey.create("witness.test", witness=True), AuditLog(office.job.audit, office.keyring.log_key)
    witness.save(tmp_path / "witness.key", PASSPHRASE, role="witness", iterations=1, lanes=1, memory_kib=64)
    (tmp_path / "head").write_bytes(log.checkpoint().note)
    page = open_page(office.server.url, locale="en-GB")
    for mailed in (tmp_path / "head", None):
        page.get_by_role("link", name="Log", exact=True).click()
        if mailed:
            page.get_by_label("The head that you were sent").set_input_files(mailed)
        page.get_by_label("Your witness key file").set_input_files(tmp_path / "witness.key")
        page.get_by_label("Passphrase", exact=True).fill(PASSPHRASE)
        assert serious_faults(page) == []
        page.get_by_role("button", name="Cosign").click()
        line = _saved(page, "Save the cosignature", tmp_path / "cosignature.txt").read_bytes()
        assert log.add_cosignature(line, witness.verifier).witnesses[0][0] == "witness.test"
        assert serious_faults(page) == []
    screenshot(page, "desk-witness")
    forged = AuditLog(str(tmp_path / "forged"), office.keyring.log_key)
    forged.append([AuditEvent("recovery expired", 1, {"case": "ca" * 32})] * 40)
    (tmp_path / "head").write_bytes(forged.checkpoint().note)
    page.get_by_label("The head that you were sent").set_input_files(tmp_path / "head")
    page.get_by_label("Your witness key file").set_input_files(tmp_path / "witness.key")
    page.get_by_label("Passphrase", exact=True).fill(PASSPHRASE)
    page.get_by_role("button", name="Cosign").click()
    assert "does not begin at the head" in page.get_by_role("alert").inner_text()


def test_a_custodian_denies_by_keyboard_alone_in_german_on_a_phone(
    office: Office, open_page: Callable[..., Any], tmp_path: Path
) -> None:
    page = open_page(office.server.url, 400, locale="de-DE")
    assert page.locator("html").get_attribute("lang") == "de"
    assert fits(page)
    screenshot(page, "desk-400-de")
    page.goto(f"http://{office.server.host}/ask")
    page.get_by_role("button", name="Suchen").press("Enter")
    page.get_by_label("Wofür").fill("Prüfung")
    page.get_by_label("Ihre Schlüsseldatei").set_input_files(office.person("requester"))
    page.get_by_label("Passphrase", exact=True).fill(PASSPHRASE)
    page.get_by_role("button", name="Anfrage unterschreiben").press("Enter")
    case = _saved(page, "Falldatei speichern", tmp_path / "case.json")
    page.goto(f"http://{office.server.host}/case")
    page.get_by_label("Falldatei").set_input_files(case)
    page.get_by_role("button", name="Zeigen, was verlangt wird").press("Enter")
    page.get_by_label("Nein; das schließt den Fall").wait_for()
    assert fits(page)
    screenshot(page, "desk-400-decide")
    page.get_by_label("Nein; das schließt den Fall").press("Space")
    page.get_by_label("Ihre Schlüsseldatei").set_input_files(office.person("custodian-1"))
    page.get_by_label("Passphrase", exact=True).fill(PASSPHRASE)
    page.get_by_label("Ich habe gelesen").press("Space")
    page.get_by_role("button", name="Meine Antwort unterschreiben").press("Enter")
    page.get_by_role("heading", name="Sie haben abgelehnt").wait_for()
    assert "recovery denied" in [event.kind for event in office.log()]


def _ask(office: Office, method: str, path: str, body: bytes = b"", **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", office.server.server_address[1], timeout=30)
    connection.putrequest(method, path, skip_host=True)
    for name, value in {"Host": office.server.host, "Content_Length": str(len(body)), **headers}.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders(body)
    return connection.getresponse()


def _form(fields: dict[str, str], file: bytes | None = None) -> tuple[bytes, str]:
    head = "--x\r\nContent-Disposition: form-data; name="
    parts = [f'{head}"{name}"\r\n\r\n{value}\r\n'.encode() for name, value in fields.items()]
    if file is not None:
        parts.append(f'{head}"file"; filename="case.json"\r\n\r\n'.encode() + file + b"\r\n")
    return b"".join(parts) + b"--x--\r\n", "multipart/form-data; boundary=x"


def _entered(office: Office) -> dict[str, str]:
    """Headers of the one browser that used the token."""
    cookie = _ask(office, "GET", office.server.url.partition(office.server.host)[2]).headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    return {"Cookie": cookie.partition(";")[0], "Origin": f"http://{office.server.host}"}


def test_the_token_opens_one_session_once(office: Office) -> None:
    address = office.server.url.partition(office.server.host)[2]
    assert _ask(office, "GET", "/").status == 403
    assert _ask(office, "GET", "/?token=guess").status == 403
    assert _ask(office, "GET", address).status == 303
    assert _ask(office, "GET", address).status == 403, "a second use"
    assert _ask(office, "GET", "/?token=").status == 403, "nor an empty one"


def test_another_host_name_a_foreign_origin_and_a_form_of_nobody_are_refused(office: Office) -> None:
    mine = _entered(office)
    body, kind = _form({"form_token": office.server.session.form_token, "kind": "", "case_starts": ""})
    good = {**mine, "Content_Type": kind}
    assert _ask(office, "POST", "/entries", body, **good).status == 200
    for host in ("localhost", "evil.example", f"evil.example:{office.server.server_address[1]}", "127.0.0.1"):
        assert _ask(office, "GET", "/", **{**mine, "Host": host}).status == 421, host
        assert _ask(office, "POST", "/entries", body, **{**good, "Host": host}).status == 421, host
    for origin in ("http://evil.example", "null", "", f"https://{office.server.host}"):
        assert _ask(office, "POST", "/entries", body, **{**good, "Origin": origin}).status == 403, origin
    del good["Origin"]
    assert _ask(office, "POST", "/entries", body, **good).status == 403, "no origin at all"
    forged, kind = _form({"form_token": "guess", "kind": ""})
    assert _ask(office, "POST", "/entries", forged, **mine, Content_Type=kind).status == 403
    assert _ask(office, "POST", "/entries", body, Content_Type=kind, Origin=mine["Origin"]).status == 403, "no session"


def test_an_oversized_form_is_refused_before_it_is_read(office: Office) -> None:
    mine = _entered(office)
    for length in (str(MAX_BODY + 1), "9" * 40):
        headers = {**mine, "Content_Type": "multipart/form-data; boundary=x", "Content_Length": length}
        answer = _ask(office, "POST", "/case", **headers)
        assert answer.status == 413
    assert _ask(office, "POST", "/case", **{**mine, "Content_Length": "-1"}).status == 411
    assert _ask(office, "POST", "/case", **{**mine, "Transfer_Encoding": "chunked"}).status == 411


def test_every_answer_forbids_scripts_frames_and_caches(office: Office) -> None:
    mine = _entered(office)
    for path in ("/", "/case", "/ask", "/recover", "/log", "/nowhere"):
        headers = _ask(office, "GET", path, **mine).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "script-src" not in policy
        assert "unsafe" not in policy
        assert headers["Cache-Control"] == "no-store"


def test_a_hostile_case_file_is_answered_and_the_desk_lives_on(office: Office) -> None:
    """A real case's bytes, damaged in many ways, and files made to hurt a parser."""
    mine, dice = _entered(office), random.Random(7)
    body = {"format": "diffpriv recovery request", "version": 1, "faces": [["d", "s", "x", 0]], "purpose": "p"}
    real = json.dumps(body).encode()
    hostile = [b"", b"[" * 100_000, b"{}", b"null", b"[]", b'"x"', b"\xff\xfe", b"1e999", b'{"format": 3}', real, b"\0" * 5000]
    for _ in range(60):
        data = bytearray(real)
        for _ in range(dice.randint(1, 8)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        hostile.append(bytes(data))
    for data in hostile:
        posted, kind = _form({"form_token": office.server.session.form_token}, data)
        answer = _ask(office, "POST", "/case", posted, **mine, Content_Type=kind)
        text = answer.read().decode()
        assert answer.status == 400
        assert "Traceback" not in text
    for _ in range(40):
        posted = dice.randbytes(dice.randint(0, 2000))
        kind = dice.choice(["multipart/form-data; boundary=x", "x/y", ""])
        answer = _ask(office, "POST", "/decide", posted, **mine, Content_Type=kind)
        assert answer.status in (400, 403)
    assert _ask(office, "GET", "/case", **mine).status == 200


def test_a_wrong_passphrase_is_said_and_signs_nothing(office: Office, open_page: Callable[..., Any]) -> None:
    before = len(office.log())
    page = open_page(office.server.url, locale="en-GB")
    page.goto(f"http://{office.server.host}/ask")
    page.get_by_role("button", name="Find").click()
    page.get_by_label("Why").fill("x")
    page.get_by_label("Your key file").set_input_files(office.person("requester"))
    page.get_by_label("Passphrase", exact=True).fill("wrong")
    page.get_by_role("button", name="Sign the request").click()
    assert "passphrase is wrong" in page.get_by_role("alert").inner_text()
    assert len(office.log()) == before
    assert "wrong" not in page.locator("main").inner_html().replace("passphrase is wrong", "")


def test_every_message_is_in_both_languages_with_the_same_values() -> None:
    for name, texts in messages().items():
        assert set(texts) == {"en", "de"}, name
        values = [{field for _, field, _, _ in string.Formatter().parse(text) if field} for text in texts.values()]
        assert values[0] == values[1], name
    with pytest.raises(KeyError):
        translator("de")("no such text")
