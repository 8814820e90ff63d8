"""Detours: clean, as cheap as flows get, no protected traffic shed, mended when the fleet is not
as planned.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from optimizer.arcs import find_arcs
from optimizer.costs import shed_price_usd_per_h
from optimizer.greedy import greedy_plan
from optimizer.plan import Plan
from optimizer.problem import Problem, RunningGroup
from optimizer.reach import Reach
from optimizer.reroute import detour_plan, rerouted_problem
from optimizer.reroute_table import RerouteTable
from optimizer.solve import solve
from optimizer.verify import check_plan
from sites.units import WHOLE_BP
from tests.optimizer import builders as b

A, B, C = "a/p/v/x1", "b/p/v/x1", "c/p/v/x1"


def greedy(problem: Problem) -> Plan:
    return greedy_plan(problem, find_arcs(problem).arcs)


def priced(problem: Problem, part: float = 1.0) -> Problem:
    return replace(problem, plan_policy=replace(problem.plan_policy, exposure_part=part))


def three_sites(classes: list[b.TrafficClass], *, count: int = 4) -> Problem:
    """Sites a, b, c in a ring of links; market m reaches a, then b."""
    return b.problem(
        sites=[b.site(s, pools=[b.pool(count=count)]) for s in "abc"],
        links=[b.link("a", "b"), b.link("a", "c", rtt_ms=12.0), b.link("b", "c")],
        markets=[b.market(accesses={"a": 5.0, "b": 20.0}), b.market("n", accesses={"b": 1.0})],
        classes=classes,
    )


def faults(problem: Problem, plan: Plan, moved: Plan, lost: str, **more: object) -> list[str]:
    answered = rerouted_problem(problem, plan, lost_sites=[lost], **more)  # type: ignore[arg-type]
    return [v.message() for v in check_plan(answered, moved)]


@settings(max_examples=150, deadline=None)
@given(b.rich_problems(max_classes=6), st.integers(0, 2), st.sampled_from([0.0, 1.0]))
def test_every_detour_makes_a_clean_plan(problem: Problem, which: int, part: float) -> None:
    problem = priced(problem, part)
    plan = greedy(problem)
    table = RerouteTable(problem, plan)
    lost = problem.fleet.sites[which % len(problem.fleet.sites)].site_id
    assert faults(problem, plan, detour_plan(problem, plan, table.detour(lost)), lost) == []


@settings(max_examples=150, deadline=None)
@given(b.rich_problems(max_classes=6), st.integers(0, 2), st.data())
def test_a_mended_detour_makes_a_clean_plan(
    problem: Problem, which: int, data: st.DataObject
) -> None:
    problem = priced(problem)
    plan = greedy(problem)
    assume(plan.groups)
    running = tuple(
        RunningGroup(group=g.group, replicas=data.draw(st.integers(0, g.replicas)))
        for g in plan.groups
    )
    lost = problem.fleet.sites[which % len(problem.fleet.sites)].site_id
    detour = RerouteTable(problem, plan).answer(lost, running=running)
    moved = detour_plan(problem, plan, detour, running=running)
    assert faults(problem, plan, moved, lost, running=running) == []


@settings(max_examples=60, deadline=None)
@given(b.small_problems(max_classes=6), st.integers(0, 2))
def test_protected_traffic_that_the_certificate_serves_is_served(
    problem: Problem, which: int
) -> None:
    problem = priced(problem)
    plan = solve(problem).plan
    assert plan is not None
    lost = problem.fleet.sites[which % len(problem.fleet.sites)].site_id
    detour = RerouteTable(problem, plan).detour(lost)
    shed = {s.class_id: s.basis_points for s in plan.shed}
    exposed = {e.class_id: e.basis_points for e in plan.exposed if e.lost_site_id == lost}
    for class_id in {s.class_id for s in plan.survival if s.lost_site_id == lost}:
        if class_id in detour.shares:
            assert detour.shed_bp(class_id) <= shed.get(class_id, 0) + exposed.get(class_id, 0)


@settings(max_examples=100, deadline=None)
@given(b.small_problems(max_classes=6), st.integers(0, 2))
def test_a_detour_costs_what_the_best_flows_cost(problem: Problem, which: int) -> None:
    """Against a plan that may move no replica, without protected classes: within what moving
    counts as costing and one basis point of each class.
    """
    problem = replace(problem, classes=tuple(replace(c, protected=False) for c in problem.classes))
    plan = greedy(problem)
    lost = problem.fleet.sites[which % len(problem.fleet.sites)].site_id
    moved = detour_plan(problem, plan, RerouteTable(problem, plan).detour(lost))
    answered = rerouted_problem(problem, plan, lost_sites=[lost])
    still = replace(answered.plan_policy, move_limit_replicas=0)
    best = solve(replace(answered, plan_policy=still)).plan
    assert best is not None
    reach = Reach(answered)
    shed = sum(shed_price_usd_per_h(reach, c) for c in reach.classes)
    assert moved.cost.total_usd_per_h <= best.cost.total_usd_per_h + 2e-3 * shed


@settings(max_examples=40, deadline=None)
@given(b.rich_problems(max_classes=6))
def test_answers_do_not_hang_on_what_was_asked_before(problem: Problem) -> None:
    plan = greedy(problem)
    filled = RerouteTable(problem, plan).filled()
    sites = sorted(s.site_id for s in problem.fleet.sites)
    for site_id in reversed(sites):
        assert RerouteTable(problem, plan).detour(site_id) == filled.answer(site_id)


def test_traffic_the_loss_does_not_touch_makes_room_for_what_could_go_nowhere_else() -> None:
    classes = [b.traffic_class("strict", policy_id="eu"), b.traffic_class("free", market_id="n")]
    problem = three_sites(classes)
    swiss = [replace(s, country="CH") if s.site_id == "c" else s for s in problem.fleet.sites]
    problem = replace(problem, fleet=replace(problem.fleet, sites=tuple(swiss)))
    plan = b.plan(
        problem,
        groups={A: 1, B: 1, C: 1},
        shares={("strict", A): WHOLE_BP, ("free", B): WHOLE_BP},
    )
    detour = RerouteTable(problem, plan).detour("a")
    assert {c: dict(shares) for c, shares in detour.shares.items()} == {
        "free": {C: WHOLE_BP},
        "strict": {B: WHOLE_BP},
    }


def test_what_a_lost_site_served_is_spread_over_its_neighbours() -> None:
    problem = three_sites([b.traffic_class(rate_rps=20.0)])
    plan = b.plan(problem, groups={A: 2, B: 4, C: 4}, shares={("c", A): WHOLE_BP})
    detour = RerouteTable(problem, plan).detour("a")
    assert dict(detour.shares["c"]) == {B: 5_000, C: 5_000}


def test_other_classes_keep_their_shares() -> None:
    classes = [b.traffic_class("moved"), b.traffic_class("stays", market_id="n")]
    problem = three_sites(classes)
    plan = b.plan(
        problem,
        groups={A: 1, B: 3, C: 3},
        shares={("moved", A): WHOLE_BP, ("stays", B): 7_000, ("stays", C): 3_000},
    )
    assert set(RerouteTable(problem, plan).detour("a").shares) == {"moved"}


def test_when_short_protected_then_price_decides_who_is_shed() -> None:
    classes = [
        b.traffic_class("free", priority=9),
        b.traffic_class("gold", priority=0),
        b.traffic_class("safe", priority=9, protected=True),
    ]
    problem = three_sites(classes)
    plan = b.plan(
        problem,
        groups={A: 2, B: 1, C: 1},
        shares={("free", B): WHOLE_BP, ("gold", A): WHOLE_BP, ("safe", A): WHOLE_BP},
    )
    detour = RerouteTable(problem, plan).detour("a")
    assert {c: detour.shed_bp(c) for c in detour.shares} == {"free": WHOLE_BP, "gold": 0, "safe": 0}


def test_strict_data_is_shed_rather_than_moved_where_it_may_not_be() -> None:
    problem = three_sites([b.traffic_class(policy_id="eu")])
    swiss = [replace(s, country="CH") if s.site_id != "a" else s for s in problem.fleet.sites]
    problem = replace(problem, fleet=replace(problem.fleet, sites=tuple(swiss)))
    plan = b.plan(problem, groups={A: 1, B: 4, C: 4}, shares={("c", A): WHOLE_BP})
    assert RerouteTable(problem, plan).detour("a").shed_bp("c") == WHOLE_BP


def test_a_replica_missing_elsewhere_is_gone_round() -> None:
    problem = three_sites([b.traffic_class(rate_rps=20.0)])
    plan = b.plan(problem, groups={A: 2, B: 2, C: 2}, shares={("c", A): WHOLE_BP})
    table = RerouteTable(problem, plan)
    as_planned = tuple(RunningGroup(group=g.group, replicas=g.replicas) for g in plan.groups)
    assert table.answer("a", running=as_planned) is table.detour("a")
    running = (as_planned[0], replace(as_planned[1], replicas=0), as_planned[2])
    assert dict(table.answer("a", running=running).shares["c"]) == {C: WHOLE_BP}


def test_a_site_the_fleet_has_not_is_refused() -> None:
    problem = three_sites([b.traffic_class()])
    plan = b.plan(problem, groups={A: 1}, shares={("c", A): WHOLE_BP})
    with pytest.raises(KeyError):
        RerouteTable(problem, plan).detour("nowhere")
