"""The key file: all sealed records of one shard, one Parquet file.

Columns, one row per face, ordered by (sample's place in the shard, face index):
    sample       string           the sample's __key__
    face_index   int32            0, 1, ...
    part         int32            index into the header's "parts": which shard key the record is sealed under
    record       binary, nullable the sealed record (keys/sealing.py); null once shredded
    shredded_at  int64, nullable  seconds since 1970 UTC at which the record was destroyed; null while it lives
File metadata key "diffpriv.key_file": JSON, sorted keys, no spaces:
    {"format": "diffpriv key file", "version": 1, "dataset", "shard", "config_digest", "faces": number of rows,
     "recipients": [[fingerprint, kind], ...],
     "parts": [{"commitment": base64 of 32 bytes, "wraps": [base64 per recipient]}, ...]}
A part all of whose rows are shredded has "wraps": []. Anyone can rewrite the unsealed columns, so a reader trusts none of them:
the records and wraps are bound to dataset, shard, configuration, sample and face index, and the SHA-256 of the whole
file is in the audit log.
"""

import base64
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from keys.context import ShardContext
from keys.errors import KeyFileError, MisuseError, RecordError, ShreddedError, UnknownFaceError, WrongRecipientError
from keys.lockbox import canonical_json
from keys.recipients import Recipient, Unwrapper
from keys.sealing import OpenedFace, SealedPart, commitment_fits, open_record, wrap_context
from keys.secrets import ShardKey

if TYPE_CHECKING:
    import pyarrow

_METADATA_KEY = b"diffpriv.key_file"
_FORMAT = "diffpriv key file"
Face = tuple[str, int]  # (sample, face_index)


@dataclass(frozen=True)
class Part:
    """One shard key of the file: its commitment, and one wrap per recipient (none once all its rows are shredded)."""

    commitment: bytes
    wraps: tuple[bytes, ...]


def build_key_file(context: ShardContext, parts: Sequence[SealedPart], sample_order: Iterable[str] | None = None) -> bytes:
    """The bytes of a shard's key file.

    Args:
        parts: of this context, all sealed to the same recipients.
        sample_order: the samples' order in the shard; by default the order in which the parts name them.
    Raises:
        KeyFileError: a part of another shard, other recipients, or a face that occurs twice.
    """
    if any(part.context != context for part in parts):
        raise KeyFileError(f"a part sealed for another shard was handed to the key file of {context.shard}.")
    if len({part.recipients for part in parts}) > 1:
        raise KeyFileError(f"the parts of {context.shard} were sealed to different recipients.")
    place: dict[str, int] = {}
    for name in sample_order if sample_order is not None else (name for part in parts for name in part.samples):
        place.setdefault(name, len(place))
    rows = [
        (sample, index, number, record)
        for number, part in enumerate(parts)
        for sample, index, record in zip(part.samples, part.face_indices, part.records, strict=True)
    ]
    try:
        rows.sort(key=lambda row: (place[row[0]], row[1]))
    except KeyError as error:
        raise KeyFileError(f"{context.shard} has a sealed face of sample {error.args[0]}, which is not in the shard.") from None
    for one, other in pairwise(rows):
        if one[:2] == other[:2]:
            raise KeyFileError(f"face {one[1]} of sample {one[0]} of {context.shard} was sealed twice.")
    columns = [list(column) for column in zip(*rows, strict=True)] if rows else [[], [], [], []]
    header_parts = [Part(part.commitment, part.wraps) for part in parts]
    recipients = list(parts[0].recipients) if parts else []
    return _write(context, recipients, header_parts, _table(*columns, [None] * len(rows)))


