"""What is left to protected classes after a loss, where HiGHS errs."""

from __future__ import annotations

import highspy

from optimizer.arcs import find_arcs
from optimizer.milp.constraints_survive import SurvivalCut
from optimizer.milp.survive import Losses
from optimizer.reach import Reach
from tests.optimizer import builders as b
from tests.optimizer.test_survive import B, C, three_sites


class _OnceInfeasible:
    """HiGHS, but the first answer it gives is wrong."""

    def __init__(self, highs: highspy.Highs) -> None:
        self._highs, self._erred = highs, False

    def __getattr__(self, name: str) -> object:
        return getattr(self._highs, name)

    def getModelStatus(self) -> highspy.HighsModelStatus:
        was, self._erred = self._erred, True
        return self._highs.getModelStatus() if was else highspy.HighsModelStatus.kInfeasible


def test_a_loss_that_highs_wrongly_calls_infeasible_is_asked_anew() -> None:
    problem = three_sites([b.traffic_class(protected=True)])
    groups = [arc.group for arc in find_arcs(problem).arcs]

    def cuts(*, erring: bool) -> list[SurvivalCut]:
        recourse = Losses(Reach(problem), groups).recourse("a")
        if erring:
            vars(recourse)["_highs"] = _OnceInfeasible(vars(recourse)["_highs"])
        return recourse.cuts(n={B: 0.5, C: -1e-6}, shed_bp={})

    assert cuts(erring=True) == cuts(erring=False)
