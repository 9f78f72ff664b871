"""The Merkle tree against RFC 6962: its reference data, and its definition written down naively."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffpriv.keys.audit import merkle
from diffpriv.keys.audit.merkle import (
    EMPTY_ROOT,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    range_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from diffpriv.keys.audit.tiles import decode_bundle, encode_bundle, parse_tile_path, tile_path, tiles_of
from diffpriv.keys.errors import AuditError

VECTORS = json.loads((Path(__file__).parent / "vectors" / "rfc6962.json").read_text())
LEAVES = [leaf_hash(bytes.fromhex(leaf)) for leaf in VECTORS["leaves"]]
ROOTS = [bytes.fromhex(root) for root in VECTORS["roots"]]


def naive(hashes):
    """RFC 6962, section 2.1, word for word."""
    if not hashes:
        return EMPTY_ROOT
    if len(hashes) == 1:
        return hashes[0]
    split = merkle.split_point(len(hashes))
    return node_hash(naive(hashes[:split]), naive(hashes[split:]))


def nodes(hashes):
    return lambda level, index: naive(hashes[index << level : (index + 1) << level])


def test_the_reference_roots():
    assert EMPTY_ROOT.hex() == VECTORS["empty_root"]
    for size, root in enumerate(ROOTS, 1):
        assert root_of(LEAVES[:size]) == root
        assert range_hash(0, size, nodes(LEAVES)) == root


@pytest.mark.parametrize("case", VECTORS["consistency"], ids=lambda case: f"{case['old']}-{case['new']}")
def test_the_reference_consistency_proofs(case):
    proof = consistency_proof(case["old"], case["new"], nodes(LEAVES))
    assert [one.hex() for one in proof] == case["proof"]
    verify_consistency(case["old"], case["new"], ROOTS[case["old"] - 1], ROOTS[case["new"] - 1], proof)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_every_proof_of_every_tree_checks_and_no_altered_one_does(data):
    size = data.draw(st.integers(1, 70))
    hashes = [leaf_hash(bytes([number])) for number in range(size)]
    root = naive(hashes)
    assert root_of(hashes) == root
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, size, nodes(hashes))
    verify_inclusion(index, size, hashes[index], proof, root)
    old = data.draw(st.integers(0, size))
    history = consistency_proof(old, size, nodes(hashes))
    verify_consistency(old, size, naive(hashes[:old]), root, history)

    with pytest.raises(AuditError):
        verify_inclusion(index, size, leaf_hash(b"other"), proof, root)
    with pytest.raises(AuditError):
        verify_inclusion(index, size, hashes[index], [*proof, bytes(32)], root)
    if proof:
        spot = data.draw(st.integers(0, len(proof) - 1))
        with pytest.raises(AuditError):
            verify_inclusion(index, size, hashes[index], [*proof[:spot], bytes(32), *proof[spot + 1 :]], root)
        with pytest.raises(AuditError):
            verify_inclusion(index, size, hashes[index], proof[:-1], root)
    if old > 0:
        rewritten = [leaf_hash(b"rewritten"), *hashes[1:]]
        with pytest.raises(AuditError, match="rewritten"):
            verify_consistency(old, size, naive(rewritten[:old]), root, history)
    if history:
        with pytest.raises(AuditError):
            verify_consistency(old, size, naive(hashes[:old]), root, history[:-1])


def test_proofs_about_entries_that_are_not_there_are_refused():
    with pytest.raises(AuditError, match="entry 8 is not in a log of 8"):
        inclusion_proof(8, 8, nodes(LEAVES))
    with pytest.raises(AuditError):
        consistency_proof(9, 8, nodes(LEAVES))
    with pytest.raises(AuditError):
        verify_consistency(9, 8, ROOTS[0], ROOTS[7], [])


def test_tile_names_are_those_of_tlog_tiles():
    # https://c2sp.org/tlog-tiles: the index 1234067, and the files of logs of 70,000 and of 256 entries.
    assert tile_path(0, 1234067) == "tile/0/x001/x234/067"
    assert tile_path("entries", 273, 112) == "tile/entries/273.p/112"
    files = [tile for tile in tiles_of(70_000) if tile[0] != "entries"]
    assert sum(1 for level, _, width in files if level == 0 and width == 256) == 273
    assert [tile for tile in files if tile[2] < 256] == [(0, 273, 112), (1, 1, 17), (2, 0, 1)]
    assert [tile for tile in files if tile[0] == 1 and tile[2] == 256] == [(1, 0, 256)]
    assert list(tiles_of(256)) == [("entries", 0, 256), (0, 0, 256), (1, 0, 1)]
    assert list(tiles_of(0)) == []


@given(st.one_of(st.integers(0, 63), st.just("entries")), st.integers(0, 10**10), st.integers(1, 256))
def test_tile_names_parse_back(level, number, width):
    assert parse_tile_path(tile_path(level, number, width)) == (level, number, width)


@pytest.mark.parametrize(
    "name", ["tile/0/1", "tile/64/000", "tile/0/000.p/256", "tile/0/000.p/0", "tile/0/x000/001", "tile/00/000"]
)
def test_names_that_no_tile_has_are_not_taken_for_one(name):
    assert parse_tile_path(name) is None


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_entry_bundles_round_trip_and_truncation_is_found(entries):
    data = encode_bundle(entries)
    assert decode_bundle(data, len(entries), "b") == entries
    for cut in range(len(data)):
        with pytest.raises(AuditError):
            decode_bundle(data[:cut], len(entries), "b")
