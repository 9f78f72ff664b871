"""From a shard's sample results to a prepared shard in staging: the last thing before the commit, run in any process.

Re-reads the source for everything that did not change, takes the new pictures and sealed records from the parts, and writes the
output, the key file and `prepared.json` durably. Publishes nothing.
"""

import hashlib
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keys.audit.events import commit_names, sample_quarantined, shard_committed
from keys.context import ShardContext
from keys.errors import StorageError
from keys.keyfile import build_key_file
from keys.store import Receipt, key_file_path
from pipelines.commit import PREPARED, Prepared
from pipelines.errors import ShardError, SourceChangedError
from pipelines.face_table import face_table, face_table_name
from pipelines.formats import OutputFile, Shard, data_digest, shard_format
from pipelines.sidecars import refusal
from pipelines.staging import Blob, SampleResult, decode_sealed, read_blob, shard_folder
from pipelines.storage import Folder


@dataclass(frozen=True)
class ShardJob:
    """What assembling a shard has to know; plain values, so that it can be sent to any worker.

    Attributes:
        keeps_keys: false with recovery "none".
        made_by: identities of detector and transformation and the kind of device, for the commit record.
        sidecars: what the reader found beside the pictures.
        sidecar_rule: "report", "drop" or "refuse": what becomes of it.
        faces_table: whether to leave a table of every face's fate.
        decisions: digest of what reviewers decided about this shard; "" for nothing.
    """

    source_url: str
    target_url: str
    shard: Shard
    context: ShardContext
    run_id: str
    keeps_keys: bool
    made_by: dict[str, str]
    sidecars: tuple[tuple[str, int], ...] = ()
    sidecar_rule: str = "report"
    faces_table: bool = False
    decisions: str = ""


class StagedEdits:
    """See `formats.Edits`; pictures come from the parts."""

    def __init__(self, target: Folder, results: Sequence[SampleResult], drop_sidecars: bool = False) -> None:
        self._target, self.drop_sidecars = target, drop_sidecars
        self.dropped = frozenset(result.index for result in results if result.reason)
        kept = [result for result in results if not result.reason]
        self._blobs = {(result.index, one.field): one.blob for result in kept for one in result.changed}
        self.changed = frozenset(self._blobs)

    def picture(self, index: int, field: str) -> bytes:
        return read_blob(self._target, self._blobs[index, field])


def assemble_shard(job: ShardJob, results: Sequence[SampleResult]) -> str:
    """Prepare the shard; returns the name of its prepared.json in the target.

    Args:
        results: one per sample of the shard, any order.
    Raises:
        ShardError: the source is not what was read, the parts are not all there, or sidecars are refused and there are some.
        StorageError: staging cannot be written.
    """
    reason = refusal(job.sidecars) if job.sidecar_rule == "refuse" else ""
    if reason:
        raise ShardError(f"{job.shard.name} is refused: {reason}.", advice='Set sidecars: "drop" or "report".')
    source, target = Folder(job.source_url), Folder(job.target_url)
    results = sorted(results, key=lambda result: result.index)
    if [result.index for result in results] != list(range(len(results))):
        raise ShardError(f"{job.shard.name}: the results of its samples are not one each.")
    _same_source(source, job.shard)
    attempt = uuid.uuid4().hex
    folder = shard_folder(job.run_id, job.shard.name)
    edits = StagedEdits(target, results, job.sidecar_rule == "drop")
    assembled = shard_format(job.shard.format).assemble(source, job.shard, edits, target, f"{folder}/{attempt}")
    _same_source(source, job.shard)
    counts = count(results)
    if assembled.samples != counts["samples_out"]:
        raise SourceChangedError(
            f"{job.shard.name} gave {assembled.samples} samples where {counts['samples_out']} were expected: it changed."
        )
    key_file = _key_file(job, results, target, f"{folder}/{attempt}") if job.keeps_keys else None
    table = _face_table(job, results, target, f"{folder}/{attempt}") if job.faces_table else None
    prepared = _describe(
        job,
        results,
        folder=folder,
        attempt=attempt,
        files=assembled.files,
        key_file=key_file,
        table=table,
        counts=counts,
        source_sha256=assembled.source_sha256,
    )
    name = f"{folder}/{PREPARED}"
    target.small.write(name, prepared.encode())
    return name


