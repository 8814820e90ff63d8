"""A large search without time: what is left is placed at once, within every limit."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings

from optimizer.milp.scale.ascent import opening_prices
from optimizer.milp.scale.catalogue import component_arcs
from optimizer.milp.scale.filling import fill
from optimizer.milp.scale.frame import take_frame
from optimizer.milp.scale.ledger import Change, Flows, Ledger
from optimizer.milp.scale.to_plan import plan_of
from optimizer.problem import Problem
from optimizer.reach import Reach
from optimizer.tabulate import tabulate
from tests.optimizer import builders
from tests.optimizer.builders import pool, rich_problems, two_sites
from tests.optimizer.builders import problem as one_site
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
        fill(
            ledger,
            frame.price_list(opening_prices(frame)),
            worth=np.zeros(frame.groups, dtype=np.bool_),
        )
        assert ledger.fits(ledger.whole())


def test_room_for_all_is_used_for_all() -> None:
    frame = take_frame(tabulate(one_site()))
    ledger = Ledger(frame)
    fill(
        ledger,
        frame.price_list(opening_prices(frame)),
        worth=np.zeros(frame.groups, dtype=np.bool_),
    )
    assert ledger.shed_part.sum() < 1e-6
    assert ledger.replicas.sum() >= 1


def test_a_class_in_two_pieces_keeps_both() -> None:
    frame = take_frame(tabulate(two_sites()))
    ledger = Ledger(frame)
    arcs = component_arcs(frame, np.array([0]))
    part = np.array([0.25, 0.25, 0.5])
    at = np.array([0, 0, 1])
    flows = Flows(
        cls=np.zeros(3, dtype=np.intp),
        group=arcs.group[at],
        part=part,
        busy=part * arcs.busy[at],
        usd_per_h=part * arcs.network_usd_per_h[at],
    )
    ledger.put(
        Change(
            classes=np.zeros(1, dtype=np.intp), group=arcs.group, replicas=np.ones(2), flows=flows
        )
    )
    plan = plan_of(
        ledger, Reach(ledger.frame.tables.problem), bound_usd_per_h=0.0, method="in pieces"
    )
    assert [one.basis_points for one in plan.shares] == [5_000, 5_000]


def test_slivers_of_room_hide_no_room() -> None:
    many = [pool(f"p{at:02d}", count=1) for at in range(99)]
    site = builders.site("a", pools=[*many, pool("roomy", count=4, price=9.0)])
    frame = take_frame(tabulate(one_site(sites=[site])))
    ledger = Ledger(frame)
    nearly_full = np.flatnonzero(frame.most == 1)
    assert len(nearly_full) == len(many)
    none = np.zeros(0, dtype=np.intp)
    stands = Change(
        classes=none,
        group=nearly_full,
        replicas=np.ones(len(nearly_full)),
        flows=ledger.flows_of(none),
    )
    ledger.put(stands)
    ledger.busy[nearly_full] = frame.rateable[nearly_full] - 1e-5
    fill(
        ledger,
        frame.price_list(opening_prices(frame)),
        worth=np.zeros(frame.groups, dtype=np.bool_),
    )
    assert ledger.shed_part.sum() < 1e-6
