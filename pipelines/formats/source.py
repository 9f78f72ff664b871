"""From what the user calls SRC to a list of shards, and the refusals that keep originals, outputs and keys apart.

SRC is a folder of tar shards (plain, .gz, .bz2, .xz, .zst), a brace pattern (`…/shard-{000..099}.tar`), one shard file, a
folder of Parquet files, or an image folder; local or an fsspec URL. What lies beside tar or Parquet shards is read as an image
folder is. A shard's name is its path below SRC and is kept in DST.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from diffpriv.keys.errors import StorageError
from diffpriv.pipelines import layout
from diffpriv.pipelines.errors import MisuseError
from diffpriv.pipelines.formats.base import Shard
from diffpriv.pipelines.formats.compression import TAR_SUFFIXES
from diffpriv.pipelines.formats.ignoring import IGNORED, ignored_by
from diffpriv.pipelines.storage import Folder

FORMATS = ("auto", "webdataset", "parquet", "folder")
_PARQUET = (".parquet", ".pq")


@dataclass(frozen=True)
class Source:
    """Where the data is and which of its files are the dataset.

    Attributes:
        url: the folder that shard names are relative to.
        format: never "auto".
        ignored: names of the files that are left out since they, or a folder they lie in, fit one of the patterns `ignore`.
    """

    url: str
    format: str
    names: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    ignore: tuple[str, ...] = IGNORED

    def shards(self, files_per_shard: int, cut: Mapping[str, Sequence[str]] | None = None) -> list[Shard]:
        """The dataset's shards, sorted by name; reads sizes and versions of all files.

        Args:
            files_per_shard: for image folders, the bound on a shard's files.
            cut: for image folders, which files earlier runs put into which shard (see `cut_folder`).
        """
        folder = Folder(self.url)
        formats = {name: self.format_of(name) for name in self.names}
        facts = folder.facts_of(self.names)
        gone = next((name for name in self.names if name not in facts), None)
        if gone is not None:
            raise StorageError(f"{folder.describe(gone)} does not exist.")
        shards = [Shard(name, kind, (facts[name],), self.ignore) for name, kind in formats.items() if kind != "folder"]
        groups = cut_folder([name for name, kind in formats.items() if kind == "folder"], files_per_shard, cut or {})
        shards += [Shard(name, "folder", tuple(facts[file] for file in files), self.ignore) for name, files in groups.items()]
        return sorted(shards, key=lambda shard: shard.name)

    def format_of(self, name: str) -> str:
        """How one of the files is read: tars and Parquet files as shards, unless the dataset is a folder; all else as files."""
        if self.format == "webdataset" and name.endswith(TAR_SUFFIXES):
            return "webdataset"
        return "parquet" if self.format != "folder" and name.endswith(_PARQUET) else "folder"


def open_source(src: str, format: str = "auto", ignore: Sequence[str] = IGNORED) -> Source:
    """Find the dataset behind SRC.

    Args:
        ignore: patterns of names of files and folders that are left out.
    Raises:
        MisuseError: nothing is there, it holds none of the formats, or more than one.
    """
    if format not in FORMATS:
        raise MisuseError(f"format is {format!r}.", advice=f"Choose one of: {', '.join(FORMATS)}.")
    if "{" in src or _is_shard_file(src):
        return _named_files(src, format, tuple(ignore))
    folder = Folder(src)
    try:
        if not folder.is_folder():
            raise MisuseError(
                f"SRC {src} is not a folder.", advice="Give a folder, a shard file or a brace pattern that exists."
            )
        names = [name for name in folder.names() if not layout.was_state(name)]
    except StorageError as error:
        raise MisuseError(f"SRC {src} cannot be listed: {error}") from error
    ignored = tuple(name for name in names if ignored_by(name, ignore))
    names = [name for name in names if not ignored_by(name, ignore)]
    tars = [name for name in names if name.endswith(TAR_SUFFIXES)]
    parquets = [name for name in names if name.endswith(_PARQUET)]
    if format == "auto":
        format = "webdataset" if tars else "parquet" if parquets else "folder"
    chosen = {"webdataset": tars, "parquet": parquets, "folder": names}[format]
    if not chosen:
        raise MisuseError(
            f"SRC {src} holds no files of the format {format}.", advice="Check the path; an empty dataset is not protected."
        )
    # Parquet beside tars is what img2dataset writes; it is read as such. All else is a folder's files, and none is passed over.
    return Source(folder.url, format, tuple(names), ignored, tuple(ignore))


def _is_shard_file(src: str) -> bool:
    return src.endswith(TAR_SUFFIXES + _PARQUET) and ("://" in src or not os.path.isdir(src))


def _named_files(src: str, format: str, ignore: tuple[str, ...]) -> Source:
    import braceexpand

    try:
        paths = list(islice(braceexpand.braceexpand(src), 1_000_001))
    except ValueError:  # unbalanced braces
        raise MisuseError(f"SRC {src} has unbalanced braces.", advice='Write it as "shard-{000..099}.tar".') from None
    if len(paths) > 1_000_000:
        raise MisuseError(f"SRC {src} names more than a million shards.")
    parents = [path.split("/")[:-1] for path in paths]
    depth = 0
    while all(len(parts) > depth and parts[depth] == parents[0][depth] for parts in parents):
        depth += 1
    base = "/".join(parents[0][:depth])
    folder = Folder(base or ("/" if paths[0].startswith("/") else "."))
    names = sorted("/".join(path.split("/")[depth:]) for path in paths)
    found = "webdataset" if all(name.endswith(TAR_SUFFIXES) for name in names) else "parquet"
    if found == "parquet" and not all(name.endswith(_PARQUET) for name in names):
        raise MisuseError(f"SRC {src} names files that are neither tar nor Parquet.")
    if format not in ("auto", found):
        raise MisuseError(f"SRC {src} names {found} files, but the format is set to {format}.")
    if len(set(names)) != len(names):
        raise MisuseError(f"SRC {src} names a file twice.")
    there = folder.facts_of(names)
    missing = [name for name in names if name not in there]
    if missing:
        raise MisuseError(
            f"SRC {src}: {len(missing)} of {len(names)} files do not exist, the first is {folder.describe(missing[0])}."
        )
    return Source(folder.url, found, tuple(names), ignore=ignore)


def cut_folder(names: Sequence[str], files_per_shard: int, before: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Cut an image folder into shards `files-00000`, `files-00001`, ... of bounded size.

    Files stay in the shard an earlier run put them in, so that a new file redoes no old shard and no published file ever moves
    to another one; new files go to new shards, in sorted order.
    """
    there = set(names)
    groups = {shard: tuple(file for file in files if file in there) for shard, files in before.items()}
    placed = {file for files in groups.values() for file in files}
    new = sorted(there - placed)
    number = 1 + max((int(shard.rpartition("-")[2]) for shard in before), default=-1)
    for start in range(0, len(new), files_per_shard):
        groups[f"files-{number:05d}"] = tuple(new[start : start + files_per_shard])
        number += 1
    return {shard: files for shard, files in sorted(groups.items()) if files}