def count(results: Sequence[SampleResult]) -> dict[str, int]:
    """The shard's part of the closing table."""
    kept = [result for result in results if not result.reason]
    faces = Counter(face.status for result in kept for face in result.faces)
    return {
        "samples_in": len(results),
        "samples_out": len(kept),
        "samples_quarantined": len(results) - len(kept),
        "pictures": sum(result.pictures for result in kept),
        "pictures_changed": sum(len(result.changed) for result in kept),
        "faces": sum(faces.values()),
        "faces_protected": faces["protected"],
        "faces_filled": faces["filled"],
        "faces_left": faces["left"],
        "faces_recoverable": sum(face.recoverable for result in kept for face in result.faces),
    }


def _same_source(source: Folder, shard: Shard) -> None:
    for facts in shard.files:
        try:
            same = source.facts(facts.name) == facts
        except StorageError:
            same = False
        if not same:
            raise SourceChangedError(
                f"{source.describe(facts.name)} changed or vanished while it was being worked on.", advice="Run the job again."
            )


def _key_file(job: ShardJob, results: Sequence[SampleResult], target: Folder, staging: str) -> OutputFile:
    blobs: dict[Blob, None] = {}
    for result in results:
        if result.sealed is not None and not result.reason:
            blobs.setdefault(result.sealed)
    parts = [decode_sealed(read_blob(target, blob)) for blob in blobs]
    expected = {(result.key, face.face_index) for result in results for face in result.faces if face.recoverable}
    sealed = {face for part in parts for face in zip(part.samples, part.face_indices, strict=True)}
    if sealed != expected:
        raise ShardError(
            f"{job.shard.name}: {len(expected - sealed)} faces have no sealed record, {len(sealed - expected)} too many."
        )
    data = build_key_file(job.context, parts, [result.key for result in results])
    staged = f"{staging}/keyfile"
    target.small.write(staged, data)
    path = key_file_path(job.context.dataset, job.context.shard)
    return OutputFile(staged, path, hashlib.sha256(data).hexdigest(), len(data))


def _face_table(job: ShardJob, results: Sequence[SampleResult], target: Folder, staging: str) -> OutputFile:
    data = face_table(results)
    target.small.write(f"{staging}/faces", data)
    return OutputFile(f"{staging}/faces", face_table_name(job.shard.name), hashlib.sha256(data).hexdigest(), len(data))


def _describe(
    job: ShardJob,
    results: Sequence[SampleResult],
    *,
    folder: str,
    attempt: str,
    files: tuple[OutputFile, ...],
    key_file: OutputFile | None,
    table: OutputFile | None,
    counts: dict[str, int],
    source_sha256: str,
) -> Prepared:
    now = int(time.time())
    receipt = Receipt(key_file.name, key_file.sha256, key_file.size) if key_file else None
    facts = {name.replace("samples_", "records_"): value for name, value in counts.items() if name != "faces"}
    events = [
        shard_committed(
            now,
            job.run_id,
            job.context,
            faces=counts["faces"],
            key_file=receipt,
            data_sha256=data_digest(job.shard.format, [(file.name, file.sha256) for file in files]),
            **facts,
            made_by=job.made_by,
        )
    ]
    quarantine: list[dict[str, Any]] = []
    for result in results:
        if result.reason:
            commitment, salt = commit_names(job.context.dataset, job.context.shard, result.key)
            events.append(sample_quarantined(now, job.run_id, job.context, commitment, result.reason))
            quarantine.append(
                {"sample": result.key, "index": result.index, "reason": result.reason, "commitment": commitment, "salt": salt}
            )
    similarities = [f.similarity for r in results if not r.reason for f in r.faces if f.similarity is not None]
    record = {
        "run": job.run_id,
        "config_digest": job.context.config_digest,
        "format": job.shard.format,
        "made_by": job.made_by,
        "source": {"files": job.shard.fingerprint, "sha256": source_sha256},
        "counts": counts,
        "reasons": {
            "quarantined": dict(Counter(result.reason for result in results if result.reason)),
            **{
                status: dict(Counter(f.reason for r in results if not r.reason for f in r.faces if f.status == status))
                for status in ("filled", "left")
            },
        },
        "quarantined": [result.index for result in results if result.reason],
        "sidecars": dict(job.sidecars),
        "sidecar_rule": job.sidecar_rule,
        "decisions": job.decisions,
        "highest_similarity": max(similarities, default=None),
        # Which face is which: recovery asks by sample and face number.
        "faces": [
            [result.key, face.face_index, face.field, face.status, face.recoverable]
            for result in results
            if not result.reason
            for face in result.faces
        ],
    }
    return Prepared(
        job.context.dataset,
        job.context.shard,
        folder,
        files,
        key_file,
        tuple((event.kind, event.at, dict(event.facts)) for event in events),
        tuple(quarantine),
        attempt,
        record,
        table,
    )
