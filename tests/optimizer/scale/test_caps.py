"""The large search within limits over the fleet and what classes ask of their mix."""

from __future__ import annotations

from dataclasses import replace
from math import isinf

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from optimizer.milp.scale.building import build
from optimizer.milp.scale.cap_search import keep_caps
from optimizer.milp.scale.caps import CapPrices
from optimizer.milp.scale.cluster import Effort
from optimizer.milp.scale.frame import take_frame
from optimizer.milp.scale.solve import solve_at_scale
from optimizer.milp.scale.trim import trim_caps
from optimizer.outcome import SolveStatus
from optimizer.plan import Plan
from optimizer.policy import GroupBound, PlanPolicy
from optimizer.problem import Problem
from optimizer.supplies import emission_g_per_h
from optimizer.tabulate import tabulate
from optimizer.verify import check_plan
from tests.optimizer import builders as b
from tests.optimizer.optima import most_usd_per_h
from tests.optimizer.scale.test_plan_search import begun
from tests.optimizer.scale.test_scale import LateClock, plain

POLICY = PlanPolicy(utilisation_ceiling=1.0, gap_limit=1e-6)


def planned(problem: Problem) -> Plan:
    """The large search's plan, checked."""
    found = solve_at_scale(problem)
    assert found.plan is not None, found.message
    assert check_plan(problem, found.plan) == ()
    return found.plan


def replicas(plan: Plan) -> dict[str, int]:
    """Replicas by group id."""
    return {one.group.group_id: one.replicas for one in plan.groups if one.replicas}


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(b.rich_problems(limits=True))
def test_every_limit_is_kept_and_no_bound_passes_the_optimum(problem: Problem) -> None:
    problem = plain(problem)
    found, most = solve_at_scale(problem), most_usd_per_h(problem)
    assert found.status is not SolveStatus.FAULT, found.message
    assert not isinf(most) or found.plan is None
    assert isinf(most) or found.status is not SolveStatus.INFEASIBLE
    assert isinf(most) or found.bound_usd_per_h <= most
    assert found.plan is None or check_plan(problem, found.plan) == ()


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(b.rich_problems(limits=True))
def test_out_of_time_no_plan_breaks_a_limit(problem: Problem) -> None:
    problem = plain(problem)
    found = solve_at_scale(problem, clock=LateClock())
    assert found.status is not SolveStatus.FAULT, found.message
    assert found.plan is None or check_plan(problem, found.plan) == ()


def two_tenants(budget: float | None) -> Problem:
    """Tenant "t" with a budget and "u" without, both nearer to dear site "a" than to cheap "b"."""
    dear = b.site("a", pools=[b.pool(price=2.0)])
    cheap = b.site("b", country="FR", pools=[b.pool(price=1.0, count=1)])
    return b.problem(
        sites=[dear, cheap],
        links=[b.link("a", "b")],
        classes=[b.traffic_class("c"), b.traffic_class("d", tenant_id="u")],
        budgets={"t": budget, "u": None},
        plan_policy=POLICY,
    )


def test_a_budget_moves_its_tenant_to_where_it_is_charged_less() -> None:
    # a busy replica counts $2.03/h at a and $1.03/h at b, which holds one
    plan = planned(two_tenants(1.5))
    assert not plan.shed
    assert {s.class_id: s.site_id for s in plan.shares} == {"c": "b", "d": "a"}


def test_what_no_budget_pays_is_shed() -> None:
    plan = planned(two_tenants(0.515))
    assert [one.class_id for one in plan.shed] == ["c"]
    assert plan.shed[0].basis_points == pytest.approx(5_000, abs=2)


def dirty_and_clean(cap_g_per_h: float | None) -> Problem:
    """Site "a" is cheap and emits 500 g/kWh, "b" is dear and emits 50."""
    dirty = b.site("a", supplies=[b.supply(carbon_g=500.0)])
    clean = b.site("b", country="FR", pools=[b.pool(price=2.0)], supplies=[b.supply(carbon_g=50.0)])
    return b.problem(
        sites=[dirty, clean],
        links=[b.link("a", "b")],
        classes=[b.traffic_class("c", rate_rps=20.0), b.traffic_class("d", rate_rps=20.0)],
        plan_policy=replace(POLICY, carbon_cap_g_per_h=cap_g_per_h),
    )


