"""Solving: plans the checker accepts, limits that bind as written, a clear no where none fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.outcome import SolveStatus
from optimizer.plan import Plan
from optimizer.policy import GroupBound, PlanPolicy
from optimizer.problem import Problem
from optimizer.solve import solve
from optimizer.verify import check_plan
from sites.clock import ManualClock
from sites.traffic import Demand
from tests.optimizer import builders as b
from tests.optimizer.milp.cases import tough


def planned(problem: Problem) -> Plan:
    outcome = solve(problem)
    assert outcome.status is SolveStatus.OPTIMAL, outcome.message
    assert outcome.plan is not None
    return outcome.plan


def replicas(plan: Plan) -> Mapping[str, int]:
    return {g.group.group_id: g.replicas for g in plan.groups}


def shares(plan: Plan) -> Mapping[tuple[str, str], int]:
    return {(s.class_id, s.group_id): s.basis_points for s in plan.shares}


policies = st.builds(
    PlanPolicy,
    utilisation_ceiling=st.sampled_from([0.6, 1.0]),
    carbon_usd_per_t=st.just(50.0),
    migration_usd_per_gib=st.sampled_from([0.0, 3.0]),
    move_limit_replicas=st.sampled_from([None, 0, 1, 3]),
    max_shed_basis_points=st.sampled_from([None, None, 5_000]),
    replica_bounds=st.sampled_from(
        [
            (),
            (GroupBound(site_id="a", variant_id="v", most=1),),
            (GroupBound(site_id="a", variant_id="v", fewest=1, most=2),),
        ]
    ),
    gap_limit=st.just(0.0),
)


@given(problem=b.small_problems(), policy=policies, lost=st.sampled_from([(), ("a",)]))
@settings(max_examples=150, deadline=None)
def test_a_plan_is_clean_or_the_way_out_is_told(
    problem: Problem, policy: PlanPolicy, lost: tuple[str, ...]
) -> None:
    one = replace(problem, plan_policy=policy, lost_sites=lost)
    outcome = solve(one)

    if outcome.plan is None:
        assert outcome.status is SolveStatus.INFEASIBLE, outcome.message
        assert outcome.relaxations
        return
    assert outcome.status is SolveStatus.OPTIMAL
    assert check_plan(one, outcome.plan) == ()
    assert outcome.plan.gap < 2e-3  # only rounding to basis points
    assert solve(one) == outcome


@given(problem=b.small_problems())
@settings(max_examples=40, deadline=None)
def test_a_first_guess_changes_nothing_about_the_cost(problem: Problem) -> None:
    blank = planned(problem)
    again = solve(problem, start=blank).plan

    assert again is not None
    assert again.cost.total_usd_per_h == pytest.approx(blank.cost.total_usd_per_h, rel=2e-3)


def test_the_cheap_site_serves_and_costs_what_it_says() -> None:
    plan = planned(b.two_sites())

    assert replicas(plan) == {"b/p/v/x1": 1}
    assert shares(plan) == {("c", "b/p/v/x1"): 10_000}
    assert plan.cost.total_usd_per_h == pytest.approx(1.0 + 0.3 * 0.1)
    assert plan.bound_usd_per_h == pytest.approx(plan.cost.total_usd_per_h)


def test_the_period_chooses_price_and_demand() -> None:
    grid = replace(b.supply(), price_usd_per_kwh=(0.1, 10.0))
    busy = replace(b.traffic_class(), rate_rps=(10.0, 20.0))
    problem = b.problem(sites=[b.site(supplies=[grid])], classes=[busy])

    night, day = planned(problem), planned(replace(problem, period=1))

    assert (replicas(night), replicas(day)) == ({"a/p/v/x1": 1}, {"a/p/v/x1": 2})
    assert day.cost.energy_usd_per_h == pytest.approx(0.6 * 10.0)


def test_a_forecast_overrides_the_rate() -> None:
    problem = replace(b.problem(), demand=(Demand(class_id="c", period=0, rate_rps=39.0),))

    assert replicas(planned(problem)) == {"a/p/v/x1": 4}


def test_power_comes_from_the_cheapest_supply_first() -> None:
    sun = b.supply("sun", limit_w=200.0, price=0.01)
    plan = planned(b.problem(sites=[b.site(supplies=[b.supply(price=0.3), sun], pue=1.1)]))

    assert {u.supply_id: u.power_w for u in plan.supplies} == pytest.approx(
        {"grid": 130.0, "sun": 200.0}
    )


def test_power_sold_below_nothing_is_not_bought_for_its_own_sake() -> None:
    plan = planned(b.problem(sites=[b.site(supplies=[b.supply(price=-0.1)])]))

    assert sum(u.power_w for u in plan.supplies) == pytest.approx(300.0)
    assert plan.cost.energy_usd_per_h == pytest.approx(-0.03)


def test_the_budget_is_on_the_possible_draw() -> None:
    tight = b.problem(
        sites=[b.site(budget_w=899.0)], classes=[b.traffic_class(rate_rps=21.0, priority=0)]
    )
    plan = planned(tight)

    assert replicas(plan) == {"a/p/v/x1": 2}  # three would draw 900 W at most, 640 W on average
    assert [s.basis_points for s in plan.shed] == [476]


def test_the_least_important_class_is_shed_first() -> None:
    first, last = (b.traffic_class(c, priority=p, rate_rps=30.0) for c, p in (("c", 2), ("d", 7)))
    plan = planned(b.problem(classes=[first, last]))

    assert shares(plan) == {("c", "a/p/v/x1"): 10_000, ("d", "a/p/v/x1"): 3_333}


@pytest.mark.parametrize(
    ("bandwidth_bps", "expected"),
    [(1e12, {"a/p/v/x1": 1, "b/p/v/x1": 4}), (20e6, {"a/p/v/x1": 4, "b/p/v/x1": 1})],
)
def test_narrow_links_keep_traffic_near(bandwidth_bps: float, expected: Mapping[str, int]) -> None:
    one = b.traffic_class(rate_rps=42.5, bytes_per_request=1e6)  # 8 Mbit each
    problem = b.two_sites(classes=[one])
    links = (b.link("a", "b", bandwidth_bps=bandwidth_bps),)
    plan = planned(replace(problem, fleet=replace(problem.fleet, links=links)))

    assert replicas(plan) == expected
    assert plan.shed == ()
    if bandwidth_bps == 20e6:
        assert shares(plan)["c", "b/p/v/x1"] == pytest.approx(2.5 / 42.5 * 10_000, abs=1)


def test_spread_puts_no_more_than_its_part_on_a_site() -> None:
    plan = planned(b.two_sites(classes=[b.traffic_class(spread_sites=2)]))

    assert shares(plan) == {("c", "a/p/v/x1"): 5_000, ("c", "b/p/v/x1"): 5_000}


def test_a_fixed_price_is_paid_once_per_site_used() -> None:
    sites = [b.site("a", pools=[b.pool(price=2.0)]), b.site("b", country="FR", fixed_price=0.5)]
    base = b.two_sites()
    one = replace(base, fleet=replace(base.fleet, sites=tuple(sites)))
    dear = replace(
        one,
        fleet=replace(one.fleet, sites=(sites[0], replace(sites[1], fixed_price_usd_per_h=5.0))),
    )

    assert planned(one).cost.site_usd_per_h == 0.5
    assert replicas(planned(dear)) == {"a/p/v/x1": 1}


def test_what_runs_stays_where_moving_costs_more() -> None:
    policy = replace(b.DEFAULT_POLICY, migration_usd_per_gib=48.0)  # 1 GiB over 24 h: $2/h
    moving = b.two_sites(plan_policy=policy)
    running = b.problem(running={"a/p/v/x1": 1}).running

    assert replicas(planned(moving)) == {"b/p/v/x1": 1}
    assert replicas(planned(replace(moving, running=running))) == {"a/p/v/x1": 1}


def test_a_move_limit_holds_starts_and_stops_together() -> None:
    policy = replace(b.DEFAULT_POLICY, move_limit_replicas=2)
    problem = b.problem(
        running={"a/p/v/x1": 4}, classes=[b.traffic_class(rate_rps=5.0)], plan_policy=policy
    )

    assert replicas(planned(problem)) == {"a/p/v/x1": 2}


def test_a_cordoned_site_starts_nothing_and_keeps_what_it_has() -> None:
    problem = b.problem(
        sites=[b.site(cordoned=True)],
        running={"a/p/v/x1": 1},
        classes=[b.traffic_class(rate_rps=40.0)],
    )

    assert replicas(planned(problem)) == {"a/p/v/x1": 1}


@pytest.mark.parametrize("lost", [(), ("a",)])
def test_a_floor_holds_without_demand_but_not_at_a_lost_site(lost: Sequence[str]) -> None:
    policy = replace(
        b.DEFAULT_POLICY, replica_bounds=(GroupBound(site_id="a", variant_id="v", fewest=2),)
    )
    problem = b.problem(classes=[], plan_policy=policy, lost=lost)

    assert replicas(planned(problem)) == ({} if lost else {"a/p/v/x1": 2})


def test_of_two_bounds_for_one_pair_the_stricter_holds() -> None:
    bounds = tuple(GroupBound(site_id="a", variant_id="v", most=most) for most in (1, 3))
    for order in (bounds, bounds[::-1]):
        policy = replace(b.DEFAULT_POLICY, replica_bounds=order)
        crowded = b.problem(classes=[b.traffic_class(rate_rps=40.0)], plan_policy=policy)
        assert replicas(planned(crowded)) == {"a/p/v/x1": 1}


@pytest.mark.parametrize(
    "problem",
    [
        b.problem(classes=[]),
        b.problem(classes=[b.traffic_class(rate_rps=0.0)]),
        b.problem(sites=[b.site(pools=[])]),
        b.problem(lost=["a"]),
    ],
    ids=["no class", "no demand", "no hardware", "all lost"],
)
def test_there_is_always_a_plan_even_if_it_places_nothing(problem: Problem) -> None:
    plan = planned(problem)

    assert plan.groups == ()
    wanted = sum(problem.rate_rps(c) > 0 for c in problem.classes)
    assert [s.basis_points for s in plan.shed] == [10_000] * wanted


class TickingClock(ManualClock):
    """A quarter of a second passes with every look at the clock."""

    def monotonic_ms(self) -> int:
        self.advance_ms(250)
        return super().monotonic_ms()


def test_seconds_come_from_the_clock_handed_in() -> None:
    timed, untimed = solve(b.problem(), clock=TickingClock()), solve(b.problem())

    assert (timed.build_s, timed.solve_s) == (0.25, 0.5)
    assert (untimed.build_s, untimed.solve_s) == (0.0, 0.0)
    assert timed.plan == untimed.plan


def test_a_plan_that_spent_its_budget_never_calls_itself_optimal() -> None:
    outcome = solve(tough(node_limit=1))

    assert outcome.status is SolveStatus.LIMIT
    assert outcome.plan is not None
    assert outcome.plan.hit_limit == "node_limit"
    assert "node_limit" in outcome.message
    assert outcome.plan.gap > 0.001
    assert outcome.bound_usd_per_h == outcome.plan.bound_usd_per_h
