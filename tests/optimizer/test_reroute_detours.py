"""Tables filled elsewhere, for replicas seen: clean, cheap, the same in every process."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from optimizer.costs import shed_price_usd_per_h
from optimizer.plan import Plan
from optimizer.problem import Problem, RunningGroup
from optimizer.reach import Reach
from optimizer.reroute import detour_plan, rerouted_problem
from optimizer.reroute_table import RerouteTable
from optimizer.solve import solve
from sites.units import WHOLE_BP
from tests.optimizer import builders as b
from tests.optimizer.test_reroute_table import A, B, C, faults, greedy, priced, three_sites

Seen = tuple[RunningGroup, ...]


def planned(plan: Plan) -> Seen:
    return tuple(RunningGroup(group=g.group, replicas=g.replicas) for g in plan.groups)


def fewer(plan: Plan, data: st.DataObject) -> Seen:
    return tuple(
        replace(one, replicas=data.draw(st.integers(0, one.replicas))) for one in planned(plan)
    )


def with_idle_classes(problem: Problem, data: st.DataObject) -> Problem:
    """The problem, some of whose classes have no demand any more."""
    idle = data.draw(st.sets(st.sampled_from([c.class_id for c in problem.classes])))
    return replace(
        problem,
        classes=tuple(
            replace(c, rate_rps=(0.0,)) if c.class_id in idle else c for c in problem.classes
        ),
    )


def any_site(problem: Problem, data: st.DataObject) -> str:
    return data.draw(st.sampled_from([s.site_id for s in problem.fleet.sites]))


@settings(max_examples=150, deadline=None)
@given(b.rich_problems(max_classes=6), st.data())
def test_a_detour_for_replicas_seen_makes_a_clean_plan(
    problem: Problem, data: st.DataObject
) -> None:
    problem = priced(problem)
    plan = greedy(problem)
    assume(plan.groups)
    now = with_idle_classes(problem, data)
    running, lost = fewer(plan, data), any_site(problem, data)
    filled = RerouteTable(now, plan, running=running).filled()
    moved = detour_plan(now, plan, filled.answer(lost, running=running), running=running)
    assert faults(now, plan, moved, lost, running=running) == []
    assert filled.answer(lost, running=running) == filled.answer(lost)
    assert filled.answer(lost, running=planned(plan)) == filled.answer(lost), "more are not used"


@settings(max_examples=150, deadline=None)
@given(b.rich_problems(max_classes=6), st.data())
def test_a_table_for_replicas_seen_is_mended_where_even_fewer_run(
    problem: Problem, data: st.DataObject
) -> None:
    problem = priced(problem)
    plan = greedy(problem)
    assume(plan.groups)
    now = with_idle_classes(problem, data)
    before, lost = fewer(plan, data), any_site(problem, data)
    running = tuple(
        replace(one, replicas=data.draw(st.integers(0, one.replicas))) for one in before
    )
    filled = RerouteTable(now, plan, running=before).filled()
    moved = detour_plan(now, plan, filled.answer(lost, running=running), running=running)
    assert faults(now, plan, moved, lost, running=running) == []


@settings(max_examples=60, deadline=None)
@given(b.rich_problems(max_classes=6), st.data())
def test_a_table_is_the_same_in_every_process(problem: Problem, data: st.DataObject) -> None:
    plan = greedy(problem)
    before = fewer(plan, data)
    running = tuple(
        replace(one, replicas=data.draw(st.integers(0, one.replicas))) for one in before
    )
    table = RerouteTable(problem, plan, running=before)
    carried = pickle.loads(pickle.dumps(table.filled()))
    carried.standing.warm()
    for site in problem.fleet.sites:
        assert carried.answer(site.site_id) == table.detour(site.site_id)
        assert carried.answer(site.site_id, running=running) == table.answer(
            site.site_id, running=running
        )


@settings(max_examples=60, deadline=None)
@given(b.rich_problems(max_classes=6), st.data())
def test_replicas_nobody_needs_are_not_missed(problem: Problem, data: st.DataObject) -> None:
    """Filled for what is seen, a table is that of a plan with as many replicas."""
    plan = greedy(problem)
    assume(plan.groups)
    spare = {g.group.group_id: data.draw(st.integers(0, 2)) for g in plan.groups}
    ampler = replace(
        plan,
        groups=tuple(
            replace(g, replicas=g.replicas + spare[g.group.group_id]) for g in plan.groups
        ),
    )
    seen = RerouteTable(problem, ampler, running=planned(plan))
    fresh = RerouteTable(problem, plan)
    for site in problem.fleet.sites:
        assert seen.detour(site.site_id) == fresh.detour(site.site_id)


@settings(max_examples=100, deadline=None)
@given(b.small_problems(max_classes=6), st.data())
def test_a_detour_for_replicas_seen_costs_what_the_best_flows_cost(
    problem: Problem, data: st.DataObject
) -> None:
    """As for replicas as planned (`test_reroute_table`)."""
    problem = replace(problem, classes=tuple(replace(c, protected=False) for c in problem.classes))
    plan = greedy(problem)
    running, lost = fewer(plan, data), any_site(problem, data)
    detour = RerouteTable(problem, plan, running=running).detour(lost)
    moved = detour_plan(problem, plan, detour, running=running)
    answered = rerouted_problem(problem, plan, lost_sites=[lost], running=running)
    still = replace(answered.plan_policy, move_limit_replicas=0)
    best = solve(replace(answered, plan_policy=still)).plan
    assert best is not None
    reach = Reach(answered)
    shed = sum(shed_price_usd_per_h(reach, c) for c in reach.classes)
    assert moved.cost.total_usd_per_h <= best.cost.total_usd_per_h + 2e-3 * shed


@settings(max_examples=100, deadline=None)
@given(b.small_problems(max_classes=6), st.data())
def test_a_mended_detour_says_how_much_dearer_it_is_at_most(
    problem: Problem, data: st.DataObject
) -> None:
    """Against the flows worked out for the replicas seen; power is not counted."""
    sites = tuple(
        replace(s, supplies=tuple(replace(one, price_usd_per_kwh=(0.0,)) for one in s.supplies))
        for s in problem.fleet.sites
    )
    problem = replace(
        problem,
        fleet=replace(problem.fleet, sites=sites),
        plan_policy=replace(problem.plan_policy, carbon_usd_per_t=0.0),
        classes=tuple(replace(c, protected=False) for c in problem.classes),
    )
    plan = greedy(problem)
    running, lost = fewer(plan, data), any_site(problem, data)
    mended = RerouteTable(problem, plan).answer(lost, running=running)
    anew = RerouteTable(problem, plan, running=running).detour(lost)
    reach = Reach(rerouted_problem(problem, plan, lost_sites=[lost], running=running))
    shed = sum(shed_price_usd_per_h(reach, c) for c in reach.classes)
    dear, cheap = (
        detour_plan(problem, plan, detour, running=running).cost.total_usd_per_h
        for detour in (mended, anew)
    )
    assert dear - cheap <= mended.dearer_usd_per_h + 2e-3 * shed


@settings(max_examples=60, deadline=None)
@given(b.rich_problems(max_classes=6), st.data())
def test_a_plan_looked_at_before_is_rerouted_as_one_looked_at_anew(
    problem: Problem, data: st.DataObject
) -> None:
    plan = greedy(problem)
    assume(plan.groups)
    before, running, lost = fewer(plan, data), fewer(plan, data), any_site(problem, data)
    table = RerouteTable(problem, plan, running=before)
    table.detour(lost)
    again = RerouteTable.on(table.standing.seeing(running))
    assert again.detour(lost) == RerouteTable(problem, plan, running=running).detour(lost)
    assert table.detour(lost) == RerouteTable(problem, plan, running=before).detour(lost)


@settings(max_examples=60, deadline=None)
@given(b.small_problems(max_classes=6), st.data())
def test_protected_traffic_is_shed_only_for_protected_traffic(
    problem: Problem, data: st.DataObject
) -> None:
    """Where more of a protected class is shed than the certificate says, nothing unprotected is
    left where it could be: replicas are missing, or power. (Links could be what is short too.)
    """
    wide = tuple(replace(link, bandwidth_bps=1e12) for link in problem.fleet.links)
    problem = priced(replace(problem, fleet=replace(problem.fleet, links=wide)))
    plan = solve(problem).plan
    assert plan is not None
    running, lost = fewer(plan, data), any_site(problem, data)
    detour = RerouteTable(problem, plan, running=running).detour(lost)
    moved = detour_plan(problem, plan, detour, running=running)
    reach = Reach(rerouted_problem(problem, plan, lost_sites=[lost], running=running))
    counted = {s.class_id: s.basis_points for s in plan.shed}
    for risk in plan.exposed:
        if risk.lost_site_id == lost:
            counted[risk.class_id] = counted.get(risk.class_id, 0) + risk.basis_points
    groups = {g.group.group_id: g.group for g in moved.groups}
    for one in moved.shed:
        known = reach.classes[one.class_id]
        if not known.protected or one.basis_points <= counted.get(one.class_id, 0) + 2:
            continue
        for share in moved.shares:
            taker = reach.classes[share.class_id]
            if not taker.protected and share.basis_points > 2:
                assert reach.refusal(known, groups[share.group_id]) is not None


def test_a_group_without_replicas_is_left_by_all_even_by_who_asks_for_nothing() -> None:
    classes = [b.traffic_class("busy"), b.traffic_class("idle", rate_rps=0.0)]
    problem = three_sites(classes)
    plan = b.plan(
        problem,
        groups={A: 1, B: 1, C: 1},
        shares={("busy", B): WHOLE_BP, ("idle", B): WHOLE_BP},
    )
    running = tuple(replace(one, replicas=one.group.site_id != "b") for one in planned(plan))
    for table in (RerouteTable(problem, plan), RerouteTable(problem, plan, running=running)):
        detour = table.answer("a", running=running)
        assert {c: dict(s) for c, s in detour.shares.items()} == {
            "busy": {C: WHOLE_BP},
            "idle": {},
        }


def test_a_filled_table_knows_every_site_and_no_other() -> None:
    problem = three_sites([b.traffic_class()])
    plan = b.plan(problem, groups={A: 1}, shares={("c", A): WHOLE_BP})
    filled = RerouteTable(problem, plan).filled()
    assert dict(filled.answer("c").shares) == {}
    with pytest.raises(KeyError):
        filled.answer("nowhere")
