"""Hands arrays to HiGHS: one matrix from triplets, one set of options, what came back.

Decides the solver's settings for the large search, nothing about placement. One thread per object
and a fixed seed; budgets are nodes and gap, never seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np
from numpy.typing import NDArray

from optimizer.milp.stopping import Deadline
from optimizer.milp.support import tame
from optimizer.tables import Floats
from sites.errors import FatalError

INF = float("inf")

_STATUS = (
    highspy.HighsBasisStatus.kLower,
    highspy.HighsBasisStatus.kBasic,
    highspy.HighsBasisStatus.kUpper,
    highspy.HighsBasisStatus.kZero,
    highspy.HighsBasisStatus.kNonbasic,
)
_DIVES = 500
_NEARLY = 0.8
_WHOLE = 1e-6
LARGEST = 1e12
"""A coefficient that HiGHS surely takes; it refuses those beyond 1e15."""
_DEAR = 1e9
"""USD/h: a column that costs more has all costs scaled down."""

LOWER, BASIC, UPPER = 0, 1, 2
"""Statuses of a basis, positions in `_STATUS`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Rows in triplets: entry i puts `value[i]` at (`row[i]`, `column[i]`)."""

    row: NDArray[np.intp]
    column: NDArray[np.intp]
    value: Floats
    lower: Floats
    upper: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What HiGHS found: `values` None without a feasible point; `row_duals` of an LP."""

    values: Floats | None
    row_duals: Floats


class RowBuilder:
    """Collects blocks of rows; each block's rows are numbered after the last one's."""

    def __init__(self) -> None:
        self._parts: list[tuple[NDArray[np.intp], NDArray[np.intp], Floats]] = []
        self._lower: list[Floats] = []
        self._upper: list[Floats] = []
        self.count = 0

    def block(
        self,
        lower: Floats | float,
        upper: Floats | float,
        *,
        entries: list[tuple[NDArray[np.intp], NDArray[np.intp], Floats]],
        count: int,
    ) -> None:
        """Add `count` rows; `entries` are (row within the block, column, value) triplets."""
        for row, column, value in entries:
            self._parts.append((row + self.count, column, value))
        self._lower.append(np.broadcast_to(np.asarray(lower, dtype=np.float64), (count,)))
        self._upper.append(np.broadcast_to(np.asarray(upper, dtype=np.float64), (count,)))
        self.count += count

    def rows(self) -> Rows:
        """Everything collected."""
        return Rows(
            row=np.concatenate([p[0] for p in self._parts]),
            column=np.concatenate([p[1] for p in self._parts]),
            value=np.concatenate([p[2] for p in self._parts]),
            lower=np.concatenate(self._lower),
            upper=np.concatenate(self._upper),
        )


def tamed(rows: Rows) -> Rows:
    """The same rows, those with a coefficient beyond `LARGEST` scaled down."""
    if np.abs(rows.value).max(initial=0.0) <= LARGEST:
        return rows
    largest = np.zeros(len(rows.lower))
    np.maximum.at(largest, rows.row, np.abs(rows.value))
    scale = np.maximum(1.0, largest / LARGEST)
    return Rows(
        row=rows.row,
        column=rows.column,
        value=rows.value / scale[rows.row],
        lower=rows.lower / scale,
        upper=rows.upper / scale,
    )


def make(
    *,
    cost: Floats,
    upper: Floats,
    rows: Rows,
    whole: NDArray[np.intp] | None = None,
    lower: Floats | None = None,
) -> Any:
    """A HighsLp with columns from `lower` (0) to `upper`, row-wise; `whole` columns are integer."""
    order = np.lexsort((rows.column, rows.row))
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = len(cost), len(rows.lower)
    least = np.zeros(len(cost)) if lower is None else lower
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = cost, least, upper
    lp.row_lower_, lp.row_upper_ = rows.lower, rows.upper
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    sorted_rows = rows.row[order]
    starts = np.searchsorted(sorted_rows, np.arange(len(rows.lower) + 1))
    lp.a_matrix_.start_ = starts.astype(np.int32)
    lp.a_matrix_.index_ = rows.column[order].astype(np.int32)
    lp.a_matrix_.value_ = rows.value[order]
    if whole is not None:
        kinds = [highspy.HighsVarType.kContinuous] * len(cost)
        for at in whole:
            kinds[at] = highspy.HighsVarType.kInteger
        lp.integrality_ = kinds
    return lp


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """Columns or rows of one kind: ascending keys that say what they stand for, and the status of
    those that a basis does not know yet, `fresh` (per key or one for all).
    """

    keys: NDArray[np.intp]
    fresh: NDArray[np.int8]


@dataclass(frozen=True, kw_only=True, slots=True)
class Basis:
    """A vertex by what its columns and rows stand for: statuses of each kind, by key."""

    columns: tuple[Kind, ...]
    rows: tuple[Kind, ...]


