"""A job from start to end, whatever the engine: check, take the lease, finish what dead runs left, plan, commit, report.

    with open_job(config) as job:        refuses misuse, holds DST, rolls prepared shards forward, removes debris
        job.pending                      shards to do; the engine turns each into a prepared shard
        job.commit(name) / job.fail(..)  one call per shard
        report = job.finish()            audit log, state, counts that add up

State in DST/_diffpriv/: job.json (what this DST is made with), cut.json (image folders: which file is in which shard), run.json
(the last run and whether it finished), commits/, quarantine/, staging/, lease.
"""

import contextlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from keys.audit.checkpoint import NoteKey
from keys.audit.events import AuditEvent, run_finished, run_started
from keys.audit.log import AuditLog
from keys.audit.segments import AuditSegments
from keys.context import ShardContext
from keys.errors import StorageError
from keys.identity import IdentityRoot, store_identity_root
from keys.recipients import Recipient, check_recipients
from keys.store import KeyStore
from pipelines.assemble import ShardJob
from pipelines.commit import PREPARED, Commit, Prepared, read_record, segment_id
from pipelines.config import JobConfig
from pipelines.decisions import decisions_digest, keep_decisions
from pipelines.errors import MisuseError, ShardError
from pipelines.formats import Shard, data_digest, name_problem
from pipelines.journal import Journal
from pipelines.lease import hold_lease
from pipelines.policy import Decision
from pipelines.pseudonyms import read_mapping
from pipelines.report import RunReport
from pipelines.sources import STATE_FOLDER, Source, open_source, refuse_overlaps
from pipelines.staging import STAGING
from pipelines.storage import Folder
from pipelines.workers import WorkerSettings, identities

STATE_VERSION = 1
_JOB, _CUT, _RUN = (f"{STATE_FOLDER}/{name}.json" for name in ("job", "cut", "run"))


@dataclass(frozen=True)
class Progress:
    """Where a run stands; given to the caller's callback after every change."""

    shards_done: int
    shards_failed: int
    shards: int
    samples_done: int
    faces_done: int
    seconds: float


