"""Parquet shards: rows are samples, and pictures are what `pipelines.formats.columns` finds in them.

A sample's key is its row number, nine digits: no column is known to be unique. Fields are column names. Row groups, the schema
with its metadata, compression and every other column's values stay; rows in quarantine are left out. A file in which nothing
changes is copied whole, unless containers are written anew: then the footer is ours, with the metadata of KEPT_METADATA only.

Binary values nested deeper than a list are refused for the whole shard rather than passed on unseen.
"""

import json
from collections.abc import Iterator
from typing import Any

from diffpriv.keys.errors import StorageError
from diffpriv.pipelines.errors import ShardError
from diffpriv.pipelines.formats.base import (
    MAX_PICTURE_BYTES,
    SNIFF_BYTES,
    Assembled,
    Edits,
    OutputFile,
    Shard,
    is_picture,
    too_large,
)
from diffpriv.pipelines.formats.columns import (
    PathOnlyError,
    PictureColumn,
    picture_columns,
    pictures_of,
    put_back,
    storage,
    storage_type,
    unseen,
)
from diffpriv.pipelines.formats.compression import arrow_file
from diffpriv.pipelines.formats.sidecars import SidecarCount, is_telling, looks_inside, scan_schema, scan_values
from diffpriv.pipelines.quarantine import Code, Problem
from diffpriv.pipelines.records.fields import pick, roots
from diffpriv.pipelines.records.samples import Picture, QuarantinedSample, Sample, ShardEnd
from diffpriv.pipelines.storage import CHUNK, Folder, HashingWriter

PICTURE_COLUMNS = frozenset({"image", "img", "picture", "photo"})  # their values must be pictures, besides names like "jpg"
SCAN_ROWS = 1024  # of text and lists, looked at for sidecars
READ_ROWS = 64  # rows decoded at a time: pictures of a few MB each must not add up
KEPT_METADATA = (b"huggingface", b"pandas")  # of a schema that is written anew; ARROW:schema is made by Arrow


class ParquetFormat:
    """See `formats.ShardFormat`. A shard is one file."""

    def read(
        self,
        source: Folder,
        shard: Shard,
        wanted: frozenset[str] = frozenset(),
        beside: SidecarCount | None = None,
    ) -> Iterator[Sample | QuarantinedSample | ShardEnd]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        count = 0
        beside = beside if beside is not None else SidecarCount()
        try:
            digest = source.sha256(shard.files[0].name)
            with source.open(shard.files[0].name) as handle, pq.ParquetFile(handle) as file:
                columns = picture_columns(file.schema_arrow)
                others = sorted(roots(wanted) & set(file.schema_arrow.names) - set(columns))
                asked = [*columns, *others]
                rows = file.iter_batches(batch_size=READ_ROWS, columns=asked) if asked else _bare(file.metadata.num_rows)
                for batch in rows:
                    for sample in _batch(shard.name, count, batch, columns, others, wanted, beside):
                        yield sample
                        count += 1
                _look_beside(file, columns, beside, count)
        except (ShardError, StorageError) as error:
            yield ShardEnd(shard.name, count, str(error))
            return
        except (pa.ArrowException, OSError, ValueError) as error:
            yield ShardEnd(shard.name, count, f"the Parquet file cannot be read: {_first_line(error)}.")
            return
        # A file without rows is a shard of nothing, and published as it is.
        yield ShardEnd(shard.name, count, "", beside.items(), digest, tuple(beside.left_out))

    def assemble(self, source: Folder, shard: Shard, edits: Edits, target: Folder, staging: str) -> Assembled:
        import pyarrow as pa
        import pyarrow.parquet as pq

        name, staged = shard.files[0].name, f"{staging}/output"
        source_digest = source.sha256(name)
        try:
            with source.open(name) as handle, pq.ParquetFile(handle) as file, target.writing(staged) as out:
                hashed = HashingWriter(out)
                telling = _telling_columns(file) if edits.drop_sidecars else []
                if not (edits.dropped or edits.changed or edits.left_out or telling or edits.anew):
                    kept = file.metadata.num_rows
                    handle.seek(0)
                    while chunk := handle.read(CHUNK):
                        hashed.write(chunk)
                    if hashed.sha256() != source_digest:
                        raise ShardError(f"{shard.name} changed while it was being copied.")
                else:
                    kept = _rewrite(file, hashed, edits, telling)
        except pa.ArrowException as error:
            raise ShardError(f"{shard.name}: the Parquet file cannot be copied: {_first_line(error)}.") from None
        return Assembled((OutputFile(staged, shard.name, hashed.sha256(), hashed.size),), kept, source_digest)

    def plain_digest(self, folder: Folder, shard: Shard) -> str:
        """SHA-256 of the same values in a file of our own: that of the file only if it holds nothing else."""
        import pyarrow.parquet as pq

        hashed = HashingWriter(None)
        with folder.open(shard.files[0].name) as handle, pq.ParquetFile(handle) as file:
            _rewrite(file, hashed, _NoEdits(), [])
        return hashed.sha256()


