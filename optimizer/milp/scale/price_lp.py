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
from optimizer.milp.scale.caps import CapPrices
from optimizer.milp.scale.catalogue import (
    ComponentArcs,
    cheapest,
    component_arcs,
    full_price,
    transfer,
)
from optimizer.milp.scale.frame import Frame, Positions, Prices
from optimizer.milp.scale.workers import Workers
from optimizer.tables import NOWHERE, Floats

_ROUNDS = 8
_FIRST_ARCS = 6
_ADDED_ARCS = 5
_HELD_SHED = 1.25
_BETTER = 1e-6
_PRICED = 1e-6
_AMPLE = 2.0
"""Above what rows allow, so that no vertex lies at a bound that a master lacks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Relaxation:
    """The best prices found with their bound (USD/h), and the last LP's point, complete: its cost
    in USD/h, the part of its class on each of `arcs`, of each class not served (`shed`), what each
    class costs at the margin (`demand`, USD/h). `basis` is None if no LP was solved in time.
    `cap_prices` are what the caps are worth, where they were asked for.
    """

    prices: Prices
    cap_prices: CapPrices
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
    capped: bool = False,
) -> Relaxation:
    """Rounds of LP and sweep from cleared prices until bound and LP agree to `tolerance`; with
    rows for the caps that have prices if it is to be `capped`.

    Out of time, the last LP that was solved counts; before the first, everything is shed.
    """
    shed_usd_per_h = frame.shed_usd_per_h
    held = np.minimum(shed_usd_per_h, _HELD_SHED * cleared.class_usd_per_h)
    prices, arcs, wanted = cleared.prices, cleared.used, list[ComponentArcs]()
    if cleared.swept_usd_per_h is None:
        best, wanted = sweep(frame, prices, workers, ceiling_usd_per_h=held, count=_FIRST_ARCS)
    else:
        best = cleared.swept_usd_per_h
    arcs = union(frame, [arcs, *wanted])
    point = _nothing(frame, arcs, cleared)
    cap_prices = point.cap_prices
    basis = _opening_basis(frame, arcs, cleared)
    for turn in range(_ROUNDS):
        if is_over():
            break
        solved = _solve(frame, arcs, held, basis=basis, is_over=is_over, capped=capped)
        if solved is None:
            break
        point, basis = solved, solved.basis or basis
        dear = frame.at_cap_prices(point.cap_prices) if capped else frame
        found, wanted = sweep(
            dear, point.prices, workers, ceiling_usd_per_h=point.demand, count=_ADDED_ARCS
        )
        found -= dear.given_back_usd_per_h if capped else 0.0
        if found > best:
            best, prices, cap_prices = found, point.prices, point.cap_prices
        short = (point.shed > 1e-6) & (held < shed_usd_per_h)
        held = np.where(short, np.minimum(shed_usd_per_h, held * (1.5 if turn < 3 else 4)), held)
        nothing_new = not any(one.count for one in wanted) and not short.any()
        is_near = point.cost - best <= tolerance * abs(point.cost)
        if nothing_new or is_near or is_over():
            break
        arcs = union(frame, [arcs, *wanted])
    return Relaxation(
        prices=prices,
        cap_prices=cap_prices,
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
    cap_prices: CapPrices
    demand: Floats
    arcs: ComponentArcs
    part: Floats
    shed: Floats
    cost: float
    basis: lp.Basis | None


def _nothing(frame: Frame, arcs: ComponentArcs, cleared: Cleared) -> _Point:
    return _Point(
        prices=cleared.prices,
        cap_prices=frame.caps.no_prices(),
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
    basis: lp.Basis,
    is_over: Callable[[], bool],
    capped: bool,
) -> _Point | None:
    classes, count, pools = len(frame.rate), arcs.count, len(frame.pool_count)
    sites = len(frame.budget_kw)
    highs = lp.opened(lp_over(frame, arcs, held_usd_per_h, capped=capped))
    lp.interruptible(highs, is_over)
    columns, rows = lp_kinds(frame, arcs, capped=capped)
    lp.begin(highs, basis, columns=columns, rows=rows)
    if not lp.run(highs):
        return None
    solution = highs.getSolution()
    value, dual = np.array(solution.col_value), np.array(solution.row_dual)
    ends = np.cumsum([classes, pools, sites, sites])
    demand, pool, power, energy, cap = np.split(dual, ends)
    cap, budgets = np.maximum(0.0, -cap), len(frame.caps.budget_usd_per_h)
    worth = CapPrices(carbon_usd_per_kg=float(cap[budgets:].sum()), budget=cap[:budgets])
    shed = value[count : count + classes]
    beyond = float((shed * (frame.shed_usd_per_h - held_usd_per_h)).sum())
    return _Point(
        prices=Prices(pool=np.maximum(0.0, -pool), power=np.maximum(0.0, -power), energy=-energy),
        cap_prices=worth if capped else frame.caps.no_prices(),
        demand=demand,
        arcs=arcs,
        part=value[:count],
        shed=shed,
        cost=float(highs.getInfo().objective_function_value) + beyond,
        basis=lp.basis_of(highs, columns=columns, rows=rows),
    )


def lp_kinds(
    frame: Frame, arcs: ComponentArcs, *, capped: bool
) -> tuple[tuple[lp.Kind, ...], tuple[lp.Kind, ...]]:
    """Columns and rows; kinds as a master has them, those without a member here too: it begins at
    this LP's basis.
    """
    none = lp.kind(np.zeros(0, dtype=np.intp), lp.LOWER)
    columns = (
        lp.kind(arcs.row * frame.groups + arcs.group, lp.LOWER),
        lp.kind(np.arange(len(frame.rate)), lp.LOWER),
        none,
        lp.kind(np.arange(frame.stack.limit_kw.size), lp.LOWER),
        none,
        none,
    )
    sizes = len(frame.rate), len(frame.pool_count), len(frame.budget_kw), len(frame.budget_kw)
    each = [lp.kind(np.arange(size), lp.BASIC) for size in sizes]
    caps = lp.kind(np.arange(_cap_rows(frame) if capped else 0), lp.BASIC)
    return columns, (each[0], none, each[1], each[2], each[3], none, none, none, caps, none)


def _cap_rows(frame: Frame) -> int:
    return len(frame.caps.budget_usd_per_h) + bool(np.isfinite(frame.caps.carbon_kg_per_h))


def _opening_basis(frame: Frame, arcs: ComponentArcs, cleared: Cleared) -> lp.Basis:
    """A vertex near cleared prices: each class on its cheapest arc, each limit with a price full by
    the next arc that would cost least more, each site's power at the supply whose price is nearest.

    Measured on 10 000 classes: 1.5 s to the optimum from here, 4.9 s from nothing.
    """
    prices = cleared.prices
    price = full_price(frame, arcs, frame.work_price(prices))
    least = arcs.least(price, otherwise=frame.shed_usd_per_h)[arcs.row]
    more = (price - least) / np.maximum(least, 1e-12)
    columns, rows = lp_kinds(frame, arcs, capped=False)
    arc, supply = columns[0].fresh.copy(), np.zeros(frame.stack.limit_kw.shape, dtype=np.int8)
    cls, pool, power = rows[0].fresh.copy(), rows[2].fresh.copy(), rows[3].fresh.copy()
    best = _first_of(arcs.row, more)
    arc[best], cls[arcs.row[best]] = lp.BASIC, lp.LOWER
    for limit, worth, full in (
        (frame.pool[arcs.group], prices.pool, pool),
        (frame.site[arcs.group], prices.power, power),
    ):
        open_ = np.flatnonzero((arc != lp.BASIC) & (worth[limit] > _PRICED))
        filling = open_[_first_of(limit[open_], more[open_])]
        arc[filling], full[limit[filling]] = lp.BASIC, lp.UPPER
    away = np.abs(frame.stack.usd_per_kwh - prices.energy[:, None])
    away[~np.isfinite(away)] = lp.INF
    marginal = away.argmin(axis=1)
    sites = np.arange(len(marginal))
    supply[np.arange(frame.stack.limit_kw.shape[1]) < marginal[:, None]] = lp.UPPER
    supply[sites, marginal] = lp.BASIC
    energy, none = np.full(len(sites), lp.LOWER, dtype=np.int8), rows[1].fresh
    statuses = [arc, columns[1].fresh, none, supply.ravel(), none, none]
    row_statuses = [cls, none, pool, power, energy, none, none, none, none, none]
    return lp.Basis(
        columns=tuple(
            lp.kind(one.keys, status) for one, status in zip(columns, statuses, strict=True)
        ),
        rows=tuple(
            lp.kind(one.keys, status) for one, status in zip(rows, row_statuses, strict=True)
        ),
    )


def _first_of(key: Positions, value: Floats) -> Positions:
    """Where each key that occurs has its least value."""
    order = np.lexsort((np.arange(len(key)), value, key))
    first = np.ones(len(key), dtype=np.bool_)
    first[1:] = np.diff(key[order]) != 0
    found: Positions = order[first]
    return found


def lp_over(frame: Frame, arcs: ComponentArcs, shed_usd_per_h: Floats, *, capped: bool) -> Any:
    """The LP over some arcs of all classes. Columns: parts on arcs, parts shed, kW of each supply;
    rows: classes, pools, budgets of power, draws, and if `capped` tenants' budgets, carbon.
    """
    group, count, classes = arcs.group, arcs.count, len(arcs.classes)
    pools, sites = len(frame.pool_count), len(frame.budget_kw)
    pool, site = frame.pool[group], frame.site[group]
    replicas = arcs.busy / frame.rateable[group]
    start = np.where(frame.running > 0, 0.0, frame.start_usd_per_h)
    own = replicas * (frame.fixed_usd_per_h + start)[group] + transfer(frame, arcs)
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
    if capped:
        _cap(frame, arcs, rows, supply=supply)
    price = frame.stack.usd_per_kwh
    return lp.make(
        cost=np.concatenate(
            [own, shed_usd_per_h, np.where(np.isfinite(price), price, 0.0).ravel()]
        ),
        upper=np.concatenate([np.full(count + classes, _AMPLE), frame.stack.limit_kw.ravel()]),
        rows=rows.rows(),
    )


def _cap(frame: Frame, arcs: ComponentArcs, rows: lp.RowBuilder, *, supply: Positions) -> None:
    """Rows of tenants' budgets, then of the cap on carbon."""
    caps, tenant = frame.caps, frame.caps.tenant[arcs.row]
    mine = np.flatnonzero(tenant != NOWHERE)
    charged = caps.charged_usd_per_h(
        arcs.group[mine], busy=arcs.busy[mine], network_usd_per_h=arcs.network_usd_per_h[mine]
    )
    charged = np.minimum(charged, lp.LARGEST)  # asking for less keeps the bound a bound
    budget = caps.budget_usd_per_h
    rows.block(-lp.INF, budget, entries=[(tenant[mine], mine, charged)], count=len(budget))
    if np.isfinite(caps.carbon_kg_per_h):
        emits, none = frame.stack.kg_per_kwh.ravel(), np.zeros(len(supply), dtype=np.intp)
        rows.block(-lp.INF, caps.carbon_kg_per_h, entries=[(none, supply, emits)], count=1)
