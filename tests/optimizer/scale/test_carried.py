"""Prices carried from one large search to the next: a place to begin, never a proof."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optimizer.milp.scale import batch
from optimizer.milp.scale.carried import carried, cleared_at, still_worth
from optimizer.milp.scale.cluster import Effort
from optimizer.milp.scale.frame import Prices, take_frame
from optimizer.milp.scale.ledger import UNPLACED
from optimizer.milp.scale.plan_search import begin
from optimizer.milp.scale.price_lp import sweep
from optimizer.milp.scale.solve import solve_at_scale
from optimizer.milp.scale.warm_start import take_up
from optimizer.milp.scale.workers import SerialWorkers
from optimizer.outcome import SharedPrices, SolveStatus
from optimizer.problem import Problem
from optimizer.tabulate import tabulate
from optimizer.verify import check_plan
from tests.optimizer import builders as b
from tests.optimizer.optima import most_usd_per_h
from tests.optimizer.scale.test_scale import LateClock, plain

USD = st.floats(0.0, 50.0)


def drawn(problem: Problem, data: st.DataObject) -> SharedPrices:
    """Any prices, of some of what there is and of what is not."""
    tables = tabulate(problem)
    pools = st.sampled_from([*tables.pools.ids, "gone/h100"])
    sites = st.sampled_from([*tables.sites.ids, "gone"])
    return SharedPrices(
        pool_usd_per_h=data.draw(st.dictionaries(pools, USD)),
        power_usd_per_kw_h=data.draw(st.dictionaries(sites, USD)),
        energy_usd_per_kwh=data.draw(st.dictionaries(sites, USD)),
        group_ids=frozenset(data.draw(st.sets(st.sampled_from(["gone/h100/v/x1", "a/p/v/x1"])))),
    )


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(b.rich_problems(), st.data())
def test_whatever_is_carried_plans_are_checked_and_bounds_hold(
    problem: Problem, data: st.DataObject
) -> None:
    problem = plain(problem)
    known = drawn(problem, data)
    most = most_usd_per_h(problem)
    for clock in (None, LateClock()):
        found = solve_at_scale(problem, known=known, clock=clock)
        assert found.status is not SolveStatus.FAULT, found.message
        if found.plan is not None:
            assert check_plan(problem, found.plan) == ()
        assert found.bound_usd_per_h <= most


@settings(max_examples=20, deadline=None, derandomize=True)
@given(b.rich_problems(), st.data())
def test_what_is_carried_comes_back_by_name(problem: Problem, data: st.DataObject) -> None:
    frame = take_frame(tabulate(plain(problem)))
    prices = Prices(
        pool=np.array([data.draw(USD) for _ in frame.pool_count]),
        power=np.array([data.draw(USD) for _ in frame.budget_kw]),
        energy=np.array([data.draw(USD) for _ in frame.budget_kw]),
    )
    worth = np.flatnonzero([data.draw(st.booleans()) for _ in range(frame.groups)])
    known = carried(frame, prices, worth=worth)

    cleared = cleared_at(frame, known, SerialWorkers())

    for name in ("pool", "power", "energy"):
        np.testing.assert_array_equal(getattr(cleared.prices, name), getattr(prices, name))
    np.testing.assert_array_equal(still_worth(frame, known), worth)
    dearest = np.full(len(frame.rate), np.inf)
    bound, _ = sweep(frame, prices, SerialWorkers(), ceiling_usd_per_h=dearest, count=1)
    assert cleared.swept_usd_per_h == pytest.approx(bound)


def test_a_search_leaves_its_prices_to_the_next() -> None:
    problem = plain(b.problem())
    first = solve_at_scale(problem)
    assert first.prices is not None and first.plan is not None

    again = solve_at_scale(problem, start=first.plan, known=first.prices)

    assert again.plan is not None
    assert again.plan.cost == first.plan.cost
    assert again.bound_usd_per_h == pytest.approx(first.bound_usd_per_h)


def test_unserved_traffic_flows_first_or_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    placed: list[int] = []
    problem = plain(
        b.problem(classes=[b.traffic_class(f"c{i}", rate_rps=1.0 + i) for i in range(3)])
    )
    first = solve_at_scale(problem)
    assert first.plan is not None
    shares = tuple(one for one in first.plan.shares if one.class_id != "c1")
    plan = replace(first.plan, shares=shares)
    frame = take_frame(tabulate(problem))
    known = first.prices
    assert known is not None
    cleared = cleared_at(frame, known, SerialWorkers())

    def begun(*, is_over: bool) -> list[int]:
        placed.clear()
        search = begin(
            frame,
            cleared.prices,
            cleared.used,
            worth=still_worth(frame, known),
            least_usd_per_h=np.zeros(len(frame.rate)),
            workers=SerialWorkers(),
            is_over=lambda: is_over,
        )
        take_up(search, plan)
        assert (search.ledger.shed_part <= UNPLACED).all()
        return list(placed)

    def noted(search: batch.Search, jobs: list[batch.Job], effort: Effort) -> None:
        placed.extend(int(c) for job in jobs for c in job.classes)
        batch.step(search, jobs, effort)

    monkeypatch.setattr("optimizer.milp.scale.warm_start.step", noted)
    one = frame.tables.classes.ids.index("c1")
    assert begun(is_over=True) == [one]
    assert begun(is_over=False) == [one, 0, 1, 2]
