"""From a shard's sample results to a prepared shard in staging: the last thing before the commit, run in any process.

Re-reads the source for everything that did not change, takes the new pictures and sealed records from the parts, and writes the
output and the key file durably, and the document that describes them beside the audit log. Publishes nothing.
"""

import hashlib
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import Any

from diffpriv.keys.audit.events import commit_names, sample_quarantined, shard_committed
from diffpriv.keys.context import ShardContext
from diffpriv.keys.custodians import CustodyPolicy
from diffpriv.keys.errors import StorageError
from diffpriv.keys.keyfile import build_key_file
from diffpriv.keys.recipients import Recipient
from diffpriv.keys.store import Receipt, key_file_path
from diffpriv.pipelines import layout
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.destination.commit import Prepared, prepared_place
from diffpriv.pipelines.destination.decisions import decisions_digest
from diffpriv.pipelines.destination.face_table import face_table
from diffpriv.pipelines.destination.record import CommitRecord, PublishedFace, PublishedFile
from diffpriv.pipelines.destination.staging import decode_sealed, read_blob, read_made_by
from diffpriv.pipelines.errors import ShardError, SourceChangedError
from diffpriv.pipelines.formats.base import Assembled, OutputFile, Shard, data_digest
from diffpriv.pipelines.formats.registry import shard_format
from diffpriv.pipelines.formats.sidecars import refusal
from diffpriv.pipelines.records.results import Blob, SampleResult
from diffpriv.pipelines.records.samples import ShardEnd
from diffpriv.pipelines.run_context import RunContext
from diffpriv.pipelines.storage import Folder


class StagedEdits:
    """See `formats.Edits`; pictures come from the parts."""

    def __init__(self, run: RunContext, results: Sequence[SampleResult], end: ShardEnd) -> None:
        self._target = run.target
        self.drop_sidecars, self.anew = run.config.sidecars == "drop", run.config.strip_metadata == "all"
        self.left_out = frozenset(end.left_out)
        self.dropped = frozenset(result.index for result in results if result.reason)
        kept = [result for result in results if not result.reason]
        self._blobs = {(result.index, one.field): one.blob for result in kept for one in result.changed}
        self.changed = frozenset(self._blobs)

    def picture(self, index: int, field: str) -> bytes:
        return read_blob(self._target, self._blobs[index, field])


def assemble_shard(run: RunContext, shard: Shard, results: Sequence[SampleResult], end: ShardEnd) -> str:
    """Prepare the shard; returns the name of its document below the audit log's PREPARED.

    Args:
        results: one per sample of the shard, any order.
        end: what the reader found, beside the pictures and altogether.
    Raises:
        ShardError: the source is not what was read, the parts are not all there, or sidecars are refused and there are some.
        StorageError: staging cannot be written.
    """
    reason = refusal(end.sidecars) if run.config.sidecars == "refuse" else ""
    if reason:
        raise ShardError(f"{shard.name} is refused: {reason}.", advice='Set sidecars: "drop" or "report".')
    source, target = run.source, run.target
    results = sorted(results, key=lambda result: result.index)
    if [result.index for result in results] != list(range(len(results))):
        raise ShardError(f"{shard.name}: the results of its samples are not one each.")
    attempt = uuid.uuid4().hex
    folder = layout.staged_shard(run.run_id, shard.name)
    staging = f"{folder}/{attempt}"
    _same_source(source, shard)
    edits = StagedEdits(run, results, end)
    assembled = shard_format(shard.format).assemble(source, shard, edits, target, staging)
    _same_source(source, shard)
    if end.source_sha256 and assembled.source_sha256 != end.source_sha256:
        raise SourceChangedError(
            f"{shard.name} does not hold the bytes that were looked at: it changed meanwhile.", advice="Run the job again."
        )
    record = _record(run, shard, results, assembled, attempt, dict(end.sidecars))
    if assembled.samples != record.counts["samples_out"]:
        raise SourceChangedError(
            f"{shard.name} gave {assembled.samples} samples where {record.counts['samples_out']} were expected: it changed."
        )
    key_file = _key_file(run.shard(shard.name), results, target, staging) if run.config.keeps_keys else None
    table = _face_table(shard, results, target, staging) if run.config.faces_table else None
    events, quarantine = _events(record, results, key_file, custody_facts(run.config))
    prepared = Prepared(record, folder, assembled.files, key_file, events, quarantine, table)
    prepared_place(run.config.audit).write(prepared.name, prepared.encode())
    return prepared.name


def custody_facts(config: JobConfig) -> dict[str, Any]:
    """What every commit's audit entry says of who can open its keys; nothing where none are kept."""
    if not config.keeps_keys:
        return {}
    policy = CustodyPolicy.load(config.policy).digest if config.policy else None
    return {"recipients": [Recipient.load(path).fingerprint for path in config.recipients], "policy": policy}


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
        "frames_dropped": sum(result.frames_dropped for result in kept),
        "gain_maps_dropped": sum(result.gain_maps_dropped for result in kept),
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