class KeyFile:
    """A parsed key file. Parsing checks the layout only; `open_face` and the audit log check everything else."""

    def __init__(
        self, context: ShardContext, recipients: list[tuple[str, str]], parts: list[Part], table: "pyarrow.Table"
    ) -> None:
        self.context = context
        self.recipients = recipients  # (fingerprint, kind)
        self.parts = parts
        self._table = table

    @classmethod
    def parse(cls, data: bytes, *, dataset: str | None = None, shard: str | None = None) -> "KeyFile":
        """Read a key file's bytes; `dataset` and `shard` are what the caller believes it to be.

        Raises: KeyFileError naming the shard and what is wrong.
        """
        import pyarrow
        import pyarrow.parquet

        where = f"the key file of {shard}" if shard else "the key file"
        try:
            file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data))
            metadata = file.metadata.metadata or {}
            if _METADATA_KEY not in metadata:
                raise ValueError("it is a Parquet file, but not one of keys")
            header = json.loads(metadata[_METADATA_KEY])
            table = file.read()
            if header["format"] != _FORMAT or header["version"] != 1:
                raise ValueError("not a key file of version 1")
            if not all(isinstance(header[name], str) for name in ("dataset", "shard", "config_digest")):
                raise ValueError("its header names no dataset, shard and configuration")
            context = ShardContext(header["dataset"], header["shard"], header["config_digest"])
            recipients = [(str(fingerprint), str(kind)) for fingerprint, kind in header["recipients"]]
            parts = [_parse_part(part, len(recipients)) for part in header["parts"]]
            if table.schema.remove_metadata() != _schema():
                raise ValueError("its columns are not those of a key file")
            if header["faces"] != table.num_rows:
                raise ValueError(f"it has {table.num_rows} rows where its header says {header['faces']}")
            _check_rows(table, len(parts))
        except (ValueError, KeyError, TypeError, AttributeError, OSError, pyarrow.ArrowException) as error:
            raise KeyFileError(f"{where} is damaged: {_first_line(error)}.") from error
        if (dataset is not None and context.dataset != dataset) or (shard is not None and context.shard != shard):
            raise KeyFileError(
                f"{where} of dataset {dataset} is really that of {context.shard} of dataset {context.dataset}: "
                "files were swapped or renamed."
            )
        return cls(context, recipients, parts, table)

    def __len__(self) -> int:
        return self._table.num_rows

    @property
    def sealed_to(self) -> list[str]:
        """Fingerprints of the recipients."""
        return [fingerprint for fingerprint, _ in self.recipients]

    def faces(self) -> list[Face]:
        """(sample, face index) of every row, shredded ones too, in the file's order."""
        return list(zip(self._table["sample"].to_pylist(), self._table["face_index"].to_pylist(), strict=True))

    def shredded(self) -> dict[Face, int]:
        """When each shredded face was shredded."""
        dates = self._table["shredded_at"].to_pylist()
        return {face: at for face, at in zip(self.faces(), dates, strict=True) if at is not None}

    def open_face(self, sample: str, face_index: int, recipient_key: Unwrapper) -> OpenedFace:
        """Open one face's record.

        Raises:
            UnknownFaceError, ShreddedError, WrongRecipientError, RecordError: each names the face or the shard.
        """
        row = self.check_openable(sample, face_index, recipient_key.fingerprint)
        shard_key = self.shard_key(row["part"], recipient_key)
        return open_record(shard_key, self.context.face(sample, face_index), row["record"])

    def check_openable(self, sample: str, face_index: int, fingerprint: str) -> dict[str, Any]:
        """The face's row. Raises as `open_face` does for what can be known without unwrapping anything."""
        row = self._row(sample, face_index)
        if row["record"] is None:
            day = datetime.fromtimestamp(row["shredded_at"], timezone.utc).date().isoformat()
            where = f"face {face_index} of sample {sample} in {self.context.shard}"
            raise ShreddedError(f"{where} was shredded on {day}; it can't be recovered.")
        self.check_recipient(fingerprint)
        return row

    def check_recipient(self, fingerprint: str) -> int:
        """The recipient's place. Raises: WrongRecipientError. Unwraps nothing, so it can be asked before a release."""
        if fingerprint not in self.sealed_to:
            sealed = ", ".join(f"{one[:8]}…" for one in self.sealed_to) or "nobody"
            raise WrongRecipientError(
                f"{self.context.shard} was sealed to recipients {sealed}; this key is {fingerprint[:8]}….",
                advice='Ask a holder of one of those, or have them run "diffpriv keys rotate" to add this one.',
            )
        return self.sealed_to.index(fingerprint)

    def shard_key(self, part: int, recipient_key: Unwrapper) -> ShardKey:
        """Unwrap one part's shard key. Raises: WrongRecipientError, RecordError naming shard and part."""
        place = self.check_recipient(recipient_key.fingerprint)
        one = self.parts[part]
        where = f"the shard key of part {part} in {self.context.shard} of dataset {self.context.dataset}"
        if not one.wraps:
            raise RecordError(f"{where} was destroyed, but a record under it was not; the key file was altered.")
        try:
            key = recipient_key.unwrap(one.wraps[place], wrap_context(self.context, one.commitment))
        except RecordError:
            raise RecordError(f"{where} can't be unwrapped: altered, or of another dataset or shard.") from None
        if not commitment_fits(key, one.commitment):
            raise RecordError(f"{where} does not fit its commitment: it was swapped for another key.")
        return key

    def check_all(self, recipient_key: Unwrapper) -> int:
        """Open every living record and forget it; the number that opened. Raises at the first that does not, as `open_face`."""
        opened: dict[int, ShardKey] = {}
        living = 0
        for row in self._table.to_pylist():
            if row["record"] is None:
                continue
            part = row["part"]
            if part not in opened:
                opened[part] = self.shard_key(part, recipient_key)
            open_record(opened[part], self.context.face(row["sample"], row["face_index"]), row["record"])
            living += 1
        return living

    def rewrapped(self, add: Sequence[Recipient], remove: Collection[str], recipient_key: Unwrapper | None = None) -> bytes:
        """The file with recipients added and removed (by fingerprint); not one record changes.

        Wraps of recipients that stay are kept as they are. Only adding needs `recipient_key`, to unwrap the shard keys once.
        Raises: MisuseError if nobody would be left, or a key is needed and missing; as `shard_key` does.
        """
        kept = [place for place, fingerprint in enumerate(self.sealed_to) if fingerprint not in remove]
        new = [one for one in add if one.fingerprint not in self.sealed_to]
        if not kept and not new:
            raise MisuseError(f"nobody could open {self.context.shard} any more.", advice="Add a recipient in the same step.")
        if new and recipient_key is None:
            raise MisuseError("adding a recipient takes the private key of a present one.")
        parts = []
        for number, part in enumerate(self.parts):
            wraps: tuple[bytes, ...] = ()
            if part.wraps:
                wraps = tuple(part.wraps[place] for place in kept)
                if new and recipient_key is not None:
                    key = self.shard_key(number, recipient_key)
                    info = wrap_context(self.context, part.commitment)
                    wraps += tuple(recipient.wrap(key, info) for recipient in new)
            parts.append(Part(part.commitment, wraps))
        recipients = [self.recipients[place] for place in kept] + [(one.fingerprint, one.kind) for one in new]
        return _write(self.context, recipients, parts, self._table)

    def without(self, selected: Callable[[Face], bool], now: int) -> tuple[bytes, list[Face]]:
        """The file with the selected living records destroyed, and which those were (none: the bytes are not to be used)."""
        samples, indices, numbers, records, dates = (self._table[name].to_pylist() for name in _COLUMNS)
        destroyed = []
        for row, face in enumerate(zip(samples, indices, strict=True)):
            if records[row] is not None and selected(face):
                records[row], dates[row] = None, now
                destroyed.append(face)
        alive = {number for number, record in zip(numbers, records, strict=True) if record is not None}
        # The wraps of a part without living rows go too: the shard key dies with its last face.
        parts = [part if number in alive else Part(part.commitment, ()) for number, part in enumerate(self.parts)]
        return _write(self.context, self.recipients, parts, _table(samples, indices, numbers, records, dates)), destroyed

    def _row(self, sample: str, face_index: int) -> dict[str, Any]:
        from pyarrow import compute

        rows = self._table.filter(compute.equal(self._table["sample"], sample)).to_pylist()
        found = [row for row in rows if row["face_index"] == face_index]
        if not found:
            known = ", ".join(str(row["face_index"]) for row in rows)
            has = f"its faces are {known}" if rows else "the sample has no face on record"
            raise UnknownFaceError(f"{self.context.shard} has no record of face {face_index} of sample {sample}; {has}.")
        if len(found) > 1:
            where = f"{self.context.shard} has {len(found)} records of face {face_index} of sample {sample}"
            raise KeyFileError(f"{where}: a row was doubled.")
        return found[0]