class Job:
    """One run. Made by `open_job`."""

    def __init__(self, config: JobConfig, source: Source, target: Folder, run_id: str, log_key: NoteKey | None) -> None:
        self.config, self.source, self.target, self.run_id = config, source, target, run_id
        self.digest = config.digest()
        self.segments = AuditSegments(f"{config.audit.rstrip('/')}/segments")
        self._log = AuditLog(config.audit, log_key) if log_key is not None else None
        keys = KeyStore(config.keys) if config.keys and self.keeps_keys else None
        self._commit = Commit(target, keys, self.segments)
        self.report = RunReport(run_id, config.dataset, self.digest)
        self.committed: dict[str, str] = {}  # shard -> SHA-256 of its audit segment; a record itself is too large to keep
        self.shards: list[Shard] = []
        self.pending: list[Shard] = []
        self.samples_done = self.faces_done = 0
        self._started = time.monotonic()
        self._begun = False
        self._audit_waits = False
        self._keys = keys
        self.decisions: dict[str, tuple[Decision, ...]] = {}
        # Ray's driver outlives its workers and finds the sample that kills them by itself.
        self._journal = Journal(target) if config.engine == "beam" else None

    @property
    def keeps_keys(self) -> bool:
        return self.config.transform.recovery != "none"

    def worker_settings(self, poison: frozenset[tuple[str, int]] = frozenset()) -> WorkerSettings:
        if self._journal is not None:
            return WorkerSettings(
                self.config, self.source.url, self.run_id, self._journal.poison, self.decisions, self._journal.suspects
            )
        return WorkerSettings(self.config, self.source.url, self.run_id, poison, self.decisions)

    def shard_job(self, shard: Shard, sidecars: tuple[tuple[str, int], ...] = ()) -> ShardJob:
        context = ShardContext(self.config.dataset, shard.name, self.digest)
        gpus = self.config.workers.protect_gpus
        made_by = {**identities(self.target, self.run_id), "device": "gpu" if gpus else "cpu"}
        if self.config.pseudonym.source:
            made_by["pseudonym"] = f"per identity, root {self.config.pseudonym.root_id}"
        return ShardJob(
            self.source.url,
            self.config.dst,
            shard,
            context,
            self.run_id,
            self.keeps_keys,
            made_by,
            sidecars,
            self.config.sidecars,
            self.config.faces_table,
            decisions_digest(self.decisions.get(shard.name, ())),
        )

    def begin(self) -> None:
        """Note the start in state and audit log, before any face is touched. Does nothing the second time."""
        if self._begun:
            return
        self._begun = True
        self._keep_identity_root()
        self._write_state(_RUN, {"run": self.run_id, "state": "running"})
        event = run_started(
            int(time.time()), self.run_id, self.config.dataset, self.digest, shards=len(self.shards), pending=len(self.pending)
        )
        self._put_run_segment("1-started", event)

    def _keep_identity_root(self) -> None:
        """A locked copy of the identity root in the key store, before a face is made from it. Recovery "none" keeps nothing."""
        if self.config.pseudonym.source and self._keys is not None:
            recipients = [Recipient.load(path) for path in self.config.recipients]
            store_identity_root(self._keys, self.config.dataset, IdentityRoot.load(self.config.pseudonym.root), recipients)

    def commit(self, prepared_name: str) -> None:
        """Carry a prepared shard over the line.

        Raises:
            StorageError: a store refused; the shard stays prepared, and a later run commits it.
        """
        prepared = Prepared.decode(self.target.small.read(prepared_name))
        try:
            record = self._commit.finish(prepared)
        except ShardError as error:
            self.fail(prepared.shard, str(error))
            return
        self._add(prepared.shard, record)
        self.report.shards_done += 1
        self.samples_done += record["counts"]["samples_in"]
        self.faces_done += record["counts"]["faces"]

    def _add(self, shard: str, record: dict[str, Any]) -> None:
        self.committed[shard] = record["segment"]["sha256"]
        self.report.add_record(record)

    def fail(self, shard: str, reason: str) -> None:
        """A shard as a whole cannot be done. The others go on; the report is not ok."""
        self.report.shards_failed[shard] = reason

    def finish(self) -> RunReport:
        """Integrate the audit segments if the log's key is here, and close the run. The counts were checked when it returns.

        Raises:
            JobError: the counts do not add up.
        """
        report = self.report
        report.audit = "integrated" if self._log is not None else "waiting"
        if not report.nothing_to_do:
            self.begin()
            self._integrate(
                [*self._waiting_run_segments(), *(segment_id(self.config.dataset, shard) for shard in self.committed)]
            )
            counts = {name.replace("samples_", "records_"): value for name, value in report.counts.items()}
            facts = {**counts, "shards": report.shards, "shards_failed": len(report.shards_failed)}
            self._put_run_segment("2-finished", run_finished(int(time.time()), self.run_id, self.config.dataset, **facts))
            state = "finished" if report.ok else "failed"
            self._write_state(_RUN, {"run": self.run_id, "state": state, "audit": report.audit, "failed": report.shards_failed})
            self.target.remove_tree(STAGING)
            if self._journal is not None:
                self._journal.forget(self.committed)
        report.seconds = time.monotonic() - self._started
        report.check()
        return report

    def progress(self) -> Progress:
        report = self.report
        done = report.shards_done + report.shards_done_before
        seconds = time.monotonic() - self._started
        return Progress(done, len(report.shards_failed), report.shards, self.samples_done, self.faces_done, seconds)

    # --- opening -----------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Refuse another configuration, finish what dead runs prepared, remove their debris, and plan."""
        self._check_state()
        if self._journal is not None:
            self._journal.add_dead_runs()
        rolled = self._roll_forward()
        self.shards = self._list_shards()
        self.decisions = keep_decisions(self.target, self.config.decisions, {shard.name for shard in self.shards})
        bad = [shard.name for shard in self.shards if name_problem(shard.name) or shard.name.startswith(f"{STATE_FOLDER}/")]
        if bad:
            raise MisuseError(f"SRC has a shard called {bad[0]!r}, which cannot be a shard's name.")
        self.report.shards = len(self.shards)
        for shard in self.shards:
            record = read_record(self.target, shard.name)
            if record is not None and self._still_current(record, shard):
                self._add(shard.name, record)
            else:
                self.pending.append(shard)
        self.report.shards_done_before = len(self.committed)
        self.report.rolled_forward = rolled
        last = self._read_state(_RUN) or {}
        self._audit_waits = last.get("audit") == "waiting"
        finished = last.get("state") == "finished" and not (self._audit_waits and self._log is not None)
        self.report.nothing_to_do = finished and not self.pending and not rolled

    def _check_state(self) -> None:
        mine = {
            "version": STATE_VERSION,
            "dataset": self.config.dataset,
            "config_digest": self.digest,
            "format": self.source.format,
        }
        there = self._read_state(_JOB)
        if there == mine:
            return
        if there is None:
            strangers = [name for name in self.target.names() if not name.startswith(f"{STATE_FOLDER}/")]
            if strangers:
                raise MisuseError(
                    f"DST {self.target.url} holds {len(strangers)} files that no job made, such as {strangers[0]!r}.",
                    advice="Give a folder that is empty or does not exist.",
                )
        elif self.target.names(f"{STATE_FOLDER}/commits"):
            what = ", ".join(sorted(key for key in mine if there.get(key) != mine[key]))
            raise MisuseError(
                f"DST {self.target.url} was made by a job with another {what.replace('_', ' ')}.",
                advice="Give another DST, or the settings it was made with.",
            )
        self._write_state(_JOB, mine)

    def _roll_forward(self) -> int:
        """Commit what dead runs left complete; remove all else they left. What is complete is not redone, so its keys stay."""
        rolled = 0
        for name in self.target.names(STAGING):
            if name.endswith(f"/{PREPARED}"):
                try:
                    prepared = Prepared.decode(self.target.small.read(name))
                    if prepared.record["config_digest"] == self.digest and prepared.dataset == self.config.dataset:
                        self._commit.finish(prepared)
                        rolled += 1
                except (ShardError, ValueError, KeyError, TypeError):
                    continue  # not whole after all: the shard is redone, its old output retracted by that commit
        self.target.remove_tree(STAGING)
        return rolled

    def _list_shards(self) -> list[Shard]:
        before = self._read_state(_CUT) or {}
        shards = self.source.shards(self.config.files_per_shard, before)
        if self.source.format == "folder":
            cut = {**before, **{shard.name: [facts.name for facts in shard.files] for shard in shards}}
            if cut != before:
                self._write_state(_CUT, cut)
        return shards

    def _still_current(self, record: dict[str, Any], shard: Shard) -> bool:
        """Whether the shard's source is the one that was committed. Equal contents under a new date count as the same."""
        if record.get("config_digest") != self.digest:
            return False
        if record.get("decisions", "") != decisions_digest(self.decisions.get(shard.name, ())):
            return False
        if record["source"]["files"] == shard.fingerprint:
            return True
        if [file[:2] for file in record["source"]["files"]] != [file[:2] for file in shard.fingerprint]:
            return False
        source = Folder(self.source.url)
        digests = [(facts.name, source.sha256(facts.name)) for facts in shard.files]
        return record["source"]["sha256"] == data_digest(shard.format, digests)

    def _put_run_segment(self, step: str, event: AuditEvent) -> None:
        name = f"run/{self.run_id}/{step}"
        self.segments.put(name, [event])
        self._integrate([name])

    def _integrate(self, ids: list[str]) -> None:
        if self._log is None:
            return
        expected = {segment_id(self.config.dataset, shard): sha256 for shard, sha256 in self.committed.items()}
        self._log.integrate(self.segments, ids, {name: expected[name] for name in ids if name in expected})

    def _waiting_run_segments(self) -> list[str]:
        """Segments of earlier runs on this dataset that had no log key."""
        if self._log is None or not self._audit_waits:
            return []
        runs = [name for name in self.segments.list() if name.startswith("run/")]
        return [n for n in runs if any(e.facts["dataset"] == self.config.dataset for e in self.segments.get(n).events())]

    def _read_state(self, name: str) -> dict[str, Any] | None:
        written = self.target.small.read_if_there(name)
        try:
            state = json.loads(written) if written is not None else None
        except ValueError:
            return None
        return state if isinstance(state, dict) else None

    def _write_state(self, name: str, state: dict[str, Any]) -> None:
        self.target.small.write(name, json.dumps(state, indent=1, sort_keys=True).encode())


