"""Faces inside your own Beam pipeline: other steps before and after, keys and audit entries in our sink.

python examples/beam_pipeline.py PHOTOS.parquet OUT KEYS AUDIT RECIPIENT.json
"""

import json
import sys
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from diffpriv.pipelines.rows.beam_transform import ProtectRows


def with_faces(row: dict[str, Any]) -> dict[str, Any]:
    return {"name": row["name"], "image": row["image"], "faces": len(json.loads(row["diffpriv_faces"]))}


def main(photos: str, out: str, keys: str, audit: str, recipient: str, **settings: Any) -> None:
    protect = ProtectRows(dataset="photos", keys=keys, audit=audit, recipients=[recipient], key="name", **settings)
    schema = pa.schema([("name", pa.string()), ("image", pa.binary()), ("faces", pa.int32())])
    # The runner is named because the default one first looks for a binary to download.
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
        _ = (
            pipeline
            | "read" >> beam.io.ReadFromParquet(photos)
            | "with a licence" >> beam.Filter(lambda row: row["licence"] is not None)
            | "faces" >> protect
            | "not in quarantine" >> beam.Filter(lambda row: not row["diffpriv_reason"])
            | "count faces" >> beam.Map(with_faces)
            | "write" >> beam.io.WriteToParquet(out, schema, file_name_suffix=".parquet")
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
