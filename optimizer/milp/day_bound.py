"""A bound on what any schedule of many hours costs: all hours relaxed, priced in blocks, then each
in whole replicas at those prices (`day_whole`).

Decides what is relaxed and proves the figure; which hours there are and how long this may take is
`solve_day`'s. The linear relaxation of a whole day takes far longer than that of its hours one by
one (24 hours of the European example: 85 s, in blocks of 4 hours 5 s for 0.9 % less), so only
blocks of consecutive hours are solved, each as if nothing ran before it and nothing could wait
beyond its end. Their row prices together price the rows of the day, and any prices prove something:

**Why it holds.** Let ``c z`` be the cost of the day, ``low <= A z <= high`` its rows and
``0 <= z <= most`` its columns. For prices y of the rows and every z that keeps all of that,

    c z = y A z + (c - y A) z >= sum_i min(y_i low_i, y_i high_i) + sum_j min(0, (c - y A)_j) most_j

The right side has no z in it: no schedule costs less, whatever y is. So a block cut short by time,
or a solver that is a little off, makes the bound weaker and never wrong; a row without a price
(what couples a block with the hour before it) is a row left out. Where a class's price in an hour
passes that of a later one it may wait for, waiting pays: (c - y A)_j of that column is the
difference. The price of its `deferral_window` row is set to the largest of them, so that what is
born in the hour counts once, at the least price over its window.

Rows for lost sites are the cuts the search came upon. That a plan may cost a little less than the
point it was rounded from (shares are whole basis points) is the caller's to allow for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any

import highspy
import numpy as np
from numpy.typing import NDArray

from optimizer.costs import trivial_bound_usd_per_h
from optimizer.milp.arrays import compile_periods
from optimizer.milp.arrays_hours import lay_out_hours
from optimizer.milp.arrays_period import Period
from optimizer.milp.constraints_survive import SurvivalCut
from optimizer.milp.day_rows import DayRows
from optimizer.milp.day_whole import hours_in_whole_usd
from optimizer.milp.support import SparseRows, add_rows, run_interruptibly
from optimizer.problem import Problem
from optimizer.tables import Floats

BLOCK_ARCS_MOST = 22_000
"""Arcs times hours of a block: beyond, time grows faster than the bound."""

_MOST_ROUNDS = 12

_SOLVED = (highspy.HighsModelStatus.kOptimal, highspy.HighsModelStatus.kModelEmpty)

Places = NDArray[np.intp]


def hours_bound_usd(
    hours: Sequence[Problem],
    *,
    cuts: Sequence[tuple[SurvivalCut, ...]],
    time_s: float,
) -> float | None:
    """What any schedule of consecutive hours costs at least (USD), every limit kept; None where no
    block of them was solved.

    `hours` are ordinary problems that differ in what changes over the day, the demand of each the
    rates born in it. `cuts` hold for every plan of the hour they stand for. `time_s` bounds the
    solver's seconds in all.
    """
    matrix = compile_periods(lay_out_hours(hours, pending={}, cuts=cuts))
    if not any(p.tables.classes.count for p in matrix.horizon):
        # nothing asked: groups for after a loss have no columns then, but may idle where that pays
        return fsum(trivial_bound_usd_per_h(one) for one in hours)
    day = DayRows(matrix)
    arcs = max(p.arcs.count for p in matrix.horizon)
    hours_each = max(1, BLOCK_ARCS_MOST // max(1, arcs))
    blocks = [matrix.horizon[at : at + hours_each] for at in range(0, len(hours), hours_each)]
    prices = np.zeros(day.rows.count)
    solved, left_s, stopped = 0, time_s, False
    for at, block in enumerate(blocks):
        try:
            found, spent_s = _Block(day, block).prices(left_s / (len(blocks) - at))
        except KeyboardInterrupt:  # the plan stands; the bound is what is known by now
            stopped = True
            break
        left_s = max(0.0, left_s - spent_s)
        if found is not None:
            prices += found
            solved += 1
    if not solved:
        return None
    return hours_in_whole_usd(day, day.proving(prices), time_s=0.0 if stopped else left_s)


@dataclass(frozen=True, slots=True)
class _Block:
    """Consecutive hours of a day as a linear problem of their own."""

    day: DayRows
    hours: tuple[Period, ...]

    def prices(self, time_s: float) -> tuple[Floats | None, float]:
        """Prices of the day's rows, 0 outside the block, and the solver's seconds; no prices where
        it found no optimum. Limits over the day have the block's part of their price.
        """
        day, part = self.day, len(self.hours) / len(self.day.matrix.horizon)
        rows = self._rows()
        eager, lazy = rows[rows < day.eager], rows[rows >= day.eager]
        highs = self._solver(time_s)
        add_rows(highs, self._within(eager, part=part))
        held, added = self._within(lazy, part=part), np.zeros(0, dtype=np.intp)
        optimal = False
        for _ in range(_MOST_ROUNDS):
            run_interruptibly(highs)
            if highs.getModelStatus() not in _SOLVED:
                break
            optimal = True
            found = np.array(highs.getSolution().row_dual)
            broken = held.broken_at(np.array(highs.getSolution().col_value))
            broken = np.setdiff1d(broken, added)
            if len(broken) == 0:
                break
            add_rows(highs, held.only(broken))
            added = np.concatenate((added, broken))
        spent_s = float(highs.getRunTime())
        if not optimal:
            return None, spent_s
        prices = np.zeros(day.rows.count)
        told = np.concatenate((eager, lazy[added]))[: len(found)]
        prices[told] = found
        prices[day.over_all] *= part
        return prices, spent_s

    @property
    def _span(self) -> tuple[int, int]:
        return self.hours[0].first, self.hours[-1].first + self.hours[-1].width

    def _rows(self) -> Places:
        """Rows of the day that the block has: its own and those over all hours, without what
        joins it to the hour before.
        """
        day, first = self.day, self.hours[0].at
        mine = (day.period >= first) & (day.period <= self.hours[-1].at)
        if first:
            mine &= (day.family != "replica_change") | (day.period != first)
        return np.flatnonzero(mine | day.over_all)

    def _within(self, rows: Places, *, part: float) -> SparseRows:
        """Rows over the block's columns alone; of limits over the day its part. A little of what
        may come from hours before is taken to come: an hour that nobody asks anything of would
        have no price, and waiting for it be free.
        """
        low, high = self._span
        some = self.day.rows.only(rows)
        row = np.repeat(np.arange(some.count), np.diff(some.start))
        inside = (some.index >= low) & (some.index < high)
        counts = np.bincount(row[inside], minlength=some.count)
        share = np.where(self.day.over_all[rows], part, 1.0)
        comes = np.where(inside, 0.0, some.value * self.day.little[some.index])
        known = np.bincount(row, weights=comes, minlength=some.count)
        return SparseRows(
            start=np.concatenate(([0], np.cumsum(counts))).astype(np.int32),
            index=(some.index[inside] - low).astype(np.int32),
            value=some.value[inside],
            lower=some.lower * share - known,
            upper=some.upper * share - known,
        )

    def _solver(self, time_s: float) -> Any:
        """HiGHS with the block's columns. Nothing waits beyond the block, free of charge."""
        highs = highspy.Highs()
        for name, value in (("output_flag", False), ("threads", 1), ("time_limit", time_s)):
            highs.setOptionValue(name, value)
        low, high = self._span
        most = self.day.most.copy()
        for p in self.hours:
            most[p.column("defer")[p.defer.to > self.hours[-1].at]] = 0.0
        none = np.zeros(0, dtype=np.int32)
        highs.addCols(
            high - low,
            self.day.matrix.cost[low:high],
            np.zeros(high - low),
            most[low:high],
            0,
            none,
            none,
            np.zeros(0),
        )
        return highs
