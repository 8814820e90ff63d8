"""Rounding to basis points: exact sums, nothing invented, nothing off by a whole basis point."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.arcs import find_arcs
from optimizer.milp.extract import extract_plan, whole_basis_points
from optimizer.milp.formulate import formulate
from optimizer.milp.highs import Point, PointStatus
from optimizer.verify import check_plan
from sites.errors import InvalidFactError
from sites.units import WHOLE_BP
from tests.optimizer import builders as b

parts = st.dictionaries(
    st.tuples(st.sampled_from("abc"), st.integers(0, 9).map(str)),
    st.floats(1e-7, 1.0),
    min_size=1,
    max_size=12,
)


@given(parts=parts)
def test_rounding_is_exact_in_sum_and_close_in_parts(parts: dict[tuple[str, str], float]) -> None:
    rounded = whole_basis_points(parts)
    total = sum(parts.values())

    assert sum(rounded.values()) == WHOLE_BP
    assert set(rounded) <= set(parts)
    assert all(basis_points > 0 for basis_points in rounded.values())
    for key, part in parts.items():
        assert abs(rounded.get(key, 0) - part / total * WHOLE_BP) < 1 + 1e-6


def test_the_largest_remainder_goes_first_and_ties_by_key() -> None:
    assert whole_basis_points({("c", "x"): 1.0, ("c", "y"): 1.0, ("c", "z"): 1.0}) == {
        ("c", "x"): 3_334,
        ("c", "y"): 3_333,
        ("c", "z"): 3_333,
    }


def test_nothing_cannot_be_rounded_to_a_whole() -> None:
    with pytest.raises(InvalidFactError, match="cannot split"):
        whole_basis_points({})


def test_the_solvers_dust_is_not_traffic() -> None:
    problem = b.two_sites()
    inputs = formulate(problem, find_arcs(problem).arcs).inputs
    point = Point(
        status=PointStatus.PROVEN,
        values={
            "n": {"a/p/v/x1": 1e-9, "b/p/v/x1": 1.0 - 1e-9},
            "x": {("c", "a/p/v/x1"): 1e-8, ("c", "b/p/v/x1"): 10.0 - 1e-8},
            "shed": {"c": -1e-12},
        },
        cost=1.03,
        bound=1.03 + 1e-9,
    )

    plan = extract_plan(inputs, point, method="test")

    assert [(s.group_id, s.basis_points) for s in plan.shares] == [("b/p/v/x1", 10_000)]
    assert [(g.group.group_id, g.replicas) for g in plan.groups] == [("b/p/v/x1", 1)]
    assert plan.shed == ()
    assert plan.bound_usd_per_h <= plan.cost.total_usd_per_h
    assert check_plan(problem, plan) == ()
