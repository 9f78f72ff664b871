"""Parquet shards: rows are samples, and pictures are binary values or Hugging Face image structs {bytes, path}.

A sample's key is its row number, nine digits: no column is known to be unique. Fields are column names. Row groups, the schema
with its metadata, compression and every other column's values stay; rows in quarantine are left out. A file in which nothing
changes is copied whole.

Looked at: every top-level column of binary type or of the image struct. Binary values nested deeper (lists of pictures, maps)
are refused for the whole shard rather than passed on unseen.
"""

import json
from collections.abc import Iterator
from typing import Any

from keys.errors import StorageError
from pipelines.errors import ShardError
from pipelines.facts import pick, roots
from pipelines.formats import MAX_PICTURE_BYTES, SNIFF_BYTES, Assembled, Edits, OutputFile, Shard, is_picture
from pipelines.samples import Picture, QuarantinedSample, Sample, ShardEnd
from pipelines.sidecars import SidecarCount, is_telling, looks_inside, scan_schema, scan_values
from pipelines.storage import CHUNK, Folder, HashingWriter

PICTURE_COLUMNS = frozenset({"image", "img", "picture", "photo"})  # their values must be pictures, besides names like "jpg"
SCAN_ROWS = 1024  # of text and lists, looked at for sidecars
READ_ROWS = 64  # rows decoded at a time: pictures of a few MB each must not add up


class ParquetFormat:
    """See `formats.ShardFormat`. A shard is one file."""

    def read(
        self, source: Folder, shard: Shard, wanted: frozenset[str] = frozenset()
    ) -> Iterator[Sample | QuarantinedSample | ShardEnd]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        count = 0
        sidecars = SidecarCount()
        try:
            with source.open(shard.files[0].name) as handle, pq.ParquetFile(handle) as file:
                columns = _picture_columns(file.schema_arrow)
                beside = sorted(roots(wanted) & set(file.schema_arrow.names) - set(columns))
                asked = [*columns, *beside]
                rows = file.iter_batches(batch_size=READ_ROWS, columns=asked) if asked else _bare(file.metadata.num_rows)
                for batch in rows:
                    for row in batch.to_pylist():
                        yield _sample(shard.name, count, columns, row, wanted)
                        count += 1
                sidecars.add(_beside(file, columns), count)
        except (ShardError, StorageError) as error:
            yield ShardEnd(shard.name, count, str(error))
            return
        except (pa.ArrowException, OSError, ValueError) as error:
            yield ShardEnd(shard.name, count, f"the Parquet file cannot be read: {_first_line(error)}.")
            return
        yield ShardEnd(shard.name, count, "" if count else "the Parquet file holds no rows.", sidecars.items())

    def assemble(self, source: Folder, shard: Shard, edits: Edits, target: Folder, staging: str) -> Assembled:
        import pyarrow as pa
        import pyarrow.parquet as pq

        name, staged = shard.files[0].name, f"{staging}/output"
        source_digest = source.sha256(name)
        try:
            with source.open(name) as handle, pq.ParquetFile(handle) as file, target.writing(staged) as out:
                hashed = HashingWriter(out)
                doomed = _telling_columns(file) if edits.drop_sidecars else []
                if not edits.dropped and not edits.changed and not doomed:
                    kept = file.metadata.num_rows
                    handle.seek(0)
                    while chunk := handle.read(CHUNK):
                        hashed.write(chunk)
                else:
                    kept = _rewrite(file, pa.PythonFile(_Sink(hashed), mode="w"), edits, doomed)
        except pa.ArrowException as error:
            raise ShardError(f"{shard.name}: the Parquet file cannot be copied: {_first_line(error)}.") from None
        return Assembled((OutputFile(staged, shard.name, hashed.sha256(), hashed.size),), kept, source_digest)


def _telling_columns(file: Any) -> list[str]:
    """Columns that rule "drop" leaves out."""
    pictures = _picture_columns(file.schema_arrow)
    others = [name for name in file.schema_arrow.names if name not in pictures]
    return [name for name in others if is_telling(_beside(file, [one for one in file.schema_arrow.names if one != name]))]


def _without_columns(schema: Any, doomed: list[str]) -> Any:
    """The schema without them; Hugging Face's description of the columns, which its loader insists on, follows."""
    import pyarrow as pa

    metadata = dict(schema.metadata or {})
    try:
        described = json.loads(metadata[b"huggingface"])
        features = described["info"]["features"]
        described["info"]["features"] = {name: one for name, one in features.items() if name not in doomed}
        metadata[b"huggingface"] = json.dumps(described).encode()
    except (KeyError, ValueError, TypeError, AttributeError):
        pass  # there is none
    return pa.schema([field for field in schema if field.name not in doomed], metadata or None)


def _beside(file: Any, pictures: list[str]) -> list[str]:
    """Findings of the other columns: by name and type, and by value where the type leaves it open."""
    schema = file.schema_arrow
    found = set(scan_schema(schema, pictures))
    inside = [column.name for column in schema if column.name not in pictures and looks_inside(column.type)]
    if inside:
        for batch in file.iter_batches(batch_size=SCAN_ROWS, columns=inside):
            for name in inside:
                found.update(scan_values(name, schema.field(name).type, batch.column(batch.schema.get_field_index(name))))
    return sorted(found)


