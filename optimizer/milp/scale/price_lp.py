"""Prices of the shared limits from the linear relaxation, over few arcs, priced over all.

The relaxation fills every replica to the ceiling, so replica counts drop out: a class's whole
traffic over an arc takes its part of pool, budget and draw. Solved over a few arcs per class; each
round one sweep over all arcs gives a bound that holds for the whole fleet (dual function at the
LP's prices) and the arcs that would improve it. A class's shed price is held near what serving it
costs until nothing else serves it: otherwise a missing arc looks like a price of thousands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from optimizer.milp.scale import lp
from optimizer.milp.scale.ascent import Cleared, joined
from optimizer.milp.scale.catalogue import ComponentArcs, cheapest, component_arcs, full_price
from optimizer.milp.scale.frame import Frame, Positions, Prices
from optimizer.milp.scale.workers import Workers
from optimizer.tables import Floats

_ROUNDS = 8
_FIRST_ARCS = 6
_ADDED_ARCS = 5
_HELD_SHED = 1.25
_BETTER = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class Relaxation:
    """The best prices found with their bound (USD/h), and the relaxation's traffic: part of its
    class on each of `arcs`.
    """

    prices: Prices
    bound_usd_per_h: float
    arcs: ComponentArcs
    part: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Swept:
    """All arcs of one component at prices: what its classes cost at least, arcs worth adding."""

    usd_per_h: float
    wanted: ComponentArcs


def sweep(
    frame: Frame, prices: Prices, workers: Workers, *, ceiling_usd_per_h: Floats, count: int
) -> tuple[float, list[ComponentArcs]]:
    """Bound of the whole fleet at prices (USD/h), and up to `count` arcs of each class that cost
    less than `ceiling_usd_per_h` (per class).
    """
    work_price = frame.work_price(prices)

    def one(classes: Positions) -> Swept:
        arcs = component_arcs(frame, classes)
        price = full_price(frame, arcs, work_price)
        least = arcs.least(price, otherwise=frame.shed_usd_per_h[classes])
        good = price < (ceiling_usd_per_h[classes] * (1 - _BETTER))[arcs.row]
        few = arcs.only(good)
        wanted = few.only(cheapest(few, price[good], count))
        return Swept(usd_per_h=float(least.sum()), wanted=wanted)

    found = workers.map(one, frame.components)
    total = sum(one.usd_per_h for one in found) + frame.dual_offset(prices)
    return total, [one.wanted for one in found]


def relax(
    frame: Frame,
    cleared: Cleared,
    workers: Workers,
    *,
    tolerance: float,
    is_over: Callable[[], bool],
) -> Relaxation:
    """Rounds of LP and sweep from cleared prices until bound and LP agree to `tolerance`."""
    served = cleared.class_usd_per_h
    bound, wanted = sweep(
        frame,
        cleared.prices,
        workers,
        ceiling_usd_per_h=np.full(len(served), np.inf),
        count=_FIRST_ARCS,
    )
    best, prices = bound, cleared.prices
    arcs = union(frame, [cleared.used, *wanted])
    held = np.minimum(frame.shed_usd_per_h, _HELD_SHED * served)
    part = np.zeros(arcs.count)
    for turn in range(_ROUNDS):
        if is_over():
            break
        solved = _solve(frame, arcs, held)
        part = solved.part
        found, wanted = sweep(
            frame, solved.prices, workers, ceiling_usd_per_h=solved.class_duals, count=_ADDED_ARCS
        )
        if found > best:
            best, prices = found, solved.prices
        short = (solved.shed > 1e-6) & (held < frame.shed_usd_per_h)
        true_cost = solved.cost + float((solved.shed * (frame.shed_usd_per_h - held)).sum())
        held = np.where(
            short, np.minimum(frame.shed_usd_per_h, held * (1.5 if turn < 3 else 4)), held
        )
        nothing_new = not any(one.count for one in wanted) and not short.any()
        is_near = true_cost - best <= tolerance * abs(true_cost)
        if nothing_new or is_near or turn == _ROUNDS - 1:
            break
        arcs = union(frame, [arcs, *wanted])
    return Relaxation(prices=prices, bound_usd_per_h=best, arcs=arcs, part=part)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Solved:
    prices: Prices
    class_duals: Floats
    part: Floats
    shed: Floats
    cost: float


def union(frame: Frame, parts: list[ComponentArcs]) -> ComponentArcs:
    """Arcs of several tables as arcs of all classes, each once."""
    arcs = joined(frame, parts)
    first = np.ones(arcs.count, dtype=np.bool_)
    first[1:] = (np.diff(arcs.row) != 0) | (np.diff(arcs.group) != 0)
    return arcs.only(first)


def _solve(frame: Frame, arcs: ComponentArcs, shed_usd_per_h: Floats) -> _Solved:
    group, count, classes = arcs.group, arcs.count, len(arcs.classes)
    pools, sites = len(frame.pool_count), len(frame.budget_kw)
    pool, site = frame.pool[group], frame.site[group]
    replicas = arcs.busy / frame.rateable[group]
    start = np.where(frame.running > 0, 0.0, frame.start_usd_per_h)
    own = replicas * (frame.fixed_usd_per_h + start)[group] + arcs.network_usd_per_h
    draw_kw = replicas * frame.idle_kw[group] + arcs.busy * frame.busy_kw[group]
    at, flat = np.arange(count), frame.stack.limit_kw.size
    each = np.arange(classes)
    supply = count + classes + np.arange(flat)
    supply_site = np.repeat(np.arange(sites), frame.stack.limit_kw.shape[1])
    rows = lp.RowBuilder()
    rows.block(
        1.0,
        1.0,
        entries=[(arcs.row, at, np.ones(count)), (each, count + each, np.ones(classes))],
        count=classes,
    )
    taken = replicas * frame.accelerators[group]
    rows.block(-lp.INF, frame.pool_count, entries=[(pool, at, taken)], count=pools)
    possible = replicas * frame.possible_kw[group]
    rows.block(-lp.INF, frame.budget_kw, entries=[(site, at, possible)], count=sites)
    rows.block(
        0.0,
        0.0,
        entries=[(site, at, draw_kw), (supply_site, supply, np.full(flat, -1.0))],
        count=sites,
    )
    made = lp.make(
        cost=np.concatenate([own, shed_usd_per_h, frame.stack.usd_per_kwh.ravel()]),
        upper=np.concatenate([np.ones(count + classes), frame.stack.limit_kw.ravel()]),
        rows=rows.rows(),
    )
    answer = lp.solve(made)
    assert answer.values is not None, "shedding everything is always possible"
    duals = answer.row_duals
    return _Solved(
        prices=Prices(
            pool=np.maximum(0.0, -duals[classes : classes + pools]),
            power=np.maximum(0.0, -duals[classes + pools : classes + pools + sites]),
            energy=-duals[classes + pools + sites :],
        ),
        class_duals=duals[:classes],
        part=answer.values[:count],
        shed=answer.values[count : count + classes],
        cost=answer.cost,
    )
