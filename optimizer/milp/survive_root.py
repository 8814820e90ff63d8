"""Cuts for lost sites found on the linear relaxation, before any search.

Decides which cuts the first search starts with. A search that learns of its losses one whole plan
at a time goes through many; the relaxation is solved again in a moment, so most of what the losses
say is said there (on the European example fleet: 6 searches without, 1 or 2 with them).
"""

from __future__ import annotations

import highspy
import numpy as np

from optimizer.milp.constraints_survive import SurvivalCut
from optimizer.milp.highs import Compiled, compile_model, index_of
from optimizer.milp.model import Formulation
from optimizer.milp.survive import Losses, quiet
from sites.units import WHOLE_BP

_MOST_ROUNDS = 30
_WORTHWHILE_PART = 1e-4
"""Cuts that ask for less than this part of the relaxation's cost are left to the search."""

_ACTIVE = 1e-9


def root_cuts(formulation: Formulation, losses: Losses) -> tuple[SurvivalCut, ...]:
    """The cuts that bind the linear relaxation once no loss asks for much more; () if none does."""
    sites = losses.sites()
    if not sites:
        return ()
    relaxation = _Relaxation(compile_model(formulation))
    for _ in range(_MOST_ROUNDS):
        if not relaxation.solve():
            return ()
        n, shed = relaxation.values("n"), relaxation.values("shed")
        shed_bp = {c: shed[c] / rate * WHOLE_BP for c, rate in formulation.inputs.rates.items()}
        asked = [losses.recourse(site_id).cuts(n=n, shed_bp=shed_bp) for site_id in sites]
        new = [
            cut
            for cuts in asked
            for cut in cuts
            if cut.risk_usd_per_h(n=n, shed=shed) > relaxation.risk(cut)
        ]
        if not new:
            break
        relaxation.add(new)
    return relaxation.binding()


class _Relaxation:
    """The relaxation of a formulation with its risk columns and the cuts so far."""

    def __init__(self, compiled: Compiled) -> None:
        self._highs = quiet()
        lp = compiled.lp
        self._highs.passModel(lp)
        count = lp.num_col_
        continuous = np.full(count, int(highspy.HighsVarType.kContinuous), dtype=np.uint8)
        self._highs.changeColsIntegrality(count, np.arange(count, dtype=np.int32), continuous)
        self._columns: dict[str, dict[str, int]] = {"n": {}, "shed": {}}
        for at, variable in enumerate(compiled.columns):
            name = variable.parent_component().local_name
            if name in self._columns:
                self._columns[name][index_of(variable)] = at
        self._risk: dict[tuple[str, str], int] = {}
        self._first_row = lp.num_row_
        self._cuts: list[SurvivalCut] = []
        self._solution: list[float] = []

    def solve(self) -> bool:
        """Whether there is an optimum (without one, the search says why)."""
        self._highs.run()
        if self._highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return False
        self._solution = list(self._highs.getSolution().col_value)
        return True

    def values(self, name: str) -> dict[str, float]:
        """The solution's replicas ("n") or traffic shed ("shed")."""
        return {index: self._solution[at] for index, at in self._columns[name].items()}

    def risk(self, cut: SurvivalCut) -> float:
        """What the solution already pays for a loss, and what is not worth a cut (USD/h)."""
        cost = abs(float(self._highs.getInfo().objective_function_value))
        known = [self._risk[key] for key in self._keys(cut) if key in self._risk]
        paid = float(sum(self._solution[at] for at in known))
        return paid + _WORTHWHILE_PART * max(1e-6, cost)

    def add(self, cuts: list[SurvivalCut]) -> None:
        """Give the relaxation more cuts."""
        for cut in cuts:
            entries = {self._column(key): 1.0 for key in self._keys(cut)}
            entries |= {self._columns["n"][g]: v for g, v in cut.per_replica.items()}
            entries |= {self._columns["shed"][d]: v for d, v in cut.per_rps.items()}
            index = np.array(sorted(entries), dtype=np.int32)
            value = np.array([entries[at] for at in sorted(entries)])
            self._highs.addRow(cut.least, highspy.kHighsInf, len(index), index, value)
        self._cuts += cuts

    def _keys(self, cut: SurvivalCut) -> list[tuple[str, str]]:
        return [(cut.lost_site_id, part) for part in cut.parts]

    def _column(self, key: tuple[str, str]) -> int:
        """The column of a risk, added when a cut first speaks of it."""
        if key not in self._risk:
            self._risk[key] = self._highs.getNumCol()
            self._highs.addCol(1.0, 0.0, highspy.kHighsInf, 0, np.zeros(0, np.int32), np.zeros(0))
        return self._risk[key]

    def binding(self) -> tuple[SurvivalCut, ...]:
        """The cuts that hold the last solution up."""
        if not self._cuts:
            return ()
        duals = self._highs.getSolution().row_dual[self._first_row :]
        return tuple(
            cut for cut, dual in zip(self._cuts, duals, strict=False) if abs(dual) > _ACTIVE
        )
