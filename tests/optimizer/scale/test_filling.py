"""A large search without time: what is left is placed at once, within every limit."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings

from optimizer.milp.scale.ascent import opening_prices
from optimizer.milp.scale.filling import fill
from optimizer.milp.scale.frame import take_frame
from optimizer.milp.scale.ledger import Ledger
from optimizer.problem import Problem
from optimizer.tabulate import tabulate
from tests.optimizer.builders import problem as one_site
from tests.optimizer.builders import rich_problems
from tests.optimizer.scale.test_scale import plain
from tests.optimizer.scale.test_survival import exposed


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(rich_problems())
def test_what_is_filled_fits(problem: Problem) -> None:
    for one in (plain(problem), exposed(problem)):
        frame = take_frame(tabulate(one))
        ledger = Ledger(frame)
        fill(ledger, opening_prices(frame), worth=np.zeros(frame.groups, dtype=np.bool_))
        assert ledger.fits(ledger.whole())


def test_room_for_all_is_used_for_all() -> None:
    frame = take_frame(tabulate(one_site()))
    ledger = Ledger(frame)
    fill(ledger, opening_prices(frame), worth=np.zeros(frame.groups, dtype=np.bool_))
    assert ledger.shed_part.sum() < 1e-6
    assert ledger.replicas.sum() >= 1
