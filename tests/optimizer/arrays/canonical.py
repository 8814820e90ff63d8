"""Two compiled formulations as values that can be compared: rows and columns by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np
import pyomo.environ as pyo

from optimizer.milp.arrays import Matrix, column_name
from optimizer.milp.highs import compile_model
from optimizer.milp.model import LAZY_FAMILIES, Formulation
from optimizer.milp.support import SparseRows

Name = tuple[int, str, Any]
"""(period, variable or row family, index or subject)."""


@dataclass(frozen=True)
class Row:
    """Lower and upper limit, and coefficients by column."""

    lower: float
    upper: float
    terms: dict[Name, float]


@dataclass(frozen=True)
class Canonical:
    """Columns (cost, least, most, whole), rows given to every search, rows held back."""

    columns: dict[Name, tuple[float, float, float, bool]]
    rows: dict[Name, Row]
    lazy: dict[Name, Row]


def of_matrix(matrix: Matrix) -> Canonical:
    """What the array compiler made."""
    names = [column_name(matrix, at) for at in range(len(matrix.cost))]
    figures = zip(matrix.cost, matrix.lower, matrix.upper, matrix.whole, strict=True)
    columns = dict(zip(names, ((c, lo, up, bool(w)) for c, lo, up, w in figures), strict=True))
    assert len(columns) == len(names), "a column occurs twice"
    return Canonical(
        columns=columns,
        rows=_rows(matrix.rows, names, name=matrix.row_name),
        lazy=_rows(matrix.lazy, names, name=matrix.lazy_name),
    )


def of_formulation(formulation: Formulation) -> Canonical:
    """What Pyomo and `highs.compile_model` made; the variable fixed at 0 is left out."""
    compiled = compile_model(formulation)
    names = [_variable_name(v) for v in compiled.columns]
    rows = [
        (_period_of(row), row.parent_component().local_name, row.index())
        for row in formulation.root.component_data_objects(
            pyo.Constraint, active=True, descend_into=True
        )
    ]
    eager = [name for name in rows if name[1] not in LAZY_FAMILIES]
    lazy = [name for name in rows if name[1] in LAZY_FAMILIES]
    lp = compiled.lp
    whole = [kind == highspy.HighsVarType.kInteger for kind in lp.integrality_]
    figures = list(zip(lp.col_cost_, lp.col_lower_, lp.col_upper_, whole, strict=True))
    first = SparseRows(
        start=np.array(lp.a_matrix_.start_),
        index=np.array(lp.a_matrix_.index_),
        value=np.array(lp.a_matrix_.value_),
        lower=np.array(lp.row_lower_),
        upper=np.array(lp.row_upper_),
    )
    return Canonical(
        columns={n: f for n, f in zip(names, figures, strict=True) if n[1] != "nothing"},
        rows=_rows(first, names, name=lambda at: eager[at]),
        lazy=_rows(compiled.lazy, names, name=lambda at: lazy[at]),
    )


def _variable_name(variable: Any) -> Name:
    index = variable.index()
    name = variable.parent_component().local_name
    return _period_of(variable), name, index if isinstance(index, tuple) else (index,)


def _period_of(part: Any) -> int:
    block = part.parent_block()
    return 0 if block is block.model() else int(block.index())


def _rows(
    rows: SparseRows, columns: Sequence[Name], *, name: Callable[[int], Name]
) -> dict[Name, Row]:
    found: dict[Name, Row] = {}
    for at in range(rows.count):
        span = slice(rows.start[at], rows.start[at + 1])
        entries = list(zip(rows.index[span].tolist(), rows.value[span].tolist(), strict=True))
        terms = {columns[i]: v for i, v in entries if v != 0 and columns[i][1] != "nothing"}
        assert len({i for i, _ in entries}) == len(entries), f"{name(at)}: a column occurs twice"
        assert name(at) not in found, f"row {name(at)} occurs twice"
        found[name(at)] = Row(float(rows.lower[at]), float(rows.upper[at]), terms)
    return found


def assert_same(one: Canonical, other: Canonical) -> None:
    """Same columns, rows, bounds, costs and coefficients, to 1e-9 relative."""
    assert one.columns.keys() == other.columns.keys()
    for name, figures in one.columns.items():
        assert all(map(_near, figures, other.columns[name])), (name, figures, other.columns[name])
    for mine, theirs in ((one.rows, other.rows), (one.lazy, other.lazy)):
        assert mine.keys() == theirs.keys()
        for name, row in mine.items():
            assert _near(row.lower, theirs[name].lower), (name, row, theirs[name])
            assert _near(row.upper, theirs[name].upper), (name, row, theirs[name])
            assert row.terms.keys() == theirs[name].terms.keys(), (name, row, theirs[name])
            for column, value in row.terms.items():
                assert _near(value, theirs[name].terms[column]), (name, column)


def _near(a: float, b: float) -> bool:
    return a == b or math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
