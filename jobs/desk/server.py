"""Who may talk to the desk, and how. Checked in this order, before a form is read:

1. The socket listens on 127.0.0.1 alone.
2. `Host` is the desk's own address: a name that somebody's DNS points here (rebinding) is refused.
3. A session: the token of the printed URL buys one cookie, once; a second use is refused. Cookie: HttpOnly, SameSite=Strict.
4. A form comes from the desk's own page: `Origin` is ours and the hidden form token fits.
5. A body has a length, and not more than MAX_BODY.
Answers carry no script and allow none, are not cached, not framed, and name no referrer. Requests are not logged.
"""

import base64
import hashlib
import hmac
import secrets
import sys
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from diffpriv.jobs.desk.forms import MAX_BODY, Form, parse_form
from diffpriv.jobs.desk.pages import PAGES, STYLE, Desk, Page
from diffpriv.jobs.desk.texts import LANGUAGES, preferred
from diffpriv.keys.errors import MisuseError

SECONDS = 30  # until a silent connection is dropped
_COOKIE, _LANGUAGE = "diffpriv-desk", "diffpriv-language"


@dataclass
class Session:
    """The one session of a desk. `token` is empty once it was used."""

    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    cookie: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    form_token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    def open(self, token: str) -> bool:
        """Whether the token opens the session; it does so once."""
        fits = bool(self.token) and hmac.compare_digest(self.token.encode(), token.encode())
        if fits:
            self.token = ""
        return fits


class DeskServer(ThreadingHTTPServer):
    """Serves a desk on a port of the loopback interface. `url` holds the one-time token: hand it to the browser alone."""

    daemon_threads = True

    def __init__(self, desk: Desk, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.desk, self.session = desk, Session()
        self.host = f"127.0.0.1:{self.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.host}/?token={self.session.token}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A fault of the desk, named and no more: a traceback's values could be a form's."""
        print(f"diffpriv desk: {type(sys.exc_info()[1]).__name__}", file=sys.stderr)


class _Handler(BaseHTTPRequestHandler):
    server: DeskServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "diffpriv-desk", ""
    timeout = SECONDS

    def do_GET(self) -> None:
        if not self._own_host():
            return
        path, _, asked = self.path.partition("?")  # never a URL of its own, and a malformed one is no fault
        query = parse_qs(asked)
        if "token" in query:
            self._enter(query["token"][0])
            return
        if not self._in_session():
            return
        if "lang" in query and query["lang"][0] in LANGUAGES:
            self._redirect(path if path in PAGES else "/", f"{_LANGUAGE}={query['lang'][0]}; HttpOnly; SameSite=Strict; Path=/")
            return
        self._answer(self.server.desk.get(path, self._language(), self.server.session.form_token))

    def do_POST(self) -> None:
        self.close_connection = True  # a refused body stays unread
        if not self._own_host() or not self._in_session():
            return
        if self.headers.get("Origin") != f"http://{self.server.host}":
            self._refuse(403, "refused_origin")
            return
        form = self._form()
        if form is None:
            return
        if not hmac.compare_digest(form["form_token"].encode(), self.server.session.form_token.encode()):
            self._refuse(403, "refused_origin")
            return
        path = self.path.partition("?")[0]
        self._answer(self.server.desk.post(path, form, self._language(), self.server.session.form_token))

    def _own_host(self) -> bool:
        if self.headers.get_all("Host") == [self.server.host]:
            return True
        self._refuse(421, "refused_host")
        return False

    def _enter(self, token: str) -> None:
        if not self.server.session.open(token):
            self._refuse(403, "refused_token")
            return
        self._redirect("/", f"{_COOKIE}={self.server.session.cookie}; HttpOnly; SameSite=Strict; Path=/")

    def _in_session(self) -> bool:
        if hmac.compare_digest(self._cookie(_COOKIE).encode(), self.server.session.cookie.encode()):
            return True
        self._refuse(403, "refused_session")
        return False

    def _form(self) -> Form | None:
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or self.headers.get("Transfer-Encoding"):
            self._refuse(411, "refused_form")
            return None
        if len(length) > 12 or int(length) > MAX_BODY:
            self._refuse(413, "refused_size")
            return None
        body = self.rfile.read(int(length))
        try:
            return parse_form(self.headers.get("Content-Type", ""), body)
        except MisuseError as error:
            self._answer(self.server.desk.error(error, self._language(), self.server.session.form_token))
            return None

    def _cookie(self, name: str) -> str:
        try:
            found = SimpleCookie(self.headers.get("Cookie", "")).get(name)
        except CookieError:
            return ""
        return found.value if found is not None else ""

    def _language(self) -> str:
        chosen = self._cookie(_LANGUAGE)
        return chosen if chosen in LANGUAGES else preferred(self.headers.get("Accept-Language", ""))

    def _refuse(self, status: int, why: str) -> None:
        self._answer(self.server.desk.refusal(status, why, self._language()))

    def _redirect(self, path: str, cookie: str) -> None:
        self.send_response(303)
        self.send_header("Location", path)
        self.send_header("Set-Cookie", cookie)
        self._guards()
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _answer(self, page: Page) -> None:
        body = page.html.encode()
        self.send_response(page.status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self._guards()
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _guards(self) -> None:
        style = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
        policy = f"default-src 'none'; img-src data:; style-src 'sha256-{style}'; form-action 'self'"
        self.send_header("Content-Security-Policy", f"{policy}; base-uri 'none'; frame-ancestors 'none'")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "same-origin")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: an address could hold the token."""
