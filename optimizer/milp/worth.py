"""What one more unit of a limit is worth, from the linear relaxation of the formulation.

Decides what "worth" means. The relaxation's dual prices are the rate of the first bit and, because
cost is convex in a limit there, never less than what a whole unit saves; where the optimum is
degenerate there are several, and the solver's choice is only used to tell which limits may be worth
anything and in which order to look at them. The figure stated is the difference of two optima: the
relaxation with one unit more, against without. That one is unique, whatever basis the solver ends
in. Replicas come in parts here: what whole replicas make of a unit, two solves tell (`what_if`).
The cuts for lost sites are those of the relaxation without the unit: what a unit of a link or a
supply would carry after a loss is not counted, so its worth is on the low side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import highspy
import numpy as np
import pyomo.environ as pyo
from numpy.typing import NDArray

from optimizer.milp.constraints import add_rows
from optimizer.milp.constraints_survive import survive_one
from optimizer.milp.elastic import mending_slack
from optimizer.milp.highs import Compiled, compile_model, index_of
from optimizer.milp.inputs import take_inputs
from optimizer.milp.model import LAZY_FAMILIES, Elasticity, Formulation, RowKey, start_formulation
from optimizer.milp.objective import add_cost
from optimizer.milp.scale.workers import Workers
from optimizer.milp.scale.worth import find_worth_at_scale
from optimizer.milp.support import add_rows as append_rows
from optimizer.milp.survive import Losses
from optimizer.milp.survive_root import root_cuts
from optimizer.plan import CandidateArc
from optimizer.problem import Problem
from optimizer.reach import Reach
from optimizer.worth import DUST_USD_PER_H, SOLVED_AGAIN, STEPS, Worth, dearest_first

ARCS_MAX = 20_000
"""Beyond so many arcs the plain relaxation of large fleets is asked, which knows no losses. With
losses to outlive, most of it for the cuts of those, 5 200 arcs take 1.2 s, 8 200 take 3 and 18 300
take 17; of 73 000 one loss was not solved after 100 s.
"""

_OPTIONS: Mapping[str, Any] = {
    "output_flag": False,
    "threads": 1,
    "simplex_iteration_limit": 2_000_000,
    "primal_feasibility_tolerance": 1e-9,
    "dual_feasibility_tolerance": 1e-9,
}
_MOST_ROUNDS = 200
"""Rounds of lazy rows; with 18 300 arcs and losses to outlive 20 did not do, and then the optimum
with a unit more, rows further on, may be the dearer one.
"""

_OF_EACH_REQUEST = frozenset({"latency_mix", "quality_floor"})
"""Families whose unit is granted to every request of a class."""


def find_worth(
    problem: Problem,
    arcs: Iterable[CandidateArc] | None,
    *,
    workers: Workers | None = None,
    is_over: Callable[[], bool] = lambda: False,
    most: int = SOLVED_AGAIN,
) -> tuple[Worth, ...] | None:
    """Limits that save something when one unit of them is granted, the dearest first (USD/h).

    At most `most` of them. Empty where nothing binds or the relaxation has no optimum. `arcs` None:
    too many to list; then, or beyond `ARCS_MAX`, the figures are of the plain relaxation
    (`find_worth_at_scale`), and None if `is_over` came before they were known.
    """
    kept = None if arcs is None else tuple(arcs)
    if kept is None or len(kept) > ARCS_MAX:
        return find_worth_at_scale(problem, workers=workers, is_over=is_over, most=most)
    formulation = _relaxable(problem, kept)
    relaxation = _Relaxation(compile_model(formulation))
    base = relaxation.optimum()
    if base is None:
        return ()
    found = []
    for row, key, at_first in _limits_by_price(formulation, relaxation.duals())[:most]:
        saved = base - relaxation.optimum_with(row, more=_step(formulation, key))
        if saved > DUST_USD_PER_H:
            found.append(
                Worth(
                    code=key[0],
                    subject=key[1],
                    unit=STEPS[key[0]][1],
                    usd_per_h=min(saved, at_first),
                    at_first_usd_per_h=at_first,
                )
            )
    return dearest_first(found)


def relaxed_usd_per_h(problem: Problem, arcs: Iterable[CandidateArc]) -> float | None:
    """The optimum `find_worth` takes its differences of (USD/h); None if there is none."""
    return _Relaxation(compile_model(_relaxable(problem, tuple(arcs)))).optimum()


def _relaxable(problem: Problem, arcs: tuple[CandidateArc, ...]) -> Formulation:
    """The formulation with replica counts free to pass what a pool or budget allows today: the
    rows alone hold them, so that a unit more of a row counts.
    """
    inputs = take_inputs(problem, arcs, beyond_limits=True)
    slack = mending_slack(problem, arcs)
    formulation = start_formulation(inputs, Elasticity(slack=slack))
    add_rows(formulation)
    add_cost(formulation)
    groups = [facts.option.group for facts in inputs.groups.values()]
    cuts = root_cuts(formulation, Losses(Reach(problem), groups))
    if cuts:
        survive_one(formulation, cuts)
    return formulation


class _Relaxation:
    """The linear relaxation in the solver, warm between solves, its lazy rows added as needed."""

    def __init__(self, compiled: Compiled) -> None:
        self._lp, self._lazy = compiled.lp, compiled.lazy
        self._lower, self._upper = list(compiled.lp.row_lower_), list(compiled.lp.row_upper_)
        self._added: NDArray[np.intp] = np.zeros(0, dtype=np.intp)
        self._highs = highspy.Highs()
        for name, value in _OPTIONS.items():
            self._highs.setOptionValue(name, value)
        count = self._lp.num_col_
        continuous = np.full(count, int(highspy.HighsVarType.kContinuous), dtype=np.uint8)
        self._highs.passModel(self._lp)
        self._highs.changeColsIntegrality(count, np.arange(count, dtype=np.int32), continuous)

    def optimum(self) -> float | None:
        """The least cost (USD/h); None without an optimum."""
        for _ in range(_MOST_ROUNDS):
            self._highs.run()
            if self._highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
                return None
            values = np.array(self._highs.getSolution().col_value)
            broken = np.setdiff1d(self._lazy.broken_at(values), self._added)
            if len(broken) == 0:
                break
            append_rows(self._highs, self._lazy.only(broken))
            self._added = np.concatenate((self._added, broken))
        return float(self._highs.getInfo().objective_function_value)

    def optimum_with(self, row: int, *, more: float) -> float:
        """The least cost with one row's upper limit raised; the limit is put back."""
        self._highs.changeRowBounds(row, self._lower[row], self._upper[row] + more)
        value = self.optimum()
        self._highs.changeRowBounds(row, self._lower[row], self._upper[row])
        return float("inf") if value is None else value

    def duals(self) -> NDArray[np.float64]:
        """Change of the cost per unit of each row's limit, at the last optimum."""
        return np.array(self._highs.getSolution().row_dual)


def _limits_by_price(
    formulation: Formulation, duals: NDArray[np.float64]
) -> list[tuple[int, RowKey, float]]:
    """Rows whose limit can be changed, with what a step of it may save at most, dearest first."""
    priced = []
    for at, key in enumerate(_row_keys(formulation)):
        if key in formulation.limits and key[0] in STEPS:
            most = -float(duals[at]) * _step(formulation, key)
            if most > DUST_USD_PER_H:
                priced.append((-most, key, at))
    return [(at, key, -most) for most, key, at in sorted(priced)]


def _step(formulation: Formulation, key: RowKey) -> float:
    each = formulation.inputs.rates[key[1]] if key[0] in _OF_EACH_REQUEST else 1.0
    return STEPS[key[0]][0] * each


def _row_keys(formulation: Formulation) -> list[RowKey]:
    """Family and subject of each row, in the order `compile_model` gives them to the solver."""
    rows = formulation.root.component_data_objects(pyo.Constraint, active=True, descend_into=True)
    named = ((row.parent_component().local_name, str(index_of(row))) for row in rows)
    return [key for key in named if key[0] not in LAZY_FAMILIES]
