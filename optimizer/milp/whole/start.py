"""A first plan from HiGHS's own search over what relaxations used.

Decides which whole columns may leave zero: those some relaxation used. The answer is only a guess
at whole values; the tree tries it against all rows and columns.
"""

from __future__ import annotations

from typing import Any

import highspy
import numpy as np

from optimizer.milp.whole.relaxation import Relaxation
from optimizer.tables import Floats

_NODES = 200


def restricted_search(
    relaxation: Relaxation, *, gap: float, seed: int, time_s: float, guess: Floats | None = None
) -> Floats | None:
    """Values by column of a good point among the columns seen so far; None if there is none."""
    whole = relaxation.whole
    highs = highspy.Highs()
    options: dict[str, Any] = {
        "output_flag": False,
        "threads": 1,
        "random_seed": seed,
        "mip_rel_gap": gap,
        "mip_max_nodes": _NODES,
        "time_limit": time_s,
    }
    for name, value in options.items():
        highs.setOptionValue(name, value)
    highs.passModel(relaxation.model())
    at = relaxation.places(np.flatnonzero(whole.whole))
    column = np.flatnonzero(whole.whole)
    kinds = np.full(len(at), int(highspy.HighsVarType.kInteger), dtype=np.uint8)
    highs.changeColsIntegrality(len(at), at, kinds)
    upper = np.where(relaxation.seen[column], whole.upper[column], whole.lower[column])
    if guess is not None:
        upper = np.maximum(upper, guess[column])
    highs.changeColsBounds(len(at), at, whole.lower[column], upper)
    if guess is not None:
        highs.setSolution(len(at), at, guess[column])
    highs.run()
    if highs.getInfo().primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
        return None
    values = np.zeros(whole.columns)
    values[column] = np.round(np.array(highs.getSolution().col_value)[at])
    return values
