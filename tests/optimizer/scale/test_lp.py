"""Dives of the large search: whole columns, every row kept, no better than the best there is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.milp.scale import lp
from optimizer.milp.stopping import Deadline, never


def room_or_shed(costs: list[int], covers: list[int], *, demand: int, room: int) -> Any:
    """min costs @ n + 100 shed: covers @ n + 10 shed >= demand, sum n <= room, n whole."""
    count = len(costs)
    rows = lp.RowBuilder()
    at, zeros = np.arange(count), np.zeros(count, dtype=np.intp)
    shed = (zeros[:1], np.array([count]), np.array([10.0]))
    served = [(zeros, at, np.array(covers, dtype=np.float64)), shed]
    rows.block(float(demand), lp.INF, entries=served, count=1)
    rows.block(-lp.INF, float(room), entries=[(zeros, at, np.ones(count))], count=1)
    return lp.make(
        cost=np.array([*costs, 100.0]),
        upper=np.array([3.0] * count + [lp.INF]),
        rows=rows.rows(),
    )


small = st.integers(1, 9)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(small, small), min_size=1, max_size=5), st.integers(0, 60), small)
def test_a_dive_ends_at_a_whole_point_within_every_row(
    pairs: list[tuple[int, int]], demand: int, room: int
) -> None:
    costs, covers = [c for c, _ in pairs], [c for _, c in pairs]
    made, whole = room_or_shed(costs, covers, demand=demand, room=room), np.arange(len(pairs))
    found = lp.dive(made, whole=whole, is_over=lambda: False)
    assert found is not None
    replicas, shed = found[:-1], found[-1]
    assert replicas == pytest.approx(np.round(replicas), abs=1e-6)
    assert replicas.sum() <= room + 1e-6
    assert replicas.max() <= 3 + 1e-6
    assert covers @ replicas + 10 * shed >= demand - 1e-6
    relaxed = lp.solve(made).values
    assert relaxed is not None
    assert np.array([*costs, 100.0]) @ (found - relaxed) >= -1e-6


def test_a_dive_rounds_up_what_is_cheap_and_down_what_does_not_fit() -> None:
    made = room_or_shed([3, 2], [4, 9], demand=13, room=1)
    found = lp.dive(made, whole=np.arange(2), is_over=lambda: False)
    assert found is not None
    assert found == pytest.approx([0.0, 1.0, 0.4])


def test_a_dive_that_is_stopped_has_no_point() -> None:
    made = room_or_shed([3, 2], [4, 9], demand=15, room=3)
    assert lp.dive(made, whole=np.arange(2), is_over=lambda: True) is None


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(small, small), min_size=1, max_size=5), st.integers(0, 60), small)
def test_a_search_with_time_enough_finds_what_one_without_limit_does(
    pairs: list[tuple[int, int]], demand: int, room: int
) -> None:
    costs, covers = [c for c, _ in pairs], [c for _, c in pairs]
    made = room_or_shed(costs, covers, demand=demand, room=room)
    start = np.arange(len(pairs)), np.zeros(len(pairs))
    far = Deadline(spent=lambda: 0.5, part=0.75, limit_s=1e6)
    found = [
        lp.search(made, gap=0.0, nodes=50, seed=1, start=start, is_over=is_over, thorough=True)
        for is_over in (far, never)
    ]
    assert found[0] is not None and found[1] is not None
    assert found[0].tolist() == found[1].tolist()


def test_a_deadline_knows_the_seconds_left() -> None:
    spent = 0.25
    deadline = Deadline(spent=lambda: spent, part=0.75, limit_s=10.0)
    assert not deadline() and deadline.left_s() == 5.0
    spent = 0.8
    assert deadline() and deadline.left_s() == 0.0
    without = Deadline(spent=lambda: 0.0, part=0.75, limit_s=np.inf)
    assert not without() and without.left_s() == np.inf
    interrupted = Deadline(spent=lambda: 1.0, part=0.75, limit_s=np.inf)
    assert interrupted() and interrupted.left_s() == 0.0
