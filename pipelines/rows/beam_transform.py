"""`ProtectRows`: protection as a step of somebody else's Beam pipeline. Settings and columns as in `pipelines.rows.protector`.

    rows | ProtectRows(dataset="mine", recipients=[...], keys=URL, audit=URL, image="image")

Elements are mappings. A batch that a runner repeats makes new keys and new faces; with our sink, the records of both are kept.
"""

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PCollection

from diffpriv.pipelines.rows.protector import Protector


class ProtectRows(beam.PTransform):
    """Args:
    batch: rows per call, and so per key file of our sink.
    settings: of `pipelines.rows.protector.Protector`.
    """

    def __init__(self, *, batch: int = 32, **settings: Any) -> None:
        super().__init__()
        Protector(**settings)  # a wrong setting is told where the pipeline is written, not on a worker
        self._batch, self._settings = batch, settings

    def expand(self, rows: PCollection) -> PCollection:
        batches = rows | "in batches" >> beam.BatchElements(self._batch, self._batch)
        return batches | "protect" >> beam.ParDo(_Protect(self._settings))


class _Protect(beam.DoFn):
    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings

    def setup(self) -> None:
        self._protector = Protector(**self._settings)

    def process(self, batch: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        yield from self._protector.rows(batch)
