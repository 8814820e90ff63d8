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

    `count` marks columns that count others, `flow` those that may wait to be priced, `waiting` the
    rows that wait to be broken, `balance` the rows that say what is asked for. `start`, `index`,
    `value` hold the rows; `column_start`, `row_of`, `value_of` the same entries by column. Nothing
    fits where `is_void`: a row without columns (a floor under replicas nobody can place) is broken.
    """

    cost: Floats
    lower: Floats
    upper: Floats
    whole: Mask
    count: Mask
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
    is_void: bool

    @property
    def columns(self) -> int:
        """How many columns."""
        return len(self.cost)

    @property
    def rows(self) -> int:
        """How many rows."""
        return len(self.row_lower)

    @property
    def row(self) -> Places:
        """The row of each entry, as rows hold them."""
        return np.repeat(np.arange(self.rows), np.diff(self.start))

    @property
    def traffic(self) -> Mask:
        """Rows that some flow column stands in."""
        found = np.zeros(self.rows, dtype=np.bool_)
        found[self.row[self.flow[self.index]]] = True
        return found


def take_whole(matrix: Matrix) -> Whole:
    """Sort a matrix of one period into what is always there and what waits, and count its sites."""
    plain = _plain(matrix)
    length = np.diff(plain.start)
    kept = length > 1
    entry = np.repeat(kept, length)
    index, value = plain.index[entry], plain.value[entry]
    row = np.repeat(np.arange(int(kept.sum())), length[kept])
    order = np.lexsort((row, index))
    columns = len(plain.cost)
    flow = np.zeros(columns, dtype=np.bool_)
    flow[matrix.horizon[0].column("x")] = True
    lower, upper = _bounds(plain)
    return Whole(
        cost=plain.cost,
        lower=lower,
        upper=upper,
        whole=plain.whole,
        count=np.arange(columns) >= len(matrix.cost),
        flow=flow,
        waiting=plain.waiting[kept],
        balance=np.flatnonzero(plain.balance[kept]),
        row_lower=plain.low[kept],
        row_upper=plain.high[kept],
        start=np.concatenate([[0], np.cumsum(length[kept])]).astype(np.intp),
        index=index,
        value=value,
        column_start=np.searchsorted(index[order], np.arange(columns + 1)),
        row_of=row[order],
        value_of=value[order],
        is_void=bool(((plain.low > _WHOLE) | (plain.high < -_WHOLE))[length == 0].any()),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plain:
    """All columns and rows, those held back last, then counts; entries of 0 left out."""

    cost: Floats
    lower: Floats
    upper: Floats
    whole: Mask
    waiting: Mask
    balance: Mask
    start: Places
    index: Places
    value: Floats
    low: Floats
    high: Floats


def _plain(matrix: Matrix) -> _Plain:
    parts = (matrix.rows, matrix.lazy)
    counted = _counted(matrix)
    columns, more = len(matrix.cost), len(counted)
    length = np.concatenate(
        [*(np.diff(rows.start) for rows in parts), [len(c) + 1 for c in counted]]
    ).astype(np.intp)
    totals = columns + np.arange(more)
    own = [np.append(c, total) for c, total in zip(counted, totals, strict=True)]
    signs = [np.append(np.ones(len(c)), -1.0) for c in counted]
    index = np.concatenate([*(rows.index for rows in parts), *own]).astype(np.intp)
    value = np.concatenate([*(rows.value for rows in parts), *signs])
    there = value != 0
    row = np.repeat(np.arange(len(length)), length)
    length = np.bincount(row[there], minlength=len(length))
    none = np.zeros(more)
    return _Plain(
        cost=np.concatenate([matrix.cost, none]),
        lower=np.concatenate([matrix.lower, none]),
        upper=np.concatenate([matrix.upper, [matrix.upper[c].sum() for c in counted]]),
        whole=np.concatenate([matrix.whole, none == 0]),
        waiting=np.concatenate([_marks(matrix, HELD_BACK), none != 0]),
        balance=np.concatenate([_marks(matrix, frozenset({BALANCE})), none != 0]),
        start=np.concatenate([[0], np.cumsum(length)]).astype(np.intp),
        index=index[there],
        value=value[there],
        low=np.concatenate([*(rows.lower for rows in parts), none]),
        high=np.concatenate([*(rows.upper for rows in parts), none]),
    )


def _counted(matrix: Matrix) -> list[Places]:
    """Columns to be counted by a whole column of their own: sites that may open.

    How many sites open is seldom whole in a relaxation, and moves its bound when made so.
    """
    opened = matrix.horizon[0].column("open").astype(np.intp)
    return [opened] if len(opened) > 1 else []


def _marks(matrix: Matrix, families: frozenset[str]) -> Mask:
    """Rows, those held back last, that belong to some of the families."""
    spans = (*matrix.spans, *matrix.lazy_spans)
    inside = np.array([s.family in families for s in spans], dtype=np.bool_)
    return np.repeat(inside, np.array([s.count for s in spans], dtype=np.intp))


def _bounds(plain: _Plain) -> tuple[Floats, Floats]:
    """Column bounds with every row of one column taken in."""
    lower, upper = plain.lower.copy(), plain.upper.copy()
    rows = np.flatnonzero(np.diff(plain.start) == 1)
    column, factor = plain.index[plain.start[rows]], plain.value[plain.start[rows]]
    ends = np.sort(np.stack([plain.low[rows] / factor, plain.high[rows] / factor]), axis=0)
    np.maximum.at(lower, column, ends[0])
    np.minimum.at(upper, column, ends[1])
    lower[plain.whole] = np.ceil(lower[plain.whole] - _WHOLE)
    upper[plain.whole] = np.floor(upper[plain.whole] + _WHOLE)
    return lower, upper


def spans(first: Places, length: Places) -> Places:
    """``first[i], first[i] + 1, ...`` (`length[i]` of them) for each i, one after the other."""
    before = np.cumsum(length) - length
    found: Places = np.arange(int(length.sum())) + np.repeat(first - before, length)
    return found
