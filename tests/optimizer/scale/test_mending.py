"""The large search where what runs now breaks limits that few moves cannot mend."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optimizer.arcs import group_options
from optimizer.milp.scale.mending import moved_limits
from optimizer.milp.scale.solve import solve_at_scale
from optimizer.outcome import SolveStatus
from optimizer.plan import Plan
from optimizer.policy import GroupBound
from optimizer.problem import Problem, RunningGroup
from optimizer.solve import solve
from optimizer.verify import check_plan
from tests.optimizer import builders as b
from tests.optimizer.optima import most_usd_per_h
from tests.optimizer.scale.test_scale import plain

MENDED = {"pool_accelerators", "site_power", "supply_limit", "replica_cap", "carbon_cap"}


def replicas(plan: Plan | None) -> dict[str, int]:
    """Replicas by group id."""
    assert plan is not None
    return {one.group.group_id: one.replicas for one in plan.groups if one.replicas}


def overfull(moves: int, **more: object) -> Problem:
    """Three replicas of 300 W run on a budget of 450 W."""
    policy = replace(b.DEFAULT_POLICY, move_limit_replicas=moves)
    return b.problem(
        sites=[b.site(budget_w=450.0, pools=[b.pool(count=4)])],
        running={"a/p/v/x1": 3},
        plan_policy=policy,
        **more,
    )


@pytest.mark.parametrize(("moves", "left"), [(0, 3), (1, 2), (2, 1)])
def test_replicas_beyond_a_budget_stop_as_far_as_moves_allow(moves: int, left: int) -> None:
    problem = overfull(moves)
    found = solve_at_scale(problem)
    assert replicas(found.plan) == {"a/p/v/x1": left}
    assert found.plan is not None
    assert check_plan(problem, found.plan) == ()
    assert found.bound_usd_per_h <= most_usd_per_h(problem)
    assert replicas(solve(problem).plan) == {"a/p/v/x1": left}


def test_limits_move_by_the_least_excess_alone() -> None:
    eased, stands = moved_limits(overfull(1))
    assert stands == {"a/p/v/x1": 2}
    assert eased.fleet.site("a").power_budget_w == pytest.approx((600.0,))
    kept = overfull(2)
    assert moved_limits(kept) == (kept, {"a/p/v/x1": 1})
    freely = replace(kept, plan_policy=replace(kept.plan_policy, move_limit_replicas=None))
    assert moved_limits(freely) == (freely, None)


def test_a_cap_lowered_below_what_runs_is_kept_where_moves_are_free() -> None:
    policy = replace(
        b.DEFAULT_POLICY, replica_bounds=(GroupBound(site_id="a", variant_id="v", most=1),)
    )
    problem = b.problem(
        sites=[b.site(budget_w=9_000.0, pools=[b.pool(count=4)])],
        running={"a/p/v/x1": 3},
        plan_policy=policy,
    )
    assert replicas(solve_at_scale(problem).plan) == {"a/p/v/x1": 1}


@st.composite
def broken_problems(draw: st.DrawFn) -> Problem:
    """What runs takes more than power budgets, pools and caps allow; few replicas may move."""
    base = plain(draw(b.rich_problems(limits=True)))
    running = tuple(
        RunningGroup(group=option.group, replicas=draw(st.integers(0, 3)))
        for option in list(group_options(base).values())[:4]
    )
    part = draw(st.sampled_from([0.2, 0.6, 1.0]))
    sites = tuple(
        replace(
            site,
            power_budget_w=tuple(part * w for w in site.power_budget_w),
            pools=tuple(replace(p, count=max(1, p.count // 2)) for p in site.pools),
        )
        for site in base.fleet.sites
    )
    policy = replace(
        base.plan_policy,
        move_limit_replicas=draw(st.integers(0, 4)),
        max_shed_basis_points=None,
    )
    fleet = replace(base.fleet, sites=sites)
    return replace(base, fleet=fleet, running=running, plan_policy=policy)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(broken_problems())
def test_what_few_moves_mend_in_part_has_a_plan_wherever_the_whole_formulation_has(
    problem: Problem,
) -> None:
    found = solve_at_scale(problem)
    assert found.status is not SolveStatus.FAULT, found.message
    if found.plan is None:
        assert solve(problem).plan is None
        return
    assert check_plan(problem, found.plan) == ()
    assert found.bound_usd_per_h <= found.plan.cost.total_usd_per_h + 1e-6
    eased, _ = moved_limits(problem)
    codes = {one.code for one in check_plan(replace(eased, running=()), found.plan)}
    assert not codes & MENDED, "limits give way by the least excess and no further"
