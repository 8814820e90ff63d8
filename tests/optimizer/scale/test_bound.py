"""Bounds from blocks: none passes the optimum, at any prices; at prices that suit them none falls
below what a sweep over all arcs proves at the same duals.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from optimizer.milp.scale import block
from optimizer.milp.scale.block import (
    NEAR_MOST,
    Worth,
    earned,
    fall_back_usd_per_h,
    proven_usd_per_h,
    take_block,
)
from optimizer.milp.scale.bound import (
    Apart,
    better_prices,
    bound_by_components,
    relax_components,
)
from optimizer.milp.scale.frame import Frame, Prices, take_frame
from optimizer.milp.scale.losses import losses_of
from optimizer.milp.scale.master import MasterPoint
from optimizer.milp.scale.priced import duals_of, price_all
from optimizer.milp.scale.rounding import needs_of
from optimizer.milp.scale.workers import SerialWorkers, ThreadWorkers
from optimizer.problem import Problem
from optimizer.tabulate import tabulate
from tests.optimizer.builders import rich_problems
from tests.optimizer.optima import SLACK, most_usd_per_h
from tests.optimizer.scale.test_scale import never, plain
from tests.optimizer.scale.test_survival import converged, exposed

SOON = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


def apart(frame: Frame, point: MasterPoint) -> Apart:
    """Components relaxed one by one, without a deadline."""
    return relax_components(frame, point, SerialWorkers(), is_over=never)


def bound(frame: Frame, point: MasterPoint) -> float:
    """The bound without a deadline."""
    parts = apart(frame, point)
    return bound_by_components(frame, parts, SerialWorkers(), gap_usd_per_h=0.0, is_over=never)


def odd(point: MasterPoint) -> MasterPoint:
    """The point with prices and duals that clear nothing."""
    prices = point.prices
    return replace(
        point,
        prices=Prices(
            pool=prices.pool * 0.5 + 0.7,
            power=prices.power * 1.5 + 0.3,
            energy=prices.energy * 1.7 - 0.01,
            room=prices.room,
        ),
        demand=point.demand * 0.3 + 0.5,
        cover=point.cover + 0.2,
        loss=point.loss + 0.1,
        need=point.need * 0.5 + 0.1,
    )


@SOON
@given(rich_problems(max_sites=4, max_classes=6))
def test_bounds_lie_between_what_their_duals_prove_and_the_optimum(problem: Problem) -> None:
    for made in (plain(problem), exposed(problem)):
        most = most_usd_per_h(made)
        frame = take_frame(tabulate(made))
        point = converged(frame).point
        # of the same point: an earlier round's duals may prove more than the last one's
        swept = price_all(frame, duals_of(point), SerialWorkers(), count=1).bound_usd_per_h
        prices = better_prices(frame, point, SerialWorkers())
        proven = bound(frame, replace(point, prices=prices))
        assert swept - SLACK * (1 + abs(swept)) <= proven <= most


@SOON
@given(rich_problems(max_sites=4, max_classes=6))
def test_any_prices_and_duals_give_a_bound(problem: Problem) -> None:
    problem = exposed(problem)
    most = most_usd_per_h(problem)
    frame = take_frame(tabulate(problem))
    found = bound(frame, odd(converged(frame).point))
    assert found <= most


@SOON
@given(rich_problems(max_sites=4, max_classes=6))
def test_at_fall_back_prices_no_replica_earns_more_than_it_costs(problem: Problem) -> None:
    problem = exposed(problem)
    frame = take_frame(tabulate(problem))
    point = odd(converged(frame).point)
    losses = losses_of(frame)
    for classes in frame.components:
        one = take_block(frame, classes, point.prices, losses, needs_of(point.cuts))
        worth = Worth(
            demand=point.demand[classes],
            cover=point.cover[classes],
            loss=np.full(len(one.loss_row), 0.05),
            need=np.full(len(one.needs.lower), 0.05),
        )
        each = earned(one, worth)
        chosen = np.arange(len(one.group)) % 3 == 0
        price = fall_back_usd_per_h(one, worth, each, chosen)
        dear = replace(worth, demand=np.where(np.isinf(price), worth.demand, price))
        then = earned(one, dear).usd_per_h[~chosen]
        floor = np.minimum(0.0, each.usd_per_h[~chosen])
        assert (then >= floor - 1e-6 * (1 + np.abs(floor))).all()
        assert np.isfinite(proven_usd_per_h(one, dear, earned(one, dear)))


@SOON
@given(rich_problems(max_sites=4, max_classes=6))
def test_what_a_replica_earns_is_exact_where_it_nears_its_price(problem: Problem) -> None:
    frame = take_frame(tabulate(exposed(problem)))
    point = converged(frame).point
    for classes in frame.components:
        made = take_block(frame, classes, point.prices, losses_of(frame), needs_of(point.cuts))
        worth = Worth(
            demand=point.demand[classes],
            cover=point.cover[classes],
            loss=np.zeros(len(made.loss_row)),
            need=np.zeros(len(made.needs.lower)),
        )
        found = earned(made, worth).usd_per_h
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(block, "NEAR_MOST", 1e9)
            exact = earned(made, worth).usd_per_h
        asked = NEAR_MOST * made.replica_usd_per_h
        near = exact < asked
        assert found[near] == pytest.approx(exact[near], rel=1e-9, abs=1e-9)
        assert (found[~near] <= exact[~near] + SLACK).all()
        assert (found[~near] >= asked[~near] - SLACK).all()


@settings(max_examples=8, deadline=None, derandomize=True)
@given(rich_problems(max_sites=4, max_classes=6))
def test_out_of_time_the_points_own_duals_bound(problem: Problem) -> None:
    frame = take_frame(tabulate(exposed(problem)))
    found = converged(frame)
    then, hands = bound(frame, found.point), SerialWorkers()
    none = relax_components(frame, found.point, hands, is_over=lambda: True)
    for parts in (none, apart(frame, found.point)):
        late = bound_by_components(frame, parts, hands, gap_usd_per_h=0.0, is_over=lambda: True)
        assert late == parts.bound_usd_per_h <= then + SLACK


@settings(max_examples=8, deadline=None, derandomize=True)
@given(rich_problems(max_sites=4, max_classes=6))
def test_the_number_of_workers_changes_no_bound(problem: Problem) -> None:
    frame = take_frame(tabulate(exposed(problem)))
    point = converged(frame).point
    hands = ThreadWorkers(3)
    parts = relax_components(frame, point, hands, is_over=never)
    three = bound_by_components(frame, parts, hands, gap_usd_per_h=0.0, is_over=never)
    assert three == bound(frame, point)
