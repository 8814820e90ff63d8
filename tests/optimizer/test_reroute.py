"""The reroute: clean, only what must move moves, and who matters less is shed first."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from optimizer.arcs import find_arcs
from optimizer.greedy import greedy_plan
from optimizer.plan import Plan
from optimizer.policy import GroupBound
from optimizer.problem import Problem, RunningGroup
from optimizer.reach import Reach
from optimizer.reroute import reroute, rerouted_problem
from optimizer.verify import check_plan
from sites.units import WHOLE_BP
from tests.optimizer import builders as b

A, B, C = "a/p/v/x1", "b/p/v/x1", "c/p/v/x1"


def greedy(problem: Problem) -> Plan:
    return greedy_plan(problem, find_arcs(problem).arcs)


def shares_of(plan: Plan, class_id: str = "c") -> dict[str, int]:
    return {s.group_id: s.basis_points for s in plan.shares if s.class_id == class_id}


def shed_of(plan: Plan) -> dict[str, int]:
    return {s.class_id: s.basis_points for s in plan.shed}


def three_sites(classes: list[b.TrafficClass], *, count: int = 4) -> Problem:
    """Sites a, b, c in a ring of links; market m reaches a, then b; market n reaches b only."""
    return b.problem(
        sites=[b.site(s, pools=[b.pool(count=count)]) for s in "abc"],
        links=[b.link("a", "b"), b.link("a", "c", rtt_ms=12.0), b.link("b", "c")],
        markets=[b.market(accesses={"a": 5.0, "b": 20.0}), b.market("n", accesses={"b": 1.0})],
        classes=classes,
    )


@settings(max_examples=150, deadline=None)
@given(b.small_problems(max_classes=6), st.integers(0, 2))
def test_a_reroute_is_clean_on_the_problem_it_answers(problem: Problem, which: int) -> None:
    plan = greedy(problem)
    lost = [problem.fleet.sites[which % len(problem.fleet.sites)].site_id]
    moved = reroute(problem, plan, lost_sites=lost)
    answered = rerouted_problem(problem, plan, lost_sites=lost)
    assert [v.message() for v in check_plan(answered, moved)] == []


@settings(max_examples=100, deadline=None)
@given(b.small_problems(max_classes=6), st.data())
def test_a_reroute_copes_with_replicas_that_are_not_as_planned(
    problem: Problem, data: st.DataObject
) -> None:
    plan = greedy(problem)
    assume(plan.groups)
    running = tuple(
        RunningGroup(group=g.group, replicas=data.draw(st.integers(0, g.replicas)))
        for g in plan.groups
    )
    moved = reroute(problem, plan, lost_sites=(), running=running)
    answered = rerouted_problem(problem, plan, lost_sites=(), running=running)
    assert [v.message() for v in check_plan(answered, moved)] == []
    assert {g.group.group_id: g.replicas for g in moved.groups} == {
        r.group.group_id: r.replicas for r in running if r.replicas
    }


@settings(max_examples=60, deadline=None)
@given(b.small_problems(max_classes=5))
def test_losing_nothing_changes_no_share(problem: Problem) -> None:
    plan = greedy(problem)
    moved = reroute(problem, plan, lost_sites=())
    assert moved.shares == plan.shares
    assert moved.shed == plan.shed


@settings(max_examples=100, deadline=None)
@given(b.small_problems(max_classes=6))
def test_nobody_is_shed_by_the_loss_while_a_lesser_class_holds_room_it_could_use(
    problem: Problem,
) -> None:
    problem = replace(problem, classes=tuple(replace(c, spread_sites=1) for c in problem.classes))
    plan = greedy(problem)
    lost = (problem.fleet.sites[0].site_id,)
    moved = reroute(problem, plan, lost_sites=lost)
    reach = Reach(rerouted_problem(problem, plan, lost_sites=lost))
    before, after = shed_of(plan), shed_of(moved)
    groups = {g.group.group_id: g.group for g in moved.groups}
    for one in problem.classes:
        if after.get(one.class_id, 0) <= before.get(one.class_id, 0) + 1:
            continue
        for share in moved.shares:
            other = reach.classes[share.class_id]
            lesser = (not other.protected, other.priority) > (not one.protected, one.priority)
            if lesser and reach.refusal(one, groups[share.group_id]) is None:
                assert _held_by_links(reach, one.class_id, share.site_id)


def _held_by_links(reach: Reach, class_id: str, site_id: str) -> bool:
    """Whether what keeps the class away may be a link, which the lesser class need not cross."""
    one = reach.classes[class_id]
    way = reach.way(one, site_id)
    return way is not None and bool(way.links) and one.bytes_per_request > 0


def test_what_a_lost_site_served_is_spread_over_its_neighbours() -> None:
    problem = three_sites([b.traffic_class(rate_rps=20.0)])
    plan = b.plan(problem, groups={A: 2, B: 4, C: 4}, shares={("c", A): WHOLE_BP})
    moved = reroute(problem, plan, lost_sites=["a"])
    assert shares_of(moved) == {B: 5_000, C: 5_000}
    assert {s.ingress_site_id for s in moved.shares} == {"b"}


def test_other_classes_keep_their_shares() -> None:
    classes = [b.traffic_class("moved"), b.traffic_class("stays", market_id="n")]
    problem = three_sites(classes)
    plan = b.plan(
        problem,
        groups={A: 1, B: 3, C: 3},
        shares={("moved", A): WHOLE_BP, ("stays", B): 7_000, ("stays", C): 3_000},
    )
    moved = reroute(problem, plan, lost_sites=["a"])
    assert shares_of(moved, "stays") == {B: 7_000, C: 3_000}


def test_when_short_protected_then_priority_decides_who_is_shed() -> None:
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
    moved = reroute(problem, plan, lost_sites=["a"])
    assert shed_of(moved) == {"free": WHOLE_BP}
    assert sum(shares_of(moved, "gold").values()) == WHOLE_BP
    assert sum(shares_of(moved, "safe").values()) == WHOLE_BP
    again = reroute(problem, moved, lost_sites=["a", "c"])
    assert shed_of(again) == {"free": WHOLE_BP, "gold": WHOLE_BP}


def test_strict_data_is_shed_rather_than_moved_where_it_may_not_be() -> None:
    problem = three_sites([b.traffic_class(policy_id="eu")])
    swiss = replace(problem.fleet.sites[1], country="CH")
    sites = (problem.fleet.sites[0], swiss, replace(problem.fleet.sites[2], country="CH"))
    problem = replace(problem, fleet=replace(problem.fleet, sites=sites))
    plan = b.plan(problem, groups={A: 1, B: 4, C: 4}, shares={("c", A): WHOLE_BP})
    moved = reroute(problem, plan, lost_sites=["a"])
    assert shed_of(moved) == {"c": WHOLE_BP}


def test_a_floor_at_the_lost_site_and_a_spread_nobody_can_keep_give_way() -> None:
    problem = three_sites([b.traffic_class(spread_sites=2)])
    bound = GroupBound(site_id="a", variant_id="v", fewest=1)
    policy = replace(problem.plan_policy, replica_bounds=(bound,), max_shed_basis_points=0)
    problem = replace(problem, plan_policy=policy)
    plan = b.plan(problem, groups={A: 1, B: 1}, shares={("c", A): 5_000, ("c", B): 5_000})
    moved = reroute(problem, plan, lost_sites=["a"])
    assert shares_of(moved) == {B: WHOLE_BP}
    answered = rerouted_problem(problem, plan, lost_sites=["a"])
    assert check_plan(answered, moved) == ()
