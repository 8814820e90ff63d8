"""Groups as one matrix's rows say them, and what each site is worth by itself at given prices.

Knows a group by its row ``sum of busy x traffic <= throughput x whole column`` and a site by its
rows ``whole column of a group <= most x whole column``. At prices of all other rows the rest is
small: every replica takes what pays best within its throughput, no class more than it asks for, and
a site opens where that earns its price. Lagrangian relaxation of facility location as in
Cornuejols, Sridharan and Thizy (EJOR 50, 1991).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from optimizer.milp.whole.matrix import Mask, Places, Whole
from optimizer.tables import Floats

_TINY = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class Alone:
    """What sites come to at some prices, in USD/h. `each`: a replica of each group with what it
    takes. `opened`: each site open with every replica that pays (below 0: it opens). `takes`: flow
    columns whose traffic a replica takes where it pays to have it. `bound` is of every point.
    """

    bound: float
    each: Floats
    opened: Floats
    takes: Places


class Groups:
    """The groups of a matrix, their traffic columns by group and class, and their sites."""

    def __init__(self, whole: Whole) -> None:
        row = whole.row
        rows, self.count, self.throughput = _carriers(whole)
        groups, classes = len(rows), len(whole.balance)
        group_of, class_of = _places(whole, rows), _places(whole, whole.balance)
        flow = whole.flow[whole.index]
        carried, asked = flow & (group_of[row] >= 0), flow & (class_of[row] >= 0)
        group, cls = (np.full(whole.columns, -1, dtype=np.intp) for _ in range(2))
        group[whole.index[carried]] = group_of[row[carried]]
        cls[whole.index[asked]] = class_of[row[asked]]
        busy, unit = np.zeros(whole.columns), np.ones(whole.columns)
        busy[whole.index[carried]] = whole.value[carried]
        unit[whole.index[asked]] = whole.value[asked]
        self.asked = np.maximum(0.0, whole.row_upper[whole.balance])
        found = np.flatnonzero((group >= 0) & (cls >= 0) & (whole.lower == 0))
        self.flow = found[np.lexsort((cls[found], group[found]))]
        self.group, self.cls = group[self.flow], cls[self.flow]
        self.most = self.asked[self.cls] / unit[self.flow]
        self.busy = np.maximum(busy[self.flow], _TINY)
        self.start = np.searchsorted(self.group, np.arange(groups + 1))
        self.classes = classes
        openers, self.local = _openers(whole, self.count, rows)
        self.site_column, self.site = np.unique(openers[openers >= 0], return_inverse=True)
        self.opened = np.flatnonzero(openers >= 0)
        self._alone = np.flatnonzero(openers < 0)
        self.inside = np.zeros(whole.columns, dtype=np.bool_)
        for columns in (self.flow, self.count, self.site_column):
            self.inside[columns] = True

    def at(self, reduced: Floats, lower: Floats, upper: Floats) -> Alone:
        """Sites alone at `reduced` costs by column, those of rows outside sites alone, with whole
        columns within bounds. `bound` counts columns of sites only.
        """
        gain = np.maximum(0.0, -reduced[self.flow])
        order = np.lexsort((-gain / self.busy, self.group))
        group = self.group[order]
        work = np.where(gain[order] > 0, self.busy[order] * self.most[order], 0.0)
        ahead = np.cumsum(work) - work
        first = self.start[:-1][group]
        ahead -= ahead[first] if len(ahead) else 0.0
        used = np.clip(self.throughput[group] - ahead, 0.0, work)
        earned = used / self.busy[order] * gain[order]
        each = reduced[self.count] - np.bincount(group, earned, len(self.count))
        low, high = lower[self.count], upper[self.count]
        held = np.where(each > 0, low, high) * each
        bound = float(held[self._alone].sum())
        opened = reduced[self.site_column] + np.bincount(
            self.site, held[self.opened], len(self.site_column)
        )
        must = lower[self.site_column] > 0
        must[self.site[low[self.opened] > 0]] = True
        may = upper[self.site_column] > 0
        bound += float(np.where(must, opened, np.where(may, np.minimum(0.0, opened), 0.0)).sum())
        pays = each <= 0
        shut = np.where(must, False, ~may | (opened >= 0))
        pays[self.opened] &= ~shut[self.site]
        pays |= low > 0
        taken = (used > 0) & pays[group] & (high[group] > 0)
        return Alone(bound=bound, each=each, opened=opened, takes=self.flow[order[taken]])


def _places(whole: Whole, rows: Places) -> Places:
    place = np.full(whole.rows, -1, dtype=np.intp)
    place[rows] = np.arange(len(rows))
    return place


def _carriers(whole: Whole) -> tuple[Places, Places, Floats]:
    """Rows ``sum of traffic <= so much x whole column``, that column, and how much."""
    lifts, _ = _lifted(whole)
    fits = lifts & ~whole.waiting
    entry = np.flatnonzero(whole.whole[whole.index] & fits[whole.row])
    entry = entry[np.isfinite(whole.upper[whole.index[entry]])]
    return whole.row[entry], whole.index[entry], -whole.value[entry]


def _lifted(whole: Whole) -> tuple[Mask, Mask]:
    """Rows ``... <= 0`` that one whole column lifts: of traffic else, of one whole column else."""
    row, negative = whole.row, whole.value < 0
    of_whole, of_flow = whole.whole[whole.index], whole.flow[whole.index]
    length = np.diff(whole.start)
    lifts = np.bincount(row[of_whole & negative], minlength=whole.rows) == 1
    lifts &= (whole.row_upper == 0) & np.isneginf(whole.row_lower)
    takes = np.bincount(row[of_flow & ~negative], minlength=whole.rows)
    counts = np.bincount(row[of_whole & ~negative], minlength=whole.rows)
    return lifts & (takes > 0) & (takes + 1 == length), lifts & (counts == 1) & (length == 2)


def _openers(whole: Whole, count: Places, rows: Places) -> tuple[Places, Mask]:
    """The whole column (-1: none) that each group's waits for, and the rows inside sites."""
    of_traffic, of_counts = _lifted(whole)
    group = np.full(whole.columns, -1, dtype=np.intp)
    group[count] = np.arange(len(count))
    openers = np.full(len(count), -1, dtype=np.intp)
    local = of_traffic & whole.waiting
    local[rows] = True
    two = np.flatnonzero(of_counts)
    entry = whole.start[two]
    one, other = whole.index[entry], whole.index[entry + 1]
    rises = whole.value[entry] > 0
    held, opener = np.where(rises, one, other), np.where(rises, other, one)
    fits = (group[held] >= 0) & (whole.upper[opener] == 1) & (whole.lower[held] == 0)
    openers[group[held[fits]]] = opener[fits]
    local[two[fits]] = True
    return openers, local
