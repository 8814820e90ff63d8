"""Merkle trees: the published vectors of RFC 6962 logs, and what no proof may ever claim."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from scheduler.ledger import merkle

# Leaves and roots of Certificate Transparency's reference implementation (RFC 6962 test vectors).
_LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def _reader(leaves: list[bytes]) -> merkle.NodeReader:
    @cache
    def node(level: int, index: int) -> bytes:
        if level == 0:
            return leaves[index]
        return merkle.node_hash(node(level - 1, 2 * index), node(level - 1, 2 * index + 1))

    return node


def _tree(size: int) -> list[bytes]:
    return [merkle.leaf_hash(str(i).encode()) for i in range(size)]


def _slow_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word by word."""
    if not leaves:
        return merkle.EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return merkle.node_hash(_slow_root(leaves[:split]), _slow_root(leaves[split:]))


@pytest.mark.parametrize("size", range(9))
def test_roots_are_the_published_ones(size: int) -> None:
    frontier = merkle.Frontier()
    for leaf in _LEAVES[:size]:
        frontier = frontier.append(merkle.leaf_hash(leaf))
    assert frontier.root().hex() == _ROOTS[size]


def test_inclusion_proof_is_the_published_one() -> None:
    reader = _reader([merkle.leaf_hash(leaf) for leaf in _LEAVES])
    proof = merkle.inclusion_proof(reader, index=0, size=8)
    assert [one.hex() for one in proof] == [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ]


@given(st.integers(0, 700))
def test_frontier_equals_the_definition(size: int) -> None:
    leaves = _tree(size)
    frontier = merkle.Frontier()
    for leaf in leaves:
        frontier = frontier.append(leaf)
    assert frontier.root() == _slow_root(leaves)
    assert merkle.frontier_of(_reader(leaves), size) == frontier


@given(st.data())
@settings(max_examples=200)
def test_every_leaf_is_provable_and_no_other_passes(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 200))
    index = data.draw(st.integers(0, size - 1))
    leaves = _tree(size)
    root, proof = (
        _slow_root(leaves),
        merkle.inclusion_proof(_reader(leaves), index=index, size=size),
    )
    assert merkle.verify_inclusion(leaves[index], index=index, size=size, proof=proof, root=root)
    other = data.draw(st.integers(0, size))
    assume(other != index)
    assert not merkle.verify_inclusion(
        leaves[index], index=other, size=size, proof=proof, root=root
    )
    assert not merkle.verify_inclusion(
        merkle.leaf_hash(b"forged"), index=index, size=size, proof=proof, root=root
    )
    longer = (*proof, root)
    assert not merkle.verify_inclusion(
        leaves[index], index=index, size=size, proof=longer, root=root
    )


@given(st.data())
@settings(max_examples=200)
def test_growth_is_provable_and_a_rewritten_past_is_not(data: st.DataObject) -> None:
    second = data.draw(st.integers(1, 200))
    first = data.draw(st.integers(0, second))
    leaves = _tree(second)
    proof = merkle.consistency_proof(_reader(leaves), first=first, second=second)
    roots = {"first_root": _slow_root(leaves[:first]), "second_root": _slow_root(leaves)}
    assert merkle.verify_consistency(first=first, second=second, proof=proof, **roots)
    assume(first > 0)
    changed = [*leaves]
    changed[data.draw(st.integers(0, first - 1))] = merkle.leaf_hash(b"rewritten")
    forged = merkle.consistency_proof(_reader(changed), first=first, second=second)
    roots["second_root"] = _slow_root(changed)
    assert not merkle.verify_consistency(first=first, second=second, proof=forged, **roots)
