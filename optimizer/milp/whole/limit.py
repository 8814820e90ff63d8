"""When a search is to stop: the policy's time limit and its parts.

Decides how much of the limit is for searching. Without a clock nothing is ever over.
"""

from __future__ import annotations

from math import inf

from optimizer.problem import Problem
from sites.clock import Clock
from sites.units import MS_PER_S

_FINISH_TIMES, _FINISH_MOST = 3.0, 1 / 3
"""Set aside for what makes a plan of a search: so many times what building took, at most a part of
the limit."""


class Limit:
    """The policy's time limit, counted from now on."""

    def __init__(self, problem: Problem, clock: Clock | None) -> None:
        self._clock = clock
        self._start_ms = self._end_ms = inf
        if clock is not None:
            self._start_ms = clock.monotonic_ms()
            self._end_ms = self._start_ms + problem.plan_policy.time_limit_s * MS_PER_S
        self._searched_ms = self._part_ms = self._end_ms

    def set_aside(self) -> None:
        """From now on searches end earlier: rounding, certifying and checking a plan, or making one
        where there is none, go over the same tables as building them did.
        """
        if self._clock is not None:
            took_ms = self._clock.monotonic_ms() - self._start_ms
            most_ms = _FINISH_MOST * (self._end_ms - self._start_ms)
            self._searched_ms = self._end_ms - min(most_ms, _FINISH_TIMES * took_ms)
            self._part_ms = self._searched_ms

    def take_half(self) -> None:
        """The next part is half of what is left for searching."""
        if self._clock is not None:
            now_ms = self._clock.monotonic_ms()
            self._part_ms = now_ms + (self._searched_ms - now_ms) / 2

    def is_part_over(self) -> bool:
        """Whether the part is over."""
        return self._clock is not None and self._clock.monotonic_ms() >= self._part_ms

    def is_over(self) -> bool:
        """Whether the time for searching is over."""
        return self._clock is not None and self._clock.monotonic_ms() >= self._searched_ms

    def left_s(self) -> float:
        """Seconds left of the part (inf: there is no limit). For solvers that ask too seldom."""
        if self._clock is None:
            return inf
        return max(0.0, (self._part_ms - self._clock.monotonic_ms()) / MS_PER_S)

    def is_spent(self) -> bool:
        """Whether the whole limit is over, what was set aside included."""
        return self._clock is not None and self._clock.monotonic_ms() >= self._end_ms