def kind(keys: NDArray[np.intp], fresh: int | NDArray[np.int8]) -> Kind:
    """One kind of columns or rows; `fresh` is LOWER, BASIC or UPPER."""
    each = np.broadcast_to(np.asarray(fresh, dtype=np.int8), (len(keys),))
    return Kind(keys=keys, fresh=each)


def basis_of(highs: Any, *, columns: tuple[Kind, ...], rows: tuple[Kind, ...]) -> Basis:
    """The basis at which an open LP stands."""
    basis = highs.getBasis()
    return Basis(columns=_keyed(columns, basis.col_status), rows=_keyed(rows, basis.row_status))


def begin(highs: Any, basis: Basis, *, columns: tuple[Kind, ...], rows: tuple[Kind, ...]) -> None:
    """Let the next run begin at the basis of another LP, over what both have."""
    begun = highspy.HighsBasis()
    begun.valid = True
    begun.col_status = _matched(columns, basis.columns)
    begun.row_status = _matched(rows, basis.rows)
    _must(highs.setBasis(begun), "take a basis")


def _keyed(kinds: tuple[Kind, ...], statuses: list[Any]) -> tuple[Kind, ...]:
    ends = np.cumsum([len(one.keys) for one in kinds])
    codes = np.fromiter(map(int, statuses), dtype=np.int8, count=len(statuses))
    parts = np.split(codes, ends[:-1])
    return tuple(Kind(keys=one.keys, fresh=part) for one, part in zip(kinds, parts, strict=True))


def _matched(kinds: tuple[Kind, ...], known: tuple[Kind, ...]) -> list[Any]:
    found: list[int] = []
    for new, old in zip(kinds, known, strict=True):
        codes = new.fresh.copy()
        if len(old.keys):
            at = np.minimum(np.searchsorted(old.keys, new.keys), len(old.keys) - 1)
            same = old.keys[at] == new.keys
            codes[same] = old.fresh[at[same]]
        found += codes.tolist()
    return [_STATUS[code] for code in found]


def opened(lp: Any) -> Any:
    """A HiGHS object that holds an LP and keeps its basis from run to run."""
    return _holding(lp, {"presolve": "off"})


def run(highs: Any) -> bool:
    """Run to an optimum; False if a limit or an interrupt came before there was one.

    A run that fails is done once more from no basis. Raises FatalError if that finds no optimum
    either.
    """
    stopped = (highspy.HighsModelStatus.kInterrupt, highspy.HighsModelStatus.kIterationLimit)
    for _ in range(2):
        failed = highs.run() == highspy.HighsStatus.kError
        status = highs.getModelStatus()
        if not failed and status == highspy.HighsModelStatus.kOptimal:
            return True
        if status in stopped:
            return False
        _must(highs.clearSolver(), "forget a basis")
    raise FatalError(f"HiGHS stopped a relaxation with {status}; report the problem")


def must_run(highs: Any) -> None:
    """Run an LP without limits to an optimum. Raises FatalError if there is none."""
    if not run(highs):
        raise FatalError("HiGHS stopped a relaxation that has no limit; report the problem")


def bound_columns(highs: Any, index: NDArray[np.intp], upper: float) -> None:
    """Give some columns of an open LP a new upper bound, above 0."""
    count = len(index)
    status = highs.changeColsBounds(
        count, index.astype(np.int32), np.zeros(count), np.full(count, upper)
    )
    _must(status, "bound columns")


def bound_rows(highs: Any, lower: Floats) -> None:
    """Give the first rows of an open LP new lower bounds, without upper ones."""
    index = np.arange(len(lower), dtype=np.int32)
    status = highs.changeRowsBounds(len(index), index, lower, np.full(len(index), INF))
    _must(status, "bound rows")


def add_rows(highs: Any, rows: Rows) -> None:
    """Give an open LP more rows; its basis stays."""
    order = np.lexsort((rows.column, rows.row))
    starts = np.searchsorted(rows.row[order], np.arange(len(rows.lower)))
    status = highs.addRows(
        len(rows.lower),
        rows.lower,
        rows.upper,
        len(order),
        starts.astype(np.int32),
        rows.column[order].astype(np.int32),
        rows.value[order],
    )
    _must(status, "take more rows")


def limit(highs: Any, *, pivots: int) -> None:
    """Stop runs of an open LP after so many simplex pivots."""
    _must(highs.setOptionValue("simplex_iteration_limit", pivots), "set the pivots")


def interruptible(highs: Any, is_over: Callable[[], bool]) -> None:
    """Let runs of an open problem stop once `is_over` says so."""

    def ask(event: Any) -> None:
        if is_over():
            event.interrupt()

    highs.cbSimplexInterrupt.subscribe(ask)
    highs.cbMipInterrupt.subscribe(ask)


