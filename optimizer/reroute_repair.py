"""A known answer to a loss, mended where fewer replicas run than it counts on.

Decides in milliseconds and without a solver: who holds a group that is too full now makes room,
whoever loses least at the answer's prices, and goes where it costs least. That may fill another
group too much, whose holders then make room in turn; what nobody can take is shed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from math import ceil, inf

import numpy as np

from optimizer.reroute_fill import Fill
from optimizer.reroute_standing import Positions
from optimizer.reroute_work import spread
from optimizer.tables import Floats

_STEPS_PER_GROUP = 4
"""So often, for each group that is too full, somebody makes room; then what has no room anywhere is
shed."""

_DEARER_PART = 0.3
"""How much more than it just cost the next has to pay for room at a group, as part of the price of
shedding it: lest two push each other out in turn for ever."""

_LEAST_BUSY = 1e-12
"""Classes that keep nothing busy count as if they kept so much of a replica."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Choices:
    """Where a class could go: groups, replicas the whole class keeps busy there, its price there
    without the group's own.
    """

    group: Positions
    busy: Floats
    price: Floats


class Repair:
    """One answer being mended; `prices` are those of the limits after the loss."""

    def __init__(self, fill: Fill, *, prices: Floats) -> None:
        self.fill, self.standing = fill, fill.standing
        self._prices = prices
        self._group_prices: Floats = prices[: self.standing.groups].copy()
        self._group_prices[self.standing.site_of == fill.lost] = inf
        self._choices: dict[int, _Choices] = {}
        self._came: dict[int, list[int]] = {}
        self._moved: set[int] = set()
        self._closed: set[int] = set()
        for row, shares in fill.shares.items():
            planned = self.standing.held_at[row]
            for group in shares:
                if group not in planned:
                    self._came.setdefault(group, []).append(row)

    def mend(self, replicas: Mapping[int, float]) -> list[int]:
        """Let so many replicas run at some groups; positions of the classes that this moved."""
        fill = self.fill
        fill.run_fewer(replicas)
        self._closed = {group for group, left in replicas.items() if left == 0}
        self._group_prices[sorted(self._closed)] = inf
        waiting = [group for group in sorted(replicas) if self._is_over(group)]
        for _ in range(_STEPS_PER_GROUP * len(waiting)):
            if not waiting:
                break
            group = waiting[0]
            pushed = self._make_room(group)
            if not self._is_over(group):
                waiting.pop(0)
            waiting += [one for one in pushed if one not in waiting and self._is_over(one)]
        for group in waiting:
            self._clear(group)
        for row in sorted(self._moved):
            spread(fill, row, prices=self._prices)
        return sorted(self._moved)

    def _is_over(self, group: int) -> bool:
        """Whether a group is too full; rounding leaves nothing where no replica runs."""
        if group in self._closed:
            return next(self._holders(group), None) is not None
        return self.fill.over(group) > 0

    def _holders(self, group: int) -> Iterator[int]:
        """Classes with traffic at a group."""
        for row in chain(self.standing.holders[group], self._came.get(group, ())):
            if self.fill.has(row).get(group, 0) > 0:
                yield row

    def _make_room(self, group: int) -> list[int]:
        """Let the holder that loses least per busy replica go; the group it goes to."""
        best: tuple[float, int, int] | None = None
        for row in self._holders(group):
            choices = self._choices_of(row)
            cost, at = self._cheapest(row, leaving=group)
            here = int(np.searchsorted(choices.group, group))
            lost = (cost - float(choices.price[here])) / float(choices.busy[here])
            if best is None or (lost, row) < best[:2]:
                best = (lost, row, at)
        if best is None:
            return []
        lost, row, at = best
        dearer = lost + _DEARER_PART * float(self.standing.shed_usd_per_h[row]) / self._busy_at(
            row, group
        )
        self._group_prices[group] = max(float(self._group_prices[group]), dearer)
        leaving = self._leave(row, group)
        pushed = []
        while leaving > 0 and at >= 0:
            pushed.append(int(self._choices[row].group[at]))
            leaving -= self._come(row, at, leaving)
            at = self._cheapest(row, leaving=group)[1]
        return pushed

    def _cheapest(self, row: int, *, leaving: int) -> tuple[float, int]:
        """What it costs a class to be elsewhere (USD/h of the whole class) and which of its choices
        that is; -1 where being shed costs less.
        """
        choices = self._choices_of(row)
        cost = choices.price + choices.busy * self._group_prices[choices.group]
        cost[choices.group == leaving] = inf
        at = int(cost.argmin()) if len(cost) else -1
        shed = float(self.standing.guard_usd_per_h[row])
        return (shed, -1) if at < 0 or cost[at] >= shed else (float(cost[at]), at)

    def _leave(self, row: int, group: int) -> int:
        """Take from a class what is too much at a group; basis points."""
        fill = self.fill
        fill.take_up(row)
        self._moved.add(row)
        each = next(each for key, each in fill.each_bp(row, group) if key == group)
        leaving = fill.shares[row][group]
        if group not in self._closed:
            leaving = min(leaving, ceil(fill.over(group) / each))
        fill.put(row, group, -leaving)
        return leaving

    def _come(self, row: int, at: int, basis_points: int) -> int:
        """Put what a class lost to another group, as far as power and links allow; how much."""
        choices = self._choices[row]
        group = int(choices.group[at])
        part = min(basis_points, self.fill.fits(row, group, beside=group))
        if part < basis_points:
            choices.price[at] = inf
        if part > 0:
            came = self._came.setdefault(group, [])
            if group not in self.standing.held_at[row] and row not in came:
                came.append(row)
            self.fill.put(row, group, part)
        return part

    def _clear(self, group: int) -> None:
        """Take from a group what is too much, the cheapest to shed first, and place what fits."""
        guard = self.standing.guard_usd_per_h
        held = [
            (float(guard[row] / self._busy_at(row, group)), row) for row in self._holders(group)
        ]
        for _, row in sorted(held):
            if not self._is_over(group):
                return
            self._place(row, self._leave(row, group))

    def _place(self, row: int, basis_points: int) -> None:
        choices = self._choices_of(row)
        for at in np.lexsort((choices.group, choices.price)).tolist():
            group = int(choices.group[at])
            part = min(basis_points, self.fill.fits(row, group))
            if part > 0:
                basis_points -= part
                self._come(row, at, part)

    def _busy_at(self, row: int, group: int) -> float:
        choices = self._choices_of(row)
        return float(choices.busy[int(np.searchsorted(choices.group, group))])

    def _choices_of(self, row: int) -> _Choices:
        found = self._choices.get(row)
        if found is None:
            s = self.standing
            pairs = s.pairs_of(row, elsewhere=self.fill.enters_elsewhere(row))
            kw_price = self._prices[s.groups + s.site_of[pairs.group]]
            price = pairs.usd_per_h + pairs.busy * s.busy_kw[pairs.group] * kw_price
            busy = np.maximum(pairs.busy, _LEAST_BUSY)
            found = _Choices(group=pairs.group, busy=busy, price=price)
            self._choices[row] = found
        return found
