"""Records as rows that an engine can carry: one flat Arrow schema for all stages.

shard   string              the shard's name
index   int64               the sample's place in it; -1 for the end of a shard
kind    string              "sample", "detected", "result", "quarantined", "end" or "stop"
meta    string              JSON: everything small (floats survive JSON exactly)
blobs   list<large_binary>  the encoded pictures that `meta` names, in its order, then the shard's lock of a sample
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from diffpriv.faces.types import Face
from diffpriv.pipelines.quarantine import Code, Problem
from diffpriv.pipelines.records.results import SampleResult
from diffpriv.pipelines.records.samples import DetectedSample, Picture, PictureFaces, QuarantinedSample, Sample, ShardEnd, Stop

if TYPE_CHECKING:
    import pyarrow

Record = Sample | QuarantinedSample | ShardEnd | DetectedSample | SampleResult | Stop


def schema() -> "pyarrow.Schema":
    """The columns in which records travel between stages."""
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
    """Records as an Arrow table."""
    import pyarrow as pa

    rows = [_to_row(record) for record in records]
    columns = [[row[place] for row in rows] for place in range(5)]
    return pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, schema(), strict=True)], schema=schema())


def from_table(table: "pyarrow.Table") -> list[Record]:
    """The records of an Arrow table."""
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
        return "sample", record.index, meta, [*(picture.data for picture in record.pictures), record.lock]
    if isinstance(record, DetectedSample):
        found = [
            {
                "field": one.picture.field,
                "first_frame_only": one.first_frame_only,
                "left": one.left,
                "stripped": one.stripped,
                "anew": one.anew,
                "frames_dropped": one.frames_dropped,
                "gain_maps_dropped": one.gain_maps_dropped,
                "camera": one.camera,
                "faces": [[list(face.box), face.landmarks.tolist(), face.score] for face in one.faces],
            }
            for one in record.found
        ]
        meta = {"key": record.key, "pictures": record.pictures, "found": found, "person": record.person}
        return "detected", record.index, meta, [*(one.picture.data for one in record.found), record.lock]
    if isinstance(record, QuarantinedSample):
        return "quarantined", record.index, {"key": record.key, "problem": record.problem}, []
    if isinstance(record, ShardEnd):
        meta = {name: getattr(record, name) for name in ("samples", "problem", "sidecars", "source_sha256", "left_out")}
        return "end", -1, meta, []
    if isinstance(record, Stop):
        return "stop", -1, asdict(record), []
    return "result", record.index, asdict(record), []


def _from_row(row: dict[str, Any]) -> Record:
    shard, index, kind, meta, blobs = row["shard"], row["index"], row["kind"], json.loads(row["meta"]), row["blobs"] or []
    if kind == "sample":
        pictures = tuple(Picture(field, data) for field, data in zip(meta["fields"], blobs[:-1], strict=True))
        return Sample(shard, index, meta["key"], pictures, meta["facts"], blobs[-1])
    if kind == "detected":
        found = tuple(
            PictureFaces(
                Picture(one["field"], data),
                tuple(Face(tuple(box), np.array(points), score) for box, points, score in one["faces"]),
                one["first_frame_only"],
                tuple(one["left"]),
                one["stripped"],
                one["anew"],
                one["frames_dropped"],
                one["gain_maps_dropped"],
                one["camera"],
            )
            for one, data in zip(meta["found"], blobs[:-1], strict=True)
        )
        return DetectedSample(shard, index, meta["key"], meta["pictures"], found, meta["person"], blobs[-1])
    if kind == "quarantined":
        return QuarantinedSample(shard, index, meta["key"], Problem(Code(meta["problem"][0]), meta["problem"][1]))
    if kind == "end":
        sidecars, left_out = (tuple((first, second) for first, second in meta[name]) for name in ("sidecars", "left_out"))
        return ShardEnd(shard, meta["samples"], meta["problem"], sidecars, meta["source_sha256"], left_out)
    if kind == "stop":
        return Stop(**meta)
    return SampleResult.from_mapping(meta)
