"""What JSON can say and canonical JSON cannot is refused where it comes in, at its place."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sites.digest import canonical_json
from sites.errors import InvalidFactError
from sites.plain import from_plain


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    whole: int = 0
    real: float = 0.0
    text: str = ""
    either: float | str = 0.0


SCALARS = st.one_of(
    st.integers(),
    st.floats(),
    st.text(st.characters(exclude_categories=())),
    st.booleans(),
    st.none(),
)


@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(("whole", "real", "text", "either"), SCALARS))
)
def test_every_fact_that_comes_in_has_a_canonical_text(plain: dict[str, object]) -> None:
    try:
        fact = from_plain(Fact, plain)
    except InvalidFactError:
        return
    canonical_json(fact)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("whole", 2**53),
        ("whole", -(10**30)),
        ("whole", 1e300),
        ("real", float("nan")),
        ("real", 10**400),
        ("text", "\ud800"),
        ("either", float("inf")),
        ("either", "\udfff"),
        ("either", 10**400),
    ],
)
def test_what_has_no_canonical_text_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InvalidFactError, match=rf"^Fact\.{field}: "):
        from_plain(Fact, {field: value})


def test_a_large_float_may_be_written_without_a_point() -> None:
    assert from_plain(Fact, {"real": 10**20, "whole": 7.0}) == Fact(real=1e20, whole=7)
