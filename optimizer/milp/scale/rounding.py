"""Rows that hold for whole replicas and for no parts of one, found where a relaxation breaks them.

Mixed-integer rounding (Nemhauser and Wolsey 1990) of three rows that hold anyway:

* fill: what some classes ask of one group, ``sum_d u_dr x_dr <= n_r`` with u the part of a
  replica's rated work that the whole class takes: ``n_r + sum_d u_dr (1 - x_dr) / f >= ceil(b)``,
  b the sum of u over those classes, f its part beyond a whole number.
* need: what some classes ask of all groups they reach, ``sum_r g_r n_r + sum_d w_d shed_d >=
  sum_d w_d``, g the most that one replica serves of them at weights w: divided by the g of one
  group and rounded.
* room: ``sum_r possible_kw_r n_r <= budget`` of a site, divided by what some accelerators draw and
  rounded: a budget for 5.7 of them holds 5.

Decides which of them to take: per group, set of classes and site the one broken most. Whose rows
these are, and what they are worth, is `master`'s and `block`'s question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.milp.scale.catalogue import ComponentArcs
from optimizer.milp.scale.frame import Frame, Positions, RoomPrices
from optimizer.tables import Floats

_WHOLE = 1e-9
_FRACTION = 0.01
"""Least part beyond a whole number that is rounded: smaller ones make rows of huge numbers."""
_STANDS = 1e-6
_BROKEN = 1e-2
_OVERFULL = 1e-3
"""Part of a site's room beyond which a cut is broken."""
_REFERENCES = 6
_MOST_NEEDED = 12.0
"""Replicas that a set of classes needs above which rounding up says little."""
_MULTIPLES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """Entry i puts `value[i]` before column `at[i]` of cut `cut[i]`."""

    cut: Positions
    at: Positions
    value: Floats

    def only(self, kept: NDArray[np.bool_]) -> Terms:
        """The terms of some cuts (a mask), numbered anew."""
        mine = kept[self.cut]
        rank = np.cumsum(kept) - 1
        return Terms(cut=rank[self.cut[mine]], at=self.at[mine], value=self.value[mine])


@dataclass(frozen=True, kw_only=True, slots=True)
class Fills:
    """``n[group] - sum value x[arc] >= lower``, one group each; what positions mean says whoever
    holds them.
    """

    group: Positions
    arcs: Terms
    lower: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """``sum value n + sum value shed >= lower``; groups and classes are the frame's, all groups
    that the classes reach. The classes of a cut are of one component; `group` is the one of the
    frame that each cut is rounded by.
    """

    replicas: Terms
    shed: Terms
    lower: Floats
    group: Positions

    def only(self, kept: NDArray[np.bool_]) -> Needs:
        """Some of the cuts."""
        return Needs(
            replicas=self.replicas.only(kept),
            shed=self.shed.only(kept),
            lower=self.lower[kept],
            group=self.group[kept],
        )

    def of(self, classes: Positions) -> NDArray[np.bool_]:
        """Mask of the cuts of a component with these classes."""
        mine = np.zeros(len(self.lower), dtype=np.bool_)
        mine[self.shed.cut[np.isin(self.shed.at, classes)]] = True
        return mine


@dataclass(frozen=True, kw_only=True, slots=True)
class Rooms:
    """``sum value n <= upper`` at a site each; groups are the frame's, all at the site. A cut is
    the site's budget divided by `unit_kw` and rounded.
    """

    site: Positions
    unit_kw: Floats
    replicas: Terms
    upper: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Cuts:
    """What one round found that concerns more than one group."""

    needs: Needs
    rooms: Rooms

    @property
    def sizes(self) -> tuple[int, int]:
        """How many needs, rooms."""
        return len(self.needs.lower), len(self.rooms.upper)


def needs_of(cuts: Sequence[Cuts]) -> Needs:
    """The needs of several rounds, one after the other."""
    return joined_needs([one.needs for one in cuts])


