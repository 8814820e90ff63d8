"""A compiled matrix made ready for a relaxation that holds only part of it.

Decides which columns and rows are there from the start and which wait until they matter: traffic
columns wait to be priced in, rows that say no more than a bound become one, rows of families with
about one row per arc wait to be broken. Nothing here knows what a row means.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.milp.arrays import Matrix
from optimizer.tables import Floats

Places = NDArray[np.intp]
Mask = NDArray[np.bool_]

HELD_BACK = frozenset({"site_open", "arc_link", "link_bandwidth", "spread"})
"""Families with up to a row per arc; few of them bind."""

BALANCE = "demand_balance"

_WHOLE = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class Whole:
    """Columns with bounds tightened by one-column rows, and the other rows by column and by row.

    `flow` marks the columns that may wait to be priced, `waiting` the rows that wait to be broken,
    `balance` the rows that say what is asked for. `start`, `index`, `value` hold the rows;
    `column_start`, `row_of`, `value_of` the same entries by column.
    """

    cost: Floats
    lower: Floats
    upper: Floats
    whole: Mask
    flow: Mask
    waiting: Mask
    balance: Places
    row_lower: Floats
    row_upper: Floats
    start: Places
    index: Places
    value: Floats
    column_start: Places
    row_of: Places
    value_of: Floats

    @property
    def columns(self) -> int:
        """How many columns."""
        return len(self.cost)

    @property
    def rows(self) -> int:
        """How many rows."""
        return len(self.row_lower)


def take_whole(matrix: Matrix) -> Whole:
    """Sort a matrix of one period into what is always there and what waits."""
    parts = (matrix.rows, matrix.lazy)
    waiting = _marks(matrix, HELD_BACK)
    balance = _marks(matrix, frozenset({BALANCE}))
    length = np.concatenate([np.diff(rows.start) for rows in parts]).astype(np.intp)
    index = np.concatenate([rows.index for rows in parts]).astype(np.intp)
    value = np.concatenate([rows.value for rows in parts])
    low, high = (np.concatenate([getattr(r, end) for r in parts]) for end in ("lower", "upper"))
    there = value != 0
    length -= np.bincount(np.repeat(np.arange(len(length)), length), ~there, len(length)).astype(int)
    index, value = index[there], value[there]
    start = np.concatenate([[0], np.cumsum(length)]).astype(np.intp)
    lower, upper = _bounds(matrix, start=start, index=index, value=value, low=low, high=high)
    kept = length > 1
    entry = np.repeat(kept, length)
    index, value = index[entry], value[entry]
    row = np.repeat(np.arange(int(kept.sum())), length[kept])
    order = np.lexsort((row, index))
    period = matrix.horizon[0]
    flow = np.zeros(len(matrix.cost), dtype=np.bool_)
    flow[period.column("x")] = True
    return Whole(
        cost=matrix.cost,
        lower=lower,
        upper=upper,
        whole=matrix.whole,
        flow=flow,
        waiting=waiting[kept],
        balance=np.flatnonzero(balance[kept]),
        row_lower=low[kept],
        row_upper=high[kept],
        start=np.concatenate([[0], np.cumsum(length[kept])]).astype(np.intp),
        index=index,
        value=value,
        column_start=np.searchsorted(index[order], np.arange(len(matrix.cost) + 1)),
        row_of=row[order],
        value_of=value[order],
    )


def _marks(matrix: Matrix, families: frozenset[str]) -> Mask:
    """Rows, those held back last, that belong to some of the families."""
    spans = (*matrix.spans, *matrix.lazy_spans)
    return np.repeat([s.family in families for s in spans], [s.count for s in spans])


def _bounds(
    matrix: Matrix, *, start: Places, index: Places, value: Floats, low: Floats, high: Floats
) -> tuple[Floats, Floats]:
    """Column bounds with every row of one column taken in."""
    lower, upper = matrix.lower.copy(), matrix.upper.copy()
    rows = np.flatnonzero(np.diff(start) == 1)
    column, factor = index[start[rows]], value[start[rows]]
    ends = np.sort(np.stack([low[rows] / factor, high[rows] / factor]), axis=0)
    np.maximum.at(lower, column, ends[0])
    np.minimum.at(upper, column, ends[1])
    lower[matrix.whole] = np.ceil(lower[matrix.whole] - _WHOLE)
    upper[matrix.whole] = np.floor(upper[matrix.whole] + _WHOLE)
    return lower, upper
