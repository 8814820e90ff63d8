"""Prices and the relaxation's bound: warm starts change no answer, time running out breaks none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from optimizer.milp.scale import lp
from optimizer.milp.scale.ascent import clear, opening_prices, sampled_arcs
from optimizer.milp.scale.bound import relax_components
from optimizer.milp.scale.converge import Converged, converge, plain_point
from optimizer.milp.scale.frame import Frame, take_frame
from optimizer.milp.scale.losses import losses_of
from optimizer.milp.scale.master import Master, MasterPoint
from optimizer.milp.scale.price_lp import Relaxation, relax
from optimizer.milp.scale.workers import SerialWorkers, ThreadWorkers, Workers
from optimizer.problem import Problem
from optimizer.tabulate import tabulate
from optimizer.tabulate_routes import path_links
from tests.optimizer.builders import rich_problems
from tests.optimizer.optima import most_usd_per_h
from tests.optimizer.scale.test_scale import never, plain
from tests.optimizer.scale.test_survival import exposed

SOON = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


def relaxed(
    frame: Frame, *, is_over: Callable[[], bool] = never, workers: Workers | None = None
) -> Relaxation:
    """The plain relaxation from cleared prices."""
    hands = workers or SerialWorkers()
    start = opening_prices(frame)
    cleared, _ = clear(frame, sampled_arcs(frame, start, hands), prices=start, steps=50)
    return relax(frame, cleared, hands, tolerance=1e-6, is_over=is_over)


def whole(
    frame: Frame, *, is_over: Callable[[], bool] = never, workers: Workers | None = None
) -> Converged:
    """Relaxed, then converged."""
    hands = workers or SerialWorkers()
    plain_lp = relaxed(frame, is_over=is_over, workers=hands)
    return converge(frame, plain_lp, hands, is_over=is_over)


def master_of(frame: Frame, point: MasterPoint) -> Master:
    """A master over a point's arcs and rows."""
    return Master(
        frame,
        point.arcs,
        refuges=point.refuges,
        rowed=point.rowed,
        cuts=point.cuts,
        shed_usd_per_h=frame.shed_usd_per_h,
    )


class After:
    """Says that time is over from the given time of asking on."""

    def __init__(self, asked: int) -> None:
        self._left = asked

    def __call__(self) -> bool:
        self._left -= 1
        return self._left < 0


@SOON
@given(rich_problems())
def test_a_warm_start_changes_pivots_and_no_cost(problem: Problem) -> None:
    frame = take_frame(tabulate(exposed(problem)))
    for point in (plain_point(frame, relaxed(frame)), whole(frame).point):
        cold = master_of(frame, point)
        warm = master_of(frame, point)
        least = cold.solve().cost
        assert warm.solve(point.basis).cost == pytest.approx(least, rel=1e-7, abs=1e-7)
        assert warm.work() <= cold.work()


@SOON
@given(rich_problems())
def test_a_foreign_basis_changes_no_cost(problem: Problem) -> None:
    frame = take_frame(tabulate(exposed(problem)))
    point = whole(frame).point
    assert point.basis is not None
    scrambled = lp.Basis(
        columns=tuple(lp.kind(one.keys, one.fresh[::-1]) for one in point.basis.columns),
        rows=tuple(lp.kind(one.keys, one.fresh[::-1]) for one in point.basis.rows),
    )
    least = master_of(frame, point).solve().cost
    found = master_of(frame, point).solve(scrambled).cost
    assert found == pytest.approx(least, rel=1e-7, abs=1e-7)


@SOON
@given(rich_problems())
def test_time_may_run_out_at_any_question(problem: Problem) -> None:
    problem = exposed(problem)
    frame = take_frame(tabulate(problem))
    most = most_usd_per_h(problem)
    for asked in (0, 1, 2, 3, 5, 8, 13, 30):
        found = whole(frame, is_over=After(asked))
        point = found.point
        assert found.bound_usd_per_h <= most
        assert len(point.part) == point.arcs.count
        assert len(point.replicas) == len(point.group)
        served = np.bincount(point.arcs.row, point.part, len(frame.rate)) + point.shed
        assert served == pytest.approx(np.ones(len(frame.rate)), abs=1e-6)
        # whoever goes on from such a point may
        assert master_of(frame, point).solve(point.basis).cost <= frame.shed_usd_per_h.sum() * (
            1 + 1e-9
        )


@SOON
@given(rich_problems())
def test_workers_change_nothing(problem: Problem) -> None:
    frame = take_frame(tabulate(exposed(problem)))
    one, three = whole(frame), whole(frame, workers=ThreadWorkers(3))
    assert one.bound_usd_per_h == three.bound_usd_per_h
    assert one.point.prices.pool.tobytes() == three.point.prices.pool.tobytes()
    assert one.point.replicas.tobytes() == three.point.replicas.tobytes()


@SOON
@given(rich_problems())
def test_losses_are_those_that_leave_a_site(problem: Problem) -> None:
    frame = take_frame(tabulate(exposed(problem)))
    tables, sites = frame.tables, len(frame.budget_kw)
    expected = []
    for at in range(len(frame.rate)):
        ends = sorted(set(frame.site[frame.sweep.arcs_of(at).group].tolist()))
        passed = {end: _passed(frame, at, end) for end in ends}
        for lost in ends:
            if lost != frame.ingress[at] and any(lost not in passed[end] for end in ends):
                expected.append(at * sites + lost)
        beyond = frame.site[frame.next_sweep.arcs_of(at).group]
        if (beyond != frame.ingress[at]).any():
            expected.append(at * sites + int(frame.ingress[at]))
    assert tables.classes.protected.all()
    assert losses_of(frame).tolist() == sorted(set(expected))


def _passed(frame: Frame, at: int, end: int) -> set[int]:
    tables = frame.tables
    _, link = path_links(
        tables.routes,
        tables.links,
        route=tables.classes.route[[at]],
        site=np.array([end], dtype=np.int32),
    )
    ends = np.concatenate([tables.links.site_a[link], tables.links.site_b[link]])
    return {end, *ends.tolist()}


def test_a_limit_on_pivots_stops_a_run() -> None:
    rows = lp.RowBuilder()
    at, row = np.arange(2), np.zeros(2, dtype=np.intp)
    rows.block(1.0, lp.INF, entries=[(row, at, np.ones(2))], count=1)
    made = lp.make(cost=np.array([1.0, 2.0]), upper=np.array([0.5, 1.0]), rows=rows.rows())
    highs = lp.opened(made)
    lp.limit(highs, pivots=0)
    assert not lp.run(highs)
    lp.limit(highs, pivots=100)
    assert lp.run(highs)
    assert highs.getInfo().objective_function_value == pytest.approx(1.5)


def test_an_interrupt_stops_a_run() -> None:
    rows = lp.RowBuilder()
    rows.block(1.0, lp.INF, entries=[(np.zeros(1, int), np.zeros(1, int), np.ones(1))], count=1)
    highs = lp.opened(lp.make(cost=np.ones(1), upper=np.ones(1), rows=rows.rows()))
    lp.interruptible(highs, lambda: True)
    assert not lp.run(highs)


@SOON
@given(rich_problems())
def test_components_prove_what_the_master_says_with_its_cuts(problem: Problem) -> None:
    frame = take_frame(tabulate(plain(problem)))
    found = whole(frame)
    point, hands = found.point, SerialWorkers()
    assert found.bound_usd_per_h <= point.cost * (1 + 1e-6) + 1e-6
    parts = relax_components(frame, point, hands, is_over=lambda: False)
    assert parts.bound_usd_per_h >= point.cost * (1 - 2e-3) - 1e-6
