"""Fixed prices of sites in the large search: bounds hold at any split, and a split proves more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.milp.scale.ascent import opening_prices
from optimizer.milp.scale.frame import Frame, take_frame
from optimizer.milp.scale.ledger import Ledger
from optimizer.milp.scale.opening import split
from optimizer.milp.scale.price_lp import sweep
from optimizer.milp.scale.solve import solve_at_scale
from optimizer.milp.scale.warm_start import take_up
from optimizer.milp.scale.workers import SerialWorkers
from optimizer.problem import Problem
from optimizer.solve import solve
from optimizer.tabulate import tabulate
from optimizer.verify import check_plan
from tests.optimizer import builders as b
from tests.optimizer.optima import most_usd_per_h
from tests.optimizer.scale.test_converge import relaxed, whole
from tests.optimizer.scale.test_survival import SOON, begun, exposed

NEVER_WORTH = 1e-6


def priced(problem: Problem, usd_per_h: float) -> Problem:
    """The problem with a fixed price on every site, another for each."""
    sites = tuple(
        replace(one, fixed_price_usd_per_h=usd_per_h * (1 + at / 3))
        for at, one in enumerate(problem.fleet.sites)
    )
    return replace(problem, fleet=replace(problem.fleet, sites=sites))


def split_at(frame: Frame, part: float) -> Frame:
    """The frame split for sites that are so full."""
    full_kw = frame.opening.usd_per_h / np.maximum(frame.opening.usd_per_kw_h, 1e-9)
    return split(frame, part * full_kw)


@SOON
@given(b.rich_problems(), st.sampled_from([0.1, 3.0, 60.0]), st.sampled_from([0.0, 0.3, 1.0, 2.0]))
def test_no_split_proves_more_than_the_optimum(
    problem: Problem, usd_per_h: float, part: float
) -> None:
    problem = priced(exposed(problem), usd_per_h)
    most = most_usd_per_h(problem)
    frame = split_at(take_frame(tabulate(problem)), part)

    found = whole(frame)

    assert frame.proven_usd_per_h(found.bound_usd_per_h) <= most
    high, prices = np.full(len(frame.rate), np.inf), opening_prices(frame)
    at_once, _ = sweep(frame, prices, SerialWorkers(), ceiling_usd_per_h=high, count=1)
    assert frame.proven_usd_per_h(at_once) <= most


@SOON
@given(b.rich_problems(), st.sampled_from([0.1, 3.0, 60.0]))
def test_a_plan_costs_in_the_ledger_what_it_costs(problem: Problem, usd_per_h: float) -> None:
    problem = priced(exposed(problem), usd_per_h)
    found = solve_at_scale(problem)
    assert found.plan is not None, found.message
    assert check_plan(problem, found.plan) == ()
    search = begun(problem)
    take_up(search, found.plan)
    assert search.ledger.cost_usd_per_h() <= found.plan.cost.total_usd_per_h * (1 + 1e-3) + 1e-3


def one_class_and_a_site_it_hardly_fills() -> Problem:
    """A class that keeps a fifth of a replica busy at site a, which holds four; b is no use."""
    sites = [b.site("a", fixed_price=8.0), b.site("b", country="US", fixed_price=1.0)]
    only = b.traffic_class(rate_rps=2.0, policy_id="eu")
    return b.problem(sites=sites, classes=[only])


def test_a_site_that_is_hardly_used_is_proven_to_be_paid_for() -> None:
    problem = one_class_and_a_site_it_hardly_fills()
    frame = take_frame(tabulate(problem))

    by_kw = relaxed(frame).bound_usd_per_h
    parted = split_at(frame, 0.01)
    asked = parted.proven_usd_per_h(relaxed(parted).bound_usd_per_h)

    assert by_kw < 2.0
    assert 8.0 < asked <= most_usd_per_h(problem)


def test_a_protected_class_asks_for_two_sites() -> None:
    """At $6 of each of its two sites, the cheaper one's price; a is no dearer than b for it."""
    sites = [b.site("a", fixed_price=8.0), b.site("b", country="FR", fixed_price=6.0)]
    only = b.traffic_class(rate_rps=2.0, protected=True)
    policy = replace(b.DEFAULT_POLICY, exposure_part=0.5)
    problem = b.problem(
        sites=sites,
        links=[b.link("a", "b")],
        markets=[b.market(accesses={"a": 5.0, "b": 20.0})],
        classes=[only],
        plan_policy=policy,
    )
    frame = split_at(take_frame(tabulate(problem)), 0.01)

    assert frame.opening.asked_usd_per_h == pytest.approx(12.0)


def test_shedding_costs_what_it_costs_where_a_plan_pays() -> None:
    frame = take_frame(tabulate(one_class_and_a_site_it_hardly_fills()))
    parted = split_at(frame, 0.01)

    assert (parted.shed_usd_per_h < frame.shed_usd_per_h - NEVER_WORTH).any()
    assert parted.as_paid().shed_usd_per_h == pytest.approx(frame.shed_usd_per_h)


def test_a_site_costs_its_price_as_long_as_a_replica_stands_there() -> None:
    problem = one_class_and_a_site_it_hardly_fills()
    plan = solve(problem).plan
    assert plan is not None
    search = begun(problem)
    take_up(search, plan)
    empty = Ledger(search.frame)

    shed = float(search.frame.shed_usd_per_h.sum())
    assert search.ledger.cost_usd_per_h() == pytest.approx(plan.cost.total_usd_per_h, rel=1e-6)
    assert empty.cost_usd_per_h() == pytest.approx(shed)
