"""Where half-done work lies until its shard is complete: DST/.diffpriv/staging/<run>/<shard>/.

A part is what one call of the protect stage leaves of one shard, one file:
    offset  field
    0       the changed pictures, one after another, each an encoded picture with its faces already replaced
    then    the sealed part (layout at `encode_sealed`), if any face has a record
Who reads a part knows offsets and digests from the sample results that travelled to the driver; a part that no result names is
debris of a retry and disappears with the run's folder. Nothing here is secret, and no picture here shows an original face.
"""

import base64
import hashlib
import json
import struct
import uuid
from collections.abc import Sequence

from diffpriv.keys.context import ShardContext
from diffpriv.keys.errors import StorageError
from diffpriv.keys.quorum import ShardLock
from diffpriv.keys.sealing import SealedPart
from diffpriv.pipelines import layout
from diffpriv.pipelines.errors import ShardError
from diffpriv.pipelines.records.results import Blob, SampleResult, StagedPicture
from diffpriv.pipelines.records.samples import ProtectedSample, QuarantinedSample
from diffpriv.pipelines.storage import Folder


def write_part(
    target: Folder,
    run_id: str,
    outcomes: Sequence[ProtectedSample | QuarantinedSample],
    sealed: SealedPart | None,
) -> list[SampleResult]:
    """Write one shard's samples of a call as one part; their results, in order. Atomic, not durable: a crash redoes it."""
    if not outcomes:
        return []
    part = f"{layout.staged_shard(run_id, outcomes[0].shard)}/{uuid.uuid4().hex}.part"
    data: list[bytes] = []
    offset = 0

    def add(one: bytes) -> Blob:
        nonlocal offset
        data.append(one)
        offset += len(one)
        return Blob(part, offset - len(one), len(one), hashlib.sha256(one).hexdigest())

    results = []
    for outcome in outcomes:
        if isinstance(outcome, QuarantinedSample):
            results.append(SampleResult.quarantined(outcome))
        else:
            changed = tuple(StagedPicture(picture.field, add(picture.data)) for picture in outcome.changed)
            results.append(
                SampleResult(
                    outcome.shard,
                    outcome.index,
                    outcome.key,
                    "",
                    outcome.pictures,
                    changed,
                    outcome.faces,
                    frames_dropped=outcome.frames_dropped,
                    gain_maps_dropped=outcome.gain_maps_dropped,
                )
            )
    if sealed is not None:
        blob = add(encode_sealed(sealed))
        held = set(sealed.samples)
        results = [
            SampleResult(**{**vars(result), "sealed": blob}) if result.key in held and not result.reason else result
            for result in results
        ]
    if data:
        target.small.write(part, b"".join(data))
    return results


def read_blob(target: Folder, blob: Blob) -> bytes:
    """Raises: ShardError if the part is gone or is not what was written."""
    try:
        data = target.read_range(blob.part, blob.offset, blob.size)
    except StorageError as error:
        raise ShardError(f"a part of the work is gone: {error}") from error
    if hashlib.sha256(data).hexdigest() != blob.sha256:
        raise ShardError(f"{target.describe(blob.part)} is not what was written there.")
    return data


def note_made_by(target: Folder, run_id: str, stage: str, fingerprint: str) -> None:
    """What a worker loaded, for the commit record; every worker of a stage writes the same."""
    target.small.write(f"{layout.made_by_notes(run_id)}/{stage}", fingerprint.encode())


def read_made_by(target: Folder, run_id: str) -> dict[str, str]:
    """stage -> the fingerprint of what its workers loaded."""
    names = target.names(layout.made_by_notes(run_id))
    return {name.rpartition("/")[2]: target.small.read(name).decode() for name in names}


def encode_sealed(part: SealedPart) -> bytes:
    """4 bytes big-endian length of a JSON header, the header, then the records one after another.

    Header: dataset, shard, config_digest, commitment and wraps (base64), recipients, and per record [sample, face index, size];
    under a custody policy the shard's lock, and the quorum's half wrapped to it (base64).
    """
    header = {
        "context": [part.context.dataset, part.context.shard, part.context.config_digest],
        "commitment": base64.b64encode(part.commitment).decode(),
        "recipients": [list(one) for one in part.recipients],
        "wraps": [base64.b64encode(wrap).decode() for wrap in part.wraps],
        "lock": part.lock.to_json() if part.lock else None,
        "quorum_wrap": base64.b64encode(part.quorum_wrap).decode(),
        "records": [
            [sample, index, len(record)]
            for sample, index, record in zip(part.samples, part.face_indices, part.records, strict=True)
        ],
    }
    text = json.dumps(header).encode()
    return b"".join((struct.pack(">I", len(text)), text, *part.records))


def decode_sealed(data: bytes) -> SealedPart:
    """A part of sealed records from the bytes in staging."""
    (length,) = struct.unpack_from(">I", data)
    header = json.loads(data[4 : 4 + length])
    records, offset = [], 4 + length
    for _, _, size in header["records"]:
        records.append(data[offset : offset + size])
        offset += size
    return SealedPart(
        ShardContext(*header["context"]),
        base64.b64decode(header["commitment"]),
        tuple((fingerprint, kind) for fingerprint, kind in header["recipients"]),
        tuple(base64.b64decode(wrap) for wrap in header["wraps"]),
        tuple(sample for sample, _, _ in header["records"]),
        tuple(index for _, index, _ in header["records"]),
        tuple(records),
        ShardLock.from_json(header["lock"]) if header.get("lock") else None,
        base64.b64decode(header.get("quorum_wrap", "")),
    )
