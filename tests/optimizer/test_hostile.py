"""Degenerate and hostile problems end in a clear outcome, soon, and never in a wrong plan."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from math import isfinite, nan
from typing import Any

import pytest
from hypothesis import given, settings

from optimizer.arcs import find_arcs
from optimizer.milp.extract import extract_plan
from optimizer.milp.formulate import attempt, formulate
from optimizer.milp.highs import Point, PointStatus
from optimizer.milp.rounds import Found
from optimizer.outcome import Outcome, SolveStatus
from optimizer.policy import GroupBound, PlanPolicy
from optimizer.problem import Problem
from optimizer.solve import _judge, solve
from optimizer.verify import check_plan
from sites.errors import FatalError
from tests.optimizer import builders as b
from tests.optimizer.hostile import hostile_problems

SHED_ALL = 900.0
"""USD/h: 10 req/s of 100 tokens are 3.6 Mtok/h, at $50 x (10 - 5)."""

POLICY = b.DEFAULT_POLICY
HARD = replace(POLICY, max_shed_basis_points=0)


def bounded(*bounds: GroupBound, policy: PlanPolicy = POLICY) -> Problem:
    return b.problem(plan_policy=replace(policy, replica_bounds=bounds))


def priced(*, hardware: float = 1.0, energy: float = 0.1, shed: float = 50.0) -> Problem:
    site = b.site(pools=[b.pool(price=hardware)], supplies=[b.supply(price=energy)])
    return b.problem(sites=[site], plan_policy=replace(POLICY, shed_usd_per_mtok=shed))


AT_A = {"site_id": "a", "variant_id": "v"}
UNLAWFUL = b.problem(
    sites=[b.site(country="CH")], classes=[b.traffic_class(policy_id="eu")], plan_policy=POLICY
)
APART = b.problem(sites=[b.site(pools=[]), b.site("z")])
CARBON = [b.site(supplies=[b.supply(carbon_g=100.0)])]


@pytest.mark.parametrize(
    ("problem", "cost"),
    [
        pytest.param(b.problem(classes=[]), 0.0, id="no class"),
        pytest.param(b.problem(classes=[b.traffic_class(rate_rps=0.0)]), 0.0, id="no demand"),
        pytest.param(b.problem(sites=[b.site(pools=[])]), SHED_ALL, id="no hardware"),
        pytest.param(b.problem(sites=[b.site(pools=[b.pool(count=0)])]), SHED_ALL, id="empty pool"),
        pytest.param(UNLAWFUL, SHED_ALL, id="no lawful arc"),
        pytest.param(APART, SHED_ALL, id="no link"),
        pytest.param(b.problem(lost=["a"]), SHED_ALL, id="all lost"),
        pytest.param(b.problem(sites=[b.site(cordoned=True)]), SHED_ALL, id="all cordoned"),
        pytest.param(bounded(GroupBound(**AT_A, most=0)), SHED_ALL, id="cap of none"),
        pytest.param(
            b.problem(plan_policy=replace(POLICY, move_limit_replicas=0)), SHED_ALL, id="no move"
        ),
        pytest.param(b.problem(sites=[b.site(budget_w=1.0)]), SHED_ALL, id="1 W of budget"),
        pytest.param(
            b.problem(sites=[b.site(supplies=[b.supply(limit_w=1.0)])]), SHED_ALL, id="1 W of grid"
        ),
        pytest.param(b.problem(budgets={"t": 0.0}), SHED_ALL, id="no money"),
        pytest.param(
            b.problem(sites=CARBON, plan_policy=replace(POLICY, carbon_cap_g_per_h=0.0)),
            SHED_ALL,
            id="no carbon",
        ),
        pytest.param(
            b.problem(classes=[b.traffic_class(spread_sites=1_000)]), SHED_ALL, id="1 000 sites"
        ),
        pytest.param(
            b.problem(
                variants=[b.variant(quality=0.5)],
                classes=[b.traffic_class(mean_quality_floor=1.0)],
            ),
            SHED_ALL,
            id="quality nobody has",
        ),
        pytest.param(b.problem(), 1.03, id="ordinary: $1 and 300 W at $0.1"),
        pytest.param(priced(energy=0.0), 1.0, id="free energy"),
        pytest.param(priced(hardware=0.0, energy=0.0), 0.0, id="all free"),
        pytest.param(priced(shed=0.0), 0.0, id="shedding free"),
        pytest.param(priced(energy=-1.0), 0.7, id="paid to draw 300 W"),
        pytest.param(priced(energy=-1e4), 4.0 - 6_000.0, id="paid to idle: 3 more at 100 W"),
        pytest.param(priced(hardware=1e9), SHED_ALL, id="hardware out of price"),
        pytest.param(priced(energy=1e9), SHED_ALL, id="energy out of price"),
        pytest.param(priced(hardware=1e9, energy=1e9, shed=1e9), 1.3e9, id="all out of price"),
    ],
)
def test_a_degenerate_problem_has_its_plain_answer(problem: Problem, cost: float) -> None:
    outcome = solve(problem)
    assert outcome.status is SolveStatus.OPTIMAL and outcome.plan is not None
    assert outcome.plan.cost.total_usd_per_h == pytest.approx(cost, rel=1e-4)
    assert outcome.plan.bound_usd_per_h == pytest.approx(cost, rel=1e-4)


@pytest.mark.parametrize(
    ("problem", "codes"),
    [
        (replace(UNLAWFUL, plan_policy=HARD), {"shed_cap"}),
        (replace(APART, plan_policy=HARD), {"shed_cap"}),
        (bounded(GroupBound(**AT_A, most=0), policy=HARD), {"replica_cap", "shed_cap"}),
        (bounded(GroupBound(**AT_A, fewest=3, most=2)), {"replica_cap", "replica_floor"}),
        (
            bounded(GroupBound(**AT_A, fewest=3), GroupBound(**AT_A, most=1)),
            {"replica_cap", "replica_floor"},
        ),
        (bounded(GroupBound(**AT_A, fewest=300)), {"replica_floor"}),
        (bounded(GroupBound(site_id="none", variant_id="v", fewest=1)), {"replica_floor"}),
    ],
    ids=["law", "link", "cap", "floor over cap", "two bounds", "floor over pool", "floor nowhere"],
)
def test_what_cannot_be_met_says_what_would_have_to_give_way(
    problem: Problem, codes: set[str]
) -> None:
    outcome = solve(problem)
    assert outcome.status is SolveStatus.INFEASIBLE and outcome.plan is None
    assert {r.code for r in outcome.relaxations} >= codes
    assert outcome.message


@settings(max_examples=80, deadline=None)
@given(hostile_problems())
def test_figures_at_the_ends_of_what_facts_allow_end_in_a_clear_outcome(problem: Problem) -> None:
    outcome = solve(problem)
    assert is_clear(problem, outcome)
    assert outcome.status in (SolveStatus.OPTIMAL, SolveStatus.LIMIT, SolveStatus.INFEASIBLE)
    assert solve(problem) == outcome


def is_clear(problem: Problem, outcome: Outcome) -> bool:
    """A plan that holds with its bound, and what cut it short, or no plan and why not."""
    plan = outcome.plan
    if plan is None:
        return bool(outcome.message)
    assert check_plan(problem, plan) == ()
    assert isfinite(plan.cost.total_usd_per_h) and isfinite(plan.bound_usd_per_h)
    return bool(plan.hit_limit) == (outcome.status is SolveStatus.LIMIT)


def test_protected_traffic_next_to_nothing_with_nobody_who_gives_way() -> None:
    """Prices are told in parts of the least, so what "d" spares is beyond measure."""
    tiny = b.traffic_class("c", rate_rps=1e-6, output_tokens=1e-3, protected=True)
    problem = b.problem(
        classes=[tiny, b.traffic_class("d", protected=True)],
        plan_policy=replace(POLICY, exposure_part=0.1),
    )
    assert is_clear(problem, solve(problem))


def test_ten_thousand_equal_classes() -> None:
    equal = [b.traffic_class(f"c{at}", rate_rps=1.0) for at in range(10_000)]
    outcome = solve(b.problem(sites=[b.site(pools=[b.pool(count=999)])], classes=equal))
    assert outcome.status is SolveStatus.OPTIMAL and outcome.plan is not None
    shed = sum(s.basis_points for s in outcome.plan.shed) / 10_000
    # a tenth of a replica each: one in a thousand replicas is missing, so ten classes are
    assert shed == pytest.approx(10.0, abs=1.0)


# -- a solver that lies


Values = Mapping[str, Mapping[Any, float]]


def _doubled(values: Values) -> Values:
    return {**values, "n": {g: 2.0 * n for g, n in values["n"].items()}}


def _thinned(values: Values) -> Values:
    return {**values, "n": {g: 1.0 if n else 0.0 for g, n in values["n"].items()}}


def _crowded(values: Values) -> Values:
    """Everything to the first group."""
    first = min(values["n"])
    moved = {key: 20.0 if key[1] == first else 0.0 for key in values["x"]}
    return {**values, "x": moved}


@pytest.mark.parametrize(
    ("lie", "codes"),
    [
        (_doubled, {"pool_accelerators"}),
        (_thinned, {"throughput"}),
        (_crowded, {"throughput"}),
    ],
)
def test_a_wrong_point_the_solver_calls_optimal_is_a_fault(
    lie: Callable[[Values], Values], codes: set[str]
) -> None:
    problem = b.two_sites(classes=[b.traffic_class(f"c{at}", rate_rps=35.0) for at in range(2)])
    candidates = find_arcs(problem)
    made = attempt(formulate(problem, candidates.arcs))
    assert made.point.status is PointStatus.PROVEN
    for wrong in (False, True):
        point = replace(made.point, values=lie(made.point.values)) if wrong else made.point
        plan = extract_plan(made.inputs, point, method="a solver that lies")
        outcome = _judge(problem, candidates, Found(point=point, plan=plan, bound=0.0, nodes=0))
        if not wrong:
            assert outcome.status is SolveStatus.OPTIMAL
            continue
        assert outcome.status is SolveStatus.FAULT and outcome.plan is None
        assert codes <= {v.code for v in check_plan(problem, plan)}
        assert "the checker refused" in outcome.message


def test_a_bound_above_the_cost_is_not_believed() -> None:
    problem = b.problem()
    made = attempt(formulate(problem, find_arcs(problem).arcs))
    plan = extract_plan(made.inputs, replace(made.point, bound=1e9), method="a solver that lies")
    assert plan.bound_usd_per_h == plan.cost.total_usd_per_h
    boasting = replace(plan, bound_usd_per_h=1e9)
    assert "bound" in {v.code for v in check_plan(problem, boasting)}


def test_a_point_without_numbers_is_an_error_of_the_solver() -> None:
    problem = b.problem()
    made = attempt(formulate(problem, find_arcs(problem).arcs))
    empty = Point(
        status=PointStatus.PROVEN, values={"n": dict.fromkeys(made.point.values["n"], nan)}
    )
    with pytest.raises(FatalError, match="nan"):
        extract_plan(made.inputs, empty, method="a solver that lies")


# -- cut short


def crowded(*, time_limit_s: float = 300.0, node_limit: int = 100_000) -> Problem:
    """Fourteen sites on a ring with fixed prices, forty classes that each reach seven of them: the
    search takes dozens of nodes.
    """
    ids = "abcdefghijklmn"
    near = [ids[at:] + ids[:at] for at in range(len(ids))]
    return b.problem(
        sites=[
            b.site(
                i, pools=[b.pool(count=8, price=1.0 + at * 7 % 5 / 10)], fixed_price=4.0 + at % 3
            )
            for at, i in enumerate(ids)
        ],
        links=[
            b.link(i, ids[at - 1], rtt_ms=10.0, price=1.0 + at * 5 % 7) for at, i in enumerate(ids)
        ],
        markets=[b.market(f"m{i}", accesses={i: 5.0}) for i in ids],
        points=[
            b.point(),
            b.point(accelerators=2, decode_tok_s=2_300.0, idle_w=150.0, full_w=500.0),
        ],
        classes=[
            b.traffic_class(
                f"c{at:02}",
                market_id=f"m{near[at % 14][0]}",
                rate_rps=3.0 + at * 11 % 17,
                bytes_per_request=1e4,
                ttft_ms=90.0,
                protected=at % 5 == 0,
            )
            for at in range(40)
        ],
        plan_policy=replace(POLICY, time_limit_s=time_limit_s, node_limit=node_limit),
    )


@pytest.mark.parametrize("time_limit_s", [1e-9, 1e-3, 1e-2, 3e-2, 0.1, 0.3])
def test_a_time_limit_of_any_size_ends_in_a_plan_or_in_none(time_limit_s: float) -> None:
    problem = crowded(time_limit_s=time_limit_s)
    outcome = solve(problem)
    assert is_clear(problem, outcome)
    assert outcome.status in (SolveStatus.OPTIMAL, SolveStatus.LIMIT, SolveStatus.NO_PLAN)
    if outcome.status is SolveStatus.NO_PLAN:
        assert "time_limit_s" in outcome.message


@pytest.mark.parametrize("node_limit", [1, 10])
def test_a_node_limit_of_any_size_ends_in_a_plan_or_in_none(node_limit: int) -> None:
    problem = crowded(node_limit=node_limit)
    outcome = solve(problem)
    assert is_clear(problem, outcome)
    assert solve(problem) == outcome


def test_an_interrupt_at_any_moment_leaves_nothing_broken() -> None:
    problem = b.two_sites()
    before = solve(problem)
    calls = interrupted(problem, at=None)
    assert calls > 1_000
    for at in range(1, calls, calls // 25):
        with pytest.raises(KeyboardInterrupt):
            interrupted(problem, at=at)
        assert solve(problem) == before


def interrupted(problem: Problem, *, at: int | None) -> int:
    """Solve, interrupted at the call of that number (None: not at all); how many calls it made."""
    calls = count(1)

    def on_event(_frame: object, event: str, _argument: object) -> None:
        if event == "call" and next(calls) == at:
            raise KeyboardInterrupt

    sys.setprofile(on_event)
    try:
        solve(problem)
    finally:
        sys.setprofile(None)
    return next(calls) - 1
