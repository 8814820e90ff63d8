"""Packing: what went in comes out, never more than was declared and allowed, and nothing else."""

from __future__ import annotations

import contextlib
import gzip
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.packed import pack, unpack
from sites.errors import InvalidFactError

LIMIT = 10_000


def unpacked(packed: bytes, limit_bytes: int = LIMIT) -> bytes:
    return unpack(packed, limit_bytes=limit_bytes, subject="thing")


@given(st.binary(max_size=LIMIT))
def test_what_went_in_comes_out(plain: bytes) -> None:
    assert unpacked(pack(plain)) == plain
    assert gzip.decompress(pack(plain)) == plain
    assert pack(plain) == pack(plain)


def test_the_limit_is_the_last_size_that_passes() -> None:
    assert len(unpacked(pack(bytes(LIMIT)))) == LIMIT
    with pytest.raises(
        InvalidFactError, match=r"^thing: 10001 bytes unpacked exceeds limit 10000 bytes; use fewer"
    ):
        unpacked(pack(bytes(LIMIT + 1)))


@given(st.binary(min_size=1, max_size=300), st.data())
def test_damage_is_refused_or_changes_nothing(plain: bytes, data: st.DataObject) -> None:
    """Some bits of the header and the last of the stream mean nothing to gzip."""
    packed = bytearray(pack(plain))
    position = data.draw(st.integers(0, len(packed) - 1))
    packed[position] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(InvalidFactError):
        assert unpacked(bytes(packed)) == plain


@given(st.binary(max_size=300))
def test_a_part_is_refused(plain: bytes) -> None:
    packed = pack(plain)
    for end in range(len(packed)):
        with pytest.raises(InvalidFactError):
            unpacked(packed[:end])


@given(st.binary(max_size=200))
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(InvalidFactError):
        unpacked(garbage)


def test_what_follows_is_refused() -> None:
    with pytest.raises(InvalidFactError, match=r"follow its gzip stream|more than"):
        unpacked(pack(b"one") + pack(b"two"))


@pytest.mark.parametrize("declared_bytes", [0, 1, LIMIT])
def test_a_bomb_is_never_held(declared_bytes: int) -> None:
    """It says it is small; unpacked it would be 64 MiB."""
    bomb = pack(bytes(64 * 1024 * 1024))[:-4] + declared_bytes.to_bytes(4, "little")
    tracemalloc.start()
    try:
        with pytest.raises(InvalidFactError, match=f"more than the {declared_bytes} bytes"):
            unpacked(bomb)
        assert tracemalloc.get_traced_memory()[1] < 1024 * 1024
    finally:
        tracemalloc.stop()
