"""The gate: each reason to reject a plan, planted alone, is named."""

from __future__ import annotations

from dataclasses import replace

from optimizer.plan import Plan
from optimizer.problem import Problem
from scheduler.change import is_same_content, plan_change
from scheduler.gate import check_proposal, check_reach
from scheduler.state import CycleState
from sites.hub_messages import ConnectionState
from tests.optimizer import builders as b
from tests.scheduler.states import bare_state, state_in_force

A, B = "a/p/v/x1", "b/p/v/x1"


def at_a(problem: Problem) -> Plan:
    return b.plan(problem, groups={A: 1}, shares={("c", A): 10_000})


def at_b(problem: Problem) -> Plan:
    return b.plan(problem, groups={B: 1}, shares={("c", B): 10_000})


def codes(
    state: CycleState, problem: Problem, plan: Plan, *, serial: int = 0, empty: bool = False
) -> list[str]:
    found = check_proposal(state, problem, plan, state_serial=serial, allow_empty=empty)
    return [v.code for v in found]


def test_a_sound_plan_passes() -> None:
    problem = b.two_sites()
    assert codes(bare_state(problem), problem, at_a(problem)) == []


def test_a_plan_from_an_older_state_is_stale() -> None:
    problem = b.two_sites()
    state = state_in_force(problem, at_a(problem))
    assert codes(state, problem, at_b(problem), serial=0) == ["stale_plan"]
    assert codes(state, problem, at_b(problem), serial=1) == []


def test_the_checker_has_its_say() -> None:
    problem = b.two_sites()
    plan = replace(at_a(problem), problem_digest="sha256:other")
    assert codes(bare_state(problem), problem, plan) == ["problem_digest"]


def test_an_empty_plan_needs_the_override() -> None:
    problem = b.two_sites()
    nothing = b.plan(problem, groups={}, shares={}, shed={"c": 10_000})
    assert codes(bare_state(problem), problem, nothing) == ["empty_plan"]
    assert codes(bare_state(problem), problem, nothing, empty=True) == []


def test_a_plan_on_a_lost_or_drained_site_is_rejected() -> None:
    problem = b.two_sites()
    lost, drained = bare_state(problem), bare_state(problem)
    lost.lost["b"] = "killed"
    drained.drained.add("b")
    assert codes(lost, problem, at_b(problem)) == ["lost_site"]
    assert codes(drained, problem, at_b(problem)) == ["lost_site"]


def test_a_site_that_still_runs_something_cannot_be_forgotten() -> None:
    problem = b.two_sites()
    state = state_in_force(problem, at_b(problem))
    alone = b.problem()
    assert codes(state, alone, at_a(alone), serial=1) == ["forgotten_site"]


def test_a_site_that_must_change_and_cannot_be_told_is_named() -> None:
    problem = b.two_sites()
    state = state_in_force(problem, at_a(problem))
    state.site("b").connection = ConnectionState.UNREACHABLE
    same = plan_change(state, problem, at_a(problem), now_ms=9)
    assert check_reach(state, same) == ()
    other = plan_change(state, problem, at_b(problem), now_ms=9)
    (violation,) = check_reach(state, other)
    assert (violation.code, violation.subject) == ("unreachable_site", 'site "b"')
    state.lost["b"] = "killed"
    assert check_reach(state, other) == ()


def test_equal_content_is_seen_through_rank_and_time() -> None:
    problem = b.two_sites()
    state = state_in_force(problem, at_a(problem))
    one = state.cut(problem, at_a(problem), version=1, now_ms=0)
    other = state.cut(problem, at_a(problem), version=9, now_ms=77)
    assert is_same_content(one["a"], other["a"])
    moved = state.cut(problem, at_b(problem), version=9, now_ms=77)
    assert not is_same_content(one["a"], moved["a"])
    assert not is_same_content(None, other["a"])
