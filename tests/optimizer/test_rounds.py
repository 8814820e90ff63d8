"""The rounds in which a search learns of its losses: one time limit, and Ctrl-C in any of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from optimizer.milp.formulate import Attempt, attempt
from optimizer.milp.highs import Budget, PointStatus
from optimizer.milp.model import Formulation
from optimizer.outcome import SolveStatus
from optimizer.problem import Problem
from optimizer.solve import solve
from optimizer.verify import check_plan
from sites.clock import ManualClock
from tests.optimizer import builders as b


class Attempts:
    """Records the budgets of a search's attempts and does something before each."""

    def __init__(self, before: Callable[[int], None]) -> None:
        self.budgets: list[Budget] = []
        self._before = before

    def __call__(self, formulation: Formulation, *, budget: Budget, **given: Any) -> Attempt:
        self._before(len(self.budgets))
        self.budgets.append(budget)
        return attempt(formulation, budget=budget, **given)


@pytest.fixture
def problem(monkeypatch: pytest.MonkeyPatch) -> Problem:
    """A class that the cheap site alone would serve, were it not for its loss, of which only the
    rounds tell; taken as if it were large.
    """
    monkeypatch.setattr("optimizer.milp.rounds.root_cuts", lambda *_: ())
    monkeypatch.setattr("optimizer.milp.rounds.WORTHWHILE_INTEGERS", 0)
    made = b.two_sites(classes=[b.traffic_class("c", protected=True)])
    policy = replace(made.plan_policy, exposure_part=1.0, gap_limit=0.0, time_limit_s=9.0)
    return replace(made, plan_policy=policy)


def test_an_interrupt_in_a_later_round_keeps_the_plan(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(attempts: int) -> None:
        if attempts == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr("optimizer.milp.rounds.attempt", Attempts(interrupt))
    outcome = solve(problem)

    assert outcome.status is SolveStatus.LIMIT
    assert outcome.plan is not None and outcome.plan.hit_limit == "interrupt"
    assert outcome.bound_usd_per_h <= outcome.plan.cost.total_usd_per_h
    assert check_plan(problem, outcome.plan) == ()


def test_an_interrupt_before_there_is_a_plan_stays_one(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("optimizer.milp.rounds.attempt", Attempts(interrupt))
    with pytest.raises(KeyboardInterrupt):
        solve(problem)


def test_rounds_share_the_time_limit(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    slow = Attempts(lambda _: clock.advance_ms(4_000))
    monkeypatch.setattr("optimizer.milp.rounds.attempt", slow)

    solve(problem, clock=clock)

    assert [one.time_s for one in slow.budgets][:2] == pytest.approx([0.6 * 9.0, 5.0])


def test_where_time_cuts_the_whole_what_losses_cost_is_mended_still(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(formulation: Formulation, **given: Any) -> Attempt:
        made = attempt(formulation, **given)
        if given["near"] is not None:
            return made
        late = replace(made.point, status=PointStatus.STOPPED, hit_limit="time_limit_s")
        return replace(made, point=late)

    monkeypatch.setattr("optimizer.milp.rounds.attempt", cut)
    outcome = solve(problem)

    assert outcome.plan is not None and outcome.plan.hit_limit == "time_limit_s"
    assert outcome.plan.exposed == ()
    assert outcome.plan.cost.risk_usd_per_h == 0.0
