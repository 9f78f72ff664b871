"""The log as files, in the C2SP tlog-tiles layout (https://c2sp.org/tlog-tiles), so that any reader of that can read ours.

tile/<L>/<N>[.p/<W>]        hashes of level 8 L: W (256 if full) times 32 bytes, those with index 256 N ... 256 N + W - 1
tile/entries/<N>[.p/<W>]    entry bundle: W entries, each 2 bytes length (big-endian) || entry
checkpoint                  keys/audit/checkpoint.py
<N> is in groups of three digits, all but the last with an "x": 1234067 -> x001/x234/067.
Partial files stay until their tile is full, so that whoever holds an older checkpoint still finds its tiles; then they go.
"""

import re
import struct
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

from diffpriv.keys.audit.merkle import leaf_hash, root_of
from diffpriv.keys.errors import AuditError
from diffpriv.keys.files import Location

WIDTH = 256
HASH = 32
MAX_ENTRY = 65535
CHECKPOINT = "checkpoint"
_HEIGHT = 8
_TILE = re.compile(r"tile/(entries|\d|[1-5]\d|6[0-3])/((?:x\d{3}/)*\d{3})(?:\.p/(\d{1,3}))?")


def tile_path(level: int | str, number: int, width: int = WIDTH) -> str:
    """`level` is a tile level, or "entries"."""
    groups = f"{number % 1000:03d}"
    number //= 1000
    while number:
        groups = f"x{number % 1000:03d}/{groups}"
        number //= 1000
    return f"tile/{level}/{groups}" + (f".p/{width}" if width < WIDTH else "")


def parse_tile_path(path: str) -> tuple[int | str, int, int] | None:
    """(level, number, width), or None for a name that is no tile's."""
    match = _TILE.fullmatch(path)
    if not match:
        return None
    level: int | str = "entries" if match[1] == "entries" else int(match[1])
    number = int(match[2].replace("x", "").replace("/", ""))
    width = int(match[3]) if match[3] else WIDTH
    return (level, number, width) if width and tile_path(level, number, width) == path else None