def no_terms() -> Terms:
    """None at all."""
    empty = np.zeros(0, dtype=np.intp)
    return Terms(cut=empty, at=empty, value=np.zeros(0))


def joined_needs(parts: Sequence[Needs]) -> Needs:
    """The cuts of several, one after the other."""
    counts = [len(one.lower) for one in parts]
    return Needs(
        replicas=_stacked([one.replicas for one in parts], counts),
        shed=_stacked([one.shed for one in parts], counts),
        lower=np.concatenate([np.zeros(0), *(one.lower for one in parts)]),
        group=np.concatenate([no_terms().at, *(one.group for one in parts)]),
    )


def rounded_up(values: Floats, bound: float) -> tuple[Floats, float]:
    """Coefficients and part f of ``sum values n + s >= bound`` rounded for whole n and s from 0 up:
    ``sum coefficient n + s / f >= ceil(bound)``.
    """
    f = bound - np.floor(bound)
    floor = np.floor(values + _WHOLE)
    return floor + np.minimum(1.0, np.maximum(0.0, values - floor) / f), f


def rounded_down(values: Floats, bound: float) -> Floats:
    """Coefficients of ``sum values n <= bound`` rounded for whole n: ``sum coefficient n <=
    floor(bound)``.
    """
    f = bound - np.floor(bound + _WHOLE)
    floor = np.floor(values + _WHOLE)
    beyond = np.maximum(0.0, values - floor - max(0.0, f))
    rounded: Floats = floor + beyond / (1.0 - max(0.0, f))
    return rounded


def fill_cuts(place: Positions, fill: Floats, part: Floats, replicas: Floats) -> Fills:
    """Cuts of a point: per arc its group's `place` in `replicas`, the part of a replica's rated
    work that all of its class takes (`fill`), and the part of the class it carries. Of each group
    the classes that it has most of, as many as make the cut broken most.
    """
    used = np.flatnonzero((part > _STANDS) & (fill > _STANDS))
    order = used[np.lexsort((used, -part[used], place[used]))]
    at = place[order]
    first = np.searchsorted(at, at)
    whole = _running(fill[order], first)
    away = _running((fill * np.maximum(0.0, 1.0 - part))[order], first)
    f = whole - np.floor(whole + _WHOLE)
    fits = (f > _FRACTION) & (f < 1 - _FRACTION)
    broken = np.full(len(order), -np.inf)
    broken[fits] = (np.floor(whole) + 1 - replicas[at] - away / np.where(fits, f, 1.0))[fits]
    most = np.full(len(replicas), _BROKEN)
    np.maximum.at(most, at, broken)
    best = np.flatnonzero(broken >= most[at])
    best = best[np.unique(at[best], return_index=True)[1]]
    size = best - first[best] + 1
    cut = np.repeat(np.arange(len(best)), size)
    member = np.arange(len(cut)) - np.repeat(np.cumsum(size) - size, size) + first[best][cut]
    arc = order[member]
    return Fills(
        group=at[best],
        arcs=Terms(cut=cut, at=arc, value=fill[arc] / f[best][cut]),
        lower=np.floor(whole[best]) + 1 - whole[best] / f[best],
    )


def need_cuts(frame: Frame, arcs: ComponentArcs, replicas: Floats, shed: Floats) -> Needs:
    """Cuts of a point over the arcs of one component: `replicas` of every group of the frame,
    parts `shed` of the component's classes. The sets of classes are each class alone, and with all
    that reach no other sites than it does.
    """
    stands = np.bincount(arcs.row, replicas[arcs.group], len(arcs.classes))
    arcs = arcs.only((frame.most[arcs.group] > 0) & (stands <= _MOST_NEEDED)[arcs.row])
    found = []
    for rows in _sets(frame, arcs):
        cut = _need(_asking(frame, arcs, rows), replicas=replicas, shed=shed[np.array(rows)])
        if cut is not None:
            found.append(cut)
    return joined_needs(found)


