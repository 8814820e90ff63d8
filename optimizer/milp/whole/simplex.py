"""HiGHS as the relaxation uses it: simplex, warm from run to run, stopped when time is over."""

from __future__ import annotations

from typing import Any

import highspy

from optimizer.milp.stopping import Watch
from sites.errors import FatalError

OPTIMAL = highspy.HighsModelStatus.kOptimal
STOPPED = highspy.HighsModelStatus.kInterrupt
EMPTY = (
    highspy.HighsModelStatus.kInfeasible,
    highspy.HighsModelStatus.kUnboundedOrInfeasible,
)

DEAR = 1e7
"""USD/h: a column that costs more has all costs of its model scaled down."""


def fresh(watch: Watch) -> Any:
    """A HiGHS object whose runs ask `watch` whether to stop."""
    highs = highspy.Highs()
    options: dict[str, Any] = {
        "output_flag": False,
        "threads": 1,
        "presolve": "off",
        "primal_feasibility_tolerance": 1e-8,
        "dual_feasibility_tolerance": 1e-8,
    }
    for name, value in options.items():
        must(highs.setOptionValue(name, value), f"set {name}")
    highs.cbSimplexInterrupt += watch
    return highs


def run(highs: Any, watch: Watch) -> Any:
    """OPTIMAL, STOPPED or one of EMPTY. Raises KeyboardInterrupt where one came meanwhile,
    FatalError where HiGHS finds no way.
    """
    for attempt in _ATTEMPTS:
        attempt(highs)
        must(highs.run(), "run")
        watch.end()
        status = highs.getModelStatus()
        if status in (OPTIMAL, STOPPED, *EMPTY):
            _as_usual(highs)
            return status
    raise FatalError(
        f"relaxation ended with {highs.modelStatusToString(status)!r}; "
        "report the problem that causes it"
    )


def _as_usual(highs: Any) -> None:
    """Dual simplex from where it stands."""
    must(highs.setOptionValue("simplex_strategy", 1), "choose dual simplex")


def _by_primal(highs: Any) -> None:
    """Primal simplex from where it stands: a point that dual simplex gave up on."""
    must(highs.setOptionValue("simplex_strategy", 4), "choose primal simplex")


def _from_scratch(highs: Any) -> None:
    """Dual simplex without what is known."""
    _as_usual(highs)
    must(highs.clearSolver(), "forget")


_ATTEMPTS = (_as_usual, _by_primal, _from_scratch)


def must(status: Any, action: str) -> None:
    """Raises FatalError where HiGHS refused what it was asked for."""
    if status == highspy.HighsStatus.kError:
        raise FatalError(f"HiGHS could not {action}; report the problem that causes it")