def solve(lp: Any) -> Answer:
    """Solve an LP. Raises FatalError if HiGHS errs."""
    highs = _quiet(lp)
    _must(highs.run(), "run")
    return _answer(highs)


def relaxed(lp: Any, *, is_over: Callable[[], bool]) -> Floats | None:
    """The point of a MIP's relaxation; None if stopped. Raises FatalError if HiGHS errs."""
    highs = _quiet(lp)
    _must(highs.setOptionValue("solve_relaxation", True), "relax")
    interruptible(highs, is_over)
    _must(highs.run(), "run")
    return _answer(highs).values


def search(
    lp: Any,
    *,
    gap: float,
    nodes: int,
    seed: int,
    start: tuple[NDArray[np.intp], Floats],
    is_over: Callable[[], bool],
    thorough: bool = False,
) -> Floats | None:
    """The best point of a MIP within a gap and node budget, from a partial first guess; None if
    stopped by `is_over` before there was one. A `thorough` search begins again where that pays and
    looks around its best points (RINS). Raises FatalError if HiGHS errs.
    """
    highs = _quiet(lp)
    options: dict[str, Any] = {
        "random_seed": seed,
        "mip_rel_gap": gap,
        "mip_max_nodes": nodes,
        "mip_pscost_minreliable": 1,
        # measured on clusters of sites: the points come from RENS, the others cost as much time
        "mip_heuristic_run_rins": thorough,
        "mip_heuristic_run_root_reduced_cost": False,
        "mip_heuristic_run_feasibility_jump": False,
        "mip_allow_restart": thorough,
        "mip_feasibility_tolerance": 1e-7,
    }
    for name, value in options.items():
        _must(highs.setOptionValue(name, value), f"set {name}")
    index, value = start
    _must(highs.setSolution(len(index), index.astype(np.int32), value), "take the start")
    interruptible(highs, is_over)
    if isinstance(is_over, Deadline):  # what it searches apart (RENS, RINS) asks nobody
        _must(highs.setOptionValue("time_limit", is_over.left_s()), "limit its time")
    _must(highs.run(), "run")
    return _answer(highs).values


def dive(lp: Any, *, whole: NDArray[np.intp], is_over: Callable[[], bool]) -> Floats | None:
    """A point of an LP with `whole` columns whole, by rounding up: all that are nearly whole, or
    the one that is nearest, and the LP again; what fits no more is rounded down. It has to stay
    feasible for any of them rounded down. None if stopped or not done after `_DIVES` rounds.
    """
    highs = _quiet(lp)
    _must(highs.run(), "run")
    _must(highs.setOptionValue("presolve", "off"), "keep a basis")
    index = whole.astype(np.int32)
    least, most = np.array(lp.col_lower_)[whole], np.array(lp.col_upper_)[whole]

    def held() -> bool:
        _must(highs.changeColsBounds(len(index), index, least, most), "bound columns")
        _must(highs.run(), "run")
        return bool(highs.getModelStatus() == highspy.HighsModelStatus.kOptimal)

    for _ in range(_DIVES):
        if is_over() or highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            break
        values = np.array(highs.getSolution().col_value)
        floor = np.floor(values[whole] + _WHOLE)
        part = values[whole] - floor
        order = np.lexsort((np.arange(len(whole)), -part))
        if (part <= _WHOLE).all():
            return values
        count = max(1, int((part >= _NEARLY).sum()))
        while not is_over():
            some = order[:count]
            before = least[some].copy()
            least[some] = floor[some] + 1.0
            if (least <= most).all() and held():
                break
            least[some] = before
            if count == 1:
                most[some] = floor[some]
                held()
                break
            count = (count + 1) // 2
    return None


def _quiet(lp: Any) -> Any:
    return _holding(lp, {"primal_feasibility_tolerance": 1e-8})


def _holding(lp: Any, options: dict[str, Any]) -> Any:
    highs = highspy.Highs()
    for name, value in {"output_flag": False, "threads": 1, **options}.items():
        _must(highs.setOptionValue(name, value), f"set {name}")
    tame(highs, np.array(lp.col_cost_), beyond=_DEAR)
    _must(highs.passModel(lp), "take the model")
    return highs


def _answer(highs: Any) -> Answer:
    status = highs.getInfo().primal_solution_status
    solution = highs.getSolution()
    feasible = status == highspy.SolutionStatus.kSolutionStatusFeasible
    return Answer(
        values=np.array(solution.col_value) if feasible else None,
        row_duals=np.array(solution.row_dual),
    )


def _must(status: Any, action: str) -> None:
    if status == highspy.HighsStatus.kError:
        raise FatalError(f"HiGHS could not {action}; report the problem that causes it")
