"""The linear relaxation over all columns and rows, of which HiGHS holds the part that matters.

Decides what the solver holds: traffic columns enter when their reduced cost is negative, waiting
rows when they are broken. Every bound given out is worked out over all columns, so what was left
out cannot make it wrong. An artificial column per class keeps the part solvable; a bound with
artificial traffic in it is still a bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import highspy
import numpy as np
from numpy.typing import NDArray

from optimizer.milp.stopping import Watch, never
from optimizer.milp.support import tame
from optimizer.milp.whole.matrix import Mask, Places, Whole, spans
from optimizer.milp.whole.simplex import DEAR, EMPTY, STOPPED, fresh, must, run
from optimizer.tables import Floats

INF = float("inf")

_BROKEN = 1e-6
"""Relative to what a row is measured by."""

ARTIFICIAL = 1e-6
"""Requests/s nobody carries; a point with more is none."""

_RAISED = (1e3, 1e6)
_NEGATIVE = 1e-7
_ROUNDS = 200
_FEW = 2_000
_CLOSE = 1e-7
_IDLE_PART = 0.3


@dataclass(frozen=True, kw_only=True, slots=True)
class Relaxed:
    """Optimum of a relaxation. `bound` holds for every point within the bounds given (USD/h; inf:
    there is none). `values` and `reduced` are by column, `balance_price` by balance row;
    `artificial` is traffic nobody carries (inf: rounds of rows were spent, this is no point).
    `is_stopped`: time was over before the optimum, so only the bound means anything.
    """

    bound: float
    values: Floats
    reduced: Floats
    balance_price: Floats
    artificial: float
    is_stopped: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether no point lies within the bounds."""
        return self.bound == INF


