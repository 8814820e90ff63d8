"""A day's hours in whole replicas, each by itself at prices of what joins it to the others.

Proves more than the relaxation does, at the same prices. Let D be the rows of the day that speak of
several hours (`replica_change` between two of them, the answer to deferred demand, limits over the
day), y any prices of them, and ``c z`` the cost of the day:

    c z >= sum_(i in D) min(y_i low_i, y_i high_i) + sum_t min { (c - y A_D) z : z of hour t }

Each minimum is over the hour's own rows with its replicas whole, so the bound of a tree search for
it will do, however early that is ended. Of the European example's hours the relaxation proves 86 %
of what a tree's root does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import highspy
import numpy as np
from numpy.typing import NDArray

from optimizer.milp.arrays_period import Period
from optimizer.milp.day_rows import DayRows
from optimizer.milp.support import ONLY_THE_BOUND, add_rows, run_interruptibly
from optimizer.tables import Floats

_NODES = 20
"""Of an hour's tree: the root proves nearly all (434.2 of 435.8 USD in three hours of the European
example, in 2 s an hour and in 7).
"""

_OPTIONS: dict[str, Any] = {
    **ONLY_THE_BOUND,
    "output_flag": False,
    "threads": 1,
    "mip_max_nodes": _NODES,
}


def hours_in_whole_usd(day: DayRows, proving: Floats, *, time_s: float) -> float:
    """What the day costs at least (USD), its hours in whole replicas; an hour for which there is no
    time, or no tree after a first Ctrl-C, counts with what the prices prove of it. `proving` as
    `DayRows.proving` gives it; `time_s` bounds the solver's seconds in all.
    """
    hour_of = _hour_of(day)
    joins = hour_of < 0
    paid, earned = day.paid_usd(proving), day.earned_usd(proving)
    cost = day.left(np.where(joins, proving, 0.0))
    found, left_s, stopped = float(paid[joins].sum()), time_s, False
    hours = day.matrix.horizon
    for nth, hour in enumerate(hours):
        rows = np.flatnonzero(hour_of == nth)
        span = slice(hour.first, hour.first + hour.width)
        proven = float(paid[rows].sum() + earned[span].sum())
        share_s = left_s / (len(hours) - nth)
        # without whole columns HiGHS tells 0 for the bound of a search
        if share_s > 0 and not stopped and day.matrix.whole[span].any():
            highs = _hour(day, hour, rows, cost=cost[span], time_s=share_s)
            told, stopped = _searched(highs)
            left_s = max(0.0, left_s - float(highs.getRunTime()))
            proven = max(proven, told)
        found += proven
    return found


def _hour_of(day: DayRows) -> NDArray[np.intp]:
    """The hour whose columns alone a row has; -1 where it speaks of several, or of waiting."""
    hours = day.matrix.horizon
    first = np.array([p.first for p in hours])
    hour = np.searchsorted(first, day.rows.index, side="right") - 1
    least, most = np.full(day.rows.count, len(hours)), np.full(day.rows.count, -1)
    np.minimum.at(least, day.row, hour)
    np.maximum.at(most, day.row, hour)
    joins = (least != most) | day.over_all | (day.family == "deferral_window")
    return np.where(joins, -1, most)


def _hour(
    day: DayRows, hour: Period, rows: NDArray[np.intp], *, cost: Floats, time_s: float
) -> Any:
    """HiGHS with an hour's columns at some cost and its own rows."""
    highs = highspy.Highs()
    for name, value in {**_OPTIONS, "time_limit": time_s}.items():
        highs.setOptionValue(name, value)
    none = np.zeros(0, dtype=np.int32)
    most = day.most[hour.first : hour.first + hour.width]
    highs.addCols(hour.width, cost, np.zeros(hour.width), most, 0, none, none, np.zeros(0))
    whole = np.flatnonzero(day.matrix.whole[hour.first : hour.first + hour.width])
    kinds = np.full(len(whole), int(highspy.HighsVarType.kInteger), dtype=np.uint8)
    highs.changeColsIntegrality(len(whole), whole.astype(np.int32), kinds)
    own = day.rows.only(rows)
    add_rows(highs, replace(own, index=(own.index - hour.first).astype(np.int32)))
    return highs


def _searched(highs: Any) -> tuple[float, bool]:
    """What a search proves (USD, -inf: nothing), and whether Ctrl-C ended it."""
    try:
        status = run_interruptibly(highs)
    except KeyboardInterrupt:  # the plan stands; the bound is what is known by now
        return -np.inf, True
    stopped = highs.getModelStatus() == highspy.HighsModelStatus.kInterrupt
    told = float(highs.getInfo().mip_dual_bound)
    # a run that failed tells 0, one that calls a schedule impossible that is there tells inf
    holds = status != highspy.HighsStatus.kError and np.isfinite(told)
    return told if holds else -np.inf, bool(stopped)
