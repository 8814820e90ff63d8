"""A first plan by diving: solve the linear relaxation, settle some replica counts, solve again.

Decides only where the search starts; it carries no bound and proves nothing. Replica counts nearest
to whole are rounded to nearest, the least sure of a round go up (served traffic is worth more than
an idle replica); what a rounding makes infeasible goes down instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np

_WHOLE = 1e-6
_SHARE_PER_ROUND = 0.25
_MOST_ROUNDS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Dive:
    """Whole values of the integer columns (by column) and what the plan they allow costs."""

    values: dict[int, float]
    cost: float


def dive(lp: Any, *, seed: int, time_s: float) -> Dive | None:
    """Settle all integer columns of a minimisation, or None where no rounding stays feasible.

    `lp` is a HighsLp; it is not changed. Deterministic for one seed while the time holds.
    """
    whole = [at for at, kind in enumerate(lp.integrality_) if kind == highspy.HighsVarType.kInteger]
    highs = _relaxed(lp, seed=seed, time_s=time_s)
    open_columns = set(whole)
    for _ in range(_MOST_ROUNDS):
        if not _solved(highs):
            return None
        point = highs.getSolution().col_value
        if not open_columns:
            cost = float(highs.getInfo().objective_function_value)
            return Dive(values={at: round(point[at]) for at in whole}, cost=cost)
        settled = _choose(point, sorted(open_columns))
        for at, value in settled:
            highs.changeColBounds(at, value, value)
        if not _solved(highs) and not _go_down(highs, point, settled):
            return None
        open_columns -= {at for at, _ in settled}
    return None


def _relaxed(lp: Any, *, seed: int, time_s: float) -> Any:
    highs = highspy.Highs()
    for name, value in {
        "output_flag": False,
        "threads": 1,
        "random_seed": seed,
        "time_limit": time_s,
    }.items():
        highs.setOptionValue(name, value)
    highs.passModel(lp)
    columns = np.arange(lp.num_col_, dtype=np.int32)
    kinds = np.full(lp.num_col_, int(highspy.HighsVarType.kContinuous), dtype=np.uint8)
    highs.changeColsIntegrality(lp.num_col_, columns, kinds)
    return highs


def _solved(highs: Any) -> bool:
    highs.run()
    return bool(highs.getModelStatus() == highspy.HighsModelStatus.kOptimal)


def _choose(point: Any, columns: list[int]) -> list[tuple[int, float]]:
    """What to settle this round: all whole columns, and the surest part of the fractional ones."""
    settled = []
    fractional = []
    for at in columns:
        nearest = round(point[at])
        if abs(point[at] - nearest) <= _WHOLE and nearest > 0:
            settled.append((at, float(nearest)))
        elif abs(point[at] - nearest) > _WHOLE:
            fractional.append(at)
    if not fractional:
        return [(at, float(round(point[at]))) for at in columns]
    fractional.sort(key=lambda at: (math.ceil(point[at]) - point[at], at))
    count = max(1, int(len(fractional) * _SHARE_PER_ROUND))
    return settled + [(at, float(math.ceil(point[at]))) for at in fractional[:count]]


def _go_down(highs: Any, point: Any, settled: list[tuple[int, float]]) -> bool:
    for at, _ in settled:
        down = float(math.floor(point[at] + _WHOLE))
        highs.changeColBounds(at, down, down)
    return _solved(highs)
