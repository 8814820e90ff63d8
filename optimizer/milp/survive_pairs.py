"""Where protected traffic may go on the replicas of one plan, as arrays, worked out once.

Facts only: pairs of a class and a placed group with what a basis point of the class uses of each
limit there, and what the plan leaves of the limits. Positions follow sorted ids. Who moves after
a loss is decided in `survive_local`; what a class may use is `survive_plan`'s word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.costs import shed_price_usd_per_h
from optimizer.plan import Plan
from optimizer.reach import Reach
from optimizer.survive import RowKey
from optimizer.survive_plan import Survivors

Floats = NDArray[np.float64]
Positions = NDArray[np.intp]
Flags = NDArray[np.bool_]


_PUSHING_PART = 1e-3
"""What traffic that gives way costs, as part of the exposure it makes room for: less than any."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """Pairs that may carry traffic. `row` is the class, ascending, `group` the placed group, `held`
    the basis points the plan puts there, `busy` the replicas one basis point keeps busy.
    """

    row: Positions
    group: Positions
    held: Floats
    busy: Floats

    def only(self, chosen: Positions) -> Pairs:
        """The pairs at some positions, in that order."""
        return Pairs(
            row=self.row[chosen],
            group=self.group[chosen],
            held=self.held[chosen],
            busy=self.busy[chosen],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Uses:
    """What pairs use of limits: `each` of limit `key` per basis point of the pair at `pair`."""

    pair: Positions
    key: Positions
    each: Floats


def joined(first: Pairs, then: Pairs) -> Pairs:
    """The pairs of both, one after the other."""
    return Pairs(
        row=np.concatenate((first.row, then.row)),
        group=np.concatenate((first.group, then.group)),
        held=np.concatenate((first.held, then.held)),
        busy=np.concatenate((first.busy, then.busy)),
    )


def spans(start: Positions, counts: Positions) -> Positions:
    """Positions start[i], start[i] + 1, ... , counts[i] of them, for each i in turn."""
    before = np.cumsum(counts) - counts
    found: Positions = np.arange(int(counts.sum())) + np.repeat(start - before, counts)
    return found


class Ground:
    """What the losses of one plan have in common.

    `price` is what exposing a basis point of each class costs, 1 for the cheapest. Of each limit:
    `whole`, all there is; `room`, what protected traffic leaves of it; `others`, what other traffic
    keeps busy and may give up at `pushing` per unit (elsewhere it gives way for nothing).
    """

    def __init__(self, survivors: Survivors, plan: Plan) -> None:
        reach, self.survivors = survivors.reach, survivors
        self.class_ids = tuple(sorted(survivors.classes))
        self._class_at = {class_id: at for at, class_id in enumerate(self.class_ids)}
        self._placed = placed = survivors.placed
        keys = placed.keys
        self.limits = len(keys)
        self.price = _scaled(np.array([shed_price_usd_per_h(reach, c) for c in self.class_ids]))
        self.wanted = np.array([float(survivors.wanted(c)) for c in self.class_ids])
        self.whole, self.room = np.array(placed.limits), np.array(survivors.spare)
        self.is_link = np.array([key[0] == "link_bandwidth" for key in keys], dtype=np.bool_)
        self.is_busy = np.array([key[0] == "throughput" for key in keys], dtype=np.bool_)
        self._site_of = np.array(placed.site_ids)
        self._busy_key = np.array(placed.busy_key, dtype=np.intp)
        self._supply_key = np.array(placed.supply_key, dtype=np.intp)
        self._busy_w = np.array(placed.busy_w)
        self.pairs = self.pairs_of(reach, self.class_ids)
        self._first = self._first_of(self.pairs.row)
        gives = _cheapest_others(survivors, plan)
        self.pushing = np.array([gives.get(key, 0.0) for key in keys])
        gives_way = np.array([key in gives for key in keys], dtype=np.bool_)
        self.others = np.where(gives_way, survivors.others, 0.0)
        dearest = self.pushing.max(initial=0.0)
        if dearest > 0:  # else nobody gives way: there is nothing to bring down
            self.pushing *= self._least_spared() / dearest
        held = self.pairs.only(np.flatnonzero(self.pairs.held > 0))
        uses = self.all_uses(reach, held)
        self._planned, self._planned_row = uses, held.row[uses.pair]
        self._planned_use = uses.each * held.held[uses.pair]
        self._planned_first = self._first_of(self._planned_row)
        self._holders = self._who_holds()

    def positions(self, class_ids: Sequence[str]) -> Positions:
        """Positions of some classes, in order of id as these must be."""
        return np.array([self._class_at[c] for c in class_ids], dtype=np.intp)

    def groups_at(self, site_id: str) -> Flags:
        """Which placed groups stand at a site."""
        return np.asarray(self._site_of == site_id, dtype=np.bool_)

    def pairs_of(self, left: Reach, class_ids: Sequence[str]) -> Pairs:
        """The pairs of some classes (in order of id), entering where they enter in `left`."""
        survivors = self.survivors
        options = [survivors.options(left, class_id) for class_id in class_ids]
        held = [
            survivors.held[class_id].get(group, 0)
            for class_id, one in zip(class_ids, options, strict=True)
            for group in one.at
        ]
        counts = [len(one.at) for one in options]
        return Pairs(
            row=np.repeat(self.positions(class_ids), counts),
            group=np.concatenate([_NO_GROUP, *(one.group for one in options)]),
            held=np.array(held, dtype=np.float64),
            busy=np.concatenate([np.zeros(0), *(one.busy for one in options)]),
        )

    def pairs_at(self, rows: Positions, *, closed: Flags) -> Pairs:
        """The pairs of classes, positions ascending, that enter as planned, without some groups."""
        first = self._first[rows]
        at = spans(first, self._first[rows + 1] - first)
        return self.pairs.only(at[~closed[self.pairs.group[at]]])

    def held_at(self, rows: Positions) -> Floats:
        """What the planned traffic of some classes uses of every limit."""
        first = self._planned_first[rows]
        at = spans(first, self._planned_first[rows + 1] - first)
        return self._sums(self._planned.key[at], self._planned_use[at])

    def used(self, left: Reach, pairs: Pairs, basis_points: Floats, *, looked_at: Flags) -> Floats:
        """What so many basis points on each pair, entering as in `left`, use of the limits looked
        at.
        """
        flowing = np.flatnonzero(basis_points > 0)
        uses = self.uses(left, pairs.only(flowing), looked_at=looked_at)
        return self._sums(uses.key, uses.each * basis_points[flowing][uses.pair])

    def _sums(self, keys: Positions, each: Floats) -> Floats:
        used: Floats = np.bincount(keys, each, self.limits).astype(np.float64)
        return used

    def all_uses(self, left: Reach, pairs: Pairs) -> Uses:
        """Everything pairs use, links too, which takes a while: for few pairs."""
        found = [
            (at, key, each)
            for at, (row, group) in enumerate(
                zip(pairs.row.tolist(), pairs.group.tolist(), strict=True)
            )
            for key, each in self.survivors.uses(left, self.class_ids[row], group)
        ]
        return Uses(
            pair=np.array([at for at, _, _ in found], dtype=np.intp),
            key=np.array([key for _, key, _ in found], dtype=np.intp),
            each=np.array([each for _, _, each in found], dtype=np.float64),
        )

    def uses(self, left: Reach, pairs: Pairs, *, looked_at: Flags) -> Uses:
        """What pairs use of the limits looked at; links are followed only where one of these is."""
        if (looked_at & self.is_link).any():
            uses = self.all_uses(left, pairs)
            kept = looked_at[uses.key]
            return Uses(pair=uses.pair[kept], key=uses.key[kept], each=uses.each[kept])
        own = np.flatnonzero(looked_at[self._busy_key][pairs.group])
        shared = np.flatnonzero(looked_at[self._supply_key][pairs.group])
        at, drawing = pairs.group[own], pairs.group[shared]
        return Uses(
            pair=np.concatenate((own, shared)),
            key=np.concatenate((self._busy_key[at], self._supply_key[drawing])),
            each=np.concatenate((pairs.busy[own], pairs.busy[shared] * self._busy_w[drawing])),
        )

    def holders(self, keys: Positions) -> Positions:
        """Classes whose planned traffic uses any of some limits, ascending."""
        start, rows = self._holders
        return np.unique(rows[spans(start[keys], start[keys + 1] - start[keys])])

    def _least_spared(self) -> float:
        """A price of a busy replica well below what it spares any class from being exposed."""
        spared = self.price[self.pairs.row] / np.maximum(self.pairs.busy, 1e-300)
        return _PUSHING_PART * float(spared.min()) if len(spared) else 0.0

    def _who_holds(self) -> tuple[Positions, Positions]:
        keys = self._planned.key
        order = np.argsort(keys, kind="stable")
        start = np.searchsorted(keys[order], np.arange(self.limits + 1))
        return start, self._planned_row[order]

    def _first_of(self, rows: Positions) -> Positions:
        """Where each class begins among ascending rows, and where the last ends."""
        return np.searchsorted(rows, np.arange(len(self.class_ids) + 1))


_NO_GROUP = np.zeros(0, dtype=np.intp)


def _scaled(prices: Floats) -> Floats:
    """Prices with 1 for the least above nothing: a solver's tolerances then hide none of them."""
    least = prices[prices > 0].min(initial=np.inf)
    return prices / least if least < np.inf else prices


def _cheapest_others(survivors: Survivors, plan: Plan) -> dict[RowKey, float]:
    """Least shed price (USD/h) of a busy replica that other classes keep busy, by group."""
    reach, prices = survivors.reach, dict[RowKey, float]()
    for share in plan.shares:
        one, key = reach.classes[share.class_id], ("throughput", share.group_id)
        if share.class_id not in survivors.classes and reach.rates[share.class_id] > 0:
            placed = survivors.placed
            group = placed.groups[placed.group_at[share.group_id]]
            busy = reach.rates[share.class_id] * reach.replica_seconds(one, group)
            price = shed_price_usd_per_h(reach, share.class_id) / busy
            prices[key] = min(prices.get(key, price), price)
    return prices
