"""A job from start to end, whatever the engine: check, take the lease, finish what dead runs left, plan, commit, report.

    with open_job(config) as job:        refuses misuse, holds DST, rolls prepared shards forward, removes debris
        job.pending                      shards to do; the engine turns each into a prepared shard
        job.commit(name) / job.fail(..)  one call per shard
        report = job.finish()            audit log, state, counts that add up

What it keeps in DST between runs, and under which names: `pipelines.layout`.
"""

import contextlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from diffpriv.config import DIGEST_VERSION as METHOD_VERSION
from diffpriv.keys.audit.events import AuditEvent, run_finished, run_started
from diffpriv.keys.audit.heads import beside
from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.audit.segments import AuditSegments
from diffpriv.keys.errors import StorageError
from diffpriv.keys.identity import IdentityRoot, store_identity_root
from diffpriv.keys.notes import NoteKey
from diffpriv.keys.recipients import Recipient, check_recipients
from diffpriv.keys.store import KeyStore, encode_name
from diffpriv.pipelines import layout
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.destination.commit import Commit, Prepared, prepared_place, segment_id
from diffpriv.pipelines.destination.decisions import decisions_digest, keep_decisions
from diffpriv.pipelines.destination.lease import hold_lease
from diffpriv.pipelines.destination.pages import CommitPages, committed_before
from diffpriv.pipelines.destination.record import CommitRecord
from diffpriv.pipelines.destination.worker_deaths import Suspects
from diffpriv.pipelines.errors import MisuseError, ShardError
from diffpriv.pipelines.formats.base import Shard, name_problem, source_digest
from diffpriv.pipelines.formats.preview import refuse_unknown
from diffpriv.pipelines.formats.source import Source, open_source, refuse_overlaps
from diffpriv.pipelines.run.checks import check_policy, check_serving_policy, with_root_id
from diffpriv.pipelines.run.report import RunReport
from diffpriv.pipelines.run_context import RunContext
from diffpriv.pipelines.steps.policy import Decision
from diffpriv.pipelines.storage import FileFacts, Folder

STATE_VERSION = 2  # 1 had no version of the method


@dataclass(frozen=True)
class Progress:
    """Where a run stands; given to the caller's callback after every change."""

    shards_done: int
    shards_failed: int
    shards: int
    samples_done: int
    faces_done: int
    seconds: float


@dataclass(frozen=True)
class Carried:
    """What became of a prepared shard: its record and that file's facts, or the problem."""

    shard: str
    problem: str = ""
    record: CommitRecord | None = None
    facts: FileFacts | None = None


