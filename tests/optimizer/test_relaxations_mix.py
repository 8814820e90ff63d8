"""Mixes, budgets and the carbon cap that cannot hold: named, with how far they must give way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from optimizer.outcome import SolveStatus
from optimizer.problem import Problem
from optimizer.solve import solve
from tests.optimizer import builders as b

HARD = replace(b.DEFAULT_POLICY, max_shed_basis_points=0)


def _lower_variant_only(**more: object) -> Problem:
    return b.problem(
        variants=[b.variant("w", quality=0.5)],
        points=[b.point("w")],
        services={"chat": ["w"]},
        classes=[b.traffic_class(**more)],  # type: ignore[arg-type]
        plan_policy=HARD,
    )


@pytest.mark.parametrize(
    ("problem", "code", "subject", "limit", "needed", "price"),
    [
        (
            b.problem(classes=[b.traffic_class(ttft_ms=50.0, over_mix=True)], plan_policy=HARD),
            "latency_mix",
            "c",
            50.0,
            55.0,
            0.0,
        ),
        (
            _lower_variant_only(mean_quality_floor=0.8),
            "quality_floor",
            "c",
            0.8,
            0.5,
            0.0,
        ),
        (
            b.problem(budgets={"t": 0.5}, plan_policy=HARD),
            "tenant_budget",
            "t",
            0.5,
            1.03,
            0.53,
        ),
        (
            b.problem(
                sites=[b.site(supplies=[b.supply(carbon_g=500.0)])],
                plan_policy=replace(HARD, carbon_cap_g_per_h=100.0, carbon_usd_per_t=100.0),
            ),
            "carbon_cap",
            "fleet",
            0.1,
            0.15,
            0.005,
        ),
        (
            b.problem(classes=[b.traffic_class(spread_zones=2)], plan_policy=HARD),
            "spread",
            "c@zone:a",
            10.0,
            20.0,
            0.0,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_infeasible_problem_says_what_to_relax_how_far_and_its_price(
    problem: Problem, code: str, subject: str, limit: float, needed: float, price: float
) -> None:
    outcome = solve(problem)

    assert outcome.status is SolveStatus.INFEASIBLE
    [found] = [r for r in outcome.relaxations if r.code == code]
    assert found.subject == subject
    assert (found.limit, found.needed) == pytest.approx((limit, needed))
    assert found.price_usd_per_h == pytest.approx(price)
    assert found.remedy in outcome.message


def test_a_relaxed_limit_makes_the_problem_feasible() -> None:
    problem = b.problem(budgets={"t": 0.5}, plan_policy=HARD)
    [found] = [r for r in solve(problem).relaxations if r.code == "tenant_budget"]
    tenants = tuple(replace(t, budget_usd_per_h=found.needed) for t in problem.tenants)

    assert solve(replace(problem, tenants=tenants)).status is SolveStatus.OPTIMAL


def test_replicas_that_emit_beyond_a_lowered_cap_are_drained_as_far_as_moves_let() -> None:
    policy = replace(b.DEFAULT_POLICY, carbon_cap_g_per_h=60.0, move_limit_replicas=1)
    problem = b.problem(  # each idle replica emits 50 g/h
        sites=[b.site(supplies=[b.supply(carbon_g=500.0)])],
        plan_policy=policy,
        running={"a/p/v/x1": 3},
    )

    plan = solve(problem).plan
    assert plan is not None
    assert [(g.group.group_id, g.replicas) for g in plan.groups] == [("a/p/v/x1", 2)]
    assert [s.basis_points for s in plan.shed] == [10_000]
