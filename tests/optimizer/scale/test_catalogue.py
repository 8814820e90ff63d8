"""The material of sub-problems: the cheapest arcs of each class, groups found by their ids."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from optimizer.milp.scale.catalogue import ComponentArcs, cheapest
from optimizer.problem import Problem
from optimizer.tables import Floats
from optimizer.tabulate import tabulate
from tests.optimizer.builders import rich_problems


def arcs_of(counts: list[int]) -> ComponentArcs:
    """Arcs of classes with so many each, all alike."""
    row = np.repeat(np.arange(len(counts)), counts)
    return ComponentArcs(
        classes=np.arange(len(counts)),
        start=np.cumsum(counts) - counts,
        row=row,
        group=np.arange(len(row)),
        busy=np.ones(len(row)),
        network_usd_per_h=np.ones(len(row)),
    )


def sorted_whole(arcs: ComponentArcs, price: Floats, count: int) -> list[bool]:
    """`cheapest` by sorting all arcs."""
    order = np.lexsort((np.arange(arcs.count), price, arcs.row))
    rank = np.empty(arcs.count, dtype=np.intp)
    rank[order] = np.arange(arcs.count) - arcs.start[arcs.row[order]]
    return [bool(one) for one in (rank < count) & (price < np.inf)]


@pytest.mark.parametrize("seed", range(60))
def test_the_cheapest_arcs_are_the_first_of_all_sorted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    arcs = arcs_of(rng.integers(0, 12, size=rng.integers(0, 9)).tolist())
    # few prices, so that many are equal, and some that no arc has
    price = rng.choice([-1.0, 0.0, 0.5, 0.5 + 1e-12, 3.0, np.inf], size=arcs.count)
    for count in (1, 3, 20):
        assert cheapest(arcs, price, count).tolist() == sorted_whole(arcs, price, count)


def test_of_all_arcs_the_table_itself_is_kept() -> None:
    arcs = arcs_of([2, 0, 3])
    assert arcs.only(np.ones(5, dtype=np.bool_)) is arcs
    assert arcs.only(np.array([True, False, False, True, True])).start.tolist() == [0, 1, 1]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(rich_problems())
def test_groups_are_found_by_their_ids(problem: Problem) -> None:
    tables = tabulate(problem)
    ids = [tables.group_id(at) for at in range(tables.groups.count)]
    strangers = ["", "/x1", "no/pool/of/x1", *(f"{one}0" for one in ids), *(f"x/{i}" for i in ids)]
    strangers += [one.replace("/x", "/x0") for one in ids]
    found = tables.positions([*reversed(ids), *strangers])
    assert found == {one: at for at, one in enumerate(ids)} | {
        one: ids.index(one) for one in strangers if one in ids
    }
