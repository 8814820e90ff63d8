"""The search over one matrix: relaxation, a first point, then searches over ever more columns.

Decides how the gap asked for is spent and what goes first. Knows columns and rows, no plan.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from optimizer.milp.arrays import Matrix
from optimizer.milp.stopping import INTERRUPT, TIME_LIMIT, never
from optimizer.milp.whole.ascent import first_columns
from optimizer.milp.whole.core import Answer, Budget, Core
from optimizer.milp.whole.limit import Limit
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Root:
    """A matrix with its relaxation (None: time was over before it began) and what that came to.
    `bound` holds for every point (USD/h; inf: there is none).
    """

    whole: Whole
    bound: float
    relaxation: Relaxation | None = None
    relaxed: Relaxed | None = None


def take_root(matrix: Matrix, *, limit: Limit | None = None) -> Root:
    """The relaxation of a matrix, or what is proven of it once the time for searching is over.

    Raises KeyboardInterrupt where one comes meanwhile.
    """
    is_over = never if limit is None else limit.is_over
    whole = take_whole(matrix)
    if whole.columns == 0 and not whole.is_void:  # nothing is asked for, nothing runs
        return Root(whole=whole, bound=0.0)
    first = first_columns(matrix, upper=whole.upper, is_over=is_over)
    if is_over():
        return Root(whole=whole, bound=first.bound)
    relaxation = Relaxation(whole, first=first.columns)
    relaxed = relaxation.solve(whole.lower, whole.upper, is_over=is_over)
    if relaxed.is_stopped:
        return Root(whole=whole, bound=max(relaxed.bound, first.bound))
    return Root(whole=whole, bound=relaxed.bound, relaxation=relaxation, relaxed=relaxed)


def search(
    root: Root, *, policy: PlanPolicy, limit: Limit | None = None, guess: Floats | None = None
) -> Searched:
    """The best point of a matrix within the policy's gap and nodes, and the limit's part.

    `guess` holds values by column of the matrix, those of whole columns are tried as a point.
    Whatever time cuts short, the answer says so. An interrupt ends the search with its best point;
    raises KeyboardInterrupt where there is none yet.
    """
    found = Found(bound=root.bound)
    if root.whole.columns == 0 and not root.whole.is_void:
        found.values, found.cost = np.zeros(0), 0.0
        return Searched(found=found)
    if root.relaxation is None or root.relaxed is None:
        return Searched(found=found, hit_limit=TIME_LIMIT)
    if root.relaxed.is_empty:
        return Searched(found=found)
    time = _Time(limit)
    rounds = _Rounds(root.relaxation, root.relaxed, found=found, policy=policy, time=time)
    try:
        rounds.run(_within(root.whole, guess))
    except KeyboardInterrupt:
        if found.values is None:
            raise
        return Searched(found=found, hit_limit=INTERRUPT)
    hit = TIME_LIMIT if time.was_over else "" if rounds.is_done else NODE_LIMIT
    return Searched(found=found, hit_limit=hit)


class _Time:
    """Asks whether time is over and remembers if it ever was: then something was left out."""

    def __init__(self, limit: Limit | None) -> None:
        self._limit = limit
        self.was_over = False

    def is_over(self) -> bool:
        """Whether the part for this search is over."""
        limit = self._limit
        self.was_over = self.was_over or (limit is not None and limit.is_part_over())
        return self.was_over

    def is_spent(self) -> bool:
        """Whether not even the time set aside is left."""
        is_spent = self._limit is not None and self._limit.is_spent()
        self.was_over = self.was_over or is_spent
        return is_spent

    def left_s(self) -> float:
        """Seconds left of the part."""
        return INF if self._limit is None else self._limit.left_s()


class _Rounds:
    """Search, try the point against all columns and rows, and search with more of them."""

    def __init__(
        self,
        relaxation: Relaxation,
        root: Relaxed,
        *,
        found: Found,
        policy: PlanPolicy,
        time: _Time,
    ) -> None:
        self._relaxation, self._found, self._time = relaxation, found, time
        self._core = Core(relaxation, root, seed=policy.seed)
        self._gap, self._nodes = policy.gap_limit * _SEARCHED_GAP, policy.node_limit
        self.is_done = False

    def run(self, guess: Floats | None) -> None:
        """Until the gap is closed, nothing better is left, or a budget is spent."""
        if guess is not None:
            self._offer(guess)
        elif not self._time.is_over():
            gap = max(_FIRST_GAP, self._gap * _SOLVER_GAP)
            first = self._core.first(self._budget(gap, most=_FIRST_NODES, looks=_FIRST_LOOKS))
            self._take(first)
        widths = _WIDTHS if self._relaxation.whole.flow.sum() > _FEW else ()
        for width in (*widths, *[INF] * (_ROUNDS - len(widths))):
            if self._is_closed():
                self.is_done = True
            if self.is_done or self._time.is_over() or self._found.nodes >= self._nodes:
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
        time = self._time
        return Budget(gap=gap, nodes=nodes, is_over=time.is_over, looks=looks, time_s=time.left_s())

    def _take(self, answer: Answer) -> None:
        self._found.nodes += answer.nodes
        if answer.values is not None:
            is_last = answer.was_interrupted or self._time.is_over()
            if is_last and not answer.has_escaped and not self._relaxation.breaks(answer.values):
                self._keep(answer.values)  # there may be no time to look for the best of its kind
            self._offer(answer.values)
        if answer.was_interrupted:
            raise KeyboardInterrupt

    def _offer(self, values: Floats) -> None:
        """Try values of the whole columns (by column) as a point; counts follow from the others."""
        whole = self._relaxation.whole
        at = np.flatnonzero(whole.whole & ~whole.count)
        low, high = whole.lower.copy(), whole.upper.copy()
        low[at] = high[at] = np.clip(np.round(values[at]), whole.lower[at], whole.upper[at])
        point = self._relaxation.solve(low, high, is_over=self._time.is_spent)
        if point.is_empty or point.is_stopped:
            return
        self._core.learn(point)
        if point.artificial <= ARTIFICIAL:
            self._keep(point.values)

    def _keep(self, values: Floats) -> None:
        """A point, if it is the best so far."""
        cost = float(self._relaxation.whole.cost @ values)
        if cost < self._found.cost:
            self._found.values, self._found.cost = values, cost

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
