"""The desk's pages: an address and a form in, HTML out. What a page does is in steps.py; what it says in messages.json.

/            who are you: custodian, requester, auditor
/case        a case file in -> what is asked -> approve or deny -> the signed answer
/ask         choose a face, say why -> the signed request
/recover     an approved case and the recipient's key -> the recovered face
/log         verify, read the entries, cosign a head
"""

import base64
import binascii
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

from diffpriv.jobs.desk import steps
from diffpriv.jobs.desk.forms import Form
from diffpriv.jobs.desk.steps import Places
from diffpriv.jobs.desk.texts import LANGUAGES, translator
from diffpriv.jobs.output import clean
from diffpriv.keys.audit.events import KINDS
from diffpriv.keys.errors import DiffPrivError, MisuseError

_HERE = Path(__file__).parent
PAGES = ("/", "/case", "/ask", "/recover", "/log")
STYLE = (_HERE / "templates" / "desk.css").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Page:
    """A page and its HTTP status."""

    status: int
    html: str


class Desk:
    """Pages for the places that a desk was started with. Nothing changes between two requests."""

    def __init__(self, places: Places) -> None:
        self._places = places

    def get(self, path: str, language: str, form_token: str) -> Page:
        """A page that asks for something."""
        if path not in PAGES:
            return self.refusal(404, "refused_page", language)
        values: dict[str, Any] = {"faces": None} if path == "/ask" else {}
        return self._page(path.strip("/") or "home", language, form_token, **values)

    def post(self, path: str, form: Form, language: str, form_token: str) -> Page:
        """A page that does what a form asks. What can't be done is said, and nothing is kept."""
        does = {
            "/case": self._case,
            "/decide": self._decide,
            "/faces": self._faces,
            "/ask": self._ask,
            "/recover": self._recover,
            "/verify": self._verify,
            "/entries": self._entries,
            "/witness": self._witness,
        }.get(path)
        if does is None:
            return self.refusal(404, "refused_page", language)
        try:
            template, values = does(form)
        except DiffPrivError as error:
            return self.error(error, language, form_token)
        return self._page(template, language, form_token, **values)

    def error(self, error: DiffPrivError, language: str, form_token: str) -> Page:
        """What went wrong, in the words of the commands."""
        return self._page("error", language, form_token, status=400, error=error)

    def refusal(self, status: int, why: str, language: str) -> Page:
        """For who is not in the session: no page of the desk, and no way to one."""
        return self._page("refused", language, "", status=status, why=why)

    def _case(self, form: Form) -> tuple[str, dict[str, Any]]:
        data = form.file("file")
        shown = steps.describe(steps.read_case(data), self._places)
        return "decide", {"case": shown, "file": base64.b64encode(data).decode(), "logged": self._logged}

    def _decide(self, form: Form) -> tuple[str, dict[str, Any]]:
        decision = form["decision"]
        if decision not in ("approve", "deny") or form["read"] != "yes":
            raise MisuseError("choose yes or no, and say that you have read the request.")
        asked = steps.read_case(_travelled(form["case"]))
        signed, state = steps.decide(
            asked, "approve" if decision == "approve" else "deny", _key(form), form.text.get("passphrase", ""), self._places
        )
        return "signed", {"decision": decision, "state": state, "case": asked.case, "file": _download(signed)}

    def _faces(self, form: Form) -> tuple[str, dict[str, Any]]:
        found = steps.faces_to_ask(self._places, form["text"])
        faces = [(steps.name_of_face(face), f"{face.shard} / {face.sample}, {face.face_index}") for face in found]
        return "ask", {"faces": faces, "most": steps.MAX_LISTED, "logged": self._logged}

    def _ask(self, form: Form) -> tuple[str, dict[str, Any]]:
        signed, asked, run_key = steps.ask(
            form["face"], form["purpose"], form["days"], _key(form), form.text.get("passphrase", ""), self._places
        )
        return "asked", {"case": asked.case, "quorum": asked.quorum, "file": _download(signed), "run_key": _download(run_key)}

    def _recover(self, form: Form) -> tuple[str, dict[str, Any]]:
        asked = steps.read_case(form.file("file"))
        secrets = (form.text.get("passphrase", ""), form.text.get("office_passphrase", ""))
        done = steps.recover(asked, _key(form), *secrets, form.file("run_key"), form.files.get("answers", []), self._places)
        pictures = [(one, _image(steps.picture(one.crop_file))) for one in done.faces]
        return "recovered", {"done": done, "pictures": pictures}

    def _verify(self, form: Form) -> tuple[str, dict[str, Any]]:
        return "log", {"report": steps.verify(self._places), "entries": None}

    def _entries(self, form: Form) -> tuple[str, dict[str, Any]]:
        return "log", {"report": None, "entries": steps.entries(self._places, form["kind"], form["case_starts"])}

    def _witness(self, form: Form) -> tuple[str, dict[str, Any]]:
        line = steps.witness(self._places, form.file("head"), _key(form), form.text.get("passphrase", ""))
        return "log", {"cosignature": _download(line, "text/plain"), "entries": None}

    @property
    def _logged(self) -> bool:
        """Whether the desk enters what is signed into the log itself."""
        return self._places.audit is not None and self._places.log_key is not None

    @cached_property
    def _templates(self) -> jinja2.Environment:
        environment = jinja2.Environment(
            autoescape=True,
            finalize=_harmless,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            loader=jinja2.FileSystemLoader(_HERE / "templates"),
        )
        environment.filters |= {"image": _image, "moment": _moment}
        return environment

    def _page(self, template: str, language: str, form_token: str, *, status: int = 200, **values: Any) -> Page:
        fixed = {"t": translator(language), "language": language, "languages": LANGUAGES, "form_token": form_token}
        fixed |= {"kinds": tuple(KINDS), "logged": self._logged}
        defaults = {"report": None, "entries": None, "cosignature": "", "page": template}
        style = markupsafe.Markup(STYLE)  # noqa: S704 - our own style sheet
        html = self._templates.get_template(f"{template}.html").render(defaults | fixed | {"style": style} | values)
        return Page(status, html)


def _harmless(value: Any) -> Any:
    """What is shown, without control characters and marks that turn text around: names come from other people's files."""
    return clean(value) if isinstance(value, str) and not isinstance(value, markupsafe.Markup) else value


def _travelled(text: str) -> bytes:
    """A case that came back in a form, byte for byte as it was shown."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise MisuseError("the case in this form was altered; open its file again.") from None


def _key(form: Form) -> bytes:
    return form.file("key")


def _download(data: bytes, kind: str = "application/json") -> str:
    return "" if not data else f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _moment(iso: str) -> str:
    """A log's time as people write it; always UTC, since custodians sit in several places."""
    return iso.replace("T", " ").replace("Z", " UTC")


def _image(data: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(data).decode()}"
