"""Consistent pseudonyms: who a sample is of, and the secret that this person's synthetic identity is drawn from.

A name stays in the process that reads it and in the rows between detection and protection; it enters no log, record or key
file. The secret root is read from its file by each protecting process (`keys.identity`).
"""

import csv
from collections.abc import Callable

from diffpriv.keys.identity import IdentityRoot
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.errors import MisuseError
from diffpriv.pipelines.face_settings import PseudonymSettings
from diffpriv.pipelines.records.samples import Sample


class Pseudonyms:
    """Identity seeds of one dataset's people."""

    def __init__(self, root: IdentityRoot, dataset: str) -> None:
        self._root, self._dataset = root, dataset

    def seed(self, person: str) -> bytes:
        return self._root.identity_seed(self._dataset, person)


def load_pseudonyms(config: JobConfig) -> Pseudonyms | None:
    """None where every face gets an identity of its own.

    Raises:
        MisuseError: the root cannot be read, or is not the one this job began with.
    """
    settings = config.pseudonym
    if not settings.source:
        return None
    root = IdentityRoot.load(settings.root)
    if settings.root_id and root.id != settings.root_id:
        raise MisuseError(f"{settings.root} is another identity root than this job's.", advice="Give the one it began with.")
    return Pseudonyms(root, config.dataset)


def person_namer(settings: PseudonymSettings) -> Callable[[Sample], str]:
    """sample -> the person's name, or "" where none is given: such faces get an identity of their own.

    Raises:
        MisuseError: the mapping cannot be read.
    """
    if not settings.source:
        return lambda sample: ""
    if settings.source == "folder":
        return _folder
    if settings.field:
        field = settings.field
        return lambda sample: _name(sample.facts.get(field))
    mapping = read_mapping(settings.source)
    return lambda sample: mapping.get(sample.key, "")


def _folder(sample: Sample) -> str:
    """The folder that the sample lies in: of `lfw/Ada/0001.jpg` it is `lfw/Ada`."""
    return sample.key.rpartition("/")[0]


def _name(value: object) -> str:
    """Text and whole numbers name somebody; anything else does not."""
    return str(value).strip() if isinstance(value, (str, int)) and not isinstance(value, bool) else ""


def read_mapping(path: str) -> dict[str, str]:
    """sample key -> person, from a CSV file with a header that has these two columns, `sample` and `person`.

    Raises:
        MisuseError: it cannot be read, has no such columns, or names one sample twice.
    """
    people: dict[str, str] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            rows = csv.DictReader(handle)
            if not {"sample", "person"} <= set(rows.fieldnames or ()):
                raise MisuseError(f"{path} has no columns sample and person.", advice="Its first line must name them.")
            for row in rows:
                if people.setdefault(row["sample"], (row["person"] or "").strip()) != (row["person"] or "").strip():
                    raise MisuseError(f"{path} gives one sample to two people (line {rows.line_num}).")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MisuseError(f"the mapping {path} cannot be read: {error}.") from None
    return people