@contextlib.contextmanager
def open_job(config: JobConfig, log_key: NoteKey | None = None) -> Iterator[Job]:
    """Check everything that can be checked before work starts, and hold DST for the length of the block.

    Args:
        log_key: signs the audit log; without it the run's segments wait for a later `diffpriv audit integrate`.
    Raises:
        MisuseError: SRC missing or empty; SRC, DST, keys and audit not apart; recipients unreadable; DST made otherwise.
        LeaseError: another run holds DST.
    """
    config = with_root_id(config)
    source = open_source(config.src, config.format)
    refuse_overlaps(source.url, config.dst, config.keys or "", config.audit)
    if config.transform.recovery != "none":
        check_recipients([Recipient.load(path) for path in config.recipients])
    target = Folder(config.dst)
    if target.local_root is not None and target.local_root.exists() and not target.local_root.is_dir():
        raise MisuseError(f"DST {config.dst} is a file.", advice="Give a folder.")
    run_id = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{uuid.uuid4().hex[:8]}"
    if target.local_root is not None and not os.access(_existing(target), os.W_OK):
        raise StorageError(f"DST {config.dst} cannot be written to.")
    with hold_lease(target, run_id):
        job = Job(config, source, target, run_id, log_key)
        job.prepare()
        yield job


def with_root_id(config: JobConfig) -> JobConfig:
    """The job with the identity root's public name in it, which enters the digest: another root is another release.

    Raises:
        MisuseError: the root cannot be read, or lies in SRC or DST.
    """
    pseudonym = config.pseudonym
    if not pseudonym.source:
        return config
    root = os.path.abspath(pseudonym.root)
    for what, place in (("SRC", config.src), ("DST", config.dst)):
        if "://" not in place and os.path.commonpath([root, os.path.abspath(place)]) == os.path.abspath(place):
            raise MisuseError(f"the identity root {pseudonym.root} lies in {what}.", advice="Keep it apart from the data.")
    if pseudonym.source.endswith(".csv"):
        read_mapping(pseudonym.source)
    root_id = IdentityRoot.load(pseudonym.root).id
    return config.model_copy(update={"pseudonym": pseudonym.model_copy(update={"root": root, "root_id": root_id})})


def _existing(target: Folder) -> str:
    place = target.local_root
    assert place is not None
    while not place.exists():
        place = place.parent
    return str(place)