def tiles_of(size: int) -> Iterator[tuple[int | str, int, int]]:
    """(level, number, width) of every file of a log of `size` entries."""
    counts: list[tuple[int | str, int]] = [("entries", size), *enumerate(_level_counts(size))]
    for level, count in counts:
        for number in range(count // WIDTH):
            yield level, number, WIDTH
        if count % WIDTH:
            yield level, count // WIDTH, count % WIDTH


def _level_counts(size: int) -> list[int]:
    counts = []
    while size:
        counts.append(size)
        size //= WIDTH
    return counts


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """Entries one after the other, each behind its length in two bytes."""
    return b"".join(struct.pack(">H", len(entry)) + entry for entry in entries)


def decode_bundle(data: bytes, width: int, where: str) -> list[bytes]:
    """Raises: AuditError if the bundle does not hold exactly `width` entries."""
    entries, at = [], 0
    while at < len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if at + 2 > len(data) or end > len(data):
            raise AuditError(f"{where} is cut in the middle of an entry.")
        entries.append(data[at + 2 : end])
        at = end
    if len(entries) != width:
        raise AuditError(f"{where} holds {len(entries)} entries instead of {width}.")
    return entries


class TreeBuilder:
    """Turns entries into tile files. Holds the right edge only: memory does not grow with the log.

    `add` may complete tiles; `take` hands over the files that are complete; `edge` gives the partial ones at the end.
    """

    def __init__(self) -> None:
        self.size = 0
        self._bundle: list[bytes] = []
        self._levels: list[list[bytes]] = []  # of each tile level, the hashes of its last, partial tile
        self._done: list[tuple[str, bytes]] = []

    @classmethod
    def resume(cls, location: Location, size: int) -> "TreeBuilder":
        """At the end of a stored log. Raises: AuditError, StorageError if the right edge is damaged."""
        builder = cls()
        builder.size = size
        for count in _level_counts(size):
            builder._levels.append(_hashes(location, len(builder._levels), count // WIDTH, count % WIDTH))
        if size % WIDTH:
            path = tile_path("entries", size // WIDTH, size % WIDTH)
            builder._bundle = decode_bundle(location.read(path), size % WIDTH, path)
            if [leaf_hash(entry) for entry in builder._bundle] != builder._levels[0]:
                raise AuditError(f"{path} does not fit the hashes beside it: an entry was altered.")
        return builder

    def add(self, entry: bytes) -> None:
        if len(entry) > MAX_ENTRY:
            raise AuditError(f"an entry of {len(entry)} bytes is too long for the log; {MAX_ENTRY} is the limit.")
        self._bundle.append(entry)
        if len(self._bundle) == WIDTH:
            self._done.append((tile_path("entries", self.size // WIDTH), encode_bundle(self._bundle)))
            self._bundle = []
        self.add_leaf(leaf_hash(entry))

    def add_leaf(self, value: bytes) -> None:
        """A leaf's hash alone: enough to recompute a tree, not to write one."""
        self._push(0, value, self.size)
        self.size += 1

    def _push(self, level: int, value: bytes, index: int) -> None:
        if level == len(self._levels):
            self._levels.append([])
        hashes = self._levels[level]
        hashes.append(value)
        if len(hashes) == WIDTH:
            self._done.append((tile_path(level, index // WIDTH), b"".join(hashes)))
            self._levels[level] = []
            self._push(level + 1, root_of(hashes), index // WIDTH)

    def take(self) -> list[tuple[str, bytes]]:
        done, self._done = self._done, []
        return done

    def edge(self) -> list[tuple[str, bytes]]:
        """The partial files that belong to the log at its present size."""
        files = []
        if self._bundle:
            files.append((tile_path("entries", self.size // WIDTH, len(self._bundle)), encode_bundle(self._bundle)))
        for level, hashes in enumerate(self._levels):
            if hashes:
                number = (self.size >> (_HEIGHT * level)) // WIDTH
                files.append((tile_path(level, number, len(hashes)), b"".join(hashes)))
        return files

    def root(self) -> bytes:
        """MTH of all entries: every level's partial tile, with what is left over from the level below as its last node."""
        rest: bytes | None = None
        for hashes in self._levels:
            nodes = hashes if rest is None else [*hashes, rest]
            if nodes:
                rest = root_of(nodes)
        return rest if rest is not None else root_of([])


class TileReader:
    """Node hashes of a stored log, for proofs; reads a tile at most once in a while."""

    def __init__(self, location: Location, size: int, cache: int = 64) -> None:
        self._location, self._counts, self._cache = location, _level_counts(size), cache
        self._tiles: OrderedDict[tuple[int, int], list[bytes]] = OrderedDict()

    def node(self, level: int, index: int) -> bytes:
        tile_level, depth = divmod(level, _HEIGHT)
        first = index << depth
        number, offset = divmod(first, WIDTH)
        return root_of(self._tile(tile_level, number)[offset : offset + (1 << depth)])

    def _tile(self, level: int, number: int) -> list[bytes]:
        if (level, number) not in self._tiles:
            width = min(WIDTH, self._counts[level] - number * WIDTH)
            self._tiles[level, number] = _hashes(self._location, level, number, width)
            if len(self._tiles) > self._cache:
                self._tiles.popitem(last=False)
        return self._tiles[level, number]


def read_bundle(location: Location, number: int, size: int) -> list[bytes]:
    """The entries of bundle `number` of a log of `size` entries."""
    width = min(WIDTH, size - number * WIDTH)
    path = tile_path("entries", number, width)
    data = location.read_if_there(path)
    if data is not None:
        return decode_bundle(data, width, path)
    wider = _full_if_there(location, "entries", number, width)
    return decode_bundle(location.read(tile_path("entries", number, wider)), wider, path)[:width]


def read_bundles(location: Location, size: int) -> Iterator[tuple[int, list[bytes]]]:
    """(number, entries) of every bundle of a log of `size` entries, in order; an object store is asked for many at a time."""
    full = size // WIDTH
    for number, (path, data) in enumerate(location.read_many([tile_path("entries", number) for number in range(full)])):
        yield number, decode_bundle(data, WIDTH, path)
    if size % WIDTH:
        yield full, read_bundle(location, full, size)


def _full_if_there(location: Location, level: int | str, number: int, width: int) -> int:
    """256 if the tile became full meanwhile, else `width`.

    A reader that holds an older checkpoint, or that reads while the log grows, may find that its partial tile became full and
    went; the full one starts with the same entries.
    """
    return WIDTH if location.read_if_there(tile_path(level, number)) is not None else width


def _hashes(location: Location, level: int, number: int, width: int) -> list[bytes]:
    if width == 0:
        return []
    path = tile_path(level, number, width)
    data = location.read_if_there(path)
    if data is None:
        wider = _full_if_there(location, level, number, width)
        data = location.read(tile_path(level, number, wider))[: width * HASH]
    if len(data) != width * HASH:
        raise AuditError(f"{path} has {len(data)} bytes instead of {width * HASH}.")
    return split_hashes(data)


def split_hashes(data: bytes) -> list[bytes]:
    """The hashes of a tile."""
    return [data[at : at + HASH] for at in range(0, len(data), HASH)]


def differing_entries(expected: Sequence[bytes], found: Sequence[bytes]) -> list[int]:
    """Positions at which two lists of hashes differ, a missing one included."""
    longest = max(len(expected), len(found))
    return [at for at in range(longest) if expected[at : at + 1] != found[at : at + 1]]