class Relaxation:
    """One HiGHS object, warm from solve to solve."""

    def __init__(self, whole: Whole, *, first: Places) -> None:
        """`first`: the flow columns held from the start, with the waiting rows they stand in."""
        self.whole = whole
        self.seen = np.zeros(whole.columns, dtype=np.bool_)
        self.met = np.zeros(whole.rows, dtype=np.bool_)
        self._watch = Watch()
        self._highs = fresh(self._watch)
        tame(self._highs, whole.cost, beyond=DEAR)
        self._place = np.full(whole.columns, -1, dtype=np.intp)
        self._row_place = np.full(whole.rows, -1, dtype=np.intp)
        self._columns: Places = np.zeros(0, dtype=np.intp)
        self._rows: Places = np.zeros(0, dtype=np.intp)
        self._artificial = len(whole.balance)
        self._lower, self._upper = whole.lower.copy(), whole.upper.copy()
        self._scale = _scale(whole)
        self._penalty = _penalty(whole)
        self._add_rows(_standing(whole, first))
        self._add_artificial()
        self._add_columns(np.union1d(np.flatnonzero(~whole.flow), first))

    @property
    def held(self) -> Places:
        """Columns the solver holds."""
        return self._columns

    def places(self, columns: Places) -> NDArray[np.int32]:
        """Where the solver's model has some of the columns it holds."""
        return (self._place[columns] + self._artificial).astype(np.int32)

    def model(self) -> Any:
        """The model the solver holds, artificial columns first."""
        return self._highs.getModel()

    @property
    def rows(self) -> Places:
        """Rows the solver holds."""
        return self._rows

    def row_places(self, rows: Places) -> NDArray[np.int32]:
        """Where the solver's model has some of the rows it holds."""
        return self._row_place[rows].astype(np.int32)

    def hold(self, columns: Places, rows: Places) -> None:
        """Have the solver hold these columns, within the problem's own bounds, and rows."""
        self._set_bounds(self.whole.lower, self.whole.upper)
        self._add_rows(rows[self._row_place[rows] < 0])
        self._add_columns(columns[self._place[columns] < 0])

    def solve(
        self, lower: Floats, upper: Floats, *, is_over: Callable[[], bool] = never
    ) -> Relaxed:
        """The optimum with every column between `lower` and `upper`, or what is proven when time
        is over.

        Where traffic is left out its penalty rises, in steps: what others give way for may be worth
        more than the first. Raises KeyboardInterrupt where one comes meanwhile.
        """
        if self.whole.is_void:
            return self._nothing()
        self._watch.is_over = is_over
        self._set_bounds(lower, upper)
        answer = self._settled()
        if answer.artificial > ARTIFICIAL and not answer.is_stopped:
            for raised in _RAISED:
                self._penalise(raised * self._penalty)
                before, answer = answer.bound, self._settled()
                if answer.is_stopped:
                    answer = replace(answer, bound=max(answer.bound, before))
                if answer.is_stopped or answer.artificial <= ARTIFICIAL:
                    break
            self._penalise(self._penalty)
        if not answer.is_stopped:
            self.seen |= answer.values > _CLOSE
            self._drop_idle()
        return answer

    def _penalise(self, price: float) -> None:
        count = self._artificial
        at, prices = np.arange(count, dtype=np.int32), np.full(count, price)
        must(self._highs.changeColsCost(count, at, prices), "change prices")

    def _settled(self) -> Relaxed:
        """Columns and rows join until none would change anything, or time is over."""
        answer, proven = self._nothing(), -INF
        for _ in range(_ROUNDS):
            status = run(self._highs, self._watch)
            if status in EMPTY:
                return self._nothing()
            answer = self._answer()
            proven = max(proven, answer.bound)
            if status == STOPPED:
                return replace(answer, bound=proven, is_stopped=True)
            missing, broken = self._priced(answer.reduced), self._broken(answer.values)
            if len(missing) == 0 and len(broken) == 0:
                break
            if self._watch.is_over():
                return replace(answer, bound=proven, is_stopped=True)
            self.met[broken] = True
            self._add_rows(broken)
            self._add_columns(missing)
        else:
            answer = replace(answer, artificial=INF)
        return answer

    def _nothing(self) -> Relaxed:
        none = np.zeros(self.whole.columns)
        prices = np.zeros(self._artificial)
        return Relaxed(bound=INF, values=none, reduced=none, balance_price=prices, artificial=0.0)

    def _drop_idle(self) -> None:
        """Let go of waiting rows that stand idle in the basis, once they are many."""
        loose = self._idle() & self.whole.waiting[self._rows]
        if loose.sum() > _IDLE_PART * len(loose):
            self._let_go(loose)

    def _idle(self) -> Mask:
        """Rows held that bind nothing in the basis."""
        basic = highspy.HighsBasisStatus.kBasic
        return np.array([one == basic for one in self._highs.getBasis().row_status], dtype=np.bool_)

    def _let_go(self, loose: Mask) -> None:
        if not loose.any():
            return
        basis = self._highs.getBasis()
        gone = np.flatnonzero(loose).astype(np.int32)
        must(self._highs.deleteRows(len(gone), gone), "let go of rows")
        self._row_place[self._rows[gone]] = -1
        self._rows = self._rows[~loose]
        self._row_place[self._rows] = np.arange(len(self._rows))
        basis.row_status = [
            one for one, away in zip(basis.row_status, loose, strict=True) if not away
        ]
        must(self._highs.setBasis(basis), "take a basis")

    def _answer(self) -> Relaxed:
        whole = self.whole
        solution = self._highs.getSolution()
        if not (solution.value_valid and solution.dual_valid):  # stopped before there was a basis
            return replace(self._nothing(), bound=-INF)
        values = np.zeros(whole.columns)
        column_value = np.array(solution.col_value)
        values[self._columns] = column_value[self._artificial :]
        duals = np.array(solution.row_dual)
        duals[(duals > 0) & np.isneginf(whole.row_lower[self._rows])] = 0.0
        duals[(duals < 0) & np.isposinf(whole.row_upper[self._rows])] = 0.0
        paid = np.flatnonzero(duals)
        rows, duals = self._rows[paid], duals[paid]
        length = np.diff(whole.start)[rows]
        entry = spans(whole.start[rows], length)
        reduced = whole.cost - np.bincount(
            whole.index[entry],
            weights=whole.value[entry] * np.repeat(duals, length),
            minlength=whole.columns,
        )
        return Relaxed(
            bound=self._proven(rows, duals, reduced),
            values=values,
            reduced=reduced,
            balance_price=np.array(solution.row_dual)[self._row_place[whole.balance]],
            artificial=float(column_value[: self._artificial].sum()),
        )

    def _proven(self, rows: Places, duals: Floats, reduced: Floats) -> float:
        """What the duals of some rows prove (USD/h): rows at the limit they pay for, columns at the
        bound they are drawn to. Holds for any duals; columns and rows not held are in it.
        """
        whole = self.whole
        limit = np.where(duals > 0, whole.row_lower[rows], whole.row_upper[rows])
        end = np.where(reduced > 0, self._lower, self._upper)
        drawn = (np.abs(reduced) > _NEGATIVE) | np.isfinite(end)
        return float(duals @ limit) + float(reduced[drawn] @ end[drawn])

    def _priced(self, reduced: Floats) -> Places:
        """Columns to enter: those that could take most off."""
        out = np.flatnonzero((self._place < 0) & (reduced < -_NEGATIVE) & (self._upper > 0))
        if len(out) <= _FEW:
            return out
        worth = reduced[out] * self._upper[out]
        return np.sort(out[np.argsort(worth, kind="stable")[:_FEW]])

    def breaks(self, values: Floats) -> bool:
        """Whether values by column, which keep every row held, break another row."""
        return len(self._broken(values)) > 0

    def _broken(self, values: Floats) -> Places:
        whole = self.whole
        if whole.rows == 0:
            return np.zeros(0, dtype=np.intp)
        activity = np.add.reduceat(whole.value * values[whole.index], whole.start[:-1])
        slack = _BROKEN * self._scale
        outside = (activity > whole.row_upper + slack) | (activity < whole.row_lower - slack)
        return np.flatnonzero(outside & (self._row_place < 0))

    def _set_bounds(self, lower: Floats, upper: Floats) -> None:
        changed = np.flatnonzero((lower != self._lower) | (upper != self._upper))
        if len(changed) == 0:
            return
        self._lower[changed], self._upper[changed] = lower[changed], upper[changed]
        there = changed[self._place[changed] >= 0]
        at = (self._place[there] + self._artificial).astype(np.int32)
        must(self._highs.changeColsBounds(len(at), at, lower[there], upper[there]), "change bounds")

    def _add_artificial(self) -> None:
        count = self._artificial
        at = self._row_place[self.whole.balance].astype(np.int32)
        must(
            self._highs.addCols(
                count,
                np.full(count, self._penalty),
                np.zeros(count),
                np.full(count, INF),
                count,
                np.arange(count, dtype=np.int32),
                at,
                np.ones(count),
            ),
            "take artificial columns",
        )

    def _add_columns(self, columns: Places) -> None:
        if len(columns) == 0:
            return
        whole = self.whole
        first, length = whole.column_start[columns], np.diff(whole.column_start)[columns]
        entry = spans(first, length)
        owner = np.repeat(np.arange(len(columns)), length)
        there = self._row_place[whole.row_of[entry]] >= 0
        entry, owner = entry[there], owner[there]
        self._place[columns] = len(self._columns) + np.arange(len(columns))
        self._columns = np.concatenate([self._columns, columns])
        must(
            self._highs.addCols(
                len(columns),
                whole.cost[columns],
                self._lower[columns],
                self._upper[columns],
                len(entry),
                np.searchsorted(owner, np.arange(len(columns))).astype(np.int32),
                self._row_place[whole.row_of[entry]].astype(np.int32),
                whole.value_of[entry],
            ),
            "take columns",
        )

    def _add_rows(self, rows: Places) -> None:
        if len(rows) == 0:
            return
        whole = self.whole
        entry = spans(whole.start[rows], np.diff(whole.start)[rows])
        owner = np.repeat(np.arange(len(rows)), np.diff(whole.start)[rows])
        there = self._place[whole.index[entry]] >= 0
        entry, owner = entry[there], owner[there]
        self._row_place[rows] = len(self._rows) + np.arange(len(rows))
        self._rows = np.concatenate([self._rows, rows])
        must(
            self._highs.addRows(
                len(rows),
                whole.row_lower[rows],
                whole.row_upper[rows],
                len(entry),
                np.searchsorted(owner, np.arange(len(rows))).astype(np.int32),
                (self._place[whole.index[entry]] + self._artificial).astype(np.int32),
                whole.value[entry],
            ),
            "take rows",
        )


def _standing(whole: Whole, columns: Places) -> Places:
    """Rows that never wait and those that some of the columns stand in."""
    there = ~whole.waiting
    entry = spans(whole.column_start[columns], np.diff(whole.column_start)[columns])
    there[whole.row_of[entry]] = True
    return np.flatnonzero(there)


def _scale(whole: Whole) -> Floats:
    """By what is measured whether a row is broken: its largest coefficient, or its limit where that
    is smaller. A class that asks for 1e-6 requests/s has rows with such limits.
    """
    if whole.rows == 0:  # of no rows there is no largest
        return np.zeros(0)
    scale = np.maximum.reduceat(np.abs(whole.value), whole.start[:-1])
    for limit in (np.abs(whole.row_lower), np.abs(whole.row_upper)):
        scale = np.where(limit > 0, np.minimum(scale, limit), scale)
    return scale


def _penalty(whole: Whole) -> float:
    """Price of a request/s nobody carries: above what any column's worth of one costs."""
    return 10.0 * float(np.abs(whole.cost).max(initial=1.0))
