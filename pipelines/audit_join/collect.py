"""The audit join over a whole DST, on Beam: collects the three sides of every shard and compares them."""

import hashlib
import json
import tempfile
from collections.abc import Iterable
from dataclasses import astuple
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from diffpriv.keys.audit.events import AuditEvent
from diffpriv.keys.audit.ledger import Ledger
from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.errors import KeyFileError
from diffpriv.keys.keyfile import KeyFile
from diffpriv.keys.store import KeyStore
from diffpriv.pipelines.audit_join.join import AuditSide, JoinMismatch, KeySide, OutputSide, join_shard
from diffpriv.pipelines.destination.published import measure_shard, records
from diffpriv.pipelines.destination.record import CommitRecord
from diffpriv.pipelines.engines.beam_driver import DEFAULT_OPTIONS
from diffpriv.pipelines.storage import Folder


def audit_join(dst: str, keys: str | None, log: AuditLog, *, options: Iterable[str] = DEFAULT_OPTIONS) -> list[JoinMismatch]:
    """Join outputs, key files and audit log of one DST; an empty list means that all three fit together.

    Key files of other datasets in the same store are left alone. The log's own integrity is `AuditLog.verify`'s business.
    """
    datasets = {record.dataset for record in records(dst)}
    store = KeyStore(keys) if keys else None
    key_files = [one for one in store.list() if one[0] in datasets] if store else []
    with tempfile.TemporaryDirectory() as folder:
        place = f"{folder}/mismatchs"
        with beam.Pipeline(options=PipelineOptions([*options])) as pipeline:
            sides = {
                "outputs": pipeline | "outputs" >> beam.Create(list(records(dst))) | "measure" >> beam.Map(_output_side, dst),
                "keys": pipeline | "key files" >> beam.Create(key_files) | "parse" >> beam.Map(_key_side, keys),
                "audits": pipeline | "audit" >> beam.Create([one for one in _audit_sides(log) if one[0][0] in datasets]),
            }
            _ = (
                sides
                | "join" >> beam.CoGroupByKey()
                | "compare" >> beam.FlatMap(_compare)
                | "as text" >> beam.Map(lambda mismatch: json.dumps(astuple(mismatch)))
                | "write" >> beam.io.WriteToText(place, shard_name_template="")
            )
        with open(place, encoding="utf-8") as lines:
            return sorted(JoinMismatch(*json.loads(line)) for line in lines)


def _compare(joined: tuple[tuple[str, str], dict[str, Iterable[Any]]]) -> list[JoinMismatch]:
    shard, sides = joined
    return join_shard(shard, list(sides["outputs"]), list(sides["keys"]), list(sides["audits"]))


def _output_side(record: CommitRecord, dst: str) -> tuple[tuple[str, str], OutputSide]:
    faces = tuple((face.sample, face.face_index) for face in record.faces if face.recoverable)
    return (record.dataset, record.shard), OutputSide(measure_shard(Folder(dst), record), faces, record.key_file is not None)


def _key_side(shard: tuple[str, str], keys: str) -> tuple[tuple[str, str], KeySide]:
    data = KeyStore(keys).get(*shard)
    digest = hashlib.sha256(data).hexdigest()
    try:
        return shard, KeySide(digest, tuple(KeyFile.parse(data, dataset=shard[0], shard=shard[1]).faces()))
    except KeyFileError as error:
        return shard, KeySide(digest, (), str(error))


def _audit_sides(log: AuditLog) -> list[tuple[tuple[str, str], AuditSide]]:
    """One pass over the log; a shard that was redone counts by its last commit, its key file by the last change."""
    ledger = Ledger()
    runs: dict[tuple[str, str], list[str]] = {}
    for index, entry in log.entries():
        ledger.take(index, entry)
        if entry.endswith(b'"kind":"shard committed"}'):
            facts = AuditEvent.decode(entry, where=f"entry {index}").facts
            runs.setdefault((facts["dataset"], facts["shard"]), []).append(facts["run"])
    return [
        (shard, AuditSide(state.data_sha256, state.key_file.hex() if state.key_file else None, tuple(runs[shard])))
        for shard, state in ledger.shards.items()
    ]
