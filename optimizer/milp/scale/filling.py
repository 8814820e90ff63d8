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
from optimizer.milp.scale.ledger import UNPLACED, Change, Ledger, flows_over, joined
from optimizer.milp.scale.mixes import excess, spreads
from optimizer.tables import NOWHERE, Floats

_TRIED = 60
_PAIN_USD_PER_H = 0.1
_SLIVER = 1e-7
_USELESS = 1e-9
_WORTHWHILE = 0.5


class _Stock:
    """Replicas, their free rated work and the shared limits, as classes take from them."""

    def __init__(self, ledger: Ledger) -> None:
        frame, used = ledger.frame, ledger.used
        self.frame: Frame = frame
        self.replicas = ledger.replicas.copy()
        self.spare = ledger.replicas * frame.rateable - ledger.busy
        self._pool = frame.pool_count - used.accelerators
        self._possible_kw = frame.budget_kw - used.possible_kw
        self._supply_kw = frame.stack.limit_kw.sum(axis=1) - used.drawn_kw
        self._caps = caps = frame.caps
        self._budget = ledger.most_charged_usd_per_h() - used.charged_usd_per_h
        self._capped = caps.bound_most - used.capped
        self._moves = caps.moves - ledger.moved
        self._dirtiest = frame.stack.kg_per_kwh.max(axis=1)
        self._kg = ledger.most_kg_per_h() - ledger.emits()

    def has_room(self, group: Positions) -> NDArray[np.bool_]:
        """Mask of the groups, of some, of which one replica more fits."""
        frame = self.frame
        fits: NDArray[np.bool_] = self.replicas[group] < frame.most[group]
        fits &= self._pool[frame.pool[group]] >= frame.accelerators[group] - _SLIVER
        fits &= self._possible_kw[frame.site[group]] >= frame.possible_kw[group] - _SLIVER
        return fits

    def affordable(self, cls: int, usd_per_h: float) -> float:
        """Part of a class that its tenant's budget has left, if all of it is charged so much."""
        rank = self._caps.tenant[cls]
        if rank == NOWHERE or usd_per_h <= 0:
            return 1.0
        return max(0.0, float(self._budget[rank]) * (1 - _SLIVER) / usd_per_h)

    def charge(self, cls: int, usd_per_h: float) -> None:
        """Count something in the budget of a class's tenant."""
        rank = self._caps.tenant[cls]
        if rank != NOWHERE:
            self._budget[rank] -= usd_per_h

    def _new_at_most(self, group: int) -> float:
        """Replicas that caps and moves let stand beside those there are."""
        rank = self._caps.bound[group]
        most = np.inf if rank == NOWHERE else float(self._capped[rank])
        runs = max(0.0, float(self.frame.running[group] - self.replicas[group]))
        return min(most, runs + max(0.0, self._moves))

    def _stand(self, group: int, new: float) -> None:
        frame, pool, site = self.frame, self.frame.pool[group], self.frame.site[group]
        runs = max(0.0, float(frame.running[group] - self.replicas[group]))
        self._moves += min(new, runs) - max(0.0, new - runs)
        if self._caps.bound[group] != NOWHERE:
            self._capped[self._caps.bound[group]] -= new
        self.replicas[group] += new
        self._pool[pool] -= new * frame.accelerators[group]
        self._possible_kw[site] -= new * frame.possible_kw[group]
        self._draw(int(site), new * float(frame.idle_kw[group]))

    def _draw(self, site: int, drawn_kw: float) -> None:
        self._supply_kw[site] -= drawn_kw
        self._kg -= drawn_kw * float(self._dirtiest[site])

    def _left_kw(self, site: int) -> float:
        """What a site may draw more, all of it from its dirtiest supply."""
        clean = self._kg / max(float(self._dirtiest[site]), 1e-12)
        return min(float(self._supply_kw[site]), clean)

    def take(self, group: int, busy: float, wanted: float) -> float:
        """Part of a class taken by a group, up to `wanted`; `busy` replicas is the whole class."""
        frame, site = self.frame, int(self.frame.site[group])
        per_replica = float(frame.rateable[group])
        lacks = max(0.0, wanted * busy - float(self.spare[group]))
        new = np.ceil(lacks / per_replica - 1e-9)
        each_kw = float(frame.idle_kw[group] + frame.busy_kw[group] * per_replica)
        room = (
            (float(frame.most[group]) - self.replicas[group]),
            self._pool[frame.pool[group]] / float(frame.accelerators[group]),
            self._possible_kw[site] / max(float(frame.possible_kw[group]), 1e-12),
            (self._left_kw(site) - wanted * busy * float(frame.busy_kw[group]))
            / max(each_kw, 1e-12),
            self._new_at_most(group),
        )
        new = max(0.0, min(float(new), float(np.floor(min(room) + 1e-9))))
        self._stand(group, new)
        self.spare[group] += new * per_replica
        supplied = max(0.0, self._left_kw(site) / max(float(frame.busy_kw[group]), 1e-12))
        done = min(wanted * busy, float(self.spare[group]) * (1 - _SLIVER), float(supplied))
        done = max(0.0, done)
        self.spare[group] -= done
        self._draw(site, done * float(frame.busy_kw[group]))
        return min(wanted, done / max(busy, _USELESS))

    def opens(self, group: int) -> bool:
        """Whether there was room for one replica more of a group; it stands now."""
        frame, pool, site = self.frame, self.frame.pool[group], self.frame.site[group]
        fits = (
            self.replicas[group] + 1 <= frame.most[group]
            and self._pool[pool] >= frame.accelerators[group] - 1e-9
            and self._possible_kw[site] >= frame.possible_kw[group] - 1e-9
            and self._left_kw(int(site)) >= frame.idle_kw[group]
            and self._new_at_most(group) >= 1
        )
        if fits:
            self._stand(group, 1.0)
        return bool(fits)


