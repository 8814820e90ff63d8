"""Rounds of a search over hours: the time each has, and one that is held to where it starts.

Decides how a budget's seconds fall to its rounds and when they are over; what a round searches and
what is made of its point is `day`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from optimizer.milp.highs import Budget, Compiled, Point, PointStatus, run
from optimizer.milp.model import Formulation
from optimizer.milp.stopping import INTERRUPT, TIME_LIMIT
from sites.clock import Clock
from sites.units import MS_PER_S

_ROUND_PART = 0.75
_HELD_LEAST_S = 10.0
"""For a round that is held to its start: traffic alone is to be placed, which takes a second or
two, and without it an hour late in a day whose time ran out would have no plan.
"""
_LAST_PART = 16
"""With less than one in so many parts of its time left, a search begins no further round."""


class TimedRounds:
    """How much time each round of a search has: without a clock all of it, and a round that it cut
    is the last; with one three quarters of what is left, so that there is time to hear of losses.
    """

    def __init__(self, budget: Budget, clock: Clock | None) -> None:
        self._budget, self._clock = budget, clock
        self.spent_s = 0.0

    def run(self, compiled: Compiled, *, is_held: bool, **how: Any) -> Point:
        """One round: the solver's `run`. One that `is_held` to its start has time for that."""
        if self._clock is None:
            return run(compiled, self._budget, **how)
        began_ms = self._clock.monotonic_ms()
        time_s = max(self._left_s * _ROUND_PART, _HELD_LEAST_S if is_held else 0.0)
        point = run(compiled, replace(self._budget, time_s=time_s), **how)
        self.spent_s += (self._clock.monotonic_ms() - began_ms) / MS_PER_S
        return point

    def are_over(self, point: Point) -> bool:
        """Whether the round that found this point was the last there is time for."""
        if self._clock is None:
            return point.status is not PointStatus.PROVEN and point.hit_limit == TIME_LIMIT
        return point.hit_limit == INTERRUPT or self._left_s < self._budget.time_s / _LAST_PART

    @property
    def _left_s(self) -> float:
        return max(0.0, self._budget.time_s - self.spent_s)


def hold(horizon: tuple[Formulation, ...], start: Sequence[Mapping[str, int]]) -> None:
    """Leave the first hours no replicas but a start's, as far as a group may have so many."""
    for f, replicas in zip(horizon, start, strict=False):
        for group_id, n in f.model.n.items():
            held = min(replicas.get(group_id, 0), n.ub)
            n.setlb(held)
            n.setub(held)
