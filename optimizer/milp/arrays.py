"""The second compiler of the formulation: tables and chosen arcs to a matrix, without Pyomo.

Decides nothing the Pyomo model does not: same columns, rows, bounds and costs, up to their order (a
property test holds the two together). Rows and columns carry their names only as functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import highspy
import numpy as np
from numpy.typing import NDArray

from optimizer.milp.arrays_mix import carbon_cap, latency_mix, quality_floor, spread, tenant_budget
from optimizer.milp.arrays_period import BLOCKS, Period, bounds, integers, lay_out, prices
from optimizer.milp.arrays_rows import (
    Rows,
    deferral_window,
    demand_balance,
    link_bandwidth,
    move_limit,
    pool_accelerators,
    replica_cap,
    replica_change,
    replica_floor,
    shed_cap,
    site_power,
    supply_limit,
    throughput,
)
from optimizer.milp.arrays_search import arc_link, site_open, surrogate, survive_one
from optimizer.milp.constraints_survive import SurvivalCut
from optimizer.milp.support import SparseRows
from optimizer.sweep import ArcTable
from optimizer.tables import Floats, Tables
from sites.errors import FatalError

FAMILIES: tuple[Callable[[Period], Rows | tuple[Rows, ...]], ...] = (
    demand_balance,
    deferral_window,
    throughput,
    pool_accelerators,
    site_power,
    supply_limit,
    link_bandwidth,
    replica_change,
    replica_floor,
    replica_cap,
    spread,
    latency_mix,
    quality_floor,
    move_limit,
    shed_cap,
    site_open,
    surrogate,
    survive_one,
)
"""Row families of a period that every search gets; `arc_link` is held back."""

HORIZON_FAMILIES: tuple[Callable[[Sequence[Period]], Rows], ...] = (tenant_budget, carbon_cap)
"""Row families over all periods."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowSpan:
    """Where a family's rows lie in the matrix: period, first row, and the rows' subjects."""

    family: str
    period: int
    first: int
    count: int
    subject: Callable[[int], str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Matrix:
    """A compiled formulation: column bounds, costs and kinds, rows, and rows held back (`lazy`)."""

    horizon: tuple[Period, ...]
    cost: Floats
    lower: Floats
    upper: Floats
    whole: NDArray[np.bool_]
    rows: SparseRows
    lazy: SparseRows
    spans: tuple[RowSpan, ...]
    lazy_spans: tuple[RowSpan, ...]

    def row_name(self, at: int) -> tuple[int, str, str]:
        """(period, family, subject) of a row."""
        return _name(self.spans, at)

    def lazy_name(self, at: int) -> tuple[int, str, str]:
        """(period, family, subject) of a row held back."""
        return _name(self.lazy_spans, at)


def _name(spans: tuple[RowSpan, ...], at: int) -> tuple[int, str, str]:
    for span in spans:
        if span.first <= at < span.first + span.count:
            return span.period, span.family, span.subject(at - span.first)
    raise IndexError(at)


def compile_arrays(tables: Tables, arcs: ArcTable, *, cuts: tuple[SurvivalCut, ...] = ()) -> Matrix:
    """The matrix of one period over chosen arcs (`Sweep.table` gives all; sorted by class, group).

    A million arcs take about a second. `cuts` name groups and classes of those arcs.
    """
    return compile_periods((replace(lay_out(tables, arcs), cuts=cuts),))


def compile_periods(horizon: tuple[Period, ...]) -> Matrix:
    """The matrix of periods already laid out, one after the other."""
    families: list[tuple[int, Rows]] = []
    for p in horizon:
        for family in FAMILIES:
            found = family(p)
            families += [(p.at, part) for part in ((found,) if isinstance(found, Rows) else found)]
    families += [(0, over_all(horizon)) for over_all in HORIZON_FAMILIES]
    limits = [bounds(p) for p in horizon]
    rows, spans = _stack(families)
    lazy, lazy_spans = _stack([(p.at, arc_link(p)) for p in horizon])
    return Matrix(
        horizon=horizon,
        cost=np.concatenate([prices(p) for p in horizon]),
        lower=np.concatenate([low for low, _ in limits]),
        upper=np.concatenate([high for _, high in limits]),
        whole=np.concatenate([integers(p) for p in horizon]),
        rows=rows,
        lazy=lazy,
        spans=spans,
        lazy_spans=lazy_spans,
    )


def _stack(families: list[tuple[int, Rows]]) -> tuple[SparseRows, tuple[RowSpan, ...]]:
    spans: list[RowSpan] = []
    first = 0
    lengths: list[NDArray[np.int_]] = []
    for period, part in families:
        spans.append(
            RowSpan(
                family=part.family,
                period=period,
                first=first,
                count=part.count,
                subject=part.subject,
            )
        )
        first += part.count
        lengths.append(np.bincount(part.row, minlength=part.count))
    starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(np.concatenate(lengths))])
    rows = SparseRows(
        start=starts.astype(np.int32),
        index=np.concatenate([part.column for _, part in families]),
        value=np.concatenate([part.value for _, part in families]),
        lower=np.concatenate([part.lower for _, part in families]),
        upper=np.concatenate([part.upper for _, part in families]),
    )
    return rows, tuple(span for span in spans if span.count)


def hand_over(highs: Any, matrix: Matrix) -> None:
    """Pass the matrix, without the rows held back, to a `Highs` object.

    As arrays: a `HighsLp` in between takes twice as long at a million columns. Raises FatalError
    where HiGHS refuses it.
    """
    rows = matrix.rows
    status = highs.passModel(
        len(matrix.cost),
        rows.count,
        len(rows.index),
        int(highspy.MatrixFormat.kRowwise),
        int(highspy.ObjSense.kMinimize),
        0.0,
        matrix.cost,
        matrix.lower,
        matrix.upper,
        rows.lower,
        rows.upper,
        rows.start,
        rows.index,
        rows.value,
        matrix.whole.astype(np.int32),
    )
    if status == highspy.HighsStatus.kError:
        raise FatalError("HiGHS could not take the matrix; report the problem file that causes it")


def column_name(matrix: Matrix, at: int) -> tuple[int, str, tuple[Any, ...]]:
    """(period, variable, index) of a column, named as the Pyomo model names it."""
    p = next(p for p in reversed(matrix.horizon) if p.first <= at)
    place = at - p.first
    for variable in BLOCKS:
        size = p.sizes[variable]
        if place < size:
            return p.at, variable, _index_of(p, variable, place)
        place -= size
    raise IndexError(at)


def _index_of(p: Period, variable: str, place: int) -> tuple[Any, ...]:
    tables = p.tables
    ids = tables.classes.ids
    if variable in ("n", "up", "down"):
        return (tables.group_id(int(p.placeable.group[place])),)
    if variable == "x":
        return ids[p.arcs.cls[place]], tables.group_id(int(p.arcs.group[place]))
    if variable == "shed":
        return (ids[place],)
    if variable == "defer":
        return ids[p.defer.cls[place]], int(p.defer.to[place])
    if variable == "due":
        return ids[p.due.cls[place]], int(p.due.ago[place]), int(p.due.to[place])
    if variable == "risk":
        return p.risks[place]
    if variable == "open":
        return (tables.sites.ids[p.priced[place]],)
    supply = int(p.supply[place])
    site_id = tables.sites.ids[tables.supplies.site[supply]]
    return site_id, tables.supplies.ids[supply].removeprefix(f"{site_id}/")
