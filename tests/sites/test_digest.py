"""The canonical text is the library's, byte for byte, whatever a fact holds."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from sites.digest import canonical_json, digest, to_plain


class Colour(enum.StrEnum):
    RED = "red"


@dataclass(frozen=True, kw_only=True, slots=True)
class Nothing:
    pass


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    zebra: Any
    apple: Any = ()
    _cache: dict[str, int] = field(default_factory=dict, init=False, compare=False)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(min_value=1 - 2**53, max_value=2**53 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(min_value=-1e-4, max_value=1e-4),
    st.floats(min_value=1e14, max_value=1e24),
    st.text(st.characters(exclude_categories=("Cs",))),
    st.just(Colour.RED),
    st.just(Nothing()),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
        st.builds(Fact, zebra=inner, apple=inner),
        st.frozensets(st.text(max_size=3), max_size=3),
    ),
    max_leaves=12,
)


@given(VALUES)
@example(-0.0)
@example([1.0, -1.0, 1e16, 1e20, 1e21, 123456789012345680.0, 1e-5, 1e-6, 1e-7, 5e-324, 1.5e300])
@example('\x00\x1f\x7f\u2028\ue000\U0001f600"\\/\b\f\n\r\t')
@example(Fact(zebra=True, apple=((), [], {}, Nothing())))
def test_the_text_is_the_librarys(value: Any) -> None:
    assert canonical_json(value) == rfc8785.dumps(to_plain(value))


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -float("inf"), 2**53, -(2**53), "\ud800"], ids=repr
)
def test_what_the_library_refuses_is_refused(value: Any) -> None:
    with pytest.raises(rfc8785.CanonicalizationError):
        canonical_json(Fact(zebra=(value,)))


def test_what_no_fact_may_hold_is_refused() -> None:
    with pytest.raises(TypeError, match="object cannot be part of a fact"):
        digest(Fact(zebra=object()))


def test_a_derived_cache_is_no_part_of_the_fact() -> None:
    one, other = Fact(zebra=1), Fact(zebra=1)
    other._cache["seen"] = 1
    assert digest(one) == digest(other)
