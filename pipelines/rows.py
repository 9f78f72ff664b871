"""Records as rows that an engine can carry: one flat Arrow schema for all stages.

shard   string              the shard's name
index   int64               the sample's place in it; -1 for the end of a shard
kind    string              "sample", "detected", "result", "quarantined", "end" or "stop"
meta    string              JSON: everything small (floats survive JSON exactly)
blobs   list<large_binary>  the encoded pictures that `meta` names, in its order
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from diffpriv.faces.types import Face
from pipelines.samples import DetectedSample, Picture, PictureFaces, QuarantinedSample, Sample, ShardEnd, Stop
from pipelines.staging import SampleResult

if TYPE_CHECKING:
    import pyarrow

Record = Sample | QuarantinedSample | ShardEnd | DetectedSample | SampleResult | Stop


def schema() -> "pyarrow.Schema":
    import pyarrow as pa

    return pa.schema(
        [
            ("shard", pa.string()),
            ("index", pa.int64()),
            ("kind", pa.string()),
            ("meta", pa.string()),
            ("blobs", pa.list_(pa.large_binary())),
        ]
    )


def to_table(records: Iterable[Record]) -> "pyarrow.Table":
    import pyarrow as pa

    rows = [_to_row(record) for record in records]
    columns = [[row[place] for row in rows] for place in range(5)]
    return pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, schema(), strict=True)], schema=schema())


def from_table(table: "pyarrow.Table") -> list[Record]:
    return [_from_row(row) for row in table.to_pylist()]


def _to_row(record: Record) -> tuple[str, int, str, str, Sequence[bytes]]:
    kind, index, meta, blobs = _parts(record)
    return record.shard, index, kind, json.dumps(meta), blobs


def _parts(record: Record) -> tuple[str, int, dict[str, Any], list[bytes]]:
    if isinstance(record, Sample):
        meta: dict[str, Any] = {
            "key": record.key,
            "fields": [picture.field for picture in record.pictures],
            "facts": record.facts,
        }
        return "sample", record.index, meta, [picture.data for picture in record.pictures]
    if isinstance(record, DetectedSample):
        found = [
            {
                "field": one.picture.field,
                "first_frame_only": one.first_frame_only,
                "left": one.left,
                "stripped": one.stripped,
                "faces": [[list(face.box), face.landmarks.tolist(), face.score] for face in one.faces],
            }
            for one in record.found
        ]
        meta = {"key": record.key, "pictures": record.pictures, "found": found, "person": record.person}
        return "detected", record.index, meta, [one.picture.data for one in record.found]
    if isinstance(record, QuarantinedSample):
        return "quarantined", record.index, {"key": record.key, "reason": record.reason}, []
    if isinstance(record, ShardEnd):
        return "end", -1, {"samples": record.samples, "problem": record.problem, "sidecars": record.sidecars}, []
    if isinstance(record, Stop):
        return "stop", -1, {"message": record.message, "kind": record.kind}, []
    return "result", record.index, asdict(record), []


def _from_row(row: dict[str, Any]) -> Record:
    shard, index, kind, meta, blobs = row["shard"], row["index"], row["kind"], json.loads(row["meta"]), row["blobs"] or []
    if kind == "sample":
        pictures = tuple(Picture(field, data) for field, data in zip(meta["fields"], blobs, strict=True))
        return Sample(shard, index, meta["key"], pictures, meta["facts"])
    if kind == "detected":
        found = tuple(
            PictureFaces(
                Picture(one["field"], data),
                tuple(Face(tuple(box), np.array(points), score) for box, points, score in one["faces"]),
                one["first_frame_only"],
                tuple(one["left"]),
                one["stripped"],
            )
            for one, data in zip(meta["found"], blobs, strict=True)
        )
        return DetectedSample(shard, index, meta["key"], meta["pictures"], found, meta["person"])
    if kind == "quarantined":
        return QuarantinedSample(shard, index, meta["key"], meta["reason"])
    if kind == "end":
        return ShardEnd(shard, meta["samples"], meta["problem"], tuple((what, count) for what, count in meta["sidecars"]))
    if kind == "stop":
        return Stop(meta["message"], meta["kind"])
    return SampleResult.from_mapping(meta)
