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
from typing import Any

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
_AMPLE = 2.0
"""Above what rows allow, so that no vertex lies at a bound that a master lacks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Relaxation:
    """The best prices found with their bound (USD/h), and the last LP's point, complete: its cost
    in USD/h, the part of its class on each of `arcs`, of each class not served (`shed`), what each
    class costs at the margin (`demand`, USD/h). `basis` is None if no LP was solved in time.
    """

    prices: Prices
    bound_usd_per_h: float
    cost_usd_per_h: float
    arcs: ComponentArcs
    part: Floats
    shed: Floats
    demand: Floats
    basis: lp.Basis | None


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
        least = _least(arcs, price, frame.shed_usd_per_h[classes])
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
    """Rounds of LP and sweep from cleared prices until bound and LP agree to `tolerance`.

    Out of time, the last LP that was solved counts; before the first, everything is shed.
    """
    shed_usd_per_h = frame.shed_usd_per_h
    held = np.minimum(shed_usd_per_h, _HELD_SHED * cleared.class_usd_per_h)
    best, wanted = sweep(frame, cleared.prices, workers, ceiling_usd_per_h=held, count=_FIRST_ARCS)
    prices, arcs = cleared.prices, union(frame, [cleared.used, *wanted])
    point = _nothing(frame, arcs, cleared)
    for turn in range(_ROUNDS):
        solved = _solve(frame, arcs, held, basis=point.basis, is_over=is_over)
        if solved is None:
            break
        point = solved
        found, wanted = sweep(
            frame, point.prices, workers, ceiling_usd_per_h=point.demand, count=_ADDED_ARCS
        )
        if found > best:
            best, prices = found, point.prices
        short = (point.shed > 1e-6) & (held < shed_usd_per_h)
        held = np.where(short, np.minimum(shed_usd_per_h, held * (1.5 if turn < 3 else 4)), held)
        nothing_new = not any(one.count for one in wanted) and not short.any()
        is_near = point.cost - best <= tolerance * abs(point.cost)
        if nothing_new or is_near or is_over():
            break
        arcs = union(frame, [arcs, *wanted])
    return Relaxation(
        prices=prices,
        bound_usd_per_h=best,
        cost_usd_per_h=point.cost,
        arcs=point.arcs,
        part=point.part,
        shed=point.shed,
        demand=point.demand,
        basis=point.basis,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Point:
    """A solved LP; `cost` counts what is shed at its true price."""

    prices: Prices
    demand: Floats
    arcs: ComponentArcs
    part: Floats
    shed: Floats
    cost: float
    basis: lp.Basis | None


def _nothing(frame: Frame, arcs: ComponentArcs, cleared: Cleared) -> _Point:
    return _Point(
        prices=cleared.prices,
        demand=cleared.class_usd_per_h,
        arcs=arcs,
        part=np.zeros(arcs.count),
        shed=np.ones(len(frame.rate)),
        cost=float(frame.shed_usd_per_h.sum()),
        basis=None,
    )


def _least(arcs: ComponentArcs, price: Floats, otherwise: Floats) -> Floats:
    least = otherwise.copy()
    has = np.flatnonzero(np.diff(np.append(arcs.start, arcs.count)))
    if len(has):
        least[has] = np.minimum(least[has], np.minimum.reduceat(price, arcs.start[has]))
    return least


def union(frame: Frame, parts: list[ComponentArcs]) -> ComponentArcs:
    """Arcs of several tables as arcs of all classes, each once."""
    arcs = joined(frame, parts)
    first = np.ones(arcs.count, dtype=np.bool_)
    first[1:] = (np.diff(arcs.row) != 0) | (np.diff(arcs.group) != 0)
    return arcs.only(first)


def _solve(
    frame: Frame,
    arcs: ComponentArcs,
    held_usd_per_h: Floats,
    *,
    basis: lp.Basis | None,
    is_over: Callable[[], bool],
) -> _Point | None:
    classes, count, pools = len(frame.rate), arcs.count, len(frame.pool_count)
    sites, size = len(frame.budget_kw), frame.stack.limit_kw.size
    highs = lp.opened(_made(frame, arcs, held_usd_per_h))
    lp.interruptible(highs, is_over)
    # kinds as a master has them, those without a member here too: it begins at this basis
    none = lp.kind(np.zeros(0, dtype=np.intp), lp.LOWER)
    columns = (
        lp.kind(arcs.row * frame.groups + arcs.group, lp.LOWER),
        lp.kind(np.arange(classes), lp.LOWER),
        none,
        lp.kind(np.arange(size), lp.LOWER),
        none,
        none,
    )
    each = [lp.kind(np.arange(many), lp.BASIC) for many in (classes, pools, sites, sites)]
    rows = (each[0], none, each[1], each[2], each[3], none, none, none)
    if basis is not None:
        lp.begin(highs, basis, columns=columns, rows=rows)
    if not lp.run(highs):
        return None
    solution = highs.getSolution()
    value, dual = np.array(solution.col_value), np.array(solution.row_dual)
    demand, pool, power, energy = np.split(dual, np.cumsum([classes, pools, sites]))
    shed = value[count : count + classes]
    beyond = float((shed * (frame.shed_usd_per_h - held_usd_per_h)).sum())
    return _Point(
        prices=Prices(pool=np.maximum(0.0, -pool), power=np.maximum(0.0, -power), energy=-energy),
        demand=demand,
        arcs=arcs,
        part=value[:count],
        shed=shed,
        cost=float(highs.getInfo().objective_function_value) + beyond,
        basis=lp.basis_of(highs, columns=columns, rows=rows),
    )


def _made(frame: Frame, arcs: ComponentArcs, held_usd_per_h: Floats) -> Any:
    group, count, classes = arcs.group, arcs.count, len(arcs.classes)
    pools, sites = len(frame.pool_count), len(frame.budget_kw)
    pool, site = frame.pool[group], frame.site[group]
    replicas = arcs.busy / frame.rateable[group]
    start = np.where(frame.running > 0, 0.0, frame.start_usd_per_h)
    own = replicas * (frame.fixed_usd_per_h + start)[group] + arcs.network_usd_per_h
    draw_kw = replicas * frame.idle_kw[group] + arcs.busy * frame.busy_kw[group]
    at, size, each = np.arange(count), frame.stack.limit_kw.size, np.arange(classes)
    supply = count + classes + np.arange(size)
    supply_site = np.repeat(np.arange(sites), frame.stack.limit_kw.shape[1])
    rows = lp.RowBuilder()
    served = [(arcs.row, at, np.ones(count)), (each, count + each, np.ones(classes))]
    rows.block(1.0, 1.0, entries=served, count=classes)
    taken = [(pool, at, replicas * frame.accelerators[group])]
    rows.block(-lp.INF, frame.pool_count, entries=taken, count=pools)
    possible = [(site, at, replicas * frame.possible_kw[group])]
    rows.block(-lp.INF, frame.budget_kw, entries=possible, count=sites)
    drawn = [(site, at, draw_kw), (supply_site, supply, np.full(size, -1.0))]
    rows.block(0.0, 0.0, entries=drawn, count=sites)
    price = frame.stack.usd_per_kwh
    return lp.make(
        cost=np.concatenate(
            [own, held_usd_per_h, np.where(np.isfinite(price), price, 0.0).ravel()]
        ),
        upper=np.concatenate([np.full(count + classes, _AMPLE), frame.stack.limit_kw.ravel()]),
        rows=rows.rows(),
    )
