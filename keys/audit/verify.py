"""`audit verify`: does everything that is stored fit the signed head of the log?

1. Tree: every entry hashes into its tile, every tile into the next, the last into the root that the log's key signed.
2. History: an earlier checkpoint, held by an auditor or a witness, is a prefix of today's log.
3. Segments: each is what the log took from it, event by event.
4. Key files: each shard's has the SHA-256 that the log names last (commit, rotation, shredding); none is missing, none extra.
5. Data: each published shard has the SHA-256 of its commit entry.
6. Custody: every case went by the rules (keys/audit/custody.py), signatures included; each supersession was acknowledged.
7. Who can open: key files are sealed to the recipients and locked under the policy that their commit states, and to no others.
Nothing stops at the first finding; every problem names the file, the entry or the shard.
"""

from collections.abc import Mapping, Sequence

from diffpriv.keys.audit.checkpoint import Checkpoint, open_checkpoint
from diffpriv.keys.audit.custody import CustodyRules
from diffpriv.keys.audit.events import AuditEvent
from diffpriv.keys.audit.ledger import Ledger
from diffpriv.keys.audit.log import CASES_LOCK, LOCK, PENDING, AuditLog
from diffpriv.keys.audit.merkle import leaf_hash, root_of
from diffpriv.keys.audit.segments import AuditSegments
from diffpriv.keys.audit.tiles import (
    CHECKPOINT,
    HASH,
    WIDTH,
    TreeBuilder,
    differing_entries,
    encode_bundle,
    parse_tile_path,
    read_bundle,
    split_hashes,
    tile_path,
    tiles_of,
)
from diffpriv.keys.audit.verify_keys import Shard, VerifyReport, check_key_files, check_openers
from diffpriv.keys.custodians import CustodyPolicy
from diffpriv.keys.errors import AuditError, DiffPrivError, MisuseError, StorageError
from diffpriv.keys.notes import NoteVerifier
from diffpriv.keys.recipients import Unwrapper
from diffpriv.keys.store import KeyStore

_ATTEMPTS = 5


def verify_log(
    log: AuditLog,
    *,
    since: bytes | None = None,
    until: bytes | None = None,
    witnesses: Sequence[NoteVerifier] = (),
    segments: AuditSegments | bool = True,
    key_store: KeyStore | None = None,
    recipient_key: Unwrapper | None = None,
    data: Mapping[Shard, str] | None = None,
    policies: Sequence[CustodyPolicy] = (),
    recipients: Sequence[str] | None = None,
    now: int | None = None,
) -> VerifyReport:
    """Check the whole log and whatever else is given.

    Args:
        since, until: earlier checkpoints (signed notes); today's log must extend both, and `until` must extend `since`.
        witnesses: their cosignatures must be under the checkpoint.
        segments: True for the log's own, False where they were pruned after integration, or another place.
        key_store: check key files against the log.
        recipient_key: with a key store: open every record as well (and forget it), where no policy locks it. That is an
            entry of the log before it happens, so the log's key and `now` are needed.
        policies: the custody policies that the caller trusts: the log must pin one of them, and cases keep to them.
        recipients: fingerprints of all who may be able to open keys.
        data: SHA-256 of each published shard as measured now (or read from a manifest).
    Never raises for what it finds; the report says it.
    """
    unopened = ""
    if recipient_key is not None and key_store is not None:
        unopened = _log_opening(log, key_store, recipient_key, now)
        recipient_key = None if unopened else recipient_key
    for _ in range(_ATTEMPTS):
        before = log.location.read_if_there(CHECKPOINT)
        rules = CustodyRules(policies)
        report = _verify(log, since, until, witnesses, segments, key_store, recipient_key, data, rules, recipients)
        report.problems += [unopened] if unopened else []
        # What looks wrong while another process appends is looked at again: its files are replaced one by one.
        if report.ok or log.location.read_if_there(CHECKPOINT) == before:
            break
    return report


def _log_opening(log: AuditLog, key_store: KeyStore, recipient_key: Unwrapper, now: int | None) -> str:
    """Enter that key files are about to be opened; why they are not to be, if the log can't take the entry."""
    if log.key is None:
        raise MisuseError("opening key files is an entry of the log, and its key was not given.", advice="Give --log-key.")
    try:
        facts = {"by": recipient_key.fingerprint, "key_files": len(key_store.list())}
        log.append([AuditEvent("key files opened", now if now is not None else log.newest(), facts)])
    except DiffPrivError as error:
        return f"no record was opened, for that could not be logged: {error.message}"
    return ""


