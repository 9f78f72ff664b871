"""Flip, drop, swap, duplicate or truncate one thing: `audit verify` finds it and names what is wrong.

Things: a byte, a row, a record, a wrapped key of a key file; a segment; a tile, a bundle or the checkpoint; a line or a byte of
the data manifest; a published shard. 150 random mutations by default, 1,500 more with --slow.
"""

import json
import random
import shutil
from collections import Counter
from pathlib import Path

import pyarrow
import pytest

from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.audit.manifest import decode_manifest
from diffpriv.keys.audit.tiles import tile_path, tiles_of
from diffpriv.keys.audit.verify import verify_log
from diffpriv.keys.errors import DiffPrivError
from diffpriv.keys.keyfile import KeyFile
from diffpriv.keys.keyfile_layout import Layout, Part, write_layout
from diffpriv.keys.store import KeyStore
from tests.keys.helpers import Vault, build_vault

KINDS = [
    *("key file bytes", "key file rows", "key files", "segment bytes", "segments", "tile bytes", "tiles", "checkpoint"),
    *("manifest bytes", "manifest rows", "data bytes", "data files"),
]


def flip(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def drop_byte(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + data[at + 1 :]


def double_byte(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[: at + 1] + data[at:]


def swap_bytes(data: bytes, rng: random.Random) -> bytes:
    while True:
        one, other = rng.randrange(len(data)), rng.randrange(len(data))
        if data[one] != data[other]:
            mixed = bytearray(data)
            mixed[one], mixed[other] = data[other], data[one]
            return bytes(mixed)


BYTES = [flip, truncate, drop_byte, double_byte, swap_bytes]


def on_bytes(path: Path, rng: random.Random) -> str:
    change = rng.choice([one for one in BYTES if one is not swap_bytes or len(set(path.read_bytes())) > 1])
    path.write_bytes(change(path.read_bytes(), rng))
    return change.__name__


def on_files(files: list[Path], rng: random.Random) -> tuple[str, list[Path]]:
    """Drop one, swap two, or put a copy of one in place of another."""
    one, other = rng.sample(files, 2)
    change = rng.choice(["drop", "swap", "duplicate"])
    if change == "drop":
        one.unlink()
    elif change == "swap" and one.read_bytes() != other.read_bytes():
        saved = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(saved)
    else:
        change = "duplicate"
        target = one.with_name("copy-of-" + one.name) if rng.random() < 0.5 else other
        if target == other and one.read_bytes() == other.read_bytes():
            target = one.with_name("copy-of-" + one.name)
        shutil.copy(one, target)
        return change, [target]
    return change, [one, other]


def on_rows(path: Path, rng: random.Random) -> str:
    """A forger who knows the format: rewrites the Parquet file with one row or wrap changed, everything else well-formed."""
    file = KeyFile.parse(path.read_bytes())
    rows = file._table.to_pylist()
    parts = list(file.parts)
    one, other = rng.sample(range(len(rows)), 2)
    change = rng.choice(
        ["drop row", "duplicate row", "swap rows", "swap records", "flip record", "truncate record", "swap wraps", "flip wrap"]
    )
    if change == "drop row":
        del rows[one]
    elif change == "duplicate row":
        rows.insert(one, dict(rows[one]))
    elif change == "swap rows":
        rows[one], rows[other] = rows[other], rows[one]
    elif change == "swap records":
        rows[one]["record"], rows[other]["record"] = rows[other]["record"], rows[one]["record"]
    elif change == "flip record":
        rows[one]["record"] = flip(rows[one]["record"], rng)
    elif change == "truncate record":
        rows[one]["record"] = truncate(rows[one]["record"], rng)
    elif change == "swap wraps":
        parts[0], parts[1] = Part(parts[0].commitment, parts[1].wraps), Part(parts[1].commitment, parts[0].wraps)
    else:
        parts[0] = Part(parts[0].commitment, (flip(parts[0].wraps[0], rng),))
    table = pyarrow.Table.from_pylist(rows, schema=file._table.schema)
    path.write_bytes(write_layout(Layout(file.context, file.recipients, parts, table, [])))
    return change


def manifest_digests(vault: Vault) -> dict[tuple[str, str], str]:
    return {(row.dataset, row.shard): row.sha256 for row in decode_manifest(vault.manifest.read_bytes())}


def findings(vault: Vault) -> list[str]:
    """What an auditor gets to read, of log, key store, data and manifest together."""
    log = AuditLog(vault.log.url, verifier=vault.log.verifier)
    store = KeyStore(vault.store.url)
    report = verify_log(log, key_store=store, data=vault.data_digests())
    try:
        claimed = manifest_digests(vault)
    except DiffPrivError as error:
        return [*report.problems, str(error)]
    return report.problems + verify_log(log, segments=False, data=claimed).problems


def mutate(vault: Vault, rng: random.Random) -> tuple[str, list[str]]:
    """One change; what it was, and the names of which the finding must contain one."""
    root = vault.root
    key_files = sorted((root / "keys").rglob("*.parquet"))
    segments = sorted((root / "audit" / "segments").glob("*.jsonl"))
    # Partial tiles of earlier sizes are left out: the log keeps them as a courtesy and misses none of them.
    live = {tile_path(*tile) for tile in tiles_of(vault.log.checkpoint().size)}
    tiles = sorted(root / "audit" / name for name in live)
    kind = rng.choice(KINDS)
    if kind == "key file bytes":
        path = rng.choice(key_files)
        return f"{kind}: {on_bytes(path, rng)}", [path.name]
    if kind == "key file rows":
        path = rng.choice(key_files)
        return f"{kind}: {on_rows(path, rng)}", [path.name]
    if kind == "segment bytes":
        path = rng.choice(segments)
        return f"{kind}: {on_bytes(path, rng)}", [path.stem]
    if kind == "tile bytes":
        path = rng.choice(tiles)
        return f"{kind}: {on_bytes(path, rng)}", ["tile/", "entries"]
    if kind == "data bytes":
        path = root / "data" / rng.choice(vault.shards)
        return f"{kind}: {on_bytes(path, rng)}", [path.name]
    if kind == "checkpoint":
        return f"{kind}: {on_bytes(root / 'audit' / 'checkpoint', rng)}", ["checkpoint"]
    if kind == "manifest bytes":
        return f"{kind}: {on_bytes(vault.manifest, rng)}", ["manifest", "published shard"]
    if kind == "manifest rows":
        lines = vault.manifest.read_bytes().splitlines(keepends=True)
        one, other = rng.sample(range(1, len(lines)), 2)
        change = rng.choice(["drop", "swap", "duplicate", "swap digests"])
        if change == "drop":
            del lines[one]
        elif change == "duplicate":
            lines.insert(one, lines[other])
        elif change == "swap":
            lines[one], lines[other] = lines[other], lines[one]
        else:
            rows = [json.loads(line) for line in lines]
            rows[one]["sha256"], rows[other]["sha256"] = rows[other]["sha256"], rows[one]["sha256"]
            lines = [json.dumps(row, sort_keys=True, separators=(",", ":")).encode() + b"\n" for row in rows]
        vault.manifest.write_bytes(b"".join(lines))
        return f"{kind}: {change}", ["manifest", "published shard"]
    files = {"key files": key_files, "segments": segments, "tiles": tiles, "data files": sorted((root / "data").iterdir())}[
        kind
    ]
    change, touched = on_files(files, rng)
    names = [path.stem if kind == "segments" else path.name for path in touched]
    if kind == "tiles":
        names = ["tile/", "entries"]
    return f"{kind}: {change}", names


@pytest.fixture(scope="module")
def pristine(tmp_path_factory, log_key, recipient_key) -> Vault:
    return build_vault(tmp_path_factory.mktemp("pristine") / "vault", log_key, recipient_key)


def run(pristine: Vault, tmp_path: Path, seeds: range) -> None:
    """One mutation of a fresh copy per seed. Fails with the seeds of those that nobody would have noticed or understood."""
    assert findings(pristine) == []
    done: Counter[str] = Counter()
    missed: list[str] = []
    unnamed: list[str] = []
    for seed in seeds:
        root = tmp_path / "copy"
        shutil.copytree(pristine.root, root)
        log = AuditLog(root / "audit", verifier=pristine.log.verifier)
        copy = Vault(root, log, KeyStore(root / "keys"), pristine.recipient_key, pristine.dataset, pristine.shards)
        what, names = mutate(copy, random.Random(seed))
        done[what] += 1
        found = findings(copy)
        if not found:
            missed.append(f"seed {seed}: {what}")
        elif not any(name in problem for problem in found for name in names):
            unnamed.append(f"seed {seed}: {what}: {found[0][:160]}")
        shutil.rmtree(root)
    print(f"\n{len(seeds)} mutations of {len(done)} kinds: {len(missed)} missed, {len(unnamed)} without a name")
    assert missed == []
    assert unnamed == []


def test_every_random_mutation_is_found_and_named(pristine, tmp_path):
    run(pristine, tmp_path, range(150))


@pytest.mark.slow
def test_each_of_1500_more_random_mutations_is_found_and_named(pristine, tmp_path):
    run(pristine, tmp_path, range(150, 1650))
