"""How a long search is shown while it runs: one line on a terminal that ticks and then goes.

Decides form only; where progress may not be drawn, nothing is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isfinite

from optimizer.costs import relative_gap
from optimizer.outcome import Progress, Untold
from scheduler.cli.output import Output


@contextmanager
def searching(out: Output, title: str) -> Iterator[Progress]:
    """A line with the title, what is known of the search, and the seconds it has run."""
    if not out.live:
        yield Untold()
        return
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    console = Console(stderr=True, no_color=True if out.color is False else None)
    with Bars(*columns, console=console, transient=True) as bars:
        task = bars.add_task(title, total=None)
        yield Shown(title, lambda text: bars.update(task, description=text))


class Shown:
    """Progress in words, handed on to whoever draws them."""

    def __init__(self, title: str, show: Callable[[str], object]) -> None:
        self._title, self._show = title, show

    def stands(self, *, cost_usd_per_h: float, bound_usd_per_h: float) -> None:
        """Cost and gap as far as they are known."""
        words = [self._title]
        if isfinite(cost_usd_per_h):
            words.append(f"${cost_usd_per_h:,.2f}/h so far")
        elif isfinite(bound_usd_per_h) and bound_usd_per_h > 0:
            words.append(f"no plan below ${bound_usd_per_h:,.2f}/h")
        if isfinite(cost_usd_per_h) and isfinite(bound_usd_per_h):
            gap = relative_gap(cost_usd_per_h, min(cost_usd_per_h, bound_usd_per_h))
            words.append(f"gap {gap:.1%}")
        self._show(", ".join(words))

    def stopping(self) -> None:
        """An interrupt was heard."""
        self._show(f"{self._title}: ending with the best plan so far (Ctrl-C again: without one)")
