"""Mixed-integer programmes handed straight to HiGHS: peers written as textbooks write them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np

INF = highspy.kHighsInf


@dataclass(frozen=True, kw_only=True, slots=True)
class Programme:
    """Minimise cost x; `entries` are (row, column, value) arrays; columns lie in 0..high."""

    cost: np.ndarray
    high: np.ndarray
    whole: np.ndarray
    entries: tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]
    row_low: np.ndarray
    row_high: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """Cost (None: no point found), bound, point, wall seconds."""

    cost: float | None
    bound: float
    point: np.ndarray
    wall_s: float


def minimise(programme: Programme, *, gap: float, limit_s: float) -> Answer:
    """Solve with HiGHS: one thread, its own presolve and heuristics."""
    started = time.perf_counter()
    row, column, value = (np.concatenate([e[k] for e in programme.entries]) for k in range(3))
    order = np.lexsort((column, row))
    starts = np.searchsorted(row[order], np.arange(len(programme.row_low) + 1))
    highs = highspy.Highs()
    options: dict[str, Any] = {
        "output_flag": False,
        "threads": 1,
        "mip_rel_gap": gap,
        "time_limit": limit_s,
    }
    for option, setting in options.items():
        highs.setOptionValue(option, setting)
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = len(programme.cost), len(programme.row_low)
    lp.col_cost_, lp.col_lower_ = programme.cost, np.zeros(len(programme.cost))
    lp.col_upper_ = programme.high
    kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
    lp.integrality_ = [kinds[int(w)] for w in programme.whole]
    lp.row_lower_, lp.row_upper_ = programme.row_low, programme.row_high
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = starts.astype(np.int32)
    lp.a_matrix_.index_ = column[order].astype(np.int32)
    lp.a_matrix_.value_ = value[order]
    highs.passModel(lp)
    highs.run()
    info = highs.getInfo()
    feasible = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    return Answer(
        cost=float(info.objective_function_value) if feasible else None,
        bound=float(info.mip_dual_bound),
        point=np.array(highs.getSolution().col_value),
        wall_s=time.perf_counter() - started,
    )
