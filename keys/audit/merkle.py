"""RFC 6962 Merkle tree hashing, inclusion and consistency proofs. Pure: no files; hashes come from a `node` function.

MTH({})          = SHA-256()
MTH({d})         = SHA-256(0x00 || d)
MTH(D[0:n])      = SHA-256(0x01 || MTH(D[0:k]) || MTH(D[k:n])), k the largest power of two smaller than n
`node(level, index)` is the hash of the complete subtree over leaves [index * 2^level, (index + 1) * 2^level).
Proof checks follow RFC 9162, sections 2.1.3.2 and 2.1.4.2.
"""

import hashlib
from collections.abc import Callable, Sequence

from diffpriv.keys.errors import AuditError

Node = Callable[[int, int], bytes]
EMPTY_ROOT = hashlib.sha256(b"").digest()
_sha256 = hashlib.sha256


def leaf_hash(entry: bytes) -> bytes:
    """Hash of an entry (RFC 6962, section 2.1)."""
    return _sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of two subtrees (RFC 6962, section 2.1)."""
    return _sha256(b"\x01" + left + right).digest()


def split_point(count: int) -> int:
    """The largest power of two smaller than `count` (count >= 2)."""
    return 1 << ((count - 1).bit_length() - 1)


def root_of(hashes: Sequence[bytes]) -> bytes:
    """MTH over nodes of one level, of which only the last may be an incomplete subtree."""
    level = list(hashes)
    if not level:
        return EMPTY_ROOT
    # Pairing from the left and carrying an odd last one up gives the same tree as the RFC's recursive split.
    while len(level) > 1:
        paired = [_sha256(b"\x01" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            paired.append(level[-1])
        level = paired
    return level[0]


def range_hash(low: int, high: int, node: Node) -> bytes:
    """MTH(D[low:high]) for a range that the RFC's recursion can reach."""
    count = high - low
    if count == 0:
        return EMPTY_ROOT
    if count & (count - 1) == 0:
        level = count.bit_length() - 1
        return node(level, low >> level)
    middle = low + split_point(count)
    return node_hash(range_hash(low, middle, node), range_hash(middle, high, node))


def inclusion_proof(index: int, size: int, node: Node) -> list[bytes]:
    """PATH(index, D[0:size]), from the leaf's sibling up."""
    if not 0 <= index < size:
        raise AuditError(f"entry {index} is not in a log of {size} entries.")
    low, high, path = 0, size, []
    while high - low > 1:
        middle = low + split_point(high - low)
        if index < middle:
            path.append(range_hash(middle, high, node))
            high = middle
        else:
            path.append(range_hash(low, middle, node))
            low = middle
    return path[::-1]


def consistency_proof(old: int, new: int, node: Node) -> list[bytes]:
    """PROOF(old, D[0:new])."""
    if not 0 <= old <= new:
        raise AuditError(f"a log of {new} entries can't be an extension of one of {old}.")
    if old in (0, new):
        return []
    low, high, whole, path = 0, new, True, []
    while old < high:  # SUBPROOF(old - low, D[low:high], whole)
        middle = low + split_point(high - low)
        if old <= middle:
            path.append(range_hash(middle, high, node))
            high = middle
        else:
            path.append(range_hash(low, middle, node))
            low, whole = middle, False
    if not whole:
        path.append(range_hash(low, high, node))
    return path[::-1]


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> None:
    """Raises: AuditError unless `leaf` is the hash of entry `index` of the tree with this size and root."""
    if not 0 <= index < size:
        raise AuditError(f"entry {index} is not in a log of {size} entries.")
    position, last, result = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise AuditError("the inclusion proof is too long.")
        if position & 1 or position == last:
            result = node_hash(sibling, result)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            result = node_hash(result, sibling)
        position, last = position >> 1, last >> 1
    if last != 0 or result != root:
        raise AuditError(f"the inclusion proof does not lead from entry {index} to the root of the log of {size} entries.")


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Raises: AuditError unless the tree (new, new_root) is an extension of (old, old_root)."""
    broken = AuditError(f"the log of {new} entries is not an extension of the one of {old}: its past was rewritten.")
    if not 0 <= old <= new:
        raise broken
    if old in (0, new):
        if proof or (old == new and old_root != new_root) or (old == 0 and old_root != EMPTY_ROOT):
            raise broken
        return
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        raise broken
    position, last = old - 1, new - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old_result = new_result = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise broken
        if position & 1 or position == last:
            old_result, new_result = node_hash(sibling, old_result), node_hash(sibling, new_result)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new_result = node_hash(new_result, sibling)
        position, last = position >> 1, last >> 1
    if last != 0 or old_result != old_root or new_result != new_root:
        raise broken