_COLUMNS = ("sample", "face_index", "part", "record", "shredded_at")


def _schema() -> "pyarrow.Schema":
    import pyarrow

    return pyarrow.schema(
        [
            pyarrow.field("sample", pyarrow.string(), nullable=False),
            pyarrow.field("face_index", pyarrow.int32(), nullable=False),
            pyarrow.field("part", pyarrow.int32(), nullable=False),
            pyarrow.field("record", pyarrow.binary()),
            pyarrow.field("shredded_at", pyarrow.int64()),
        ]
    )


def _table(*columns: Sequence[Any]) -> "pyarrow.Table":
    import pyarrow

    return pyarrow.Table.from_arrays(
        [pyarrow.array(column, field.type) for column, field in zip(columns, _schema(), strict=True)], schema=_schema()
    )


def _write(
    context: ShardContext, recipients: Sequence[tuple[str, str]], parts: Sequence[Part], table: "pyarrow.Table"
) -> bytes:
    import pyarrow
    import pyarrow.parquet

    header = {
        "format": _FORMAT,
        "version": 1,
        "dataset": context.dataset,
        "shard": context.shard,
        "config_digest": context.config_digest,
        "faces": table.num_rows,
        "recipients": [list(one) for one in recipients],
        "parts": [{"commitment": _b64(part.commitment), "wraps": [_b64(wrap) for wrap in part.wraps]} for part in parts],
    }
    sink = pyarrow.BufferOutputStream()
    with pyarrow.parquet.ParquetWriter(
        sink,
        _schema(),
        version="2.6",
        store_schema=False,
        write_statistics=False,  # they would repeat sample names for nothing
        use_dictionary=["part", "face_index"],
        column_encoding={"sample": "DELTA_BYTE_ARRAY"},
        # Sealed bytes don't compress; names and numbers do.
        compression={"sample": "zstd", "face_index": "zstd", "part": "zstd", "record": "none", "shredded_at": "zstd"},
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({_METADATA_KEY: canonical_json(header)})
    return sink.getvalue().to_pybytes()


def _parse_part(part: dict[str, Any], recipients: int) -> Part:
    commitment = base64.b64decode(part["commitment"], validate=True)
    wraps = tuple(base64.b64decode(wrap, validate=True) for wrap in part["wraps"])
    if len(commitment) != 32 or len(wraps) not in (0, recipients):
        raise ValueError("its list of wrapped shard keys is incomplete")
    return Part(commitment, wraps)


def _check_rows(table: "pyarrow.Table", parts: int) -> None:
    from pyarrow import compute

    if table.num_rows == 0:
        return
    part = compute.min_max(table["part"]).as_py()
    if part["min"] < 0 or part["max"] >= parts:
        raise ValueError("a row names a shard key that the header lacks")
    if compute.min(table["face_index"]).as_py() < 0:
        raise ValueError("a row has a negative face index")
    dead, dated = compute.is_null(table["record"]), compute.is_valid(table["shredded_at"])
    if not compute.all(compute.equal(dead, dated)).as_py():
        raise ValueError("a row is neither sealed nor shredded")


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
