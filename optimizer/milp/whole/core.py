"""HiGHS's own search over the columns that matter, with a way out for the rest.

Decides which traffic columns a search holds. A column left out only ever uses up what other rows
limit, so traffic that leaves by an escape at the least price of its class's columns left out, and
uses nothing, costs no more than on any of them: the bound holds for all columns. A class whose
traffic escapes gets all its columns next time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np
from numpy.typing import NDArray

from optimizer.milp.stopping import Watch
from optimizer.milp.support import tame
from optimizer.milp.whole.matrix import Mask, Places, Whole
from optimizer.milp.whole.relaxation import INF, Relaxation, Relaxed
from optimizer.milp.whole.simplex import DEAR, EMPTY
from optimizer.tables import Floats
from sites.errors import FatalError

_ESCAPED = 1e-6
"""Part of a class on its escape from which it gets all its columns."""

_TOLERANCE = 1e-7
_NEAR_COLUMNS = 10
"""Columns per class, on average, that a first point is looked for with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What one search may spend: a relative gap, nodes, looks (how often HiGHS asks whether to go
    on, the same each time), and time. HiGHS never asks in the middle of a linear problem, which may
    take minutes; there its own time limit holds, after `time_s`.
    """

    gap: float
    nodes: int
    is_over: Callable[[], bool]
    looks: float = INF
    time_s: float = INF


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The best point by column (None: none found), whole columns rounded, and a bound for all
    points better than the cutoff (USD/h; inf: there is none). `is_done`: no budget cut the search
    short. `was_interrupted`: a KeyboardInterrupt came and waits to be raised. `has_escaped`: some
    traffic is on an escape, so only the whole columns are a point's.
    """

    values: Floats | None
    bound: float
    nodes: int
    is_done: bool
    was_interrupted: bool = False
    has_escaped: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class _Held:
    """What a search holds: columns, the price of each class's escape, whole columns' most."""

    columns: Mask
    escape: Floats
    upper: Floats


