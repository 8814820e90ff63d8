"""Rows that every whole point keeps and the relaxation breaks: rounded surrogates of some classes.

For classes K, weights a[d] >= 0 and whole replicas n, demand says
    sum_{d in K} a[d] * (sum_r x[d,r] + shed[d]) == sum_{d in K} a[d] * rate[d].
What a group r gives to K is at most ``most given per replica`` * n[r] (throughput), and of each
class at most rate[d] * n[r]. With one of the two put for each group, demand becomes a covering row
in n and what is left of x and shed; mixed-integer rounding of it, after counting some n from their
most down, gives the cut. Source: mixed-integer rounding after Marchand and Wolsey, Operations
Research 49 (2001); variable bounds put for flows as in flow cover inequalities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from optimizer.milp.arrays import Matrix
from optimizer.milp.whole.matrix import Mask, NewRows, Places, spans
from optimizer.tables import Floats

_TIGHT = 1e-6
_BROKEN = 1e-4
_PART = (0.01, 0.99)
_SLACK_PARTS = (1e-6, 0.1)
_NEAR_MOST = (1 - 1e-6, 0.5, 0.2)
_KEPT = 40
_SETS = 600
_PARALLEL = 0.95
_ALIKE = 0.7
_SAFETY = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class _Point:
    """A relaxation's point, by arc of the matrix and by placeable group."""

    flow: Floats
    shed: Floats
    n: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class _Cut:
    """``sum on_n * n - price * (flow of loose arcs and shed, weighted) <= limit``."""

    depth: float
    on_n: Floats
    price: float
    limit: float
    classes: Mask
    by_group: Mask
    tight: Places