@pytest.mark.parametrize(("cap_g_per_h", "at_a"), [(None, 4), (600.0, 4), (400.0, 2), (100.0, 0)])
def test_a_carbon_cap_moves_work_to_cleaner_power(cap_g_per_h: float | None, at_a: int) -> None:
    # four replicas of 300 W emit 600 g/h at a, 60 at b
    problem = dirty_and_clean(cap_g_per_h)
    plan = planned(problem)
    assert not plan.shed
    assert replicas(plan).get("a/p/v/x1", 0) == at_a
    assert emission_g_per_h(problem, plan.supplies) <= (cap_g_per_h or np.inf) * (1 + 1e-6)


def test_a_move_limit_of_nothing_keeps_what_runs() -> None:
    running = {"a/p/v/x1": 2, "b/p/v/x1": 1}
    groups = tuple(
        b.problem(running={group: count}).running[0] for group, count in sorted(running.items())
    )
    policy = replace(POLICY, move_limit_replicas=0)
    classes = [b.traffic_class("c", rate_rps=10.0)]
    plan = planned(b.two_sites(classes=classes, plan_policy=policy, running=groups))
    assert replicas(plan) == running


def test_few_moves_go_where_they_save_most() -> None:
    groups = b.problem(running={"a/p/v/x1": 2}).running
    policy = replace(POLICY, move_limit_replicas=2)
    classes = [b.traffic_class("c", rate_rps=20.0)]
    plan = planned(b.two_sites(classes=classes, plan_policy=policy, running=groups))
    assert replicas(plan) == {"a/p/v/x1": 1, "b/p/v/x1": 1}


def test_bounds_on_replicas_hold() -> None:
    bounds = (
        GroupBound(site_id="a", variant_id="v", fewest=1),
        GroupBound(site_id="b", variant_id="v", most=1),
    )
    policy = replace(POLICY, replica_bounds=bounds)
    classes = [b.traffic_class("c", rate_rps=30.0)]
    plan = planned(b.two_sites(classes=classes, plan_policy=policy))
    assert replicas(plan) == {"a/p/v/x1": 2, "b/p/v/x1": 1}


def test_a_spread_class_gives_no_site_more_than_its_part() -> None:
    classes = [b.traffic_class("c", rate_rps=10.0, spread_sites=2)]
    plan = planned(b.two_sites(classes=classes, plan_policy=POLICY))
    assert sorted((s.site_id, s.basis_points) for s in plan.shares) == [("a", 5_000), ("b", 5_000)]


def test_a_floor_without_room_is_no_fault() -> None:
    bounds = (GroupBound(site_id="a", variant_id="v", fewest=9),)
    found = solve_at_scale(b.problem(plan_policy=replace(POLICY, replica_bounds=bounds)))
    assert found.status is SolveStatus.NO_PLAN
    assert "replica floor is 4 replicas, limit 9" in found.message


def test_rising_prices_bring_charges_within_budgets() -> None:
    search = begun(two_tenants(1.5))
    ledger, effort = search.ledger, Effort(sites=2, gap=0.0, nodes=1)
    ledger.caps_hold = False
    build(search, effort=effort, is_late=lambda: False)
    kept = keep_caps(search, effort)
    assert ledger.caps_hold
    assert ledger.shed_part.max() < 1e-6
    assert (ledger.used.charged_usd_per_h <= 1.5 + 1e-6).all()
    assert kept.frame.cap_prices is ledger.frame.cap_prices


def test_what_stays_beyond_a_budget_is_shed() -> None:
    search = begun(two_tenants(1.5))
    search.ledger.caps_hold = False
    build(search, effort=Effort(sites=2, gap=0.0, nodes=1), is_late=lambda: False)
    before = search.ledger.used.charged_usd_per_h[0]
    trim_caps(search.ledger)
    kept = min(1.0, 1.5 / before)
    assert search.ledger.shed_part[0] == pytest.approx(1.0 - kept, abs=1e-5)
    assert search.ledger.shed_part[1] == 0.0


def test_prices_of_caps_add_up() -> None:
    frame = take_frame(tabulate(dirty_and_clean(400.0)))
    dear = frame.at_cap_prices(CapPrices(carbon_usd_per_kg=2.0, budget=np.zeros(0)))
    assert dear.given_back_usd_per_h == pytest.approx(0.8)
    drawn_kw = np.array([1.0, 1.0])
    more = dear.energy_usd_per_h(drawn_kw) - frame.energy_usd_per_h(drawn_kw)
    assert frame.emitted_kg_per_h(drawn_kw) == pytest.approx(0.55)
    assert more == pytest.approx(1.1)