def _verify(
    log: AuditLog,
    since: bytes | None,
    until: bytes | None,
    witnesses: Sequence[NoteVerifier],
    segments: AuditSegments | bool,
    key_store: KeyStore | None,
    recipient_key: Unwrapper | None,
    data: Mapping[Shard, str] | None,
    rules: CustodyRules,
    recipients: Sequence[str] | None,
) -> VerifyReport:
    report = VerifyReport()
    try:
        head = log.checkpoint(witnesses)
    except DiffPrivError as error:
        report.problems.append(str(error))
        return report
    report.size, report.root, report.witnesses = head.size, head.root.hex(), list(head.witnesses)
    missing = {one.name for one in witnesses} - {name for name, _ in head.witnesses}
    report.problems += [f"the checkpoint of {log.url} lacks the cosignature of witness {name}." for name in sorted(missing)]
    earlier = []
    for note, what in ((since, "the earlier checkpoint"), (until, "the later checkpoint")):
        if note is not None:
            try:
                earlier.append(open_checkpoint(note, log.verifier, what=what))
            except DiffPrivError as error:
                report.problems.append(str(error))
    if len(earlier) == 2 and earlier[0].size > earlier[1].size:
        report.problems.append("the earlier checkpoint is of more entries than the later one.")
    ledger = Ledger(custody=rules)
    _check_tree(log, head, earlier, ledger, report)
    _check_files(log, head, report)
    report.problems += ledger.problems
    _check_custody(ledger, report)
    if recipients is not None or rules.trusted:
        check_openers(ledger, recipients, report)
    if segments is not False:
        _check_segments(log.segments if segments is True else segments, ledger, report)
    if key_store is not None:
        check_key_files(key_store, ledger, recipient_key, report)
    if data is not None:
        _check_data(data, ledger, report)
    return report


def _check_custody(ledger: Ledger, report: VerifyReport) -> None:
    report.problems += ledger.custody.finish()
    report.notes += [
        f"signatures of cases under policy {digest[:12]}… were not checked: give that policy."
        for digest in ledger.custody.unchecked
    ]
    findings = report.problems if ledger.custody.policies else report.notes
    findings += [
        f"entry {one.index} puts segment {one.segment} into the log again, and no custodian acknowledged it: see why its shard "
        "was redone."
        for one in ledger.superseded.values()
        if not one.acknowledged_by
    ]
    if ledger.custody.cases:
        report.checked["cases"] = len(ledger.custody.cases)


