"""How HiGHS, and a search in Python around it, hear that they are to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

TIME_LIMIT, INTERRUPT = "time_limit_s", "interrupt"
OUTSIDE = (TIME_LIMIT, INTERRUPT)
"""Limits that do not follow from the problem: a plan says if one cut any part of its search."""


def never() -> bool:
    """No limit."""
    return False


class Watch:
    """Stops a solver, from a callback of its own, once time is over or an interrupt came."""

    def __init__(self, is_over: Callable[[], bool] = never) -> None:
        self.is_over = is_over
        self.was_interrupted = False

    def __call__(self, event: Any) -> None:
        try:
            if self.was_interrupted or self.is_over():
                event.interrupt()
        except KeyboardInterrupt:  # an exception must not pass through the solver
            self.was_interrupted = True
            event.interrupt()

    def end(self) -> None:
        """After a run: raises the KeyboardInterrupt that came meanwhile."""
        if self.was_interrupted:
            self.was_interrupted = False
            raise KeyboardInterrupt


class Interrupts:
    """Whether a Ctrl-C came."""

    def __init__(self) -> None:
        self.noted = False


@contextmanager
def noted_interrupts(heard: Callable[[], None]) -> Iterator[Interrupts]:
    """Within it the first Ctrl-C is only noted (and `heard` called), so that a search ends with
    what it has; the next one raises KeyboardInterrupt, as ever. Outside the main thread, or where
    somebody else listens, nothing changes.
    """
    interrupts, usual = Interrupts(), signal.default_int_handler
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not usual:
        yield interrupts
        return

    def note(*_: object) -> None:
        signal.signal(signal.SIGINT, usual)
        interrupts.noted = True
        heard()

    signal.signal(signal.SIGINT, note)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, usual)


@dataclass(frozen=True, kw_only=True, slots=True)
class Deadline:
    """Whether such a `part` of a time limit of `limit_s` has passed; `spent` is what has. A solver
    may be told how long that is still: some of its steps hear of nothing else.
    """

    spent: Callable[[], float]
    part: float
    limit_s: float

    def __call__(self) -> bool:
        """Whether it has passed."""
        return self.spent() >= self.part

    def left_s(self) -> float:
        """Seconds left, at least 0; inf where there is no limit."""
        left = self.part - self.spent()
        return left * self.limit_s if left > 0 else 0.0
