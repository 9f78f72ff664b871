"""Commit records in pages: what planning needs of a thousand shards in one object, DST/.diffpriv/pages/<run>-<number>.jsonl.

A line is {"size", "version", "record"}: a commit record without its faces, and what its own file was when it was written. It
counts only while a listing of commits/ shows that very file. So pages are a cache: without them, each record is read by itself;
and whoever could write a wrong page could as well write a wrong record.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from diffpriv.pipelines import layout
from diffpriv.pipelines.destination.record import CommitRecord
from diffpriv.pipelines.errors import ShardError
from diffpriv.pipelines.formats.base import Shard
from diffpriv.pipelines.storage import FileFacts, Folder

PAGE = 1000  # shards


class CommitPages:
    """The pages of one DST, as a run reads and continues them.

    Args:
        target: DST.
        run_id: of the run that adds lines.
    """

    def __init__(self, target: Folder, run_id: str) -> None:
        self._target, self._run = target, run_id
        self._lines: list[bytes] = []
        self._replaced: list[str] = []  # pages of which too little still counts
        self._added = self._written = 0

    def known(self, there: Mapping[str, FileFacts]) -> Iterator[CommitRecord]:
        """Each record that a page holds as it now is, once, without faces.

        Args:
            there: the files of DST.
        """
        seen: set[str] = set()
        pages = [name for name in there if name.startswith(f"{layout.PAGES}/")]
        for page, data in self._target.small.read_many(pages):
            live = []
            for line in data.splitlines():
                record = _current(line, there)
                if record is not None and record.shard not in seen:
                    seen.add(record.shard)
                    live.append(line)
                    yield record
            if len(live) < PAGE // 2:  # many short runs leave many short pages: they are gathered
                self._lines += live
                self._replaced.append(page)

    def add(self, record: CommitRecord, facts: FileFacts | None = None) -> None:
        """Take a committed shard's record in.

        Args:
            facts: of the record's file, if they are known.
        """
        facts = facts or self._target.facts(layout.commit_record(record.shard))
        short = replace(record, faces=(), quarantined=()).to_json()
        line = {"size": facts.size, "version": facts.version, "record": short}
        self._lines.append(json.dumps(line, separators=(",", ":")).encode())
        self._added += 1

    def write_full(self) -> None:
        """Write as many whole pages as there are lines for."""
        while len(self._lines) >= PAGE:
            self._write(PAGE)

    def close(self) -> None:
        """Write what is left, and remove the pages that this run's replace; nothing if the run added nothing."""
        if not self._added:
            return
        self.write_full()
        if self._lines:
            self._write(len(self._lines))
        for page in self._replaced:
            self._target.small.delete(page)
        self._replaced, self._added = [], 0

    def _write(self, lines: int) -> None:
        name = f"{layout.PAGES}/{self._run}-{self._written:05d}.jsonl"
        self._target.small.write(name, b"".join(line + b"\n" for line in self._lines[:lines]))
        self._written += 1
        del self._lines[:lines]


def _current(line: bytes, there: Mapping[str, FileFacts]) -> CommitRecord | None:
    try:
        values = json.loads(line)
        record = CommitRecord.from_json(values["record"])
        facts = there.get(layout.commit_record(record.shard))
        same = facts is not None and (facts.size, facts.version) == (values["size"], values["version"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # cut, or of another version: the record itself is read
    return record if same else None


def committed_before(target: Folder, pages: CommitPages, shards: Sequence[Shard]) -> Iterator[tuple[Shard, CommitRecord]]:
    """The shards that are published and the record of each, from one listing of DST and its pages; only a record that is on no
    page is read by itself."""
    by_name = {shard.name: shard for shard in shards}
    there = target.listing()
    seen = set()
    for record in pages.known(there):
        seen.add(record.shard)
        if record.shard in by_name and record.is_published(there):
            yield by_name[record.shard], record
    rest = [name for name in by_name if name not in seen and layout.commit_record(name) in there]
    for name, (_, data) in zip(rest, target.small.read_many([layout.commit_record(one) for one in rest]), strict=True):
        try:
            record = CommitRecord.decode(data)
        except ShardError:
            continue  # a damaged record counts as none
        if record.shard == name and record.is_published(there):
            pages.add(record, there[layout.commit_record(name)])
            yield by_name[name], record
