"""A posted form (multipart/form-data, RFC 7578) as text fields and files, bounded before anything is made of it."""

import email.parser
import email.policy
from dataclasses import dataclass, field

from diffpriv.keys.errors import MisuseError

MAX_BODY = 4 << 20
MAX_PARTS = 24
MAX_TEXT = 8_000
MAX_CASE_TEXT = 3 << 20


@dataclass(frozen=True)
class Form:
    """What was posted. `text`: fields by name; `files`: contents of the files that were chosen, by field name."""

    text: dict[str, str] = field(default_factory=dict, repr=False)
    files: dict[str, list[bytes]] = field(default_factory=dict, repr=False)

    def file(self, name: str) -> bytes:
        """The one file of a field; b"" where none was chosen."""
        return self.files.get(name, [b""])[0]

    def __getitem__(self, name: str) -> str:
        return self.text.get(name, "").strip()


def parse_form(content_type: str, body: bytes) -> Form:
    """Raises: MisuseError for anything but a small, well-formed form."""
    if not content_type.lower().startswith("multipart/form-data"):
        raise MisuseError("what was sent is not a form.")
    if len(body) > MAX_BODY:
        raise MisuseError(f"what was sent has {len(body)} bytes; the desk takes {MAX_BODY}.")
    head = f"Content-Type: {content_type}\r\nMIME-Version: 1.0\r\n\r\n".encode("latin-1", "replace")
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    if not message.is_multipart():
        raise MisuseError("what was sent is not a form.")
    parts = list(message.iter_parts())
    if len(parts) > MAX_PARTS:
        raise MisuseError("the form has too many fields.")
    text: dict[str, str] = {}
    files: dict[str, list[bytes]] = {}
    for part in parts:
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if not isinstance(name, str) or not isinstance(content, bytes):
            raise MisuseError("a field of the form has no name or no content.")
        if part.get_filename() is not None:
            if content:
                files.setdefault(name, []).append(content)
            continue
        if len(content) > (MAX_CASE_TEXT if name == "case" else MAX_TEXT):
            raise MisuseError(f"the field {name[:40]!r} is too long.")
        try:
            text[name] = content.decode("utf-8")
        except UnicodeDecodeError:
            raise MisuseError(f"the field {name[:40]!r} is not text.") from None
    return Form(text, files)