class Separator:
    """Looks for broken cuts of one matrix."""

    def __init__(self, matrix: Matrix, *, upper: Floats) -> None:
        """`upper` holds the columns' tightened bounds: what may be shed, the most replicas."""
        p = matrix.horizon[0]
        classes, groups = p.tables.classes, p.tables.groups
        self._columns = {name: p.column(name).astype(np.intp) for name in ("x", "n", "shed")}
        self._cls, self._group = p.arcs.cls.astype(np.intp), p.local[p.arcs.group].astype(np.intp)
        self._first = np.searchsorted(self._cls, np.arange(classes.count + 1))
        self._rate = classes.rate_rps
        self._count = p.groups
        busy = p.arcs.replica_seconds
        arcs = np.maximum(1, np.bincount(self._cls, minlength=classes.count))
        self._weight = np.bincount(self._cls, busy, classes.count) / arcs
        self._weight /= max(float(self._weight.max(initial=0.0)), 1e-300)
        ceiling = p.tables.problem.plan_policy.utilisation_ceiling
        usable = ceiling * groups.available[p.placeable.group]
        self._given = self._weight[self._cls] / np.maximum(busy, 1e-300) * usable[self._group]
        self._most = upper[self._columns["n"]]
        self._may_shed = upper[self._columns["shed"]] > 0

    def broken(self, values: Floats) -> NewRows | None:
        """The deepest cuts a point breaks, unlike one another; None if it breaks none."""
        columns = self._columns
        point = _Point(
            flow=values[columns["x"]], shed=values[columns["shed"]], n=values[columns["n"]]
        )
        used = np.flatnonzero(point.flow > _TIGHT * self._rate[self._cls])
        found: list[_Cut] = []
        for classes in self._class_sets(point, used):
            found += self._of_classes(point, used, classes)
        found.sort(key=lambda cut: -cut.depth)
        kept: list[_Cut] = []
        for cut in found:
            if len(kept) < _KEPT and all(_unlike(cut, other) for other in kept):
                kept.append(cut)
        return self._rows(kept) if kept else None

    def _arcs_of(self, classes: Mask) -> Places:
        at = np.flatnonzero(classes)
        return spans(self._first[at], self._first[at + 1] - self._first[at])

    def _class_sets(self, point: _Point, used: Places) -> list[Mask]:
        """Classes that a group serves, then those of two groups with classes in common."""
        serves = np.zeros((self._count, len(self._rate)), dtype=np.bool_)
        serves[self._group[used], self._cls[used]] = True
        part = np.abs(point.n - np.round(point.n))
        stands = np.flatnonzero(serves.any(axis=1))
        stands = stands[np.argsort(-part[stands], kind="stable")]
        sets = [serves[at] for at in stands[:_SETS]]
        common = serves[stands].astype(np.float32) @ serves[stands].astype(np.float32).T
        first, second = np.nonzero(np.triu(common, k=1))
        for a, b in zip(stands[first], stands[second], strict=True):
            if len(sets) >= _SETS:
                break
            sets.append(serves[a] | serves[b])
        return sets

    def _of_classes(self, point: _Point, used: Places, classes: Mask) -> list[_Cut]:
        """Cuts from the demand of some classes."""
        worth = self._weight * self._rate
        asked = float(worth[classes].sum())
        if asked <= 0:
            return []
        arcs = used[classes[self._cls[used]]]
        group, cls = self._group[arcs], self._cls[arcs]
        full = point.flow[arcs] >= (self._rate[cls] * point.n[group]) * (1 - _TIGHT)
        carried = self._weight[cls] * point.flow[arcs]
        by_class = np.bincount(group[full], worth[cls[full]], self._count)
        loose = np.bincount(group[~full], carried[~full], self._count)
        total = np.bincount(group, carried, self._count)
        given = np.zeros(self._count)
        mine = self._arcs_of(classes)
        np.maximum.at(given, self._group[mine], self._given[mine])
        shed = float((self._weight * point.shed)[classes & self._may_shed].sum())
        found = []
        for part in _SLACK_PARTS:
            by_group = (given * point.n - total <= part * given) & (point.n > _TIGHT)
            by_group |= by_class >= given
            left = float(loose[~by_group].sum()) + shed
            size = np.where(by_group, given, by_class)
            for cut in self._rounded(point, size, asked=asked, left=left):
                found.append(
                    _Cut(
                        depth=cut[0],
                        on_n=cut[1],
                        price=cut[2],
                        limit=cut[3],
                        classes=classes,
                        by_group=by_group,
                        tight=arcs[full],
                    )
                )
        return found

    def _rounded(
        self, point: _Point, size: Floats, *, asked: float, left: float
    ) -> list[tuple[float, Floats, float, float]]:
        """Roundings of ``sum size * n + left >= asked`` that the point breaks: how deep, the
        coefficients of n, that of what is left, the limit.
        """
        found = []
        part = np.abs(point.n - np.round(point.n))
        steps = np.unique(size[(part > _TIGHT) & (size > 0)])
        if len(steps) == 0:
            return []
        for near in _NEAR_MOST:
            turned = (point.n > near * self._most) & (size > 0) & (self._most > 0)
            here = np.where(turned, self._most - point.n, point.n)
            limit = (size[turned] @ self._most[turned] - asked) / steps
            over = limit - np.floor(limit)
            fine = (over > _PART[0]) & (over < _PART[1])
            step, low, over = steps[fine], np.floor(limit[fine]), over[fine]
            ratio = np.where(turned, size, -size)[None, :] / step[:, None]
            down = np.floor(ratio)
            on_n = down + np.maximum(0.0, ratio - down - over[:, None]) / (1 - over[:, None])
            price = 1.0 / (step * (1 - over))
            broken = on_n @ here - price * left - low
            for k in np.flatnonzero(broken > _BROKEN):
                signed = np.where(turned, -on_n[k], on_n[k])
                at_most = float(low[k] - on_n[k][turned] @ self._most[turned])
                depth = float(broken[k] / np.sqrt(signed @ signed + 1e-12))
                found.append((depth, signed, float(price[k]), at_most))
        return found

    def _rows(self, cuts: list[_Cut]) -> NewRows:
        columns = self._columns
        index, value, length = [], [], []
        for cut in cuts:
            n = np.flatnonzero(np.abs(cut.on_n) > _SAFETY)
            arcs = self._arcs_of(cut.classes)
            arcs = np.setdiff1d(arcs[~cut.by_group[self._group[arcs]]], cut.tight)
            shed = np.flatnonzero(cut.classes & self._may_shed)
            index += [columns["n"][n], columns["x"][arcs], columns["shed"][shed]]
            value += [
                cut.on_n[n],
                -cut.price * self._weight[self._cls[arcs]],
                -cut.price * self._weight[shed],
            ]
            length.append(len(n) + len(arcs) + len(shed))
        return NewRows(
            length=np.array(length, dtype=np.intp),
            index=np.concatenate(index),
            value=np.concatenate(value),
            upper=np.array([cut.limit + _SAFETY * (1 + abs(cut.limit)) for cut in cuts]),
        )


def _unlike(one: _Cut, other: _Cut) -> bool:
    """Whether two cuts say different things: of other replicas, or of other classes."""
    lengths = np.sqrt((one.on_n @ one.on_n) * (other.on_n @ other.on_n))
    if abs(one.on_n @ other.on_n) < _PARALLEL * lengths:
        return True
    both, either = one.classes & other.classes, one.classes | other.classes
    return bool(both.sum() < _ALIKE * either.sum())
