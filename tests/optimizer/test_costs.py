"""Each term of a plan's cost against figures worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from optimizer.arcs import find_arcs
from optimizer.costs import cost_of, trivial_bound_usd_per_h
from optimizer.greedy import greedy_plan
from optimizer.policy import PlanPolicy
from optimizer.problem import Problem
from optimizer.reach import Reach
from optimizer.supplies import supply_stack
from sites.fleet import SupplyKind
from tests.optimizer import builders as b

A, B = "a/p/v/x1", "b/p/v/x1"


def test_hardware_energy_and_cooling() -> None:
    problem = b.problem(sites=[b.site(pue=1.25, pools=[b.pool(price=2.0)])])
    cost = b.plan(problem, groups={A: 2}, shares={("c", A): 10_000}).cost
    assert cost.hardware_usd_per_h == pytest.approx(4.0)
    watts = (2 * 100 + 1.0 * 200) * 1.25  # two idle replicas, one of them's worth busy
    assert cost.energy_usd_per_h == pytest.approx(watts / 1000 * 0.1)
    assert cost.cooling_usd_per_h == pytest.approx(400 * 0.25 / 1000 * 0.1)
    assert cost.total_usd_per_h == pytest.approx(4.0 + watts / 1000 * 0.1)


def test_network_is_paid_per_gb_over_every_link_of_the_path() -> None:
    problem = b.problem(
        sites=[b.site("a"), b.site("b"), b.site("z")],
        links=[b.link("a", "z", price=1.0), b.link("z", "b", price=2.0)],
        classes=[b.traffic_class(bytes_per_request=1e6)],
    )
    cost = b.plan(problem, groups={B: 1}, shares={("c", B): 10_000}).cost
    assert cost.network_usd_per_h == pytest.approx(10 * 3600 * 1e6 / 1e9 * 3.0)


def test_migration_is_weights_and_waiting_of_what_is_started_only() -> None:
    problem = b.problem(
        variants=[b.variant(weights_mib=2048.0)],
        points=[b.point(start_ms=3_600_000.0)],
        running={A: 1},
        plan_policy=PlanPolicy(
            utilisation_ceiling=1.0, migration_usd_per_gib=5.0, migration_horizon_h=10.0
        ),
    )
    kept = b.plan(problem, groups={A: 1}, shares={("c", A): 10_000})
    started = b.plan(problem, groups={A: 3}, shares={("c", A): 10_000})
    assert kept.cost.migration_usd_per_h == 0.0
    assert started.cost.migration_usd_per_h == pytest.approx(2 * (2 * 5.0 + 1.0 * 1.0) / 10)


def test_carbon_is_priced_per_tonne() -> None:
    site = b.site(supplies=[b.supply(carbon_g=400.0)])
    policy = replace(b.DEFAULT_POLICY, carbon_usd_per_t=100.0)
    problem = b.problem(sites=[site], plan_policy=policy)
    cost = b.plan(problem, groups={A: 1}, shares={("c", A): 10_000}).cost
    assert cost.carbon_usd_per_h == pytest.approx(0.3 * 400 / 1e6 * 100)


@pytest.mark.parametrize(("priority", "weight"), [(9, 1), (5, 5), (0, 10)])
def test_shedding_is_priced_by_output_tokens_and_priority(priority: int, weight: int) -> None:
    problem = b.problem(classes=[b.traffic_class(priority=priority)])
    cost = b.plan(problem, groups={}, shares={}, shed={"c": 10_000}).cost
    assert cost.total_usd_per_h == pytest.approx(10 * 100 * 3600 / 1e6 * 50 * weight)


def test_a_site_costs_its_fixed_price_once_it_holds_a_replica() -> None:
    problem = b.problem(sites=[b.site("a", fixed_price=7.0), b.site("b", fixed_price=9.0)])
    cost = b.plan(problem, groups={A: 2}, shares={("c", A): 10_000}).cost
    assert cost.site_usd_per_h == 7.0


def test_supplies_are_used_cheapest_first_carbon_included() -> None:
    coal = b.supply("coal", price=0.04, carbon_g=1_000.0)
    sun = b.supply("sun", limit_w=100.0, price=0.01, kind=SupplyKind.ON_SITE)
    wind = b.supply("wind", limit_w=100.0, price=0.05, kind=SupplyKind.PPA)
    site = b.site(supplies=[coal, sun, wind])
    clean = b.problem(sites=[site], plan_policy=replace(b.DEFAULT_POLICY, carbon_usd_per_t=100.0))
    taken = {u.supply_id: u.power_w for u in supply_stack(clean, site, watts=250.0)}
    assert taken == {"sun": 100.0, "wind": 100.0, "coal": 50.0}
    dirty = b.problem(sites=[site])
    taken = {u.supply_id: u.power_w for u in supply_stack(dirty, site, watts=250.0)}
    assert taken == {"sun": 100.0, "coal": 150.0}


def test_power_sold_below_nothing_lowers_the_trivial_bound_by_its_whole_limit() -> None:
    site = b.site(supplies=[b.supply(limit_w=2_000.0, price=-0.5)])
    assert trivial_bound_usd_per_h(b.problem(sites=[site])) == pytest.approx(-1.0)


@settings(max_examples=60, deadline=None)
@given(b.small_problems())
def test_prices_come_back_the_same_from_the_finished_plan(problem: Problem) -> None:
    plan = greedy_plan(problem, find_arcs(problem).arcs)
    again = cost_of(
        Reach(problem),
        groups=plan.groups,
        shares=plan.shares,
        shed=plan.shed,
        supplies=plan.supplies,
    )
    assert again == plan.cost
