"""A first plan from HiGHS's own search over what relaxations used.

Decides which whole columns may leave zero: those some relaxation used. The answer is only a guess
at whole values; the tree tries it against all rows and columns. Its budget is nodes and looks (how
often HiGHS asks whether to go on, the same each time), so that it repeats itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import highspy
import numpy as np

from optimizer.milp.whole.relaxation import Relaxation
from optimizer.tables import Floats

_NODES = 200
_LOOKS = 1_000
"""A few dozen a second on relaxations of 10 000 columns; most searches end long before."""


def restricted_search(
    relaxation: Relaxation,
    *,
    gap: float,
    seed: int,
    is_over: Callable[[], bool],
    guess: Floats | None = None,
) -> Floats | None:
    """Values by column of a good point among the columns seen so far; None if there is none."""
    whole, looks = relaxation.whole, 0

    def look(event: Any) -> None:
        nonlocal looks
        looks += 1
        if looks > _LOOKS or is_over():
            event.interrupt()

    highs = highspy.Highs()
    options: dict[str, Any] = {
        "output_flag": False,
        "threads": 1,
        "random_seed": seed,
        "mip_rel_gap": gap,
        "mip_max_nodes": _NODES,
    }
    for name, value in options.items():
        highs.setOptionValue(name, value)
    highs.cbMipInterrupt += look
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
