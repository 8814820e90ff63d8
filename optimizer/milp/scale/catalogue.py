"""All arcs of one component in one table, priced: the material of every sub-problem.

Decides nothing; `ComponentArcs` holds the arcs of a component's classes for as long as somebody
works on it, so that a fleet's arcs are never all held at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from optimizer.milp.scale.frame import Frame, Positions, Prices
from optimizer.sweep import Sweep
from optimizer.tables import Floats, ints

_NO_GROUP = ints(())


@dataclass(frozen=True, kw_only=True, slots=True)
class ComponentArcs:
    """Arcs of some classes. `row` is the class's rank among `classes`, ascending; `start[row]` its
    first arc. `busy` is replicas the whole class would keep busy, `network_usd_per_h` its transfer.
    """

    classes: Positions
    start: Positions
    row: Positions
    group: Positions
    busy: Floats
    network_usd_per_h: Floats

    @property
    def count(self) -> int:
        """How many arcs."""
        return len(self.row)

    def only(self, kept: NDArray[np.bool_]) -> ComponentArcs:
        """The arcs of a mask."""
        if kept.all():  # a sweep's arcs mostly are, and are long
            return self
        row = self.row[kept]
        return ComponentArcs(
            classes=self.classes,
            start=np.searchsorted(row, np.arange(len(self.classes))),
            row=row,
            group=self.group[kept],
            busy=self.busy[kept],
            network_usd_per_h=self.network_usd_per_h[kept],
        )

    def least(self, values: Floats, *, otherwise: Floats) -> Floats:
        """Smallest value over each class's arcs; `otherwise[row]` where that is less or no arc."""
        least = otherwise.copy()
        np.minimum.at(least, self.row, values)
        return least


def component_arcs(frame: Frame, classes: Positions) -> ComponentArcs:
    """Every candidate arc of some classes (positions, ascending)."""
    return _swept(frame, frame.sweep, classes)


def next_ingress_arcs(frame: Frame, classes: Positions) -> ComponentArcs:
    """Every candidate arc of some classes, each having lost the site it enters at now."""
    arcs = _swept(frame, frame.next_sweep, classes)
    return arcs.only(frame.site[arcs.group] != frame.ingress[classes][arcs.row])


def _swept(frame: Frame, sweep: Sweep, classes: Positions) -> ComponentArcs:
    found = [sweep.arcs_of(int(at)) for at in classes]
    counts = np.array([len(one.group) for one in found], dtype=np.intp)
    row = np.repeat(np.arange(len(classes)), counts)
    rate, none = frame.rate[classes][row], np.zeros(0)
    # in place: fresh memory for millions of arcs takes longer than their arithmetic
    busy = np.concatenate([none, *(one.replica_seconds for one in found)])
    busy *= rate
    network_usd_per_h = np.concatenate([none, *(one.network_usd_per_h for one in found)])
    network_usd_per_h *= rate
    return ComponentArcs(
        classes=classes,
        start=np.cumsum(counts) - counts,
        row=row,
        group=np.concatenate([_NO_GROUP, *(one.group for one in found)]).astype(np.intp),
        busy=busy,
        network_usd_per_h=network_usd_per_h,
    )


def transfer(frame: Frame, arcs: ComponentArcs) -> Floats:
    """USD/h of a whole class's transfer over each arc, with its worth in a tenant's budget."""
    if not frame.cap_prices.budget.any():
        return arcs.network_usd_per_h
    return frame.toll_usd_per_h(
        arcs.classes[arcs.row],
        arcs.group,
        busy=arcs.busy,
        network_usd_per_h=arcs.network_usd_per_h,
    )


def full_price(frame: Frame, arcs: ComponentArcs, work_price: Floats) -> Floats:
    """USD/h of a whole class over each arc on perfectly filled replicas, at a price of work."""
    priced: Floats = transfer(frame, arcs) + arcs.busy * work_price[arcs.group]
    return priced


def flow_price(frame: Frame, arcs: ComponentArcs, prices: Prices) -> Floats:
    """USD/h of a whole class over each arc on replicas that stand anyway: transfer, busy power."""
    energy = (frame.busy_kw * prices.energy[frame.site])[arcs.group]
    priced: Floats = transfer(frame, arcs) + arcs.busy * energy
    return priced


def cheapest(arcs: ComponentArcs, price: Floats, count: int) -> NDArray[np.bool_]:
    """Mask of each class's `count` cheapest arcs (ties: the earlier group); none at an infinite
    price.
    """
    kept = np.zeros(arcs.count, dtype=np.bool_)
    found = np.flatnonzero((price <= _last_of(arcs, price, count)[arcs.row]) & (price < np.inf))
    found = found[np.lexsort((price[found], arcs.row[found]))]
    ranked = arcs.row[found]
    kept[found[np.arange(len(ranked)) - np.searchsorted(ranked, ranked) < count]] = True
    return kept


def _last_of(arcs: ComponentArcs, price: Floats, count: int) -> Floats:
    """The price of each class's `count`-th cheapest arc, inf where it has no more: who costs more
    need not be sorted.
    """
    last: Floats = np.full(len(arcs.classes), np.inf)
    bounds = [*arcs.start.tolist(), arcs.count]
    for row, (first, end) in enumerate(pairwise(bounds)):
        if end - first > count:
            last[row] = np.partition(price[first:end], count - 1)[count - 1]
    return last


def cheapest_sites(
    frame: Frame, arcs: ComponentArcs, price: Floats, count: int
) -> NDArray[np.bool_]:
    """Mask of the cheapest arc of each class at each of its `count` cheapest sites (ties: the
    earlier group); none at an infinite price.
    """
    shape = len(arcs.classes), len(frame.budget_kw)
    best = np.zeros(arcs.count, dtype=np.bool_)
    best[best_of_sites(arcs.row, frame.site[arcs.group], price, shape=shape, count=count)] = True
    return best


def best_of_sites(
    row: Positions, site: Positions, price: Floats, *, shape: tuple[int, int], count: int
) -> Positions:
    """Where the cheapest of each row stands at each of its `count` cheapest sites (ties: the
    first); `shape` is how many rows and sites there are. None at an infinite price.
    """
    key = row * shape[1] + site
    least = np.full(shape[0] * shape[1], np.inf)
    np.minimum.at(least, key, price)
    nth = min(count, shape[1]) - 1
    last = np.partition(least.reshape(shape), nth)[:, nth]
    found = np.flatnonzero((price <= least[key]) & (price <= last[row]) & np.isfinite(price))
    found = found[np.unique(key[found], return_index=True)[1]]
    found = found[np.lexsort((found, price[found], row[found]))]
    ranked = row[found]
    best: Positions = found[np.arange(len(ranked)) - np.searchsorted(ranked, ranked) < count]
    return best