def room_cuts(frame: Frame, replicas: Floats) -> Rooms:
    """Cuts of a point, `replicas` of every group of the frame, at most one a site."""
    order = np.argsort(frame.site, kind="stable")
    ends = np.searchsorted(frame.site[order], np.arange(len(frame.budget_kw) + 1))
    found = []
    for site in range(len(frame.budget_kw)):
        group = order[ends[site] : ends[site + 1]]
        group = group[(frame.most[group] > 0) & (frame.possible_kw[group] > 0)]
        unit_kw = _tightest(frame, group, replicas[group], float(frame.budget_kw[site]))
        if unit_kw is not None:
            found.append((site, unit_kw))
    return rooms_by(frame, found)


def room_prices(frame: Frame, rooms: Sequence[Rooms], usd_per_h: Floats) -> RoomPrices:
    """What replicas and sites pay where each room of several rounds, one after the other, costs
    `usd_per_h`.
    """
    replica, site = np.zeros(frame.groups), np.zeros(len(frame.budget_kw))
    first = 0
    for one in rooms:
        paid = usd_per_h[first : first + len(one.upper)]
        first += len(paid)
        each = one.replicas.value * paid[one.replicas.cut]
        replica += np.bincount(one.replicas.at, each, frame.groups)
        site += np.bincount(one.site, one.upper * paid, len(site))
    return RoomPrices(replica=replica, site=site)


def rooms_by(frame: Frame, units: Sequence[tuple[int, float]]) -> Rooms:
    """The cuts of sites' budgets divided by units (kW)."""
    terms, upper = list[Terms](), list[float]()
    for at, (site, unit_kw) in enumerate(units):
        group = np.flatnonzero((frame.site == site) & (frame.most > 0) & (frame.possible_kw > 0))
        value, most = _room(frame.possible_kw[group], float(frame.budget_kw[site]), unit_kw)
        cut = np.full(len(group), at, dtype=np.intp)
        terms.append(Terms(cut=cut, at=group, value=value))
        upper.append(most)
    return Rooms(
        site=np.array([site for site, _ in units], dtype=np.intp),
        unit_kw=np.array([unit_kw for _, unit_kw in units]),
        replicas=_stacked(terms, [0] * len(terms)),
        upper=np.array(upper),
    )


def _running(value: Floats, first: Positions) -> Floats:
    """Sums from where each entry's lot begins up to the entry."""
    total = np.append(0.0, np.cumsum(value))
    found: Floats = total[1:] - total[first]
    return found


def _stacked(parts: Sequence[Terms], counts: Sequence[int]) -> Terms:
    """Terms one after the other, cuts numbered on by how many each has."""
    before = np.cumsum([0, *counts])
    none = no_terms()
    return Terms(
        cut=np.concatenate(
            [none.cut, *(p.cut + b for p, b in zip(parts, before[:-1], strict=True))]
        ).astype(np.intp),
        at=np.concatenate([none.at, *(p.at for p in parts)]).astype(np.intp),
        value=np.concatenate([none.value, *(p.value for p in parts)]),
    )