def _check_tree(log: AuditLog, head: Checkpoint, earlier: Sequence[Checkpoint], ledger: Ledger, report: VerifyReport) -> None:
    builder = TreeBuilder()
    before = len(report.problems)
    roots: dict[int, set[bytes]] = {}
    for checkpoint in earlier:
        roots.setdefault(checkpoint.size, set()).add(checkpoint.root)
        if checkpoint.size > head.size:
            report.problems.append(f"the log of {head.size} entries once had {checkpoint.size}: it was cut back.")
    if roots.get(0, {builder.root()}) != {builder.root()}:
        report.problems.append("the earlier checkpoint is not that of an empty log.")
    for number in range((head.size + WIDTH - 1) // WIDTH):
        for leaf in _check_bundle(log, number, head.size, ledger, report):
            builder.add_leaf(leaf)
            if builder.size in roots and roots[builder.size] != {builder.root()}:
                report.problems.append(
                    f"the first {builder.size} entries are not those of the earlier checkpoint: the past was rewritten."
                )
        _check_upper_tiles(log, builder.take(), report)
    _check_upper_tiles(log, builder.edge(), report)
    report.checked["entries"] = builder.size
    if builder.root() != head.root and (builder.size == head.size or len(report.problems) == before):
        report.problems.append(
            f"the {head.size} entries of {log.url} don't give the root that its key signed: an entry or a tile was altered."
        )


def _check_bundle(log: AuditLog, number: int, size: int, ledger: Ledger, report: VerifyReport) -> list[bytes]:
    """The leaf hashes of one bundle, and a problem wherever bundle and tile disagree."""
    width = min(WIDTH, size - number * WIDTH)
    tile, bundle = tile_path(0, number, width), tile_path("entries", number, width)
    entries: list[bytes] | None = None
    stored: list[bytes] | None = None
    try:
        stored = split_hashes(log.location.read(tile))
        if len(stored) != width or len(stored[-1]) != len(stored[0]):
            report.problems.append(f"{tile} does not hold {width} hashes: it was cut or extended.")
            stored = None
    except StorageError as error:
        report.problems.append(f"{tile} is missing or unreadable: {error}")
    try:
        entries = read_bundle(log.location, number, size)
    except StorageError as error:
        report.problems.append(f"{bundle} is missing or unreadable: {error}")
    except AuditError as error:
        report.problems.append(str(error))
    if entries is None:
        return stored or []
    hashes = [leaf_hash(entry) for entry in entries]
    for offset, entry in enumerate(entries):
        ledger.take(number * WIDTH + offset, entry)
    if stored is None or stored == hashes:
        return hashes
    different = [str(number * WIDTH + at) for at in differing_entries(hashes, stored)]
    named = ", ".join(different[:5]) + (" and more" if len(different) > 5 else "")
    report.problems.append(f"{bundle} and {tile} disagree about entry {named}: an entry or its hash was altered.")
    # Go on with whichever the level above knows, so that one altered byte is one finding.
    if width == WIDTH and _parent(log, number, size) == root_of(stored):
        return stored
    return hashes


def _parent(log: AuditLog, number: int, size: int) -> bytes | None:
    width = min(WIDTH, size // WIDTH - number // WIDTH * WIDTH)
    try:
        above = split_hashes(log.location.read(tile_path(1, number // WIDTH, width)))
        return above[number % WIDTH]
    except (StorageError, IndexError):
        return None


def _check_upper_tiles(log: AuditLog, tiles: Sequence[tuple[str, bytes]], report: VerifyReport) -> None:
    for path, expected in tiles:
        if path.startswith("tile/0/"):
            continue  # compared with its bundle already
        try:
            found = log.location.read(path)
        except StorageError as error:
            report.problems.append(f"{path} is missing or unreadable: {error}")
            continue
        if found != expected:
            report.problems.append(f"{path} does not fit the tiles below it: a hash or an entry was altered.")


def _check_files(log: AuditLog, head: Checkpoint, report: VerifyReport) -> None:
    pending = log.location.read_if_there(PENDING) is not None
    expected = {tile_path(*tile) for tile in tiles_of(head.size)}
    ends = {level: number * WIDTH + width for level, number, width in tiles_of(head.size)}
    if pending:
        report.notes.append(f"an append to {log.url} was interrupted; the next one finishes or removes what it left.")
    for name in log.location.names():
        if name in expected or name in (CHECKPOINT, LOCK, CASES_LOCK, PENDING) or name.startswith(("segments/", "prepared/")):
            continue
        tile = parse_tile_path(name)
        if tile is not None and tile[1] * WIDTH + tile[2] <= ends.get(tile[0], 0):
            _check_partial(log, name, *tile, head.size, report)
        elif tile is None or not pending:
            report.problems.append(
                f"{log.location.describe(name)} does not belong to a log of {head.size} entries: it was added."
            )


def _check_partial(
    log: AuditLog, name: str, level: int | str, number: int, width: int, size: int, report: VerifyReport
) -> None:
    """A partial file of an earlier size has to be the beginning of what the tile is now."""
    try:
        found = log.location.read(name)
        if level == "entries":
            expected = encode_bundle(read_bundle(log.location, number, size)[:width])
        else:
            now = min(WIDTH, (size >> (8 * int(level))) - number * WIDTH)
            expected = log.location.read(tile_path(level, number, now))[: width * HASH]
    except DiffPrivError as error:
        report.problems.append(f"{name} can't be compared with the tile it became: {error}")
        return
    if found != expected:
        report.problems.append(f"{name} is not the beginning of the tile it became: it was altered.")


def _check_segments(segments: AuditSegments, ledger: Ledger, report: VerifyReport) -> None:
    there = segments.list()
    for segment_id in there:
        try:
            segment = segments.get(segment_id)
        except DiffPrivError as error:
            report.problems.append(str(error))
            continue
        known = ledger.segments.get(segment_id)
        if known is None:
            report.notes.append(f"audit segment {segment_id} waits to be integrated.")
        elif known.sha256 != segment.sha256:
            report.problems.append(f"audit segment {segment_id} is not what entry {known.index} took: it was altered since.")
    for segment_id in sorted(ledger.segments.keys() - set(there)):
        index = ledger.segments[segment_id].index
        report.problems.append(f"audit segment {segment_id}, integrated by entry {index}, is missing.")
    report.checked["segments"] = len(there)


def _check_data(data: Mapping[Shard, str], ledger: Ledger, report: VerifyReport) -> None:
    for shard, state in sorted(ledger.shards.items()):
        where = f"published shard {shard[1]} of dataset {shard[0]}"
        if shard not in data:
            report.problems.append(f"{where} is missing; entry {state.committed} of the log names it.")
        elif data[shard] != state.data_sha256:
            report.problems.append(f"{where} is not the one that entry {state.committed} names: it was altered or swapped.")
    for extra in sorted(data.keys() - ledger.shards.keys()):
        report.problems.append(f"published shard {extra[1]} of dataset {extra[0]} is in no entry of the log: it was added.")
    report.checked["published shards"] = len(data)
