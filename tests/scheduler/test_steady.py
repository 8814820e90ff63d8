"""A fleet at rest is left at rest, and only then."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.outcome import Outcome
from optimizer.problem import Problem, RunningGroup
from optimizer.solve import solve
from optimizer.verify import check_plan
from scheduler.fleet_problem import read_problem
from scheduler.steady import steadied

DEMO = Path(__file__).parents[2] / "deploy" / "examples" / "demo"


@pytest.fixture(scope="module")
def rest() -> tuple[Problem, Outcome]:
    """The demo fleet with its first plan carried out."""
    problem = read_problem((DEMO,))
    outcome = solve(problem)
    assert outcome.plan is not None
    running = tuple(RunningGroup(group=g.group, replicas=g.replicas) for g in outcome.plan.groups)
    return dataclasses.replace(problem, running=running), outcome


def test_a_new_answer_of_equal_cost_changes_nothing(rest: tuple[Problem, Outcome]) -> None:
    problem, first = rest
    again = steadied(problem, solve(problem, start=first.plan), before=first.plan)
    assert again.plan is not None and first.plan is not None
    assert (again.plan.groups, again.plan.shares) == (first.plan.groups, first.plan.shares)
    assert check_plan(problem, again.plan) == ()


def test_a_cheaper_answer_is_taken(rest: tuple[Problem, Outcome]) -> None:
    problem, first = rest
    assert first.plan is not None
    more = tuple(dataclasses.replace(g, replicas=g.replicas + 1) for g in first.plan.groups)
    dear = dataclasses.replace(first.plan, groups=more)
    found = solve(problem)
    assert steadied(problem, found, before=dear) == found


@given(st.sampled_from(["osl-1", "rix-1", "waw-1"]))
@settings(max_examples=3, deadline=None)
def test_a_plan_that_no_longer_holds_is_not_kept(site_id: str) -> None:
    described = read_problem((DEMO,))
    first = solve(described)
    problem = dataclasses.replace(described, lost_sites=(site_id,))
    found = solve(problem)
    assert steadied(problem, found, before=first.plan) == found


def test_plans_of_another_fleet_and_no_plan_are_not_kept(rest: tuple[Problem, Outcome]) -> None:
    problem, first = rest
    assert first.plan is not None
    strange = dataclasses.replace(first.plan.shares[0], class_id="chat/nowhere")
    before = dataclasses.replace(first.plan, shares=(strange, *first.plan.shares[1:]))
    found = solve(problem)
    assert steadied(problem, found, before=before) == found
    assert steadied(problem, found, before=None) == found