class _NoEdits:
    """The file as it is, written anew."""

    dropped: frozenset[int] = frozenset()
    changed: frozenset[tuple[int, str]] = frozenset()
    left_out: frozenset[tuple[int, str]] = frozenset()
    drop_sidecars, anew = False, True

    def picture(self, index: int, field: str) -> bytes:
        raise KeyError(field)


def _telling_columns(file: Any) -> list[str]:
    """Columns that rule "drop" leaves out."""
    pictures = picture_columns(file.schema_arrow)
    others = [name for name in file.schema_arrow.names if name not in pictures]
    return [name for name in others if is_telling(_beside(file, [one for one in file.schema_arrow.names if one != name]))]


def _new_schema(schema: Any, telling: list[str], *, anew: bool) -> Any:
    """The schema without columns that tell; Hugging Face's description of the columns, which its loader insists on, follows.

    Args:
        anew: metadata only of KEPT_METADATA, and of fields only what makes a value a tensor.
    """
    import pyarrow as pa

    metadata = dict(schema.metadata or {})
    try:
        described = json.loads(metadata[b"huggingface"])
        features = described["info"]["features"]
        described["info"]["features"] = {name: one for name, one in features.items() if name not in telling}
        if telling:
            metadata[b"huggingface"] = json.dumps(described).encode()
    except (KeyError, ValueError, TypeError, AttributeError):
        pass  # there is none
    fields = [field for field in schema if field.name not in telling]
    if anew:
        metadata = {name: value for name, value in metadata.items() if name in KEPT_METADATA}
        fields = [_plain_field(field) for field in fields]
    return pa.schema(fields, metadata or None)


def _plain_field(field: Any) -> Any:
    kept = {name: value for name, value in (field.metadata or {}).items() if name.startswith(b"ARROW:extension:")}
    return field.with_metadata(kept or None)


def _look_beside(file: Any, pictures: dict[str, PictureColumn], beside: SidecarCount, rows: int) -> None:
    """Show the columns that hold no pictures."""
    schema = file.schema_arrow
    beside.add(_beside(file, list(pictures)), rows)
    beside.schema(schema)
    shown = [name for name in schema.names if name not in pictures] if beside.wants_columns else []
    for batch in file.iter_batches(batch_size=SCAN_ROWS, columns=shown) if shown else ():
        for name in shown:
            beside.column(name, schema.field(name).type, batch.column(batch.schema.get_field_index(name)))


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


def _batch(
    shard: str,
    start: int,
    batch: Any,
    columns: dict[str, PictureColumn],
    others: list[str],
    wanted: frozenset[str],
    beside: SidecarCount,
) -> Iterator[Sample | QuarantinedSample]:
    """The samples of some rows."""
    import pyarrow as pa

    held = {name: storage(batch.column(batch.schema.get_field_index(name))) for name in columns}
    facts = [{}] * batch.num_rows if not wanted else batch.select([*columns, *others]).to_pylist()
    plain: dict[str, list[int]] = {name: [] for name, column in columns.items() if column.kind == "array"}
    for row in range(batch.num_rows):
        index, key, pictures = start + row, _key(start + row), []
        problem: Problem | None = None
        for name, column in columns.items():
            scalar = held[name][row]
            try:
                values = pictures_of(column, scalar)
            except PathOnlyError:
                problem = problem or Problem(Code.NOT_PLAIN, f"its picture in {name!r} is a path to another file")
                continue
            may_be = unseen(column, scalar) if column.kind == "array" else ""
            if may_be:
                beside.unknown(index, key, name, name, may_be)
            elif column.kind == "array" and not values:
                plain[name].append(row)
            for field, value in values:
                if not (_promised(column) or is_picture(name, value[:SNIFF_BYTES])):
                    beside.value(index, key, field, name, value)
                elif len(value) > MAX_PICTURE_BYTES:
                    problem = problem or too_large(len(value))
                else:
                    pictures.append(Picture(field, value))
        if problem:
            yield QuarantinedSample(shard, index, key, problem)
        else:
            # Through JSON: a date or a decimal is what its text says, and every engine can carry it.
            known = json.loads(json.dumps(pick(facts[row], wanted), default=str)) if wanted else {}
            yield Sample(shard, index, key, tuple(pictures), known)
    for name, rows in plain.items() if beside.wants_columns else ():  # lists of numbers that are no pictures
        beside.column(name, held[name].type, held[name].take(pa.array(rows, pa.int64())))


