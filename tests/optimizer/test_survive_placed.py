"""What is read of many groups at once is what `Reach` and the checker read of each."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer import survive_plan
from optimizer.arcs import find_arcs, group_options
from optimizer.greedy import greedy_plan
from optimizer.milp.survive_local import certify
from optimizer.plan import PlannedGroup
from optimizer.problem import Problem
from optimizer.reach import Reach
from optimizer.survive import AfterLoss, uses_per_bp
from optimizer.survive_placed import Placed
from optimizer.verify import check_plan, judge
from tests.optimizer import builders as b


@settings(max_examples=150, deadline=None)
@given(b.small_problems(max_sites=5), st.booleans())
def test_options_and_uses_are_those_of_each_pair(problem: Problem, lose_one: bool) -> None:
    if lose_one:
        problem = replace(problem, lost_sites=(problem.fleet.sites[-1].site_id,))
    reach = Reach(problem)
    groups = [PlannedGroup(group=o.group, replicas=1) for o in group_options(problem).values()]
    placed = Placed(reach, groups)
    for left in (reach, *(AfterLoss(reach, s.site_id) for s in problem.fleet.sites)):
        for one in problem.classes:
            lawful = [
                (left.way_ms(one, g.group.site_id), g.group.group_id)
                for g in groups
                if left.refusal(one, g.group) is None
            ]
            options = placed.options(left, one)
            assert [placed.group_ids[at] for at in options.at] == [g for _, g in sorted(lawful)]
            assert options.group.tolist() == options.at
            for at, busy in zip(options.at, options.busy.tolist(), strict=True):
                uses = placed.standing(one, at) + placed.crossing(left, one, at)
                expected = uses_per_bp(left, one, placed.groups[at])
                assert [(placed.keys[key], each) for key, each in uses] == list(expected.items())
                assert busy == uses[0][1]


@settings(max_examples=60, deadline=None)
@given(b.small_problems(max_sites=5, max_classes=6), st.sampled_from([1.0, 1e-3, 1e-5]))
def test_links_left_out_because_they_cannot_fill_change_nothing(
    problem: Problem, narrower: float
) -> None:
    """The same certificates as where every link is followed."""
    links = tuple(replace(k, bandwidth_bps=k.bandwidth_bps * narrower) for k in problem.fleet.links)
    problem = replace(problem, fleet=replace(problem.fleet, links=links))
    bare = greedy_plan(problem, find_arcs(problem).arcs)
    policy = replace(problem.plan_policy, exposure_part=1.0)
    reach = Reach(replace(problem, plan_policy=policy))
    told = certify(reach, bare)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(survive_plan, "_WIDE", float("inf"))
        assert certify(reach, bare) == told


@settings(max_examples=60, deadline=None)
@given(b.small_problems(max_sites=5, max_classes=6), st.data())
def test_a_reach_that_was_asked_before_judges_as_a_new_one(
    problem: Problem, data: st.DataObject
) -> None:
    """Also a plan that breaks something: what a certificate looks up changes no verdict."""
    policy = replace(problem.plan_policy, exposure_part=1.0)
    problem = replace(problem, plan_policy=policy)
    reach = Reach(problem)
    plan = certify(reach, greedy_plan(problem, find_arcs(problem).arcs))
    if plan.shares and data.draw(st.booleans()):
        kept = data.draw(st.sampled_from(plan.shares))
        fewer = tuple(replace(g, replicas=1) for g in plan.groups)
        plan = replace(plan, groups=fewer, shares=(kept,), survival=plan.survival[1:])
    assert judge(reach, plan) == check_plan(problem, plan)
