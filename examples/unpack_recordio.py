"""MXNet's RecordIO (a train.rec of insightface's) as WebDataset shards, without MXNet; "diffpriv sanitize" reads those.

python examples/unpack_recordio.py TRAIN.REC FOLDER

A record (dmlc-core, recordio.h) is the magic number, 3 bits that say which part of a whole it is, 29 bits of length, and data
padded to 4 bytes; a whole that holds the magic number is cut there. Its data (mxnet, recordio.py) is a header, flag uint32,
label float32, id and id2 uint64, then `flag` more labels, then the picture. Records without one (insightface's ranges) go.
"""

import io
import itertools
import struct
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

MAGIC = struct.pack("<I", 0xCED7230A)
PNG = b"\x89PNG"
HEADER = struct.Struct("<IfQQ")
PER_SHARD = 10_000


def records(file: IO[bytes]) -> Iterator[bytes]:
    parts: list[bytes] = []
    while head := file.read(8):
        if len(head) < 8 or head[:4] != MAGIC:
            sys.exit(f"the record before byte {file.tell()} is damaged")
        (length,) = struct.unpack("<I", head[4:])
        part, size = length >> 29, length & (1 << 29) - 1
        data = file.read(size)
        file.seek(-size % 4, 1)
        if len(data) < size:
            sys.exit("the file ends inside a record")
        parts.append(data)
        if part in (0, 3):
            yield MAGIC.join(parts)
            parts.clear()


def members(number: int, data: bytes) -> Iterator[tuple[str, bytes]]:
    flag, label, _, _ = HEADER.unpack_from(data)
    labels = struct.unpack_from(f"<{flag}f", data, HEADER.size) or (label,)
    picture = data[HEADER.size + 4 * flag :]
    if picture:
        yield f"{number:09d}.{'png' if picture.startswith(PNG) else 'jpg'}", picture
        yield f"{number:09d}.cls", " ".join(f"{one:g}" for one in labels).encode()


def main(path: str, folder: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    with open(path, "rb") as file:
        for place, shard in itertools.groupby(enumerate(records(file)), lambda one: one[0] // PER_SHARD):
            with tarfile.open(f"{folder}/{place:05d}.tar", "w") as archive:
                for name, content in itertools.chain.from_iterable(itertools.starmap(members, shard)):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))


if __name__ == "__main__":
    main(*sys.argv[1:])