def _bare(rows: int) -> Iterator[Any]:
    """A file without any picture column still has samples."""
    import pyarrow as pa

    for start in range(0, rows, CHUNK):
        yield pa.RecordBatch.from_struct_array(pa.array([{}] * min(CHUNK, rows - start), pa.struct([])))


def _picture_columns(schema: Any) -> list[str]:
    from pyarrow import types

    if len(set(schema.names)) != len(schema.names):
        raise ShardError("the Parquet file has two columns of one name.")
    found = []
    for field in schema:
        if _is_binary(field.type) or _is_image_struct(field.type):
            found.append(field.name)
        elif types.is_nested(field.type) and _holds_binary(field.type):
            raise ShardError(
                f"column {field.name!r} nests binary values ({field.type}), which this tool does not look into.",
                advice="Move the pictures to a column of their own, or drop the column.",
            )
    return found


def _is_binary(kind: Any) -> bool:
    from pyarrow import types

    return (
        types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind) or types.is_fixed_size_binary(kind)
    )


def _is_image_struct(kind: Any) -> bool:
    from pyarrow import types

    if not types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        return False
    others = [kind.field(i).type for i in range(kind.num_fields) if kind.field(i).name != "bytes"]
    return _is_binary(kind.field("bytes").type) and not any(_is_binary(o) or _holds_binary(o) for o in others)


def _holds_binary(kind: Any) -> bool:
    return any(_is_binary(kind.field(i).type) or _holds_binary(kind.field(i).type) for i in range(kind.num_fields))


def _sample(
    shard: str, index: int, columns: list[str], row: dict[str, Any], wanted: frozenset[str]
) -> Sample | QuarantinedSample:
    pictures = []
    for column in columns:
        value, promised = row[column], column.lower() in PICTURE_COLUMNS
        if isinstance(value, dict):
            value, path, promised = value["bytes"], value.get("path"), True
            if value is None and path:
                return QuarantinedSample(shard, index, _key(index), f"its picture in {column!r} is a path to another file")
        if value is None or not (promised or is_picture(column, value[:SNIFF_BYTES])):
            continue
        if len(value) > MAX_PICTURE_BYTES:
            reason = f"its picture has {len(value)} bytes; the limit is {MAX_PICTURE_BYTES}"
            return QuarantinedSample(shard, index, _key(index), reason)
        pictures.append(Picture(column, value))
    # Through JSON: a date or a decimal is what its text says, and every engine can carry it.
    facts = json.loads(json.dumps(pick(row, wanted), default=str)) if wanted else {}
    return Sample(shard, index, _key(index), tuple(pictures), facts)


def _key(index: int) -> str:
    return f"{index:09d}"


def _rewrite(file: Any, out: Any, edits: Edits, doomed: list[str]) -> int:
    """Every row group again, with new pictures, without dropped rows and doomed columns; returns how many rows were kept."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _without_columns(file.schema_arrow, doomed) if doomed else file.schema_arrow
    if not schema.names:
        raise ShardError("every column of the Parquet file tells who is in the pictures, so nothing would be left.")
    kept, start, replaced = 0, 0, 0
    compression = {
        file.metadata.row_group(0).column(i).path_in_schema: file.metadata.row_group(0)
        .column(i)
        .compression.lower()
        .replace("uncompressed", "none")
        for i in range(file.metadata.num_columns)
        if file.metadata.row_group(0).column(i).path_in_schema.partition(".")[0] not in doomed
    }
    by_column: dict[str, dict[int, None]] = {}
    for index, field in sorted(edits.changed):
        by_column.setdefault(field, {})[index] = None
    with pq.ParquetWriter(
        out, schema, compression=compression, store_schema=b"ARROW:schema" in (file.metadata.metadata or {})
    ) as w:
        for group in range(file.metadata.num_row_groups):
            table = file.read_row_group(group)
            if doomed:
                table = table.select(schema.names).replace_schema_metadata(schema.metadata)
            for column, indices in by_column.items():
                here = [index for index in indices if start <= index < start + table.num_rows]
                if here:
                    table = _with_pictures(table, column, {index - start: edits.picture(index, column) for index in here})
                    replaced += len(here)
            rows = [row for row in range(table.num_rows) if start + row not in edits.dropped]
            start += table.num_rows
            kept += len(rows)
            if len(rows) < table.num_rows:
                table = table.take(pa.array(rows, pa.int64()))
            if table.num_rows:
                w.write_table(table, row_group_size=table.num_rows)
    out.close()
    if replaced != len(edits.changed):
        raise ShardError(f"{len(edits.changed) - replaced} changed pictures have no row in the file.")
    return kept


def _with_pictures(table: Any, column: str, new: dict[int, bytes]) -> Any:
    """The table with some of a column's pictures replaced; for structs only their `bytes`."""
    import pyarrow as pa

    place = table.schema.get_field_index(column)
    field = table.schema.field(place)
    values = table.column(place).to_pylist()
    for row, data in new.items():
        values[row] = {**values[row], "bytes": data} if isinstance(values[row], dict) else data
    return table.set_column(place, field, pa.array(values, field.type))


class _Sink:
    """The least of a file object that Arrow writes to."""

    closed = False

    def __init__(self, out: HashingWriter) -> None:
        self._out = out

    def write(self, data: Any) -> int:
        return self._out.write(bytes(data))

    def tell(self) -> int:
        return self._out.size

    def flush(self) -> None:
        self._out.flush()

    def close(self) -> None:
        self.closed = True

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:200].rstrip(".")
