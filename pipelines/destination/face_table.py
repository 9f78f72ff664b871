"""The faces table: one Parquet file per shard in DST/.diffpriv/faces/, one row per face of a published sample.

    sample      string           the sample's key
    field       string           which of its pictures
    face_index  int32            with the sample it names the face record in the key file
    box         list<double>[4]  xyxy, upright pixels of the picture
    score       double           the detector's, 1 where a box was given
    status      string           "protected", "filled" or "left"
    reason      string           why it was filled or left; empty when protected
    attempts    int32            tries it took
    similarity  double, null     to its original, under the recogniser that checked it
    recoverable bool             a sealed record exists
No embeddings, no keys, no names of people. It lies in the job's state, which is never released (`gate.manifest`).
"""

import io
from collections.abc import Sequence

from diffpriv.pipelines.records.results import SampleResult


def face_table(results: Sequence[SampleResult]) -> bytes:
    """The table of a shard's results, in the order of its samples."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("sample", pa.string()),
            ("field", pa.string()),
            ("face_index", pa.int32()),
            ("box", pa.list_(pa.float64(), 4)),
            ("score", pa.float64()),
            ("status", pa.string()),
            ("reason", pa.string()),
            ("attempts", pa.int32()),
            ("similarity", pa.float64()),
            ("recoverable", pa.bool_()),
        ]
    )
    rows = [
        {name: result.key if name == "sample" else getattr(face, name) for name in schema.names}
        for result in results
        if not result.reason
        for face in result.faces
    ]
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), out)
    return out.getvalue()
