"""The line that a long search shows: its words, and silence where it may not be drawn."""

from __future__ import annotations

from math import inf

import pytest

from scheduler.cli.output import Output
from scheduler.cli.progress import Shown, searching


def test_the_line_says_what_is_known_and_no_more() -> None:
    said: list[str] = []
    shown = Shown("Planning 3 classes", said.append)

    shown.stands(cost_usd_per_h=inf, bound_usd_per_h=-inf)
    shown.stands(cost_usd_per_h=inf, bound_usd_per_h=1_200.0)
    shown.stands(cost_usd_per_h=1_250.0, bound_usd_per_h=-inf)
    shown.stands(cost_usd_per_h=1_250.0, bound_usd_per_h=1_200.0)
    shown.stands(cost_usd_per_h=0.0, bound_usd_per_h=0.0)
    shown.stopping()

    assert said == [
        "Planning 3 classes",
        "Planning 3 classes, no plan below $1,200.00/h",
        "Planning 3 classes, $1,250.00/h so far",
        "Planning 3 classes, $1,250.00/h so far, gap 4.0%",
        "Planning 3 classes, $0.00/h so far, gap 0.0%",
        "Planning 3 classes: ending with the best plan so far (Ctrl-C again: without one)",
    ]


def test_nothing_is_drawn_where_nobody_watches(capfd: pytest.CaptureFixture[str]) -> None:
    with searching(Output(), "Planning") as progress:
        progress.stands(cost_usd_per_h=1.0, bound_usd_per_h=1.0)
        progress.stopping()

    assert capfd.readouterr() == ("", "")
