"""The greedy baseline: always clean, never below its bound, the cheapest arc first."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.arcs import find_arcs
from optimizer.greedy import greedy_plan, lone_bound_usd_per_h
from optimizer.plan import Plan
from optimizer.policy import GroupBound
from optimizer.problem import Problem
from optimizer.verify import check_plan
from tests.optimizer import builders as b

A, B = "a/p/v/x1", "b/p/v/x1"


def greedy(problem: Problem) -> Plan:
    return greedy_plan(problem, find_arcs(problem).arcs)


def messages(problem: Problem, plan: Plan) -> list[str]:
    return [violation.message() for violation in check_plan(problem, plan)]


@settings(max_examples=150, deadline=None)
@given(b.small_problems())
def test_a_greedy_plan_is_clean_and_no_cheaper_than_its_bound(problem: Problem) -> None:
    plan = greedy(problem)
    assert messages(problem, plan) == []
    bound = lone_bound_usd_per_h(problem, find_arcs(problem).arcs)
    assert bound <= plan.cost.total_usd_per_h * (1 + 1e-3)  # shares are rounded to basis points


@settings(max_examples=100, deadline=None)
@given(b.small_problems(), st.integers(0, 4))
def test_a_greedy_plan_keeps_the_move_limit(problem: Problem, moves: int) -> None:
    policy = replace(problem.plan_policy, move_limit_replicas=moves)
    problem = replace(problem, plan_policy=policy)
    assert messages(problem, greedy(problem)) == []


@settings(max_examples=60, deadline=None)
@given(b.small_problems())
def test_equal_problems_give_equal_plans_whatever_the_order_of_arcs(problem: Problem) -> None:
    arcs = find_arcs(problem).arcs
    assert greedy_plan(problem, arcs) == greedy_plan(problem, tuple(reversed(arcs)))


def test_a_class_short_of_room_gets_all_its_arcs_unless_it_is_late() -> None:
    problem = b.two_sites(classes=[b.traffic_class(rate_rps=60.0)])
    arcs = find_arcs(problem).arcs
    cheap = tuple(arc for arc in arcs if arc.group.group_id == B)

    served = greedy_plan(problem, cheap, more=lambda _: arcs)
    short = greedy_plan(problem, cheap, more=lambda _: arcs, is_late=lambda: True)

    assert served.shares == greedy(problem).shares and served.shed == ()
    assert [s.group_id for s in short.shares] == [B] and short.shed[0].basis_points > 0
    assert messages(problem, served) == messages(problem, short) == []


def test_the_cheap_site_is_filled_before_the_dear_one() -> None:
    problem = b.two_sites(classes=[b.traffic_class(rate_rps=60.0)])
    plan = greedy(problem)
    assert {g.group.group_id: g.replicas for g in plan.groups} == {A: 2, B: 4}
    assert {s.group_id: s.basis_points for s in plan.shares} == {A: 3_333, B: 6_667}


def test_when_short_the_lowest_priority_is_shed() -> None:
    classes = [
        b.traffic_class("high", rate_rps=40.0, priority=0),
        b.traffic_class("low", rate_rps=40.0, priority=9),
    ]
    plan = greedy(b.problem(classes=classes))
    assert [(s.class_id, s.basis_points) for s in plan.shed] == [("low", 10_000)]


def test_a_replica_that_costs_more_than_its_traffic_is_not_opened() -> None:
    lone = b.traffic_class(rate_rps=0.001, priority=9)
    plan = greedy(b.problem(classes=[lone]))
    assert plan.groups == ()
    assert plan.cost.total_usd_per_h == pytest.approx(0.001 * 100 * 3600 / 1e6 * 50)


def test_a_floor_is_met_though_nobody_asks() -> None:
    bound = GroupBound(site_id="a", variant_id="v", fewest=2)
    problem = b.two_sites(plan_policy=replace(b.DEFAULT_POLICY, replica_bounds=(bound,)))
    plan = greedy(problem)
    assert messages(problem, plan) == []
    assert {g.group.group_id: g.replicas for g in plan.groups} == {A: 2}