def _key_file(context: ShardContext, results: Sequence[SampleResult], target: Folder, staging: str) -> OutputFile:
    blobs: dict[Blob, None] = {}
    for result in results:
        if result.sealed is not None and not result.reason:
            blobs.setdefault(result.sealed)
    parts = [decode_sealed(read_blob(target, blob)) for blob in blobs]
    expected = {(result.key, face.face_index) for result in results for face in result.faces if face.recoverable}
    sealed = {face for part in parts for face in zip(part.samples, part.face_indices, strict=True)}
    if sealed != expected:
        raise ShardError(
            f"{context.shard}: {len(expected - sealed)} faces have no sealed record, {len(sealed - expected)} too many."
        )
    data = build_key_file(context, parts, [result.key for result in results])
    return _staged(target, f"{staging}/keyfile", key_file_path(context.dataset, context.shard), data)


def _face_table(shard: Shard, results: Sequence[SampleResult], target: Folder, staging: str) -> OutputFile:
    return _staged(target, f"{staging}/faces", layout.face_table(shard.name), face_table(results))


def _staged(target: Folder, staged: str, name: str, data: bytes) -> OutputFile:
    target.small.write(staged, data)
    return OutputFile(staged, name, hashlib.sha256(data).hexdigest(), len(data))


def _made_by(run: RunContext) -> dict[str, str]:
    """What the workers said they loaded, the kind of device, and whose pseudonyms."""
    made_by = {**read_made_by(run.target, run.run_id), "device": "gpu" if run.config.workers.protect_gpus else "cpu"}
    if run.config.pseudonym.source:
        made_by["pseudonym"] = f"per identity, root {run.config.pseudonym.root_id}"
    return made_by


def _record(
    run: RunContext,
    shard: Shard,
    results: Sequence[SampleResult],
    assembled: Assembled,
    attempt: str,
    sidecars: dict[str, int],
) -> CommitRecord:
    kept = [result for result in results if not result.reason]
    faces = [(result.key, face) for result in kept for face in result.faces]
    reasons = {"quarantined": Counter(result.reason for result in results if result.reason)}
    for status in ("filled", "left"):
        reasons[status] = Counter(face.reason for _, face in faces if face.status == status)
    reasons["covered otherwise"] = Counter(face.reason for _, face in faces if face.status == "protected" and face.reason)
    return CommitRecord(
        dataset=run.config.dataset,
        shard=shard.name,
        attempt=attempt,
        run=run.run_id,
        config_digest=run.digest,
        format=shard.format,
        made_by=_made_by(run),
        source_files=tuple((one.name, one.size, one.version) for one in shard.files),
        source_sha256=assembled.source_sha256,
        counts=count(results),
        reasons={name: dict(counted) for name, counted in reasons.items()},
        quarantined=tuple(result.index for result in results if result.reason),
        sidecars=sidecars,
        sidecar_rule=run.config.sidecars,
        decisions=decisions_digest(run.decisions.get(shard.name, ())),
        highest_similarity=max((face.similarity for _, face in faces if face.similarity is not None), default=None),
        faces=tuple(
            PublishedFace(key, face.face_index, face.field, face.status, face.recoverable, tuple(round(e, 1) for e in face.box))
            for key, face in faces
        ),
        files=tuple(PublishedFile(file.name, file.sha256, file.size) for file in assembled.files),
        ignore=shard.ignore,
    )


def _events(
    record: CommitRecord, results: Sequence[SampleResult], key_file: OutputFile | None, custody: dict[str, Any]
) -> tuple[tuple[tuple[str, int, dict[str, Any]], ...], tuple[dict[str, Any], ...]]:
    """The shard's audit events, and its lines for the quarantine. Names are in the second; the log has commitments to them."""
    now = int(time.time())
    context = ShardContext(record.dataset, record.shard, record.config_digest)
    facts = {name.replace("samples_", "records_"): value for name, value in record.counts.items() if name != "faces"}
    events = [
        shard_committed(
            now,
            record.run,
            context,
            faces=record.counts["faces"],
            key_file=Receipt(key_file.name, key_file.sha256, key_file.size) if key_file else None,
            data_sha256=data_digest(record.format, [(file.name, file.sha256) for file in record.files]),
            **facts,
            **custody,
            made_by=record.made_by,
        )
    ]
    quarantine: list[dict[str, Any]] = []
    for result in results:
        if result.reason:
            commitment, salt = commit_names(record.dataset, record.shard, result.key)
            events.append(sample_quarantined(now, record.run, context, commitment, result.code))
            quarantine.append(
                {"sample": result.key, "index": result.index, "reason": result.reason, "commitment": commitment, "salt": salt}
            )
    return tuple((event.kind, event.at, dict(event.facts)) for event in events), tuple(quarantine)