def _sets(frame: Frame, arcs: ComponentArcs) -> list[tuple[int, ...]]:
    reach = np.zeros((len(arcs.classes), len(frame.budget_kw)), dtype=np.float32)
    reach[arcs.row, frame.site[arcs.group]] = 1.0
    beyond = reach @ (1.0 - reach).T
    any_ = reach.any(axis=1)
    sets: dict[tuple[int, ...], None] = {}
    for row in np.flatnonzero(any_).tolist():
        sets[(row,)] = None
        sets[tuple(np.flatnonzero((beyond[:, row] == 0) & any_).tolist())] = None
    return list(sets)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asking:
    """Classes of a component (frame's positions) over their arcs: per arc the rank of its class,
    the place of its group in `group`, the replicas that the whole class keeps busy there.
    """

    frame: Frame
    classes: Positions
    group: Positions
    rank: Positions
    place: Positions
    busy: Floats

    def rounded_by(self, reference: int) -> tuple[Floats, Floats, float] | None:
        """Coefficients of replicas and of shed parts, and the bound, of the row divided by what one
        replica of the group at a place serves; None where that leaves nothing to round.
        """
        here = self.place == reference
        weight = np.full(len(self.classes), np.inf)
        np.minimum.at(weight, self.rank, self.busy)
        weight[self.rank[here]] = self.busy[here]
        serves = np.zeros(len(self.group))
        each = weight[self.rank] / np.maximum(self.busy, _WHOLE)
        np.maximum.at(serves, self.place, each)
        serves *= self.frame.rateable[self.group]
        bound = float(weight.sum() / serves[reference])
        f = bound - np.floor(bound + _WHOLE)
        if not _FRACTION < f < 1 - _FRACTION:
            return None
        value, f = rounded_up(serves / serves[reference], bound)
        return value, weight / (serves[reference] * f), float(np.ceil(bound))

    def need(self, reference: int, rounded: tuple[Floats, Floats, float]) -> Needs:
        """The cut that a rounded row is."""
        value, given_up, asked = rounded
        return Needs(
            replicas=Terms(cut=np.zeros_like(self.group), at=self.group, value=value),
            shed=Terms(cut=np.zeros_like(self.classes), at=self.classes, value=given_up),
            lower=np.array([asked]),
            group=self.group[[reference]],
        )


def _asking(frame: Frame, arcs: ComponentArcs, rows: Sequence[int]) -> _Asking:
    ends = np.append(arcs.start, arcs.count)
    some = np.concatenate([np.arange(ends[row], ends[row + 1]) for row in rows])
    rank = np.full(len(arcs.classes), -1)
    rank[np.array(rows)] = np.arange(len(rows))
    group, place = np.unique(arcs.group[some], return_inverse=True)
    return _Asking(
        frame=frame,
        classes=arcs.classes[np.array(rows)],
        group=group,
        rank=rank[arcs.row[some]],
        place=place,
        busy=arcs.busy[some],
    )


def need_by(frame: Frame, arcs: ComponentArcs, group: int) -> Needs | None:
    """The cut of all classes that have any of some arcs, rounded by one group; None where there is
    none.
    """
    arcs = arcs.only(frame.most[arcs.group] > 0)
    rows = np.unique(arcs.row).tolist()
    if not rows:
        return None
    asking = _asking(frame, arcs, rows)
    at = np.flatnonzero(asking.group == group)
    rounded = asking.rounded_by(int(at[0])) if len(at) else None
    return None if rounded is None else asking.need(int(at[0]), rounded)


def _need(asking: _Asking, *, replicas: Floats, shed: Floats) -> Needs | None:
    """The cut of some classes that is broken most, over the groups that stand in the point; `shed`
    is by class.
    """
    stands = replicas[asking.group]
    if stands.sum() > _MOST_NEEDED:
        return None
    by_size = np.lexsort((asking.group, -stands))[:_REFERENCES]
    best, most = None, _BROKEN
    for reference in by_size[stands[by_size] > _STANDS].tolist():
        rounded = asking.rounded_by(reference)
        if rounded is None:
            continue
        value, given_up, asked = rounded
        broken = (asked - float(value @ stands) - float(given_up @ shed)) / asked
        if broken > most:
            best, most = asking.need(reference, rounded), broken
    return best


def _tightest(frame: Frame, group: Positions, replicas: Floats, budget_kw: float) -> float | None:
    """What a budget is divided by for the room that replicas of its site break most."""
    each_kw = frame.possible_kw[group]
    best, most = None, _OVERFULL
    for one_kw in np.unique(each_kw / frame.accelerators[group]).tolist():
        for many in range(1, _MULTIPLES + 1):
            value, upper = _room(each_kw, budget_kw, one_kw / many)
            broken = float((value @ replicas - upper) / max(1.0, upper))
            if broken > most:
                best, most = one_kw / many, broken
    return best


def _room(each_kw: Floats, budget_kw: float, unit_kw: float) -> tuple[Floats, float]:
    bound = budget_kw / unit_kw
    return rounded_down(each_kw / unit_kw, bound), float(np.floor(bound + _WHOLE))
