"""Changing key files that exist: log first, then replace, so that a crash shows and a rerun mends it.

For each file: compare it with the digest that the log names last -> log the change with the old and the new digest -> put the
new file. After a crash in between, the store holds the old file while the log names the new one: `audit verify` says that the
step was interrupted, and running the step again starts from the old file, logs anew and finishes. A file that fits neither
digest is refused: a rewrite must never turn a tampered file into a logged one.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from diffpriv.keys.audit.events import AuditEvent
from diffpriv.keys.audit.ledger import Ledger
from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.errors import KeyFileError
from diffpriv.keys.keyfile import KeyFile
from diffpriv.keys.store import KeyStore

_BATCH_BYTES = 64 * 1024 * 1024
_BATCH_FILES = 64  # one append to the log covers them: signing and syncing once per file would cost more than the work
Shard = tuple[str, str]


class KeyFileRewriter:
    """Reads key files against the log, and writes changed ones in batches. Call `flush` at the end."""

    def __init__(self, store: KeyStore, log: AuditLog, written: Callable[[Shard], None] | None = None) -> None:
        self._store, self._log, self._written = store, log, written
        self._queue: list[tuple[Shard, bytes, AuditEvent]] = []
        self._digests: dict[Shard, str] = {}  # of the files as they were read
        self._ledger = Ledger()
        log.read_proved(self._ledger.take)

    @property
    def pinned(self) -> list[str]:
        """Digests of the custody policies that the log pins, the present one last."""
        return list(self._ledger.custody.pinned)

    def read(self, dataset: str, shard: str) -> KeyFile:
        """Raises: KeyFileError if the file is not one that the log names."""
        data = self._store.get(dataset, shard)
        digest = hashlib.sha256(data).digest()
        state = self._ledger.shards.get((dataset, shard))
        if state is None:
            raise KeyFileError(f"the key file of {shard} of dataset {dataset} is in no entry of the audit log.")
        if digest != state.key_file and not (state.step and digest == state.previous):
            KeyFile.parse(data, dataset=dataset, shard=shard)  # says more where the file is damaged or swapped
            raise KeyFileError(
                f"the key file of {shard} of dataset {dataset} is not the one the audit log names: it was altered.",
                advice='Run "diffpriv audit verify" with the key store, and restore the file.',
            )
        self._digests[dataset, shard] = digest.hex()
        return KeyFile.parse(data, dataset=dataset, shard=shard)

    def replace(self, kind: str, file: KeyFile, data: bytes, facts: Mapping[str, Any], now: int) -> None:
        """Queue one change; its event states `facts`, the shard, and both digests."""
        shard = (file.context.dataset, file.context.shard)
        digests = {"old_key_file_sha256": self._digests[shard], "key_file_sha256": hashlib.sha256(data).hexdigest()}
        event = AuditEvent(kind, now, {"dataset": shard[0], "shard": shard[1], **facts, **digests})
        self._queue.append((shard, data, event))
        if len(self._queue) >= _BATCH_FILES or sum(len(one[1]) for one in self._queue) >= _BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        if not self._queue:
            return
        self._log.append([event for _, _, event in self._queue])
        for shard, data, _ in self._queue:
            self._store.put(*shard, data)
            if self._written:
                self._written(shard)
        self._queue = []
