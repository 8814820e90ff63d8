"""Prices of traffic that nearly clear, by small steps: a guess at which arcs a relaxation needs.

At a price per request/s of each class every replica takes what pays best within its throughput, and
a site opens where that earns its fixed price. Prices rise where less is taken than asked for and
fall where more is. Energy, shared pools and links are left out: what that proves is a floor to fall
back on where time ends before the relaxation. On facility-location fleets the dual it climbs ends
within 0.02 % of its optimum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from optimizer.costs import trivial_bound_usd_per_h
from optimizer.milp.arrays import Matrix
from optimizer.milp.stopping import never
from optimizer.milp.whole.matrix import Mask, Places
from optimizer.tables import Floats

_STEPS = 300
_WORK = 30_000_000
"""Arcs looked at in all steps together, about 6 s."""

_FEWEST_STEPS = 50
_AIM = ((0.3, 0.03), (0.7, 0.01), (1.0, 0.003))
"""How far above the best dual found a step aims, as part of it, up to a part of all steps."""

_PATIENCE, _SHRINK = 12, 0.6
_FADING = 0.94
_NEW_PART = 0.3
_WARM_STEPS = 10
_CARRIED = 2e-3
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class First:
    """The traffic columns a relaxation starts with, and a floor under every plan's cost (USD/h)."""

    columns: Places
    bound: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _Taken:
    """What is taken at some prices: the dual (USD/h), the same with no starts where something
    runs (less than any plan but for power that pays), requests/s by arc, arcs some replica of its
    group would take whether its site opens or not.
    """

    dual: float
    floor: float
    flow: Floats
    wanted: Mask


class _Market:
    """Arcs by group, what a replica of each may take and what it costs to have one."""

    def __init__(self, matrix: Matrix, upper: Floats) -> None:
        p = matrix.horizon[0]
        groups, sites, arcs = p.tables.groups, p.tables.sites, p.arcs
        placed = p.placeable.group
        self.order = np.lexsort((arcs.cls, arcs.group))
        self.cls = arcs.cls[self.order].astype(np.intp)
        self.group = p.local[arcs.group[self.order]].astype(np.intp)
        self.start = np.searchsorted(self.group, np.arange(p.groups))
        self.cost = arcs.network_usd_per_h[self.order]
        self.busy = np.maximum(arcs.replica_seconds[self.order], 1e-12)
        self.rate = p.tables.classes.rate_rps
        self.full = self.rate[self.cls] * self.busy
        ceiling = p.tables.problem.plan_policy.utilisation_ceiling
        self.usable = ceiling * groups.available[placed]
        self.most = p.placeable.most.astype(np.float64)
        held = groups.hardware_usd_per_h + groups.risk_usd_per_h
        self.replica = (held + groups.start_usd_per_h)[placed]
        # what runs already need not be started
        self.spared = np.where(groups.running[placed] > 0, groups.start_usd_per_h[placed], 0.0)
        self.site, self.fixed = groups.site[placed], sites.fixed_usd_per_h
        shed = matrix.cost[p.column("shed")]
        self.dearest = np.where(upper[p.column("shed")] > 0, shed, np.inf)

    def opening(self) -> Floats:
        """Each class's cheapest arc if replicas and sites were filled perfectly."""
        alone = np.bincount(self.site, self.most, len(self.fixed))
        work = self.replica + (self.fixed / np.maximum(alone, 1.0))[self.site]
        work /= np.maximum(self.usable, 1e-9)
        price = np.full(len(self.rate), np.inf)
        np.minimum.at(price, self.cls, self.cost + self.busy * work[self.group])
        return np.where(np.isfinite(price), np.minimum(price, self.dearest), 0.0)

    def take(self, price: Floats) -> _Taken:
        """What pays at these prices, the best of it first."""
        profit = price[self.cls] - self.cost
        order = np.lexsort((-profit / self.busy, self.group))
        group = self.group[order]
        asked = np.where(profit[order] > 0, self.full[order], 0.0)
        total = np.cumsum(asked)
        before = total - asked
        ahead = before - before[self.start[group]]
        flow = np.zeros(len(order))
        flow[order] = np.clip(self.usable[group] - ahead, 0.0, asked)
        wanted = flow > 0
        flow /= self.busy
        earned = np.bincount(self.group, flow * profit, len(self.most)) - self.replica
        gain = self._gain(earned)
        count = np.where((earned > 0) & (gain[self.site] > 0), self.most, 0.0)
        flow *= count[self.group]
        paid = float(price @ self.rate)
        return _Taken(
            dual=paid - float(gain[gain > 0].sum()),
            floor=paid - float(np.maximum(0.0, self._gain(earned + self.spared)).sum()),
            flow=flow,
            wanted=wanted,
        )

    def _gain(self, earned: Floats) -> Floats:
        """What each site earns (USD/h) with all replicas that earn something, its price paid."""
        by_site = np.bincount(self.site, self.most * np.maximum(0.0, earned), len(self.fixed))
        gain: Floats = by_site - self.fixed
        return gain


def first_columns(matrix: Matrix, *, upper: Floats, is_over: Callable[[], bool] = never) -> First:
    """The traffic columns of arcs that some replica wants at nearly clearing prices, and of those
    that carried traffic on the way there. `matrix` is of one period; `upper` holds the tightened
    bounds of its columns. Once `is_over`, the prices stay where they are.
    """
    least = trivial_bound_usd_per_h(matrix.horizon[0].tables.problem)
    market = _Market(matrix, upper)
    found = np.zeros(len(market.order), dtype=np.bool_)
    columns = matrix.horizon[0].column("x").astype(np.intp)
    if len(found) == 0:
        return First(columns=columns, bound=least)
    price = market.opening()
    steps = int(np.clip(_WORK // len(found), _FEWEST_STEPS, _STEPS))
    size, waited = 1.0, 0
    scale = float(price @ market.rate)
    best, taken = price, market.take(price)
    least_dual, carried = taken.dual, np.zeros(len(found))
    floor = taken.floor
    for step in range(steps):
        if is_over():
            break
        carried = _FADING * carried + (1 - _FADING) * taken.flow
        short = market.rate - np.bincount(market.cls, taken.flow, len(price))
        if step > _WARM_STEPS:
            steady = market.rate - np.bincount(market.cls, carried, len(price))
            short = _NEW_PART * short + (1 - _NEW_PART) * steady
        aim = next(part for until, part in _AIM if step < until * steps)
        ahead = least_dual + aim * max(abs(least_dual), 0.01 * scale) - taken.dual
        price = price + size * ahead / max(float(short @ short), 1e-12) * short
        price = np.clip(price, 0.0, market.dearest)
        taken = market.take(price)
        floor = max(floor, taken.floor)
        waited += 1
        if taken.dual > least_dual:
            best, least_dual, waited = price, taken.dual, 0
        if waited >= _PATIENCE:
            size, waited = size * _SHRINK, 0
    wanted = market.take(best).wanted | (carried > _CARRIED * market.rate[market.cls])
    found[market.order] = wanted
    floor -= _ROUNDING * abs(scale)
    return First(columns=columns[found], bound=least + max(0.0, floor))
