"""Rounding to basis points: exact sums, nothing invented, nothing off by a whole basis point."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.arcs import find_arcs
from optimizer.milp.extract import extract_plan, whole_basis_points
from optimizer.milp.formulate import formulate
from optimizer.milp.highs import Point, PointStatus
from optimizer.problem import Problem
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


@st.composite
def mixed_points(draw: st.DrawFn) -> tuple[Problem, dict[str, float]]:
    """A class with an SLO and a quality on the mix, and parts of it that keep both."""
    floor = draw(st.sampled_from([0.0, 0.6, 0.9]))
    problem = b.problem(
        sites=[b.site("a"), b.site("b"), b.site("c")],
        links=[b.link("a", "b", rtt_ms=draw(st.floats(1, 40))), b.link("a", "c", rtt_ms=3.0)],
        variants=[b.variant("v"), b.variant("w", quality=0.5)],
        points=[b.point("v", ttft_ms=draw(st.floats(10, 60))), b.point("w", ttft_ms=20.0)],
        services={"chat": ["v", "w"]},
        classes=[b.traffic_class(ttft_ms=50.0, over_mix=True, mean_quality_floor=floor)],
    )
    weights = {
        a.group.group_id: draw(st.sampled_from([0.0, 1e-5, 0.3])) + draw(st.floats(0, 1))
        for a in find_arcs(problem).arcs
    }
    return problem, weights


@settings(max_examples=150, deadline=None)
@given(mixed_points())
def test_a_mix_that_held_before_rounding_holds_after_it(
    case: tuple[Problem, dict[str, float]],
) -> None:
    problem, weights = case
    inputs = formulate(problem, find_arcs(problem).arcs).inputs
    [one] = problem.classes
    late = {k[1]: a.ttft_ms / 50.0 - 1.0 for k, a in inputs.arcs.items()}
    poor = {g: one.mean_quality_floor - inputs.groups[g].option.variant.quality for g in weights}
    kept = dict(weights)
    for adds in (late, poor, late, poor, late):  # drop what breaks a mean, worst first
        for group_id in sorted(adds, key=lambda g: -adds[g]):
            if sum(adds[g] * part for g, part in kept.items()) > 0:
                kept.pop(group_id, None)
    if sum(poor[g] * part for g, part in kept.items()) > 0:
        kept = {}
    total = sum(weights.values()) or 1.0
    flows = {("c", g): 10.0 * part / total for g, part in kept.items()}
    point = Point(
        status=PointStatus.PROVEN,
        values={
            "n": dict.fromkeys(inputs.groups, 4.0),
            "x": {key: flows.get(key, 0.0) for key in inputs.arcs},
            "shed": {"c": 10.0 - sum(flows.values())},
        },
        cost=0.0,
        bound=0.0,
    )
    plan = extract_plan(inputs, point, method="test")

    assert sum(s.basis_points for s in (*plan.shares, *plan.shed)) == WHOLE_BP
    for adds in (late, poor):
        assert sum(adds[s.group_id] * s.basis_points for s in plan.shares) <= 1e-9
    for share in plan.shares:
        exact = flows["c", share.group_id] / 10.0 * WHOLE_BP
        assert abs(share.basis_points - exact) <= len(flows) + 1