class Job:
    """One run. Made by `open_job`.

    Args:
        suspects: what becomes of samples that workers died over; the engine knows (`pipelines.destination.worker_deaths`).
    """

    def __init__(
        self, config: JobConfig, source: Source, target: Folder, run_id: str, log: AuditLog | None, suspects: Suspects
    ) -> None:
        self.config, self.source, self.target, self.run_id = config, source, target, run_id
        self.suspects = suspects
        self.digest = config.digest()
        self.segments = AuditSegments(f"{config.audit.rstrip('/')}/segments")
        self._log = log
        keys = KeyStore(config.keys) if config.keys and config.keeps_keys else None
        self._prepared = prepared_place(config.audit)
        self._commit = Commit(target, keys, self.segments, self._prepared)
        self._pages = CommitPages(target, run_id)
        self._expected: dict[str, str] = {}  # segment -> SHA-256, of what this run itself committed
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

    @property
    def context(self) -> RunContext:
        """What workers that start now have to know."""
        poison, alone = self.suspects.poison, self.suspects.alone
        return RunContext(self.config, self.source.url, self.run_id, self.decisions, poison, alone)

    @property
    def unfinished(self) -> list[Shard]:
        """Pending shards that are neither committed nor failed by now."""
        return [s for s in self.pending if s.name not in self.committed and s.name not in self.report.shards_failed]

    def begin(self) -> None:
        """Note the start in state and audit log, before any face is touched. Does nothing the second time."""
        if self._begun:
            return
        self._begun = True
        self._keep_identity_root()
        self._write_state(layout.RUN, {"run": self.run_id, "state": "running"})
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
        """Carry a prepared shard over the line: `carry`, then `note`."""
        self.note(self.carry(prepared_name))

    def carry(self, prepared_name: str) -> "Carried":
        """Commit a prepared shard. For several shards at a time, from threads; it changes nothing of this object.

        Raises:
            StorageError: a store refused; the shard stays prepared, and a later run commits it.
        """
        prepared = Prepared.decode(self._prepared.read(prepared_name))
        try:
            record = self._commit.finish(prepared)
        except ShardError as error:
            return Carried(prepared.shard, str(error))
        return Carried(prepared.shard, "", record, self.target.facts(layout.commit_record(record.shard)))

    def note(self, carried: "Carried") -> None:
        """Take in what `carry` did; in the job's own thread."""
        record = carried.record
        if record is None:
            self.fail(carried.shard, carried.problem)
            return
        self._own(record)
        self._add(record)
        self._pages.add(record, carried.facts)
        self._pages.write_full()
        self.report.shards_done += 1
        self.samples_done += record.counts["samples_in"]
        self.faces_done += record.counts["faces"]

    def _own(self, record: CommitRecord) -> None:
        """This run's own commit: what its segment must be is known from here, and from nothing that lies in DST."""
        self._expected[segment_id(record.dataset, record.shard)] = record.segment_sha256

    def _add(self, record: CommitRecord) -> None:
        self.committed[record.shard] = record.segment_sha256
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
            self._write_state(
                layout.RUN, {"run": self.run_id, "state": state, "audit": report.audit, "failed": report.shards_failed}
            )
            self._forget_prepared(self.run_id)
            self.target.remove_tree(layout.STAGING)
            self._pages.close()
            self.suspects.forget(self.committed)
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
        self.suspects.open(self.target)
        rolled = self._roll_forward()
        self.shards = self._list_shards()
        self.decisions = keep_decisions(self.target, self.config.decisions, {shard.name for shard in self.shards})
        bad = [shard.name for shard in self.shards if name_problem(shard.name) or layout.is_state(shard.name)]
        if bad:
            raise MisuseError(f"SRC has a shard called {bad[0]!r}, which cannot be a shard's name.")
        self.report.shards = len(self.shards)
        self.report.add_litter(self.source.ignored, self.source.ignore)
        if self.config.beside.stops:
            refuse_unknown(Folder(self.source.url), self.shards)
        for shard, record in committed_before(self.target, self._pages, self.shards):
            if self._still_current(record, shard):
                self._add(record)
        self.pending = [shard for shard in self.shards if shard.name not in self.committed]
        self.report.shards_done_before = len(self.committed)
        self.report.rolled_forward = rolled
        last = self._read_state(layout.RUN) or {}
        self._audit_waits = last.get("audit") == "waiting"
        finished = last.get("state") == "finished" and not (self._audit_waits and self._log is not None)
        self.report.nothing_to_do = finished and not self.pending and not rolled

    def _check_state(self) -> None:
        mine = {
            "version": STATE_VERSION,
            "dataset": self.config.dataset,
            "config_digest": self.digest,
            "format": self.source.format,
            "method_version": METHOD_VERSION,
        }
        there = self._read_state(layout.JOB)
        if there == mine:
            return
        if there is None:
            unexpected = [name for name in self.target.names() if not layout.is_state(name)]
            if unexpected:
                raise MisuseError(
                    f"DST {self.target.url} holds {len(unexpected)} files that no job made, such as {unexpected[0]!r}.",
                    advice="Give a folder that is empty or does not exist.",
                )
        elif self.target.names(layout.COMMITS):
            self._refuse_to_mix(there, mine)
        self._write_state(layout.JOB, mine)

    def _refuse_to_mix(self, there: dict[str, Any], mine: dict[str, Any]) -> None:
        """DST has shards that another job made; two kinds of faces in one dataset would pass for one."""
        if there.get("method_version") != METHOD_VERSION:
            version = there.get("method_version")
            made = f"version {version} of the method" if version else "a release that kept no version of the method"
            raise MisuseError(
                f"DST {self.target.url} was made by {made}; this is version {METHOD_VERSION}, which draws other faces.",
                advice="Give a new DST, so that all faces are of one kind, or finish this one with the release that began it. "
                "What is published there stays valid: recover, audit and gate read it as before.",
            )
        what = ", ".join(sorted(key for key in mine if there.get(key) != mine[key]))
        raise MisuseError(
            f"DST {self.target.url} was made with other settings ({what.replace('_', ' ')}).",
            advice="Give another DST, or the settings it was made with.",
        )

    def _roll_forward(self) -> int:
        """Commit what dead runs left complete; remove all else they left. What is complete is not redone, so its keys stay."""
        rolled = 0
        runs = sorted({name.removeprefix(f"{layout.STAGING}/").partition("/")[0] for name in self.target.names(layout.STAGING)})
        for run in runs:  # only those of this DST: another may hold a dataset of the same name
            for name in self._prepared.names(self._prepared_by(run)):
                with contextlib.suppress(ShardError):  # not whole after all: the shard is redone, its old output retracted
                    prepared = Prepared.decode(self._prepared.read(name))
                    record = prepared.record
                    if (record.config_digest, record.dataset) == (self.digest, self.config.dataset):
                        self._own(self._commit.finish(prepared, after_a_crash=True))
                        rolled += 1
            self._forget_prepared(run)
        self.target.remove_tree(layout.STAGING)
        return rolled

    def _prepared_by(self, run: str) -> str:
        return f"{encode_name(self.config.dataset)}/{run}"

    def _forget_prepared(self, run: str) -> None:
        for name in self._prepared.names(self._prepared_by(run)):
            self._prepared.delete(name)

    def _list_shards(self) -> list[Shard]:
        before = self._read_state(layout.CUT) or {}
        shards = self.source.shards(self.config.files_per_shard, before)
        if self.source.format == "folder":
            cut = {**before, **{shard.name: [facts.name for facts in shard.files] for shard in shards}}
            if cut != before:
                self._write_state(layout.CUT, cut)
        return shards

    def _still_current(self, record: CommitRecord, shard: Shard) -> bool:
        """Whether the shard's source is the one that was committed. Equal contents under a new date count as the same."""
        if record.config_digest != self.digest:
            return False
        if record.decisions != decisions_digest(self.decisions.get(shard.name, ())):
            return False
        if record.made_from(shard.files):
            return True
        if [(name, size) for name, size, _ in record.source_files] != [(facts.name, facts.size) for facts in shard.files]:
            return False
        return record.source_sha256 == source_digest(Folder(self.source.url), shard)

    def _put_run_segment(self, step: str, event: AuditEvent) -> None:
        name = f"run/{self.run_id}/{step}"
        self.segments.put(name, [event])
        self._integrate([name])

    def _integrate(self, ids: list[str]) -> None:
        if self._log is None:
            return
        settled = {segment_id(self.config.dataset, shard): digest for shard, digest in self.committed.items()}
        expected = {name: self._expected[name] for name in ids if name in self._expected}
        self._log.integrate(self.segments, ids, expected, settled)

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
def open_job(config: JobConfig, log_key: NoteKey | None = None, suspects: Suspects | None = None) -> Iterator[Job]:
    """Check everything that can be checked before work starts, and hold DST for the length of the block.

    Args:
        suspects: see `Job`.
        log_key: signs the audit log; without it the run's segments wait for a later `diffpriv audit integrate`.
    Raises:
        MisuseError: SRC missing or empty; SRC, DST, keys and audit not apart; recipients unreadable; DST made otherwise;
            the custody policy was replaced.
        LeaseError: another run holds DST.
    """
    config = with_root_id(config)
    source = open_source(config.src, config.format, config.ignore)
    refuse_overlaps(source.url, config.dst, config.keys or "", config.audit)
    kept = [beside(config.log_key)] if config.log_key else []
    log = AuditLog(config.audit, log_key, kept=kept) if log_key is not None else None
    if config.keeps_keys:
        check_recipients([Recipient.load(path) for path in config.recipients])
        check_serving_policy(config, check_policy(config), log)
    target = Folder(config.dst)
    if target.local_root is not None and target.local_root.exists() and not target.local_root.is_dir():
        raise MisuseError(f"DST {config.dst} is a file.", advice="Give a folder.")
    run_id = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{uuid.uuid4().hex[:8]}"
    if target.local_root is not None and not os.access(_existing(target), os.W_OK):
        raise StorageError(f"DST {config.dst} cannot be written to.")
    with hold_lease(target, run_id):
        job = Job(config, source, target, run_id, log, suspects or Suspects())
        job.prepare()
        yield job


def _existing(target: Folder) -> str:
    place = target.local_root
    assert place is not None
    while not place.exists():
        place = place.parent
    return str(place)
