"""How HiGHS hears that it is to stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


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