class Core:
    """Searches of one relaxation, each with what the earlier ones taught."""

    def __init__(self, relaxation: Relaxation, root: Relaxed, *, seed: int) -> None:
        whole = relaxation.whole
        self._relaxation, self._root, self._seed = relaxation, root, seed
        self._at = np.flatnonzero(whole.whole)
        self._flow = np.flatnonzero(whole.flow)
        self._row, unit = _served(whole, self._flow)
        self._each = whole.cost[self._flow] / unit
        self._asked = np.abs(whole.row_lower[whole.balance])
        self._stays = ~_only_uses(whole)[self._flow]
        self._price = root.balance_price
        self._typical = float(np.mean(np.abs(self._price) * self._asked)) if len(unit) else 0.0
        self._wide = np.zeros(len(whole.balance), dtype=np.bool_)
        self._upper = whole.upper.copy()
        self._tied = _tied(whole)
        self.is_everything = False

    def learn(self, point: Relaxed) -> None:
        """Classes may pay what they pay at this point: columns of that price are held too."""
        self._price = np.maximum(self._price, point.balance_price)

    def fix(self, cutoff: float) -> None:
        """From now on only points cheaper than `cutoff` (USD/h) are looked for."""
        whole, reduced = self._relaxation.whole, self._root.reduced
        at = self._at[reduced[self._at] > _TOLERANCE]
        most = whole.lower[at] + (cutoff - self._root.bound) / reduced[at]
        most = np.maximum(np.floor(most + _TOLERANCE), whole.lower[at])
        self._upper[at] = np.minimum(self._upper[at], most)

    def first(self, budget: Budget) -> Answer:
        """A first point from what the relaxation used and what is nearly as good; its bound holds
        for nothing else.
        """
        whole, reduced, seen = self._relaxation.whole, self._root.reduced, self._relaxation.seen
        columns, upper = ~whole.flow | seen, whole.upper.copy()
        dear = reduced[self._flow] * self._asked[self._row]
        columns[self._flow[_least(dear, _NEAR_COLUMNS * len(self._asked))]] = True
        unused = self._at[~seen[self._at]]
        closed = np.ones(len(unused), dtype=np.bool_)
        closed[_least(reduced[unused], len(self._at) - len(unused))] = False
        upper[unused[closed]] = whole.lower[unused[closed]]
        escape = np.full(len(self._asked), INF)
        return self._solve(_Held(columns=columns, escape=escape, upper=upper), budget, guess=None)

    def search(self, width: float, budget: Budget, *, guess: Floats | None) -> Answer:
        """The best point with columns up to `width` times what serving a class typically costs
        above its price, escapes for the rest. `guess`: values of the whole columns of a point.
        """
        whole = self._relaxation.whole
        dearer = (self._each - self._price[self._row]) * self._asked[self._row]
        held = (dearer <= width * self._typical) | self._stays | self._wide[self._row]
        columns = ~whole.flow | self._relaxation.seen
        columns[self._flow[held]] = True
        out = ~columns[self._flow]
        escape = np.full(len(self._asked), INF)
        np.minimum.at(escape, self._row[out], self._each[out])
        self.is_everything = not out.any()
        return self._solve(
            _Held(columns=columns, escape=escape, upper=self._upper), budget, guess=guess
        )

    def _solve(self, held: _Held, budget: Budget, *, guess: Floats | None) -> Answer:
        highs, place = self._model(held)
        at = place[self._at]
        if guess is not None:
            highs.setSolution(len(at), at, guess[self._at])
        looks = _Looks(budget)
        highs.cbMipInterrupt += looks
        for name, value in self._options(budget).items():
            highs.setOptionValue(name, value)
        highs.run()
        info, status = highs.getInfo(), highs.getModelStatus()
        nodes = max(0, int(info.mip_node_count))
        if status in EMPTY:  # no column has a price that pays without end
            return Answer(values=None, bound=INF, nodes=nodes, is_done=True)
        is_done = status == highspy.HighsModelStatus.kOptimal
        values, has_escaped = None, False
        if info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible:
            point = np.array(highs.getSolution().col_value)
            escaped = point[: len(self._asked)] > _ESCAPED * np.maximum(self._asked, 1e-12)
            self._wide |= escaped
            has_escaped = bool(escaped.any())
            values = np.where(place >= 0, point[place], 0.0)
            values[self._at] = np.round(point[at])
        return Answer(
            values=values,
            bound=float(info.mip_dual_bound),
            nodes=nodes,
            is_done=is_done,
            was_interrupted=looks.was_interrupted,
            has_escaped=has_escaped,
        )

    def _options(self, budget: Budget) -> dict[str, Any]:
        return {
            "output_flag": False,
            "threads": 1,
            "random_seed": self._seed,
            "mip_rel_gap": budget.gap,
            "mip_abs_gap": 0.0,
            "mip_max_nodes": budget.nodes,
            "time_limit": budget.time_s,
            "mip_feasibility_tolerance": _TOLERANCE,
            "primal_feasibility_tolerance": _TOLERANCE,
        }

    def _model(self, held: _Held) -> tuple[Any, NDArray[np.int32]]:
        """HiGHS with the columns and rows of a search, and where it has each column."""
        relaxation, whole = self._relaxation, self._relaxation.whole
        relaxation.hold(np.flatnonzero(held.columns), self._rows())
        highs = highspy.Highs()
        highs.setOptionValue("output_flag", False)
        tame(highs, whole.cost, beyond=DEAR)
        if highs.passModel(relaxation.model()) == highspy.HighsStatus.kError:
            raise FatalError("HiGHS could not take the core of a search; report its problem")
        at = relaxation.places(self._at)
        kinds = np.full(len(at), int(highspy.HighsVarType.kInteger), dtype=np.uint8)
        highs.changeColsIntegrality(len(at), at, kinds)
        highs.changeColsBounds(len(at), at, whole.lower[self._at], held.upper[self._at])
        tied = relaxation.row_places(self._tied)
        highs.changeRowsBounds(len(tied), tied, np.zeros(len(tied)), np.zeros(len(tied)))
        # the relaxation's artificial columns come first, one per class: here they are the escapes
        escapes = np.arange(len(held.escape), dtype=np.int32)
        there = np.isfinite(held.escape)
        highs.changeColsCost(len(escapes), escapes, np.where(there, held.escape, 0.0))
        most = np.where(there, INF, 0.0)
        highs.changeColsBounds(len(escapes), escapes, np.zeros(len(escapes)), most)
        away = relaxation.held[~held.columns[relaxation.held]]
        gone = np.sort(relaxation.places(away))
        place = np.full(whole.columns, -1, dtype=np.int32)
        stays = relaxation.held[held.columns[relaxation.held]]
        before = relaxation.places(stays)
        place[stays] = before - np.searchsorted(gone, before)
        if len(gone):
            highs.deleteCols(len(gone), gone)
        return highs, place

    def _rows(self) -> Places:
        """Rows without traffic, and those some point has broken. The other traffic rows that wait
        say no more of whole points than throughput does, or are broken and held next time.
        """
        return np.flatnonzero(~self._relaxation.whole.traffic | self._relaxation.met)


