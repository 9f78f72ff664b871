"""Faces inside your own Ray Data pipeline: other maps before and after, keys and audit entries in our sink.

python examples/ray_data.py PHOTOS.parquet OUT KEYS AUDIT RECIPIENT.json
"""

import sys
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from diffpriv.pipelines.rows.protector import ProtectBatch


def before(table: pa.Table) -> pa.Table:
    """Whatever your pipeline does first: here, rows without a licence go."""
    return table.filter(pc.is_valid(table["licence"]))


def after(table: pa.Table) -> pa.Table:
    """Whatever comes next: here, rows in quarantine go, and the rest say how many faces they had."""
    import json

    kept = table.filter(pc.equal(table["diffpriv_reason"], ""))
    faces = [len(json.loads(text)) for text in kept["diffpriv_faces"].to_pylist()]
    return kept.append_column("faces", pa.array(faces, pa.int32())).drop_columns(["diffpriv_reason"])


def main(photos: str, out: str, keys: str, audit: str, recipient: str, **settings: Any) -> None:
    protect = {"dataset": "photos", "keys": keys, "audit": audit, "recipients": [recipient], "key": "name", **settings}
    (
        ray.data.read_parquet(photos)
        .map_batches(before, batch_format="pyarrow")
        .map_batches(ProtectBatch, fn_constructor_kwargs=protect, batch_format="pyarrow", batch_size=32, concurrency=1)
        .map_batches(after, batch_format="pyarrow")
        .write_parquet(out)
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
