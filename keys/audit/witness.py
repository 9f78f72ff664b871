"""A witness over HTTP, by the C2SP tlog-witness protocol (https://c2sp.org/tlog-witness), and the sequencer's side of it.

POST <prefix>/add-checkpoint, body: "old <size>\\n", the consistency proof's hashes in base64, one a line, an empty line, the
checkpoint. 200: cosignature lines. 400 malformed, 403 not signed by the log, 404 a log this witness does not know, 409 with the
size that it saw last (text/x.tlog.size) where that is not `old`, 422 the proof does not hold.
What was seen last of each log lies in a folder of the witness's own. `Witness.add_checkpoint` knows no network; `serve` listens
on the loopback only: put a TLS proxy before it, or carry files instead (`keys.audit.proofs.witness`).
"""

import base64
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from diffpriv.keys.audit.checkpoint import open_checkpoint
from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.audit.merkle import consistency_proof, verify_consistency
from diffpriv.keys.audit.proofs import last_seen, remember
from diffpriv.keys.audit.tiles import TileReader
from diffpriv.keys.errors import AuditError, MisuseError, StorageError
from diffpriv.keys.notes import COSIGNATURE, NoteKey, NoteVerifier

PATH = "/add-checkpoint"
_MAX_BODY = 64 * 1024
_TIMEOUT = 20.0


class Answer(NamedTuple):
    """A reply over HTTP."""

    status: int
    body: bytes
    kind: str = "text/plain"


class Witness:
    """Cosigns the heads of the logs it knows, each only if it extends the last one it cosigned.

    Args:
        memory: folder of its own, made if it is not there.
    """

    def __init__(self, key: NoteKey, logs: Sequence[NoteVerifier], memory: Path) -> None:
        if key.type != COSIGNATURE:
            raise MisuseError("a witness signs with a witness key, not with a log's.")
        self._key, self._logs, self._memory = key, {log.name: log for log in logs}, memory
        self._one_at_a_time = threading.Lock()
        memory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def add_checkpoint(self, body: bytes, now: int) -> Answer:
        """One request's answer. Raises: StorageError if the memory can't be kept: nothing is signed then."""
        try:
            head, _, note = body.partition(b"\n\n")
            old_line, *lines = head.decode().split("\n")
            old = int(old_line.removeprefix("old "))
            hashes = [base64.b64decode(line, validate=True) for line in lines]
            origin = note.partition(b"\n")[0].decode()
            if old_line != f"old {old}" or old < 0 or not note or len(hashes) > 63:
                raise ValueError("not a request of tlog-witness")
        except ValueError:
            return Answer(400, b"malformed request\n")
        log = self._logs.get(origin)
        if log is None:
            return Answer(404, b"this witness does not know that log\n")
        try:
            checkpoint = open_checkpoint(note, log)
        except AuditError:
            return Answer(403, b"the checkpoint is not signed by that log\n")
        if old > checkpoint.size:
            return Answer(400, b"the old size is larger than the checkpoint's\n")
        with self._one_at_a_time:
            place = self._memory / f"{quote(origin, safe='')}.json"
            seen, root = last_seen(place, origin)
            if old != seen or (checkpoint.size == seen and checkpoint.root != root):
                return Answer(409, f"{seen}\n".encode(), "text/x.tlog.size")
            try:
                verify_consistency(seen, checkpoint.size, root, checkpoint.root, hashes)
            except AuditError:
                return Answer(422, b"the consistency proof does not hold\n")
            remember(place, checkpoint)
        return Answer(200, self._key.signature_line(checkpoint.text, now))


def serve(witness: Witness, port: int) -> ThreadingHTTPServer:
    """A server on 127.0.0.1, to be run with `serve_forever`; port 0 takes a free one."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not self.path.endswith(PATH) or not length.isdigit() or int(length) > _MAX_BODY:
                self._say(Answer(404 if not self.path.endswith(PATH) else 400, b"not add-checkpoint\n"))
                return
            try:
                answer = witness.add_checkpoint(self.rfile.read(int(length)), int(time.time()))
            except (AuditError, StorageError):
                answer = Answer(500, b"the witness can't keep its memory\n")
            self._say(answer)

        def _say(self, answer: Answer) -> None:
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.kind)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def ask_witness(log: AuditLog, url: str, verifier: NoteVerifier) -> bytes:
    """The cosignature of the log's present head by the witness at `url`, checked; put it there with `add_cosignature`.

    Raises: AuditError if the witness refuses, or answers with something that it did not sign.
    """
    head = log.checkpoint()
    old = 0
    for _ in range(3):
        hashes = consistency_proof(old, head.size, TileReader(log.location, head.size).node)
        proof = "".join(base64.b64encode(one).decode() + "\n" for one in hashes)
        answer = _post(f"{url.rstrip('/')}{PATH}", f"old {old}\n{proof}\n".encode() + head.note)
        if answer.status == 200:
            open_checkpoint(head.note + answer.body, log.verifier, [verifier], what="the witness's answer")
            return answer.body
        if answer.status != 409 or not answer.body.strip().isdigit() or int(answer.body) in (old, head.size + 1):
            break
        old = int(answer.body)
        if old > head.size:
            break
    raise AuditError(f"the witness at {url} refuses the head of {head.size} entries: {answer.status} {answer.body[:80]!r}.")


def _post(url: str, body: bytes) -> Answer:
    if not url.startswith(("http://", "https://")):
        raise MisuseError(f"{url} is not the address of a witness.")
    try:
        request = urllib.request.Request(url, body, method="POST")  # noqa: S310 - http and https only, see above
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as reply:  # noqa: S310
            return Answer(reply.status, reply.read(_MAX_BODY))
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.read(_MAX_BODY))
    except OSError as error:
        raise AuditError(f"the witness at {url} can't be reached: {error}.") from error
