"""Ctrl-C during the large search: the first ends it with a checked plan, the second without one."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.milp.scale.solve import solve_at_scale
from optimizer.milp.stopping import noted_interrupts
from optimizer.outcome import SolveStatus
from optimizer.problem import Problem
from optimizer.verify import check_plan
from tests.optimizer.builders import problem as one_site
from tests.optimizer.builders import rich_problems
from tests.optimizer.scale.test_scale import plain


@dataclass(kw_only=True)
class Onlooker:
    """Does something at its n-th news, counted from 0, and notes what it hears."""

    at: int = -1
    then: Callable[[], None] = lambda: None
    bounds: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    stops: int = 0

    def stands(self, *, cost_usd_per_h: float, bound_usd_per_h: float) -> None:
        self.bounds.append(bound_usd_per_h)
        self.costs.append(cost_usd_per_h)
        if len(self.bounds) == self.at + 1:
            self.then()

    def stopping(self) -> None:
        self.stops += 1


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def interrupt_twice() -> None:
    interrupt()
    interrupt()


@settings(max_examples=25, deadline=None)
@given(rich_problems(), st.integers(0, 3))
def test_the_first_interrupt_ends_the_search_with_a_plan_it_has(problem: Problem, at: int) -> None:
    problem = plain(problem)
    onlooker = Onlooker(at=at, then=interrupt)
    try:
        found = solve_at_scale(problem, progress=onlooker)
    except KeyboardInterrupt:
        assert onlooker.stops == 1
        return
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if onlooker.stops:
        assert found.plan is not None
        assert check_plan(problem, found.plan) == ()
        assert found.bound_usd_per_h <= found.plan.cost.total_usd_per_h


def test_an_interrupted_plan_says_so() -> None:
    onlooker = Onlooker(at=0, then=interrupt)
    found = solve_at_scale(plain(one_site()), progress=onlooker)

    assert found.plan is not None and found.plan.hit_limit == "interrupt"
    assert onlooker.stops == 1


def test_the_second_interrupt_is_raised() -> None:
    with pytest.raises(KeyboardInterrupt):
        solve_at_scale(plain(one_site()), progress=Onlooker(at=0, then=interrupt_twice))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_nobody_is_kept_from_listening() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        with noted_interrupts(lambda: None) as interrupts:
            interrupt()
        assert heard == [1] and not interrupts.noted
    finally:
        signal.signal(signal.SIGINT, before)


def test_progress_ends_with_the_plan() -> None:
    onlooker = Onlooker()
    found = solve_at_scale(plain(one_site()), progress=onlooker)

    assert found.plan is not None and found.status is SolveStatus.OPTIMAL
    assert onlooker.costs[0] == float("inf")
    assert onlooker.costs[-1] == pytest.approx(found.plan.cost.total_usd_per_h, rel=1e-3)
    assert onlooker.bounds == sorted(onlooker.bounds)
