"""RFC 6962 Merkle trees: roots, inclusion proofs, consistency proofs. Pure.

Leaves and inner nodes hash with different prefixes (section 2.1), so neither passes for the other.
Where nodes are kept is the caller's business: proofs read them through a `NodeReader`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

NodeReader = Callable[[int, int], bytes]
"""(level, index) -> hash of the complete subtree over leaves [index << level, index+1 << level)."""

EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data): the hash of one entry."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right): the hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Frontier:
    """The roots of the complete subtrees a tree of `size` leaves consists of, largest first."""

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def append(self, leaf: bytes) -> Frontier:
        """The frontier after one more leaf hash; amortised two hashes."""
        hashes, carry = list(self.hashes), leaf
        size = self.size
        while size & 1:
            carry = node_hash(hashes.pop(), carry)
            size >>= 1
        return Frontier(size=self.size + 1, hashes=(*hashes, carry))

    def root(self) -> bytes:
        """The Merkle tree hash of everything appended."""
        if not self.hashes:
            return EMPTY_ROOT
        root = self.hashes[-1]
        for one in reversed(self.hashes[:-1]):
            root = node_hash(one, root)
        return root


def frontier_of(reader: NodeReader, size: int) -> Frontier:
    """The frontier of the first `size` leaves."""
    hashes, start = [], 0
    for level in range(size.bit_length() - 1, -1, -1):
        if size >> level & 1:
            hashes.append(reader(level, start >> level))
            start += 1 << level
    return Frontier(size=size, hashes=tuple(hashes))


def root_of(reader: NodeReader, size: int) -> bytes:
    """The Merkle tree hash of the first `size` leaves."""
    return frontier_of(reader, size).root()


def _split(count: int) -> int:
    """The largest power of two below `count` (count >= 2)."""
    return 1 << ((count - 1).bit_length() - 1)


def _range_hash(reader: NodeReader, low: int, high: int) -> bytes:
    """Hash of leaves [low, high), which start at a multiple of their covering power of two."""
    count = high - low
    if count & (count - 1) == 0:
        level = count.bit_length() - 1
        return reader(level, low >> level)
    middle = low + _split(count)
    return node_hash(_range_hash(reader, low, middle), _range_hash(reader, middle, high))


def inclusion_proof(reader: NodeReader, *, index: int, size: int) -> tuple[bytes, ...]:
    """The audit path of leaf `index` in the tree of `size` leaves, leaf side first (2.1.1)."""
    assert 0 <= index < size, "a proof is of a leaf inside the tree"
    proof: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            proof.append(_range_hash(reader, middle, high))
            high = middle
        else:
            proof.append(_range_hash(reader, low, middle))
            low = middle
    return tuple(reversed(proof))


def consistency_proof(reader: NodeReader, *, first: int, second: int) -> tuple[bytes, ...]:
    """Proof that the tree of `second` leaves extends the one of `first` leaves (2.1.2)."""
    assert 0 <= first <= second, "a tree only grows"
    if first in (0, second):
        return ()
    proof: list[bytes] = []
    low, high, whole = 0, second, True
    while first - low != high - low:
        middle = low + _split(high - low)
        if first <= middle:
            proof.append(_range_hash(reader, middle, high))
            high = middle
        else:
            proof.append(_range_hash(reader, low, middle))
            low, whole = middle, False
    if not whole:
        proof.append(_range_hash(reader, low, high))
    return tuple(reversed(proof))


def verify_inclusion(
    leaf: bytes, *, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> bool:
    """Whether `proof` leads from leaf hash `leaf` at `index` to `root` (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    node, last, current = index, size - 1, leaf
    for one in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            current = node_hash(one, current)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            current = node_hash(current, one)
        node, last = node >> 1, last >> 1
    return last == 0 and current == root


def verify_consistency(
    *, first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether `proof` shows that the second tree extends the first (RFC 9162, 2.1.4.2)."""
    if first > second or first < 0:
        return False
    if first == second:
        return not proof and first_root == second_root
    if first == 0:
        return not proof and first_root == EMPTY_ROOT
    path = list(proof) if first & (first - 1) else [first_root, *proof]
    if not path:
        return False
    node, last = first - 1, second - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = path[0]
    for one in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            old, new = node_hash(one, old), node_hash(one, new)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, one)
        node, last = node >> 1, last >> 1
    return last == 0 and old == first_root and new == second_root
