"""The loss of an ingress in the large search: what a class reaches then, what it is asked for."""

from __future__ import annotations

from dataclasses import replace
from math import isclose

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from optimizer.arcs import find_arcs
from optimizer.milp.scale.catalogue import next_ingress_arcs
from optimizer.milp.scale.contention import add_cuts
from optimizer.milp.scale.frame import take_frame
from optimizer.milp.scale.solve import solve_at_scale
from optimizer.milp.scale.to_plan import plan_of
from optimizer.milp.scale.trim import trim
from optimizer.milp.scale.workers import SerialWorkers
from optimizer.milp.survive_local import certify
from optimizer.problem import Problem
from optimizer.reach import Reach
from optimizer.solve import solve
from optimizer.tabulate import tabulate
from optimizer.verify import check_plan
from tests.optimizer import builders as b
from tests.optimizer.builders import rich_problems
from tests.optimizer.scale.test_survival import exposed, taken_up

SOON = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@SOON
@given(rich_problems(max_sites=5, max_classes=6))
def test_arcs_from_the_next_ingress_are_those_found_without_the_first(problem: Problem) -> None:
    frame = take_frame(tabulate(problem))
    tables = frame.tables
    for at in np.flatnonzero(frame.ingress >= 0).tolist():
        lost = tables.sites.ids[frame.ingress[at]]
        arcs = next_ingress_arcs(frame, np.array([at]))
        swept = {
            tables.group_id(int(g)): float(b) for g, b in zip(arcs.group, arcs.busy, strict=True)
        }
        after = replace(problem, lost_sites=(*problem.lost_sites, lost))
        found = {
            arc.group.group_id: arc.replica_seconds * float(frame.rate[at])
            for arc in find_arcs(after).arcs
            if arc.class_id == tables.classes.ids[at]
        }
        assert swept.keys() == found.keys()
        assert all(isclose(swept[g], found[g], rel_tol=1e-9) for g in found)


@SOON
@given(rich_problems())
def test_the_ledger_never_says_more_than_the_certificate(problem: Problem) -> None:
    problem = exposed(problem)
    whole = solve(problem)
    assert whole.plan is not None
    ledger = taken_up(problem, whole.plan)
    for _ in range(3):
        add_cuts(ledger, SerialWorkers(), range(len(ledger.frame.components)))
    trim(ledger)
    # the ledger serves what these replicas can, which may be more than the plan chose to serve
    poured = plan_of(
        ledger, Reach(ledger.frame.tables.problem), bound_usd_per_h=0.0, method="the ledger's"
    )
    told = certify(Reach(problem), poured)
    assert check_plan(problem, told) == ()
    stated = sum(
        one.basis_points
        / 10_000
        * problem.plan_policy.exposure_part
        * float(ledger.frame.shed_usd_per_h[ledger.frame.tables.classes.ids.index(one.class_id)])
        for one in told.exposed
    )
    counted = ledger.exposure.usd_per_h()
    assert counted <= stated * (1 + 1e-6) + 5e-4 * (1 + abs(ledger.frame.shed_usd_per_h.sum()))


def test_a_site_that_answers_only_after_the_loss_of_the_ingress_gets_its_replica() -> None:
    # "a" and "c" are near the ingress "a", "b" only near the ingress that takes over
    problem = b.problem(
        sites=[b.site("a"), b.site("b"), b.site("c")],
        links=[b.link("a", "b", rtt_ms=100.0), b.link("a", "c", rtt_ms=10.0)],
        markets=[b.market(accesses={"a": 5.0, "b": 20.0})],
        classes=[b.traffic_class("c", protected=True, ttft_ms=100.0)],
        plan_policy=replace(b.DEFAULT_POLICY, exposure_part=0.5),
    )
    found = solve_at_scale(problem)
    assert found.plan is not None
    assert check_plan(problem, found.plan) == ()
    assert found.plan.exposed == ()
    placed = {one.group.site_id: one.replicas for one in found.plan.groups if one.replicas}
    assert placed == {"a": 1, "b": 1}
    answered = {one.lost_site_id: one.group_id for one in found.plan.survival}
    assert answered["a"] == "b/p/v/x1"
    # the bound knows the replica that only the loss of "a" asks for
    assert found.bound_usd_per_h == pytest.approx(found.plan.cost.total_usd_per_h, rel=0.01)