class _Looks(Watch):
    """A watch whose looks are counted: they may be spent too."""

    def __init__(self, budget: Budget) -> None:
        super().__init__(self._is_spent)
        self._budget, self._looks = budget, 0

    def _is_spent(self) -> bool:
        self._looks += 1
        return self._looks > self._budget.looks or self._budget.is_over()


def _least(value: Floats, count: int) -> Places:
    """Where the smallest values are, so many."""
    found: Places = np.argsort(value, kind="stable")[:count]
    return found


def _served(whole: Whole, flow: Places) -> tuple[Places, Floats]:
    """For each traffic column its balance row (as place among those) and its entry there."""
    place = np.full(whole.rows, -1, dtype=np.intp)
    place[whole.balance] = np.arange(len(whole.balance))
    owner = np.repeat(np.arange(whole.columns), np.diff(whole.column_start))
    there = (place[whole.row_of] >= 0) & whole.flow[owner]
    row, unit = np.zeros(whole.columns, dtype=np.intp), np.ones(whole.columns)
    row[owner[there]] = place[whole.row_of[there]]
    unit[owner[there]] = whole.value_of[there]
    return row[flow], unit[flow]


def _only_uses(whole: Whole) -> Mask:
    """Columns that, beside serving their class, only use up what rows limit or what has a price.

    A row ``sum of draws == what is bought for it`` has a price: with less drawn, less is bought.
    """
    row = whole.row
    is_balance = np.zeros(whole.rows, dtype=np.bool_)
    is_balance[whole.balance] = True
    exact = (whole.row_lower == 0) & (whole.row_upper == 0) & ~is_balance
    at_most = np.isneginf(whole.row_lower)[row] & (whole.value > 0)
    at_least = np.isposinf(whole.row_upper)[row] & (whole.value < 0)
    helps = ~(at_most | at_least | is_balance[row])
    bought = helps & exact[row] & (whole.value < 0)
    times = np.bincount(whole.index[bought], minlength=whole.columns)
    fixed = np.bincount(whole.index[helps & ~bought], minlength=whole.columns)
    shrinks = (times == 1) & (fixed == 0) & (whole.cost >= 0) & (whole.lower == 0) & ~whole.whole
    stiff = np.bincount(row[bought & ~shrinks[whole.index]], minlength=whole.rows)
    helps &= ~(exact & (stiff == 0))[row] | (whole.value < 0)
    found: Mask = (np.bincount(whole.index[helps], minlength=whole.columns) == 0) & (
        whole.lower == 0
    )
    return found


def _tied(whole: Whole) -> Places:
    """Rows ``a <= b`` of two whole columns where b stands for nothing but a: b is a in some best
    point. Such are sites that may open and have one replica to hold.
    """
    two = np.flatnonzero(np.diff(whole.start) == 2)
    entry = whole.start[two]
    first, second = whole.index[entry], whole.index[entry + 1]
    one, other = whole.value[entry], whole.value[entry + 1]
    low, high = np.where(one > 0, first, second), np.where(one > 0, second, first)
    pairs = whole.whole[first] & whole.whole[second] & (one + other == 0)
    pairs &= (whole.row_upper[two] == 0) & np.isneginf(whole.row_lower[two])
    pairs &= (whole.upper[low] <= 1) & (whole.cost[high] >= 0)
    holds = (whole.value < 0) & ~whole.traffic[whole.row]
    times = np.bincount(whole.index[holds], minlength=whole.columns)
    found: Places = two[pairs & (times[high] == 1)]
    return found
