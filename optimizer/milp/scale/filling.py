"""What is not placed yet, placed at once: for want of time, greedy and without a search.

Decides class by class, the dearest to shed first: over what standing replicas have left, the
cheapest first, then over new replicas where they fit, on groups worth having first. Then, loss by
loss, one replica more for each protected class that is exposed, as far as there is room.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from optimizer.milp.scale.catalogue import ComponentArcs, component_arcs, full_price
from optimizer.milp.scale.frame import Frame, Positions, PriceList
from optimizer.milp.scale.ledger import Change, Ledger, flows_over, joined
from optimizer.tables import Floats

_TRIED = 60
_PAIN_USD_PER_H = 0.1
_SLIVER = 1e-7
_USELESS = 1e-9
_WORTHWHILE = 0.5


class _Stock:
    """Replicas, their free rated work and the shared limits, as classes take from them."""

    def __init__(self, ledger: Ledger) -> None:
        frame, used = ledger.frame, ledger.used
        self._frame: Frame = frame
        self.replicas = ledger.replicas.copy()
        self.spare = ledger.replicas * frame.rateable - ledger.busy
        self._pool = frame.pool_count - used.accelerators
        self._possible_kw = frame.budget_kw - used.possible_kw
        self._supply_kw = frame.stack.limit_kw.sum(axis=1) - used.drawn_kw

    def has_room(self, group: Positions) -> NDArray[np.bool_]:
        """Mask of the groups, of some, of which one replica more fits."""
        frame = self._frame
        fits: NDArray[np.bool_] = self.replicas[group] < frame.most[group]
        fits &= self._pool[frame.pool[group]] >= frame.accelerators[group] - _SLIVER
        fits &= self._possible_kw[frame.site[group]] >= frame.possible_kw[group] - _SLIVER
        return fits

    def take(self, group: int, busy: float, wanted: float) -> float:
        """Part of a class taken by a group, up to `wanted`; `busy` replicas is the whole class."""
        frame, site = self._frame, int(self._frame.site[group])
        per_replica = float(frame.rateable[group])
        lacks = max(0.0, wanted * busy - float(self.spare[group]))
        new = np.ceil(lacks / per_replica - 1e-9)
        each_kw = float(frame.idle_kw[group] + frame.busy_kw[group] * per_replica)
        room = (
            (float(frame.most[group]) - self.replicas[group]),
            self._pool[frame.pool[group]] / float(frame.accelerators[group]),
            self._possible_kw[site] / max(float(frame.possible_kw[group]), 1e-12),
            (self._supply_kw[site] - wanted * busy * float(frame.busy_kw[group]))
            / max(each_kw, 1e-12),
        )
        new = max(0.0, min(float(new), float(np.floor(min(room) + 1e-9))))
        self.replicas[group] += new
        self.spare[group] += new * per_replica
        self._pool[frame.pool[group]] -= new * frame.accelerators[group]
        self._possible_kw[site] -= new * frame.possible_kw[group]
        self._supply_kw[site] -= new * frame.idle_kw[group]
        supplied = max(0.0, self._supply_kw[site] / max(float(frame.busy_kw[group]), 1e-12))
        done = min(wanted * busy, float(self.spare[group]) * (1 - _SLIVER), float(supplied))
        done = max(0.0, done)
        self.spare[group] -= done
        self._supply_kw[site] -= done * frame.busy_kw[group]
        return min(wanted, done / max(busy, _USELESS))

    def opens(self, group: int) -> bool:
        """Whether there was room for one replica more of a group; it stands now."""
        frame, pool, site = self._frame, self._frame.pool[group], self._frame.site[group]
        fits = (
            self.replicas[group] + 1 <= frame.most[group]
            and self._pool[pool] >= frame.accelerators[group] - 1e-9
            and self._possible_kw[site] >= frame.possible_kw[group] - 1e-9
            and self._supply_kw[site] >= frame.idle_kw[group]
        )
        if fits:
            self.replicas[group] += 1
            self._pool[pool] -= frame.accelerators[group]
            self._possible_kw[site] -= frame.possible_kw[group]
            self._supply_kw[site] -= frame.idle_kw[group]
        return bool(fits)


def fill(ledger: Ledger, prices: PriceList, *, worth: NDArray[np.bool_]) -> None:
    """Serve what a ledger leaves unserved as far as there is room."""
    frame = ledger.frame
    stock = _Stock(ledger)
    left = np.flatnonzero(ledger.shed_part > 0)
    parts = [ledger.flows_of(left)]
    for at in left[np.lexsort((left, -frame.shed_usd_per_h[left]))].tolist():
        arcs = component_arcs(frame, np.array([at]))
        price = full_price(frame, arcs, prices.work_usd_per_h)
        part = _taken(stock, arcs, price, float(ledger.shed_part[at]), worth=worth)
        parts.append(flows_over(arcs, part, np.flatnonzero(part > _SLIVER)))
    flows = joined(parts)
    every = np.arange(frame.groups)
    ledger.put(Change(classes=left, group=every, replicas=stock.replicas, flows=flows))
    _shelter(ledger, stock, prices.replica_usd_per_h)


def _shelter(ledger: Ledger, stock: _Stock, replica: Floats) -> None:
    """One replica more for each protected class that is exposed, the dearest first, where it costs
    less than that.
    """
    exposure = ledger.exposure
    exposed = exposure.alone
    by_rank = np.argsort(exposure.entries.rank, kind="stable")
    first = np.searchsorted(exposure.entries.rank[by_rank], np.arange(len(exposed) + 1))
    for rank in np.lexsort((np.arange(len(exposed)), -exposed)).tolist():
        if exposed[rank] <= _PAIN_USD_PER_H:
            break
        group = exposure.entries.group[by_rank[first[rank] : first[rank + 1]]]
        group = group[(replica[group] < exposed[rank]) & stock.has_room(group)]
        for at in group[np.lexsort((group, replica[group]))[:_TRIED]].tolist():
            if stock.opens(at):
                break
    every = np.arange(ledger.frame.groups)
    none = np.zeros(0, dtype=np.intp)
    ledger.put(
        Change(classes=none, group=every, replicas=stock.replicas, flows=ledger.flows_of(none))
    )


def _taken(
    stock: _Stock,
    arcs: ComponentArcs,
    price: Floats,
    wanted: float,
    *,
    worth: NDArray[np.bool_],
) -> Floats:
    part = np.zeros(arcs.count)
    # a sliver of what the class asks for is not worth a try: there are thousands
    has_spare = stock.spare[arcs.group] > np.maximum(_SLIVER, _WORTHWHILE * wanted * arcs.busy)
    usable = np.flatnonzero((arcs.busy > _USELESS) & (has_spare | stock.has_room(arcs.group)))
    group = arcs.group[usable]
    order = usable[np.lexsort((group, price[usable], ~worth[group], ~has_spare[usable]))]
    for at in order[:_TRIED].tolist():
        if wanted <= _SLIVER:
            break
        part[at] = stock.take(int(arcs.group[at]), float(arcs.busy[at]), wanted)
        wanted -= part[at]
    return part