def fill(ledger: Ledger, prices: PriceList, *, worth: NDArray[np.bool_]) -> None:
    """Serve what a ledger leaves unserved as far as there is room."""
    frame = ledger.frame
    stock = _Stock(ledger)
    left = np.flatnonzero(ledger.shed_part > UNPLACED)
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
    mine = _Mix(stock.frame, arcs)
    charged = stock.frame.caps.charged_usd_per_h(
        arcs.group, busy=arcs.busy, network_usd_per_h=arcs.network_usd_per_h
    )
    # a sliver of what the class asks for is not worth a try: there are thousands
    has_spare = stock.spare[arcs.group] > np.maximum(_SLIVER, _WORTHWHILE * wanted * arcs.busy)
    has_room = has_spare | stock.has_room(arcs.group)
    usable = np.flatnonzero((arcs.busy > _USELESS) & has_room & mine.helps)
    group = arcs.group[usable]
    order = usable[np.lexsort((group, price[usable], ~worth[group], ~has_spare[usable]))]
    for at in order[:_TRIED].tolist():
        if wanted <= _SLIVER:
            break
        cls = int(arcs.classes[0])
        most = min(wanted, stock.affordable(cls, float(charged[at])), mine.left(at))
        if most > _SLIVER:
            part[at] = stock.take(int(arcs.group[at]), float(arcs.busy[at]), most)
        stock.charge(cls, float(charged[at]) * part[at])
        mine.given(at, part[at])
        wanted -= part[at]
    return part


class _Mix:
    """What one class asks of its mix, kept by rule of thumb: no arc above a mean, no site or zone
    with more than its part of the whole class.
    """

    def __init__(self, frame: Frame, arcs: ComponentArcs) -> None:
        cls = arcs.classes[arcs.row]
        self.helps = np.ones(arcs.count, dtype=np.bool_)
        for which, above in excess(frame, cls, arcs.group):
            self.helps[which[above > 0]] = False
        self._places = []
        for wanted, place_of, count in spreads(frame):
            k = int(wanted[arcs.classes[0]])
            if k > 1:
                place = place_of[frame.site[arcs.group]]
                self._places.append((place, np.full(count, 1.0 / k)))

    def left(self, at: int) -> float:
        """Part of the class that an arc may still get."""
        return min([1.0, *(float(left[place[at]]) for place, left in self._places)])

    def given(self, at: int, part: float) -> None:
        """An arc got a part."""
        for place, left in self._places:
            left[place[at]] -= part
