"""What rows for whole replicas were worth, carried to another problem: the same bound of the same
one, and no more than what is true of any other.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optimizer.milp.scale.bound import relax_components
from optimizer.milp.scale.carried_rows import point_at, row_prices
from optimizer.milp.scale.frame import Frame, take_frame
from optimizer.milp.scale.master import MasterPoint
from optimizer.milp.scale.solve import METHOD_KNOWN, solve_at_scale
from optimizer.milp.scale.workers import SerialWorkers
from optimizer.outcome import RowPrices, SharedPrices
from optimizer.problem import Problem
from optimizer.tabulate import tabulate
from tests.optimizer import builders as b
from tests.optimizer.optima import SLACK, most_usd_per_h
from tests.optimizer.scale.test_scale import LateClock, plain
from tests.optimizer.scale.test_survival import converged, exposed

SOON = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
USD = st.floats(0.0, 50.0)


def duals_prove(frame: Frame, point: MasterPoint) -> float:
    """What a point's own prices and duals prove."""
    found = relax_components(frame, point, SerialWorkers(), is_over=lambda: True)
    return found.bound_usd_per_h


def anything(problem: Problem, data: st.DataObject) -> RowPrices:
    """Any worths, of some of what there is and of what is not."""
    tables = tabulate(problem)
    pools, sites = (st.sampled_from([*ids, "gone"]) for ids in (tables.pools.ids, tables.sites.ids))
    classes = st.sampled_from([*tables.classes.ids, "gone"])
    groups = st.sampled_from(["gone/p/v/x1", *map(tables.group_id, range(len(tables.groups.pool)))])
    several = st.lists(classes, min_size=1, max_size=3, unique=True).map(tuple)
    kw = st.sampled_from([0.05, 0.3, 0.7, 1.0, 2.3])
    return RowPrices(
        pool_usd_per_h=data.draw(st.dictionaries(pools, USD)),
        power_usd_per_kw_h=data.draw(st.dictionaries(sites, USD)),
        energy_usd_per_kwh=data.draw(st.dictionaries(sites, USD)),
        demand_usd_per_h_per_rps=data.draw(st.dictionaries(classes, st.floats(-5.0, 50.0))),
        cover_usd_per_h=data.draw(st.dictionaries(classes, USD)),
        loss_usd_per_h=data.draw(st.dictionaries(st.tuples(classes, sites), USD)),
        need_usd_per_h=data.draw(st.dictionaries(st.tuples(several, groups), USD)),
        room_usd_per_h=data.draw(st.dictionaries(st.tuples(sites, kw), USD)),
    )


def changed(problem: Problem, data: st.DataObject) -> Problem:
    """More or less traffic, dearer or scarcer power, a site without its hardware."""
    rate = data.draw(st.sampled_from([0.4, 1.0, 1.7]))
    power = data.draw(st.sampled_from([0.6, 1.0, 1.5]))
    lost = data.draw(st.sampled_from([None, *(s.site_id for s in problem.fleet.sites)]))
    sites = tuple(
        replace(
            site,
            power_budget_w=tuple(power * w for w in site.power_budget_w),
            pools=() if site.site_id == lost else site.pools,
        )
        for site in problem.fleet.sites
    )
    classes = tuple(
        replace(one, rate_rps=tuple(rate * r for r in one.rate_rps)) if at % 2 == 0 else one
        for at, one in enumerate(problem.classes)
    )
    return replace(problem, fleet=replace(problem.fleet, sites=sites), classes=classes)


@SOON
@given(b.rich_problems(max_sites=4, max_classes=6), st.data())
def test_no_worths_of_rows_prove_more_than_the_optimum(
    problem: Problem, data: st.DataObject
) -> None:
    problem = exposed(problem)
    frame = take_frame(tabulate(problem))
    point = point_at(frame, anything(problem, data), converged(frame).point)
    assert duals_prove(frame, point) <= most_usd_per_h(problem)


@SOON
@given(b.rich_problems(max_sites=4, max_classes=6), st.data())
def test_worths_of_another_problem_prove_no_more_than_the_optimum(
    problem: Problem, data: st.DataObject
) -> None:
    problem = exposed(problem)
    frame = take_frame(tabulate(problem))
    before = converged(frame).point
    known = row_prices(frame, before, ())
    if known is None:
        return
    other = changed(problem, data)
    then = take_frame(tabulate(other))
    point = point_at(then, known, converged(then).point)
    assert duals_prove(then, point) <= most_usd_per_h(other)


@SOON
@given(b.rich_problems(max_sites=4, max_classes=6))
def test_worths_prove_the_same_of_the_same_problem(problem: Problem) -> None:
    frame = take_frame(tabulate(exposed(problem)))
    point = converged(frame).point
    known = row_prices(frame, point, ())
    if known is None:
        return
    nothing = replace(point, cuts=(), demand=point.demand * 0, cover=point.cover * 0)
    proven = duals_prove(frame, point)
    assert duals_prove(frame, point_at(frame, known, nothing)) == pytest.approx(proven, abs=SLACK)


def test_out_of_time_a_search_proves_what_the_one_before_did() -> None:
    problem = plain(
        b.problem(classes=[b.traffic_class(f"c{i}", rate_rps=0.3 + 0.1 * i) for i in range(4)])
    )
    first = solve_at_scale(problem)
    assert first.prices is not None and first.prices.rows is not None

    def late(known: SharedPrices) -> tuple[float, str, RowPrices | None]:
        found = solve_at_scale(problem, start=first.plan, known=known, clock=LateClock())
        assert found.plan is not None and found.prices is not None
        return found.bound_usd_per_h, found.plan.method, found.prices.rows

    without, _, none = late(replace(first.prices, rows=None))
    bound, method, rows = late(first.prices)
    assert none is None and rows == first.prices.rows
    assert method == METHOD_KNOWN
    assert without < bound <= first.bound_usd_per_h + SLACK
