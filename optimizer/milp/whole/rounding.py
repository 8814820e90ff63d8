"""Rows that only whole columns keep: what some replicas must do together, rounded up.

Decides which sums of rows are rounded: for a few groups and the classes they nearly serve alone,
the sum of their throughput rows says how many replicas that takes.

For groups R, classes D of weight w (work), t the part of a class that R does not serve:

``sum_R a_r n_r + sum_D w_d t_d >= sum_D w_d``, a_r = min(throughput, what D could ask of r)

Divided by any step and rounded (mixed-integer rounding, Nemhauser and Wolsey 1990), columns near
their most counted down from it. Of equal throughputs it is the residual capacity inequality of
Leung and Magnanti (1989), otherwise near the flow covers that Aardal, Pochet and Wolsey (1995) have
for facility location.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from optimizer.milp.whole.groups import Groups
from optimizer.milp.whole.matrix import NewRow, Places
from optimizer.tables import Floats

INF = float("inf")

_GROUPS = 8
"""Most groups rounded together: beyond, rounding is a small part of what they do."""

_LEFT_OUT = (1e-6, 0.15, 0.4, 0.7)
"""Classes are taken in of which others serve no more than such a part."""

_COUNTED_DOWN = (0.5, 0.99, INF)
"""Columns beyond such a part of their most are counted from it."""

_FEWEST = 0.02
"""Least part of a step that is rounded up: below it figures get large."""

_BROKEN = 1e-4
_MOST_ROWS = 40
_TINY = 1e-9
_WHOLE = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """``each @ n + over x (what classes have elsewhere) >= least``, and by how much a point breaks
    it, in parts of the length of `each`.
    """

    each: Floats
    over: float
    least: float
    depth: float


class Rounding:
    """Rounded rows of the groups of one matrix."""

    def __init__(self, groups: Groups, upper: Floats) -> None:
        """`upper`: bounds by column that hold for every point looked for."""
        self._of = groups
        self._most = upper[groups.count]
        self._part = 1.0 / np.maximum(groups.most, _TINY)
        # work in a measure that all groups share: what a class takes where it takes least
        each = np.maximum(groups.busy * groups.most, _TINY)
        self._weight = np.full(groups.classes, INF)
        np.minimum.at(self._weight, groups.cls, each)
        self._weight[np.isinf(self._weight) | (groups.asked <= _TINY)] = 0.0
        # a group's throughput counts as much as its best class makes of it
        ratio = np.zeros(len(groups.count))
        np.maximum.at(ratio, groups.group, self._weight[groups.cls] / each)
        self._room = ratio * groups.throughput

    def broken(self, values: Floats) -> list[NewRow]:
        """Rows that values by column break, those broken most first."""
        counted = values[self._of.count]
        is_open = np.abs(counted - np.round(counted)) > _WHOLE
        if not is_open.any():
            return []
        part = values[self._of.flow] * self._part
        used = np.flatnonzero(part > _TINY)
        point = _Point(
            counted=counted,
            group=self._of.group[used],
            cls=self._of.cls[used],
            part=part[used],
        )
        found: dict[tuple[bytes, bytes], tuple[float, NewRow]] = {}
        for first in np.flatnonzero(is_open):
            for groups, classes, row in self._around(int(first), point):
                key = (np.sort(groups).tobytes(), classes.tobytes())
                if key not in found:
                    found[key] = (row.depth, self._made(groups, classes, row))
        best = sorted(found.values(), key=lambda one: -one[0])[:_MOST_ROWS]
        return [row for _, row in best]

    def _around(self, first: int, point: _Point) -> Iterator[tuple[Places, Places, _Row]]:
        """For one group, then with the group that shares most classes with those so far: the best
        row of each set, if the point breaks one.
        """
        inside = np.zeros(len(self._of.count), dtype=np.bool_)
        taken = [first]
        for _ in range(_GROUPS):
            inside[taken[-1]] = True
            ours = inside[point.group]
            served = np.zeros(self._of.classes)
            np.add.at(served, point.cls[ours], point.part[ours])
            elsewhere = np.maximum(0.0, 1.0 - served)
            groups = np.array(taken, dtype=np.intp)
            best = self._best(groups, served, elsewhere, point.counted[groups])
            if best is not None:
                yield (groups, *best)
            shared = (served > _TINY) & (elsewhere > _WHOLE)
            also = shared[point.cls] & ~ours
            if not also.any():
                return
            work = np.minimum(point.part, elsewhere[point.cls]) * self._weight[point.cls]
            joins = np.bincount(point.group[also], work[also], len(self._of.count))
            taken.append(int(np.argmax(joins)))

    def _best(
        self, groups: Places, served: Floats, elsewhere: Floats, counted: Floats
    ) -> tuple[Places, _Row] | None:
        best: tuple[Places, _Row] | None = None
        for most in _LEFT_OUT:
            classes = np.flatnonzero((served > _TINY) & (elsewhere <= most))
            if len(classes) == 0:
                continue
            weight = self._weight[classes]
            row = _rounded(
                np.minimum(self._room[groups], weight.sum()),
                counted,
                self._most[groups],
                least=float(weight.sum()),
                rest=float(weight @ elsewhere[classes]),
            )
            if row is not None and (best is None or row.depth > best[1].depth):
                best = (classes, row)
        return best

    def _made(self, groups: Places, classes: Places, row: _Row) -> NewRow:
        """The row by columns: what classes have elsewhere is what they do not have here."""
        there = np.zeros(self._of.classes, dtype=np.bool_)
        there[classes] = True
        at = np.concatenate([np.arange(self._of.start[g], self._of.start[g + 1]) for g in groups])
        at = at[there[self._of.cls[at]]]
        here = -row.over * self._weight[self._of.cls[at]] * self._part[at]
        return NewRow(
            index=np.concatenate([self._of.count[groups], self._of.flow[at]]),
            value=np.concatenate([row.each, here]),
            least=row.least - row.over * float(self._weight[classes].sum()),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Point:
    """Replicas by group; the groups, classes and parts of classes of the traffic there is."""

    counted: Floats
    group: Places
    cls: Places
    part: Floats


def _rounded(
    each: Floats, counted: Floats, most: Floats, *, least: float, rest: float
) -> _Row | None:
    """The row ``each @ n + rest >= least`` rounded by the step, and with the columns counted down,
    that a point breaks most; None where it breaks none. `rest` is what it has elsewhere.
    """
    best: _Row | None = None
    steps = np.unique(each[each > _TINY])
    for beyond in _COUNTED_DOWN:
        down = counted > beyond * most
        sign = np.where(down, -1.0, 1.0)
        need = least - float(each[down] @ most[down])
        count = np.where(down, most - counted, counted)
        times = need / steps
        part = times - np.floor(times + _TINY)
        fits = part > _FEWEST
        if not fits.any():
            continue
        step, part, ceil = steps[fits], part[fits], np.floor(times[fits] + _TINY) + 1
        ratio = sign * each / step[:, None]
        floor = np.floor(ratio + _TINY)
        rounded = floor + np.minimum(1.0, (ratio - floor) / part[:, None])
        over = 1.0 / (step * part)
        gap = ceil - rounded @ count - over * rest
        depth = gap / np.sqrt((rounded**2).sum(axis=1) + _TINY)
        at = int(np.argmax(depth))
        if depth[at] > max(_BROKEN, 0.0 if best is None else best.depth):
            best = _Row(
                each=sign * rounded[at],
                over=float(over[at]),
                least=float(ceil[at] - rounded[at][down] @ most[down]),
                depth=float(depth[at]),
            )
    return best
