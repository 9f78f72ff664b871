"""One run at a time on one DST.

Locally the lease is a `flock` on DST/.diffpriv/lease: the kernel lets go of it when the process dies, however it dies, so a
killed run never blocks its successor. Elsewhere it is a heartbeat: the holder writes the time every BEAT seconds, and a lease
that has been silent for STALE seconds may be taken. Object stores offer no lock that survives both crash and partition; there,
schedule runs so that they cannot meet, and take this as the guard against mistakes that it is.
"""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from diffpriv.keys.errors import StorageError
from diffpriv.keys.files import make_folder_durably
from diffpriv.pipelines.errors import LeaseError
from diffpriv.pipelines.layout import LEASE
from diffpriv.pipelines.storage import Folder

BEAT = 15.0
STALE = 120.0


@contextlib.contextmanager
def hold_lease(target: Folder, run_id: str) -> Iterator[None]:
    """Hold DST for the length of the block.

    Raises:
        LeaseError: another run holds it; says which, where and since when.
    """
    with _local_lease(target, run_id) if target.local_root is not None else _remote_lease(target, run_id):
        yield


def _holder(run_id: str) -> bytes:
    return json.dumps({"run": run_id, "host": socket.gethostname(), "process": os.getpid(), "time": time.time()}).encode()


def _refusal(target: Folder, written: bytes) -> LeaseError:
    try:
        holder = json.loads(written)
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(holder["time"]))
        who = f"run {holder['run']} (process {holder['process']} on {holder['host']}, since {since})"
    except (ValueError, KeyError, TypeError):
        who = "another run"
    return LeaseError(f"{target.url} is being written by {who}.", advice="Wait for it to end, or stop it, and try again.")


@contextlib.contextmanager
def _local_lease(target: Folder, run_id: str) -> Iterator[None]:
    import fcntl

    path = target.path(LEASE)
    try:
        make_folder_durably(Path(path).parent)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)  # not inherited by the engine's processes (PEP 446)
    except OSError as error:
        raise StorageError(f"{target.describe(LEASE)} can't be written: {error.strerror or error}.") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise _refusal(target, os.pread(handle, 4096, 0)) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, _holder(run_id), 0)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _remote_lease(target: Folder, run_id: str) -> Iterator[None]:
    written = target.small.read_if_there(LEASE)
    if written is not None and _age(written) < STALE:
        raise _refusal(target, written)
    target.small.write(LEASE, _holder(run_id))
    stopped = threading.Event()

    def beat() -> None:
        while not stopped.wait(BEAT):
            with contextlib.suppress(StorageError):  # a missed beat is what STALE leaves room for
                target.small.write(LEASE, _holder(run_id))

    thread = threading.Thread(target=beat, name="diffpriv-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        target.small.delete(LEASE)


def _age(written: bytes) -> float:
    try:
        return time.time() - float(json.loads(written)["time"])
    except (ValueError, KeyError, TypeError):
        return 0.0  # unreadable counts as fresh: refuse rather than run twice