def refuse_overlaps(src: str, dst: str, keys: str, audit: str) -> None:
    """Originals, outputs and keys must not lie inside one another.

    Raises:
        MisuseError: naming the two that do.
    """
    places = {"SRC": src, "DST": dst, "the key store": keys, "the audit log": audit}
    pairs = [
        ("SRC", "DST"),
        ("SRC", "the key store"),
        ("DST", "the key store"),
        ("SRC", "the audit log"),
        ("DST", "the audit log"),
    ]
    for first, second in pairs:
        if not places[second]:
            continue  # recovery none has no key store
        one, two = _normal(places[first]), _normal(places[second])
        if one == two:
            raise MisuseError(f"{first} and {second} are the same place, {places[first]}.", advice="Keep them apart.")
        for inner, outer, a, b in ((first, second, one, two), (second, first, two, one)):
            if a.startswith(b.rstrip("/") + "/"):
                raise MisuseError(
                    f"{inner} ({places[inner]}) lies inside {outer} ({places[outer]}).", advice="Keep them apart."
                )


def _normal(url: str) -> str:
    """One spelling per place: links resolved locally, `.` and `..` taken out, no trailing slash."""
    if url.startswith("file://"):
        url = url[len("file://") :]
    if "://" in url:
        protocol, _, rest = url.partition("://")
        return f"{protocol.lower()}://{os.path.normpath(rest)}"
    return os.path.realpath(Path(url).expanduser())
