"""A linear problem over flows as arrays, solved anew or from where another was left.

Decides nothing about traffic: what may flow where, at what price, is the caller's
(`survive_local`, `reroute_flows`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np
from numpy.typing import NDArray

from sites.errors import FatalError

Floats = NDArray[np.float64]

STATUSES = (
    highspy.HighsBasisStatus.kLower,
    highspy.HighsBasisStatus.kBasic,
    highspy.HighsBasisStatus.kUpper,
    highspy.HighsBasisStatus.kZero,
    highspy.HighsBasisStatus.kNonbasic,
)
_LOWER, _BASIC = STATUSES[:2]


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """A linear problem: columns from 0 to `most` at `prices`, entries `each` at (row, column); the
    first rows add up to `exact`, the rest to `most_used` at most.
    """

    prices: Floats
    most: Floats
    row: NDArray[np.intp]
    column: NDArray[np.intp]
    each: Floats
    exact: Floats
    most_used: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Vertex:
    """Where a linear problem was left: a status of each column and each row, as `STATUSES` has it.

    Longer problems may begin there: what they have more follows what the vertex knows.
    """

    columns: NDArray[np.int8]
    rows: NDArray[np.int8]


def solved(program: Program) -> tuple[Floats, Floats]:
    """The value of each column and the price of each row. Raises FatalError if the solver errs."""
    return OpenProgram(program).solve()


class OpenProgram:
    """A problem in the solver's hands: it may be solved, get more columns, and be solved again from
    where it stands. Every method raises FatalError if the solver errs.
    """

    def __init__(self, program: Program, start: Vertex | None = None) -> None:
        self._highs = highspy.Highs()
        for name, value in (("output_flag", False), ("threads", 1), ("solver", "simplex")):
            self._highs.setOptionValue(name, value)
        count, exact = len(program.prices), len(program.exact)
        order = np.lexsort((program.row, program.column))
        upper = np.concatenate((program.exact, program.most_used))
        lower = np.where(np.arange(len(upper)) < exact, upper, -highspy.kHighsInf)
        status = self._highs.passModel(
            count,
            len(upper),
            len(order),
            int(highspy.MatrixFormat.kColwise),
            int(highspy.ObjSense.kMinimize),
            0.0,
            program.prices,
            np.zeros(count),
            program.most,
            lower,
            upper,
            np.searchsorted(program.column[order], np.arange(count + 1)).astype(np.int32),
            program.row[order].astype(np.int32),
            program.each[order],
            np.zeros(count, dtype=np.int32),
        )
        _must(status, "take")
        if start is not None:
            self._begin(start, columns=count, rows=len(upper))

    def solve(self) -> tuple[Floats, Floats]:
        """The value of each column and the price of each row at the optimum."""
        self._highs.run()
        if self._highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            # pivots from a far vertex can end in numerical trouble that a cold start has not
            self._highs.clearSolver()
            self._highs.setOptionValue("presolve", "choose")
            self._highs.run()
        if self._highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            raise FatalError("HiGHS could not solve the flows of a reroute")
        # presolve throws away where the problem stands
        self._highs.setOptionValue("presolve", "off")
        solution = self._highs.getSolution()
        return np.array(solution.col_value), np.array(solution.row_dual)

    def add(self, more: Program) -> None:
        """Put columns behind those there are: a program without rows of its own, its entries in the
        rows there are.
        """
        count = len(more.prices)
        order = np.lexsort((more.row, more.column))
        status = self._highs.addCols(
            count,
            more.prices,
            np.zeros(count),
            more.most,
            len(order),
            np.searchsorted(more.column[order], np.arange(count)).astype(np.int32),
            more.row[order].astype(np.int32),
            more.each[order],
        )
        _must(status, "add to")

    def vertex(self) -> Vertex:
        """Where the problem stands."""
        basis = self._highs.getBasis()
        return Vertex(columns=_codes(basis.col_status), rows=_codes(basis.row_status))

    def _begin(self, start: Vertex, *, columns: int, rows: int) -> None:
        """Begin at a vertex of a shorter problem: new columns at 0, new rows with room."""
        basis = highspy.HighsBasis()
        basis.valid = True
        old_columns = [STATUSES[k] for k in start.columns.tolist()]
        old_rows = [STATUSES[k] for k in start.rows.tolist()]
        basis.col_status = old_columns + [_LOWER] * (columns - len(old_columns))
        basis.row_status = old_rows + [_BASIC] * (rows - len(old_rows))
        _must(self._highs.setBasis(basis), "begin at a basis with")
        self._highs.setOptionValue("presolve", "off")


def _codes(statuses: list[Any]) -> NDArray[np.int8]:
    return np.fromiter(map(int, statuses), dtype=np.int8, count=len(statuses))


def _must(status: Any, action: str) -> None:
    if status == highspy.HighsStatus.kError:
        raise FatalError(f"HiGHS could not {action} the flows of a reroute")
