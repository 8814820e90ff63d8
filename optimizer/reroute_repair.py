"""A known answer to a loss, mended where fewer replicas run than it counts on.

Decides in milliseconds and without a solver: at a group that is too full now, whoever loses least
by it goes where there is room, or where others can be shed for less; who is shed there first takes
what room there is elsewhere. Nothing is spread again. That is dearer than solving the flows anew,
the more so the more has changed: then a table for what runs is better.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heapify, heappop, heapreplace
from math import ceil, inf

import numpy as np

from optimizer.reroute_fill import Fill
from optimizer.reroute_pairs import Choices
from optimizer.reroute_standing import ROOM_PART
from optimizer.tables import NOWHERE, Floats

_LEAST_PRICE = 1e-9
"""Room at a full group costs at least so much: at no price there is room."""

_YIELDING = 3
"""Others make room in turn for those that move so many times over; then somebody is shed."""

_MOVES = 200
"""In one repair others make room only until so many classes have moved, by equal parts for each
group with fewer replicas: what there is time for."""


class Repair:
    """One answer being mended; `room` is what a busy replica more costs at each group before."""

    def __init__(self, fill: Fill, *, room: Floats) -> None:
        self.fill, self.standing = fill, fill.standing
        self._room = room.copy()
        self._moves, self._most_moves = 0, 0
        self._choices: dict[int, Choices] = {}
        self._refused: dict[int, set[int]] = {}
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
        self.fill.run_fewer(replicas)
        self._closed = {group for group, left in replicas.items() if left == 0}
        self._room[sorted(replicas)] = inf
        for done, group in enumerate(sorted(replicas)):
            self._most_moves = _MOVES * (done + 1) // len(replicas)
            self._make_room(group, yielding=_YIELDING)
        return sorted(self._moved)

    def _is_over(self, group: int) -> bool:
        """Whether a group may be too full: rounding leaves nothing where no replica runs."""
        return group in self._closed or self.fill.over(group) > 0

    def _holders(self, group: int) -> list[tuple[int, float, float]]:
        """Classes with traffic at a group, with what `Choices.place` says of it."""
        listed, held = self.fill.shares, self.standing.held_at
        found = [
            one for one in self.standing.tenants(group) if group in listed.get(one[0], held[one[0]])
        ]
        found += [
            (row, *self._choices_of(row).place[group][1:])
            for row in self._came.get(group, ())
            if group in listed[row]
        ]
        return found

    def _make_room(self, group: int, *, yielding: int) -> float:
        """Let holders go, the one that loses least per busy replica first: what the last lost.

        `yielding`: how many times over others make room for them in turn.
        """
        last = 0.0
        waiting = [(loses, row) for row, loses, _ in self._holders(group)]
        heapify(waiting)
        while waiting and self._is_over(group):
            row = waiting[0][1]
            lost = self._loses(row, group)
            if len(waiting) > 1 and lost > min(waiting[1:3])[0]:
                heapreplace(waiting, (lost, row))  # more than it seemed
                continue
            heappop(waiting)
            last = lost
            self._move(row, group, yielding=yielding)
        return last

    def _loses(self, row: int, group: int) -> float:
        """What a class loses by leaving a group (USD/h per busy replica there)."""
        choices = self._choices_of(row)
        at = choices.place[group][0]
        cost = self._cheapest(row, leaving=at)[0]
        return (cost - float(choices.price[at])) / float(choices.busy[at])

    def _move(self, row: int, group: int, *, yielding: int) -> None:
        """Move what is too much at a group to where it is cheapest, as far as others may yield."""
        choices, leaving = self._choices_of(row), self._leave(row, group)
        own = choices.place[group][0]
        self._moves += 1
        for _ in range(len(choices.group)):
            at = self._cheapest(row, leaving=own)[1] if leaving > 0 else -1
            if at < 0:
                return
            there, most = int(choices.group[at]), leaving
            if self._room[there] == 0.0:
                most = min(leaving, max(1, self.fill.fits(row, there)))
            part = self._come(row, there, most)
            leaving -= part
            if part == 0:
                self._refused.setdefault(row, set()).add(at)
            else:
                self._yield(there, to=row, yielding=yielding)

    def _yield(self, group: int, *, to: int, yielding: int) -> None:
        """Bring a group that somebody came to within what it has."""
        if self.fill.over(group) <= 0:
            if self.fill.free[group] <= ROOM_PART and self._room[group] == 0.0:
                self._room[group] = self._cheapest_to_shed(group)[0][0]
        elif yielding > 0 and self._moves < self._most_moves:
            self._room[group] = inf
            self._room[group] = max(_LEAST_PRICE, self._make_room(group, yielding=yielding - 1))
        else:
            self._give_way(group, to=to)

    def _cheapest(self, row: int, *, leaving: int) -> tuple[float, int]:
        """What it costs a class to be elsewhere (USD/h of the whole class) and which of its choices
        that is, other than `leaving`; -1 where being shed costs less.
        """
        choices = self._choices_of(row)
        cost = choices.price + choices.busy * self._room[choices.group]
        cost[leaving] = inf
        for at in self._refused.get(row, ()):
            cost[at] = inf
        at, shed = int(cost.argmin()), choices.shed_usd_per_h
        best = float(cost[at])
        return (shed, -1) if best >= shed else (best, at)

    def _cheapest_to_shed(self, group: int) -> list[tuple[float, int]]:
        """Classes with traffic at a group: USD/h per busy replica of shedding them, cheapest first;
        at last nobody, at any price.
        """
        every = sorted((worth, row) for row, _, worth in self._holders(group))
        return [*every, (inf, NOWHERE)]

    def _give_way(self, group: int, *, to: int) -> None:
        """Shed at a group what is too much, the cheapest first; they take what room is left."""
        for worth, row in self._cheapest_to_shed(group):
            self._room[group] = worth
            if row == NOWHERE or not self._is_over(group):
                return
            leaving = self._leave(row, group)
            if row != to:
                self._take_room(row, leaving)

    def _take_room(self, row: int, basis_points: int) -> None:
        """Place what a class lost where there is room, the cheapest first."""
        choices = self._choices_of(row)
        roomy = (self._room[choices.group] == 0.0).nonzero()[0]
        if not len(roomy):
            return
        for at in roomy[np.argsort(choices.price[roomy], kind="stable")].tolist():
            if basis_points <= 0:
                return
            group = int(choices.group[at])
            basis_points -= self._come(row, group, min(basis_points, self.fill.fits(row, group)))
            if self.fill.free[group] <= ROOM_PART:
                self._room[group] = self._cheapest_to_shed(group)[0][0]

    def _leave(self, row: int, group: int) -> int:
        """Take from a class what is too much at a group; basis points."""
        fill = self.fill
        fill.take_up(row)
        self._moved.add(row)
        leaving = fill.shares[row][group]
        if group not in self._closed:
            leaving = min(leaving, ceil(fill.over(group) / self._each(row, group)))
        fill.put(row, group, -leaving)
        return leaving

    def _come(self, row: int, group: int, basis_points: int) -> int:
        """Put what a class lost to another group, as far as power and links allow; how much."""
        part = min(basis_points, self.fill.fits(row, group, beside=group))
        if part > 0:
            came = self._came.setdefault(group, [])
            if group not in self.standing.held_at[row] and row not in came:
                came.append(row)
            self.fill.put(row, group, part)
        return part

    def _each(self, row: int, group: int) -> float:
        """Busy replicas per basis point of a class at a group that it overfills."""
        return next(each for key, each in self.fill.each_bp(row, group) if key == group)

    def _choices_of(self, row: int) -> Choices:
        found = self._choices.get(row)
        if found is None:
            found = self.standing.choices(row, elsewhere=self.fill.enters_elsewhere(row))
            self._choices[row] = found
        return found