def _promised(column: PictureColumn) -> bool:
    """Whether the column says that its values are pictures: what is none must not pass as something else."""
    return column.kind != "binary" or column.name.lower() in PICTURE_COLUMNS


def _key(index: int) -> str:
    return f"{index:09d}"


def _rewrite(file: Any, hashed: HashingWriter, edits: Edits, telling: list[str]) -> int:
    """Every row group again, with new pictures, without dropped rows and columns that tell; returns how many rows were kept."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _new_schema(file.schema_arrow, telling, anew=edits.anew)
    if not schema.names:
        raise ShardError("every column of the Parquet file tells who is in the pictures, so nothing would be left.")
    kept, start, replaced = 0, 0, 0
    columns = picture_columns(file.schema_arrow)
    new = _by_column(edits, columns)
    out = pa.PythonFile(arrow_file(hashed), mode="w")
    with pq.ParquetWriter(
        out,
        schema,
        compression=_compression(file, telling),
        store_schema=b"ARROW:schema" in (file.metadata.metadata or {}),
    ) as writer:
        for group in range(file.metadata.num_row_groups):
            table = file.read_row_group(group).select(schema.names)
            for name, places in new.items():
                here = {row: fields for row, fields in places.items() if start <= row < start + table.num_rows}
                if here:
                    made = {
                        row - start: {f: edits.picture(row, f) if (row, f) in edits.changed else None for f in fields}
                        for row, fields in here.items()
                    }
                    table = _with_pictures(table, columns[name], made)
                    replaced += sum((row, f) in edits.changed for row, fields in here.items() for f in fields)
            rows = [row for row in range(table.num_rows) if start + row not in edits.dropped]
            start += table.num_rows
            kept += len(rows)
            if len(rows) < table.num_rows:
                table = table.take(pa.array(rows, pa.int64()))
            if table.num_rows:
                writer.write_table(_own_dictionaries(table).cast(schema), row_group_size=table.num_rows)
    out.close()
    if replaced != len(edits.changed):
        raise ShardError(f"{len(edits.changed) - replaced} changed pictures have no row in the file.")
    return kept


def _by_column(edits: Edits, columns: dict[str, PictureColumn]) -> dict[str, dict[int, list[str]]]:
    """column -> row -> fields of the values with other bytes, or none."""
    found: dict[str, dict[int, list[str]]] = {}
    for index, field in sorted(edits.changed | edits.left_out):
        name = field if field in columns else field.rpartition("[")[0]
        if name in columns and index not in edits.dropped:
            found.setdefault(name, {}).setdefault(index, []).append(field)
    return found


def _compression(file: Any, telling: list[str]) -> dict[str, str] | str:
    """Each column's as the first row group has it."""
    if not file.metadata.num_row_groups:
        return "snappy"
    columns = [file.metadata.row_group(0).column(number) for number in range(file.metadata.num_columns)]
    return {
        column.path_in_schema: column.compression.lower().replace("uncompressed", "none")
        for column in columns
        if column.path_in_schema.partition(".")[0] not in telling
    }


def _own_dictionaries(table: Any) -> Any:
    """Dictionary-encoded columns with the values of these rows alone: a dictionary may hold values that no row has."""
    from pyarrow import types

    for place, field in enumerate(table.schema):
        if types.is_dictionary(field.type):
            plain = table.column(place).cast(field.type.value_type)
            table = table.set_column(place, field, plain.dictionary_encode().cast(field.type))
    return table


def _with_pictures(table: Any, column: PictureColumn, new: dict[int, dict[str, bytes | None]]) -> Any:
    """The table with some of a column's values replaced."""
    import pyarrow as pa

    place = table.schema.get_field_index(column.name)
    field = table.schema.field(place)
    held = storage(table.column(place).combine_chunks()) if table.num_rows else table.column(place)
    values = [put_back(column, held[row], new[row]) if row in new else held[row].as_py() for row in range(table.num_rows)]
    kind = storage_type(field.type)
    made = pa.array(values, kind.value_type).cast(kind) if pa.types.is_dictionary(kind) else pa.array(values, kind)
    if isinstance(field.type, pa.BaseExtensionType):
        made = pa.ExtensionArray.from_storage(field.type, made)
    return table.set_column(place, field, made)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:200].rstrip(".")
