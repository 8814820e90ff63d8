"""Rows rounded for whole replicas: worked out by hand, and kept by every plan."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from optimizer.milp.scale.catalogue import component_arcs
from optimizer.milp.scale.frame import take_frame
from optimizer.milp.scale.rounding import (
    Needs,
    Terms,
    fill_cuts,
    need_cuts,
    room_cuts,
    rounded_down,
    rounded_up,
)
from optimizer.problem import Problem
from optimizer.solve import solve
from optimizer.tabulate import tabulate
from tests.optimizer import builders as b
from tests.optimizer.builders import rich_problems
from tests.optimizer.scale.test_survival import converged, exposed, taken_up

SLACK = 1e-5
SOON = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


def test_a_need_of_1_3_is_one_of_2() -> None:
    value, f = rounded_up(np.array([1.0, 0.5, 0.2, 1.1]), 1.3)
    assert f == pytest.approx(0.3)
    assert value == pytest.approx([1.0, 1.0, 2 / 3, 1 + 1 / 3])


def test_room_for_5_7_holds_5() -> None:
    # 0.9 of one: beyond the 0.7 that are left there is 0.2, of 0.3 to the next whole one
    assert rounded_down(np.array([1.0, 2.0, 0.5, 0.9]), 5.7) == pytest.approx([1, 2, 0, 2 / 3])


def test_two_classes_that_fill_a_replica_and_a_third_need_two() -> None:
    fill, part = np.array([0.7, 0.6, 0.5]), np.array([1.0, 1.0, 0.0])
    cuts = fill_cuts(np.zeros(3, dtype=np.intp), fill, part, np.array([1.3]))
    assert cuts.group.tolist() == [0]
    assert cuts.arcs.at.tolist() == [0, 1]
    # n - 0.7 / 0.3 x - 0.6 / 0.3 y >= 2 - 1.3 / 0.3: two replicas if both stay, one if x goes
    assert cuts.arcs.value == pytest.approx([0.7 / 0.3, 0.6 / 0.3])
    assert cuts.lower == pytest.approx([2 - 1.3 / 0.3])
    assert len(fill_cuts(np.zeros(3, dtype=np.intp), fill, part, np.array([2.0])).lower) == 0


def test_a_budget_for_a_part_of_an_accelerator_holds_none_of_it() -> None:
    # 1 kW for replicas of 300 W: three, not 3 1/3
    frame = take_frame(tabulate(b.problem(sites=[b.site("a", budget_w=1_000.0)])))
    assert frame.possible_kw.tolist() == pytest.approx([0.3] * frame.groups)
    cuts = room_cuts(frame, np.full(frame.groups, 10 / 3 / frame.groups))
    assert cuts.site.tolist() == [0]
    assert cuts.upper / cuts.replicas.value[0] == pytest.approx([3.0])
    assert len(room_cuts(frame, np.full(frame.groups, 3.0 / frame.groups)).site) == 0


@SOON
@given(rich_problems())
def test_every_plan_keeps_them(problem: Problem) -> None:
    problem = exposed(problem)
    outcome = solve(problem)
    if outcome.plan is None:
        return
    ledger = taken_up(problem, outcome.plan)
    frame, stands, shed = ledger.frame, ledger.replicas, ledger.shed_part
    flows = ledger.all_flows()
    served = np.zeros(len(frame.rate) * frame.groups)
    served[flows.cls * frame.groups + flows.group] = flows.part
    point = converged(frame).point
    arcs, at = point.arcs, np.searchsorted(point.group, point.arcs.group)
    fills = fill_cuts(at, arcs.busy / frame.rateable[arcs.group], point.part, point.replicas)
    asked = _sums(fills.arcs, served[arcs.row * frame.groups + arcs.group], len(fills.lower))
    held = stands[point.group[fills.group]]
    assert (held - asked >= fills.lower - SLACK * (1 + asked)).all()
    for cuts in point.cuts:
        rooms = cuts.rooms
        taken = _sums(rooms.replicas, stands, len(rooms.upper))
        assert (taken <= rooms.upper + SLACK * (1 + taken)).all()
        _keeps(cuts.needs, stands, shed)
    # so does any other point's need
    for part in (0.3, 0.7, 1.4):
        for classes in frame.components:
            arcs = component_arcs(frame, classes)
            _keeps(need_cuts(frame, arcs, stands * part, shed[classes]), stands, shed)


def _sums(terms: Terms, values: np.ndarray, count: int) -> np.ndarray:
    return np.bincount(terms.cut, terms.value * values[terms.at], count)


def _keeps(needs: Needs, stands: np.ndarray, shed: np.ndarray) -> None:
    count = len(needs.lower)
    total = _sums(needs.replicas, stands, count) + _sums(needs.shed, shed, count)
    assert (total >= needs.lower - SLACK * (1 + np.abs(total))).all()
