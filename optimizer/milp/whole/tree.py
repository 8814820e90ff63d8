"""Branch and bound over the priced relaxation.

Decides which column to branch on, which node comes next and when a node is done with. Branching is
by what it moved the bound before; where nothing is known yet both sides are tried. The next node is
the child that seems better until a dive ends, then the one of least bound. Budgets are nodes, so
that a search repeats itself; `is_over` is only asked between nodes.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from optimizer.milp.whole.matrix import Places
from optimizer.milp.whole.relaxation import INF, Relaxation, Relaxed
from optimizer.tables import Floats

_INTEGRAL = 1e-6
_TRIED = 1
"""Times a column must have been branched on, each way, before its record is believed."""

_CANDIDATES = 6
_PATIENCE = 3
_TRIAL_ITERATIONS = 150
_ARTIFICIAL = 1e-6


@dataclass(order=True, frozen=True, slots=True)
class _Node:
    bound: float
    number: int
    lower: Floats = field(compare=False)
    upper: Floats = field(compare=False)


@dataclass(kw_only=True, slots=True)
class Found:
    """The best point (values by column, None: none yet), its cost, the bound, nodes searched."""

    values: Floats | None = None
    cost: float = INF
    bound: float = -INF
    nodes: int = 0


class _Records:
    """What branching on each whole column moved the bound, per unit it moved the column."""

    def __init__(self, columns: int) -> None:
        self.total = np.zeros((2, columns))
        self.times = np.zeros((2, columns), dtype=np.intp)

    def note(self, at: int, *, up: bool, moved: float, gain: float) -> None:
        self.total[int(up), at] += max(gain, 0.0) / max(moved, _INTEGRAL)
        self.times[int(up), at] += 1

    def expected(self, at: Places, *, up: bool) -> Floats:
        """Gain per unit; of columns never branched on the mean of the others."""
        total, times = self.total[int(up)], self.times[int(up)]
        mean = total.sum() / times.sum() if times.sum() else 1.0
        known: Floats = np.where(times[at] > 0, total[at] / np.maximum(times[at], 1), mean)
        return known


class Tree:
    """One search. `gap` is relative; `found` may start with a point."""

    def __init__(self, relaxation: Relaxation, *, found: Found, gap: float) -> None:
        self.relaxation = relaxation
        self.found = found
        self.gap = gap
        self._at = np.flatnonzero(relaxation.whole.whole)
        self._records = _Records(relaxation.whole.columns)
        self._heap: list[_Node] = []
        self._pushed = 0

    def search(self, *, nodes: int, is_over: Callable[[], bool]) -> None:
        """Search until the gap is closed, the nodes are spent or time is over."""
        whole = self.relaxation.whole
        self._push(-INF, whole.lower, whole.upper)
        while self._heap and self.found.nodes < nodes and not is_over():
            self._dive(heapq.heappop(self._heap), nodes=nodes, is_over=is_over)
            self._state_bound()

    @property
    def is_done(self) -> bool:
        """Whether no node is left."""
        return not self._heap

    @property
    def cutoff(self) -> float:
        """Cost from which on a node need not be looked into."""
        cost = self.found.cost
        return cost - self.gap * abs(cost) if cost < INF else INF

    def _state_bound(self) -> None:
        self._heap = [node for node in self._heap if node.bound < self.cutoff]
        heapq.heapify(self._heap)
        least = self._heap[0].bound if self._heap else INF
        self.found.bound = min(max(self.found.bound, least), self.cutoff)

    def _push(self, bound: float, lower: Floats, upper: Floats) -> None:
        self._pushed += 1
        heapq.heappush(self._heap, _Node(bound, self._pushed, lower, upper))

    def _dive(self, node: _Node, *, nodes: int, is_over: Callable[[], bool]) -> None:
        """From a node down, a child at a time; the other children are left for later."""
        here: _Node | None = node
        while here is not None and here.bound < self.cutoff:
            if self.found.nodes >= nodes or is_over():
                self._push(here.bound, here.lower, here.upper)
                return
            self.found.nodes += 1
            here = self._step(here)

    def _step(self, node: _Node) -> _Node | None:
        """Relax a node, then branch; the child to go on with."""
        lower, upper = node.lower.copy(), node.upper.copy()
        while True:
            answer = self.relaxation.solve(lower, upper, cutoff=self.cutoff)
            bound = max(answer.bound, node.bound)
            if bound >= self.cutoff:
                return None
            self._fix(answer, bound, lower, upper)
            open_at = self._fractional(answer.values)
            if len(open_at) == 0:
                self._take_exact(answer, lower, upper)
                return None
            choice = self._choose(answer, bound, open_at, lower=lower, upper=upper)
            if choice is not None:
                return self._branch(choice, answer, bound, lower=lower, upper=upper)

    def _fractional(self, values: Floats) -> Places:
        part = values[self._at]
        return self._at[np.abs(part - np.round(part)) > _INTEGRAL]

    def _fix(self, answer: Relaxed, bound: float, lower: Floats, upper: Floats) -> None:
        """Bounds of whole columns that no point below the cutoff can pass."""
        if self.cutoff == INF:
            return
        at, slack = self._at, self.cutoff - bound
        dear = answer.reduced[at]
        reach = slack / np.maximum(np.abs(dear), 1e-12)
        capped = np.floor(lower[at] + reach + _INTEGRAL)
        raised = np.ceil(upper[at] - reach - _INTEGRAL)
        is_up, is_down = dear > _INTEGRAL, dear < -_INTEGRAL
        upper[at[is_up]] = np.minimum(upper[at], capped)[is_up]
        lower[at[is_down]] = np.maximum(lower[at], raised)[is_down]

    def offer(self, values: Floats) -> None:
        """Try values of the whole columns (by column) as a point; counts follow from the others."""
        whole = self.relaxation.whole
        exact = np.clip(np.round(values), whole.lower, whole.upper)
        low, high = whole.lower.copy(), whole.upper.copy()
        at = self._at[~whole.count[self._at]]
        low[at], high[at] = exact[at], exact[at]
        self._take(self.relaxation.solve(low, high))

    def _take_exact(self, answer: Relaxed, lower: Floats, upper: Floats) -> None:
        """A point whole up to the solver's tolerance: solved again with whole columns exact."""
        low, high = lower.copy(), upper.copy()
        low[self._at] = high[self._at] = np.round(answer.values[self._at])
        self._take(self.relaxation.solve(low, high))

    def _take(self, answer: Relaxed) -> None:
        """Keep a point in whole columns if it is one and the best."""
        if answer.is_empty or answer.artificial > _ARTIFICIAL:
            return
        if len(self._fractional(answer.values)):
            return
        cost = float(self.relaxation.whole.cost @ answer.values)
        if cost < self.found.cost:
            self.found.values, self.found.cost = answer.values, cost

    def _choose(
        self, answer: Relaxed, bound: float, at: Places, *, lower: Floats, upper: Floats
    ) -> int | None:
        """The column to branch on; None where a trial tightened a bound instead."""
        value = answer.values[at]
        part = value - np.floor(value)
        slack = self.cutoff - bound if self.cutoff < INF else INF
        down = np.minimum(self._records.expected(at, up=False) * part, slack)
        up = np.minimum(self._records.expected(at, up=True) * (1 - part), slack)
        score = np.maximum(down, 1e-6) * np.maximum(up, 1e-6)
        order = np.lexsort((at, -score))[:_CANDIDATES]
        best, best_score, waited = int(at[order[0]]), -1.0, 0
        for k in order:
            column = int(at[k])
            gained = (float(down[k]), float(up[k]))
            if min(self._records.times[:, column]) < _TRIED:
                gained = self._try(column, float(value[k]), bound, lower=lower, upper=upper)
                if gained[0] >= slack:
                    lower[column] = np.floor(value[k]) + 1
                    return None
                if gained[1] >= slack:
                    upper[column] = np.floor(value[k])
                    return None
            found = max(gained[0], 1e-6) * max(gained[1], 1e-6)
            waited = 0 if found > best_score else waited + 1
            if found > best_score:
                best, best_score = column, found
            if waited >= _PATIENCE:
                break
        return best

    def _try(
        self, column: int, value: float, bound: float, *, lower: Floats, upper: Floats
    ) -> tuple[float, float]:
        """Gain of the bound on either side, as far as some iterations show it."""
        gains = []
        for up in (False, True):
            low, high = _side(lower, upper, column, value=value, up=up)
            got = self.relaxation.solve(low, high, cutoff=self.cutoff, iterations=_TRIAL_ITERATIONS)
            gain = max(0.0, got.bound - bound)
            gains.append(gain)
            if gain < INF:
                moved = np.ceil(value) - value if up else value - np.floor(value)
                self._records.note(column, up=up, moved=float(moved), gain=gain)
        return gains[0], gains[1]

    def _branch(
        self, column: int, answer: Relaxed, bound: float, *, lower: Floats, upper: Floats
    ) -> _Node:
        value = float(answer.values[column])
        first_up = value - np.floor(value) > 0.5
        self._push(bound, *_side(lower, upper, column, value=value, up=not first_up))
        self._pushed += 1
        return _Node(bound, self._pushed, *_side(lower, upper, column, value=value, up=first_up))


def _side(
    lower: Floats, upper: Floats, column: int, *, value: float, up: bool
) -> tuple[Floats, Floats]:
    low, high = lower.copy(), upper.copy()
    if up:
        low[column] = np.floor(value) + 1
    else:
        high[column] = np.floor(value)
    return low, high
