"""The search over one matrix: relaxation, a first point, then searches over ever more columns.

Decides how the gap asked for is spent and what goes first. Knows columns and rows, no plan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from optimizer.milp.arrays import Matrix
from optimizer.milp.highs import INTERRUPT, TIME_LIMIT
from optimizer.milp.whole.ascent import first_columns
from optimizer.milp.whole.core import Answer, Budget, Core
from optimizer.milp.whole.matrix import Whole, take_whole
from optimizer.milp.whole.relaxation import ARTIFICIAL, INF, Relaxation, Relaxed
from optimizer.policy import PlanPolicy
from optimizer.tables import Floats

NODE_LIMIT = "node_limit"

_SEARCHED_GAP = 0.9
"""Part of the gap asked for that the point may spend; the rest is for whole basis points."""

_SOLVER_GAP = 0.5
"""Part of that which the solver may leave open of the columns it holds."""

_FIRST_GAP, _FIRST_NODES, _FIRST_LOOKS = 2e-3, 200, 300
"""What a first point may cost."""

_WIDTHS = (0.3, 0.6, 1.2)
_ROUNDS = 12
"""Widths of the searches for a start; then all columns, until no row is broken any more."""

_FEW = 20_000
"""So many traffic columns are held all at once."""


@dataclass(kw_only=True, slots=True)
class Found:
    """The best point (values by column, None: none yet), its cost, the bound, nodes searched."""

    values: Floats | None = None
    cost: float = INF
    bound: float = -INF
    nodes: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Searched:
    """What a search found (no values and no limit hit: there is no point) and what cut it short."""

    found: Found
    hit_limit: str = ""


def search(
    matrix: Matrix, *, policy: PlanPolicy, is_over: Callable[[], bool], guess: Floats | None = None
) -> Searched:
    """The best point of a matrix within the policy's gap and nodes.

    `guess` holds values by column of the matrix, those of whole columns are tried as a point.
    Whatever time cuts short, the answer says so. An interrupt ends the search with its best point;
    raises KeyboardInterrupt where there is none yet.
    """
    whole = take_whole(matrix)
    relaxation = Relaxation(whole, first=first_columns(matrix, upper=whole.upper))
    root = relaxation.solve(whole.lower, whole.upper)
    found = Found(bound=root.bound)
    if root.is_empty:
        return Searched(found=found)
    asked = _Asked(is_over)
    rounds = _Rounds(relaxation, root, found=found, policy=policy, is_over=asked)
    try:
        rounds.run(_within(whole, guess))
    except KeyboardInterrupt:
        if found.values is None:
            raise
        return Searched(found=found, hit_limit=INTERRUPT)
    hit = TIME_LIMIT if asked.was_over else "" if rounds.is_done else NODE_LIMIT
    return Searched(found=found, hit_limit=hit)


class _Asked:
    """Asks whether time is over and remembers if it ever was: then something was left out."""

    def __init__(self, is_over: Callable[[], bool]) -> None:
        self._is_over = is_over
        self.was_over = False

    def __call__(self) -> bool:
        self.was_over = self.was_over or self._is_over()
        return self.was_over


class _Rounds:
    """Search, try the point against all columns and rows, and search with more of them."""

    def __init__(
        self,
        relaxation: Relaxation,
        root: Relaxed,
        *,
        found: Found,
        policy: PlanPolicy,
        is_over: Callable[[], bool],
    ) -> None:
        self._relaxation, self._found, self._is_over = relaxation, found, is_over
        self._core = Core(relaxation, root, seed=policy.seed)
        self._gap, self._nodes = policy.gap_limit * _SEARCHED_GAP, policy.node_limit
        self.is_done = False

    def run(self, guess: Floats | None) -> None:
        """Until the gap is closed, nothing better is left, or a budget is spent."""
        if guess is not None:
            self._offer(guess)
        elif not self._is_over():
            gap = max(_FIRST_GAP, self._gap * _SOLVER_GAP)
            first = self._core.first(self._budget(gap, most=_FIRST_NODES, looks=_FIRST_LOOKS))
            self._take(first)
        widths = _WIDTHS if self._relaxation.whole.flow.sum() > _FEW else ()
        for width in (*widths, *[INF] * (_ROUNDS - len(widths))):
            if self._is_closed():
                self.is_done = True
            if self.is_done or self._is_over() or self._found.nodes >= self._nodes:
                return
            self._search(width)
        self.is_done = self._is_closed()

    def _search(self, width: float) -> None:
        """One search, for points cheaper than the best, and what its answer proves."""
        found, met = self._found, int(self._relaxation.met.sum())
        cutoff = found.cost
        if found.values is not None:
            self._core.fix(cutoff)
        answer = self._core.search(width, self._budget(self._gap * _SOLVER_GAP), guess=found.values)
        self._take(answer)
        found.bound = min(max(found.bound, min(answer.bound, cutoff)), found.cost)
        is_final = self._core.is_everything and self._relaxation.met.sum() == met
        self.is_done = answer.is_done and (answer.values is None or is_final)

    def _budget(self, gap: float, *, most: int | None = None, looks: float = INF) -> Budget:
        nodes = max(0, self._nodes - self._found.nodes)
        if most is not None:
            nodes = min(nodes, most)
        return Budget(gap=gap, nodes=nodes, is_over=self._is_over, looks=looks)

    def _take(self, answer: Answer) -> None:
        self._found.nodes += answer.nodes
        if answer.values is not None:
            self._offer(answer.values)
        if answer.was_interrupted:
            raise KeyboardInterrupt

    def _offer(self, values: Floats) -> None:
        """Try values of the whole columns (by column) as a point; counts follow from the others."""
        whole, found = self._relaxation.whole, self._found
        at = np.flatnonzero(whole.whole & ~whole.count)
        low, high = whole.lower.copy(), whole.upper.copy()
        low[at] = high[at] = np.clip(np.round(values[at]), whole.lower[at], whole.upper[at])
        point = self._relaxation.solve(low, high)
        if point.is_empty:
            return
        self._core.learn(point)
        cost = float(whole.cost @ point.values)
        if point.artificial <= ARTIFICIAL and cost < found.cost:
            found.values, found.cost = point.values, cost

    def _is_closed(self) -> bool:
        found = self._found
        return found.cost - found.bound <= self._gap * abs(found.cost)


def _within(whole: Whole, guess: Floats | None) -> Floats | None:
    """A guess at the matrix's columns as one at all columns, counts at their most."""
    if guess is None:
        return None
    values = whole.upper.copy()
    values[: len(guess)] = guess
    clipped: Floats = np.clip(values, whole.lower, whole.upper)
    return clipped
