"""Certificates by linear problem: chains of moves, limits met late, the true least exposure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import given, settings

from optimizer.arcs import find_arcs
from optimizer.costs import exposure_usd_per_h, shed_price_usd_per_h
from optimizer.greedy import greedy_plan
from optimizer.milp.scale.workers import ThreadWorkers
from optimizer.milp.survive import Pairs, Recourse
from optimizer.milp.survive_local import best_answer, certify
from optimizer.milp.survive_pairs import Ground
from optimizer.plan import Plan
from optimizer.problem import Problem
from optimizer.reach import Reach
from optimizer.survive import AfterLoss, check_survival
from optimizer.survive_plan import Survivors, certified, with_certificate
from sites.units import WHOLE_BP
from tests.optimizer import builders as b

A, B, C, D, E = (f"{s}/p/v/x1" for s in "abcde")


def priced(problem: Problem, part: float) -> Problem:
    return replace(problem, plan_policy=replace(problem.plan_policy, exposure_part=part))


def a_row(classes: list[b.TrafficClass], *, bandwidth_bps: float = 1e12) -> Problem:
    """Sites a to e in a row of links of 10 ms; a market of the same name enters at each."""
    pairs = [b.link(s, t, bandwidth_bps=bandwidth_bps) for s, t in zip("abcd", "bcde", strict=True)]
    problem = b.problem(
        sites=[b.site(s) for s in "abcde"],
        links=pairs,
        markets=[b.market(s, accesses={s: 5.0}) for s in "abcde"],
        classes=classes,
    )
    return priced(problem, 1.0)


def near(class_id: str, at: str, **more: float) -> b.TrafficClass:
    """A protected class that fills a replica and may go one link from where it enters."""
    return b.traffic_class(class_id, market_id=at, protected=True, ttft_ms=68.0, **more)


def told(problem: Problem, bare: Plan) -> Plan:
    """The certified plan, whose certificate holds."""
    reach = Reach(problem)
    plan = certify(reach, bare)
    assert [v.message() for v in check_survival(reach, plan)] == []
    return plan


def test_classes_move_over_in_a_chain_to_make_room() -> None:
    """Only e has room and only z reaches it: x takes y's place, y takes z's."""
    problem = a_row([near("x", "b"), near("y", "c"), near("z", "d")])
    bare = b.plan(
        problem,
        groups={A: 1, C: 1, D: 1, E: 1},
        shares={("x", A): WHOLE_BP, ("y", C): WHOLE_BP, ("z", D): WHOLE_BP},
    )
    nearest = certified(Reach(problem), bare)
    assert [e.lost_site_id for e in nearest.exposed] == ["a"]
    plan = told(problem, bare)
    assert plan.exposed == ()
    after = [s for s in plan.survival if s.lost_site_id == "a"]
    assert [(s.class_id, s.group_id) for s in after] == [("x", C), ("y", D), ("z", E)]
    assert {s.basis_points for s in after} == {WHOLE_BP}


def test_nobody_moves_over_who_need_not() -> None:
    problem = a_row([near("x", "b"), near("y", "c"), near("z", "d")])
    bare = b.plan(
        problem,
        groups={A: 1, B: 2, C: 1, E: 1},
        shares={("x", A): WHOLE_BP, ("y", B): WHOLE_BP, ("z", C): WHOLE_BP},
    )
    moved = [s.class_id for s in told(problem, bare).survival if s.lost_site_id == "a"]
    assert moved == ["x"]


def test_a_dear_class_takes_the_place_of_a_cheap_one_the_loss_does_not_touch() -> None:
    problem = a_row([near("x", "b", priority=1), near("y", "c", priority=8)])
    bare = b.plan(problem, groups={A: 1, B: 1}, shares={("x", A): WHOLE_BP, ("y", B): WHOLE_BP})
    exposed = told(problem, bare).exposed
    assert [(e.class_id, e.basis_points) for e in exposed if e.lost_site_id == "a"] == [
        ("y", WHOLE_BP)
    ]


def test_what_others_overfill_is_no_room_when_they_give_way() -> None:
    """d takes half as much again as b has: c, twice what b has, may have no more than b has."""
    classes = [near("c", "b", rate_rps=20.0), b.traffic_class("d", market_id="b", rate_rps=15.0)]
    problem = a_row(classes)
    bare = b.plan(problem, groups={A: 2, B: 1}, shares={("c", A): WHOLE_BP, ("d", B): WHOLE_BP})
    plan = told(problem, bare)
    assert [(s.group_id, s.basis_points) for s in plan.survival if s.lost_site_id == "a"] == [
        (B, 5_000)
    ]


@pytest.mark.parametrize("bandwidth_bps", [1e12, 2e4])
def test_a_link_that_fills_only_with_what_moves_is_kept(bandwidth_bps: float) -> None:
    """c sends 40 kbit/s and half of that fits the narrow links; its own site has no replicas."""
    moving = near("c", "b", bytes_per_request=500.0)
    resting = b.traffic_class("d", market_id="c", rate_rps=10.0, priority=9)
    problem = a_row([moving, resting])
    wide = tuple(
        replace(k, bandwidth_bps=bandwidth_bps) if k.link_id != "a--b" else k
        for k in problem.fleet.links
    )
    problem = replace(problem, fleet=replace(problem.fleet, links=wide))
    bare = b.plan(problem, groups={A: 1, C: 1}, shares={("c", A): WHOLE_BP, ("d", C): WHOLE_BP})
    plan = told(problem, bare)
    exposed = sum(e.basis_points for e in plan.exposed if e.lost_site_id == "a")
    assert exposed == pytest.approx(0 if bandwidth_bps > 1e6 else 5_000, abs=1)


@settings(max_examples=60, deadline=None)
@given(b.small_problems(max_classes=6))
def test_what_is_exposed_is_the_least_there_is(problem: Problem) -> None:
    """As the linear problem over every lawful pair prices it, but for rounding."""
    problem = priced(problem, 1.0)
    reach = Reach(problem)
    plan = told(problem, greedy_plan(priced(problem, 0.0), find_arcs(problem).arcs))
    groups = [g.group for g in plan.groups]
    n = {g.group.group_id: float(g.replicas) for g in plan.groups}
    shed_bp = {s.class_id: float(s.basis_points) for s in plan.shed}
    shed = {c: bp / WHOLE_BP * reach.rates[c] for c, bp in shed_bp.items()}
    stated: dict[str, float] = defaultdict(float)
    for one in plan.exposed:
        stated[one.lost_site_id] += exposure_usd_per_h(reach, [one])
    dust = 5e-4 * sum(shed_price_usd_per_h(reach, c) for c in reach.classes)
    for lost_site_id, usd_per_h in stated.items():
        recourse = Recourse(AfterLoss(reach, lost_site_id), Pairs(reach, groups), lost_site_id)
        cuts = recourse.cuts(n=n, shed_bp=shed_bp)
        least = sum(cut.risk_usd_per_h(n=n, shed=shed) for cut in cuts)
        assert usd_per_h <= least + dust


def test_equal_plans_get_equal_certificates() -> None:
    problem = a_row([near("x", "b"), near("y", "c"), near("z", "d"), near("w", "c")])
    bare = b.plan(
        problem,
        groups={A: 1, B: 1, C: 1, D: 1, E: 1},
        shares=dict.fromkeys((("x", A), ("y", B), ("z", C), ("w", D)), WHOLE_BP),
    )
    assert certify(Reach(problem), bare) == certify(Reach(problem), bare)


@settings(max_examples=40, deadline=None)
@given(b.small_problems(max_classes=6))
def test_losses_answered_together_are_answered_as_each_alone(problem: Problem) -> None:
    problem = priced(problem, 1.0)
    reach, bare = Reach(problem), greedy_plan(priced(problem, 0.0), find_arcs(problem).arcs)
    together = certify(reach, bare, ThreadWorkers(3))
    ground = Ground(Survivors(reach, bare), bare)
    alone = [best_answer(ground, site_id) for site_id in ground.survivors.losses()]
    assert together == with_certificate(reach, bare, answers=alone)
