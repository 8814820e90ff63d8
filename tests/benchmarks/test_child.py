"""A benchmark's child process: its memory is its own, its failures are a sentence."""

from __future__ import annotations

from typing import Any

from benchmarks.child import in_child

TIMEOUT_S = 60.0
PARENT_MIB = 400


def nothing() -> dict[str, Any]:
    """Answer at once."""
    return {}


def test_what_the_parent_holds_is_not_the_childs() -> None:
    held = bytearray(b"x") * (PARENT_MIB << 20)
    found = in_child("tests.benchmarks.test_child:nothing", timeout_s=TIMEOUT_S)
    assert len(held) == PARENT_MIB << 20
    assert isinstance(found, dict), found
    assert found["peak_mib"] < PARENT_MIB


def test_a_child_that_fails_says_so() -> None:
    found = in_child("tests.benchmarks.test_child:no_such_work", timeout_s=TIMEOUT_S)
    assert isinstance(found, str)
    assert found.startswith("failed (1): AttributeError")
