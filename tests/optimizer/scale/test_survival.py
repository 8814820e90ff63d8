"""The loss of a site in the large search: bounds that hold, exposure that is counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from optimizer.milp.scale.ascent import clear, opening_prices, sampled_arcs
from optimizer.milp.scale.contention import _Sharing, add_cuts
from optimizer.milp.scale.converge import Converged, converge
from optimizer.milp.scale.exposure import Exposure
from optimizer.milp.scale.frame import Frame, Prices, take_frame
from optimizer.milp.scale.ledger import Ledger
from optimizer.milp.scale.losses import losses_of
from optimizer.milp.scale.plan_search import Search, begin
from optimizer.milp.scale.price_lp import relax
from optimizer.milp.scale.priced import Duals, price_all
from optimizer.milp.scale.rounding import needs_of
from optimizer.milp.scale.solve import solve_at_scale
from optimizer.milp.scale.warm_start import take_up
from optimizer.milp.scale.workers import SerialWorkers
from optimizer.plan import Plan
from optimizer.problem import Problem
from optimizer.solve import solve
from optimizer.tabulate import tabulate
from optimizer.verify import check_plan
from tests.optimizer.builders import rich_problems
from tests.optimizer.optima import most_usd_per_h
from tests.optimizer.scale.test_scale import never, plain

SOON = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


def exposed(problem: Problem) -> Problem:
    """The plain problem with every class protected and exposure dear."""
    problem = plain(problem)
    classes = tuple(replace(one, protected=True) for one in problem.classes)
    policy = replace(problem.plan_policy, exposure_part=0.5)
    return replace(problem, classes=classes, plan_policy=policy)


def begun(problem: Problem) -> Search:
    """A search with nothing placed."""
    frame = take_frame(tabulate(problem))
    prices = opening_prices(frame)
    return begin(
        frame,
        prices,
        sampled_arcs(frame, prices, SerialWorkers()),
        worth=np.zeros(0, dtype=np.intp),
        least_usd_per_h=np.zeros(len(frame.rate)),
        workers=SerialWorkers(),
        is_over=never,
    )


def taken_up(problem: Problem, plan: Plan) -> Ledger:
    """A plan's replicas, traffic over them as it flows best."""
    search = begun(problem)
    take_up(search, plan)
    return search.ledger


def converged(frame: Frame) -> Converged:
    """The master's last point."""
    start = opening_prices(frame)
    sample = sampled_arcs(frame, start, SerialWorkers())
    cleared, _ = clear(frame, sample, prices=start, steps=50)
    plain_lp = relax(frame, cleared, SerialWorkers(), tolerance=1e-6, is_over=never)
    return converge(frame, plain_lp, SerialWorkers(), is_over=never)


@SOON
@given(rich_problems())
def test_no_bound_passes_a_plan_that_outlives_losses(problem: Problem) -> None:
    problem = exposed(problem)
    most = most_usd_per_h(problem)
    found = converged(take_frame(tabulate(problem)))
    assert found.bound_usd_per_h <= most


@SOON
@given(rich_problems())
def test_any_duals_give_a_bound(problem: Problem) -> None:
    problem = exposed(problem)
    most = most_usd_per_h(problem)
    frame = take_frame(tabulate(problem))
    start, shed = opening_prices(frame), frame.shed_usd_per_h
    losses = losses_of(frame)
    odd = Duals(
        prices=Prices(pool=start.pool + 0.3, power=start.power + 0.1, energy=start.energy * 1.3),
        demand=np.minimum(shed, 0.9),
        cover=np.minimum(shed, 0.4),
        losses=losses,
        loss=np.full(len(losses), 0.2),
        needs=needs_of(()),
        need=np.zeros(0),
    )
    found = price_all(frame, odd, SerialWorkers(), count=3)
    assert found.bound_usd_per_h <= most


@SOON
@given(rich_problems())
def test_plans_with_exposure_pass_the_checker(problem: Problem) -> None:
    problem = exposed(problem)
    found = solve_at_scale(problem)
    assert found.plan is not None, found.message
    assert check_plan(problem, found.plan) == ()
    assert found.bound_usd_per_h <= most_usd_per_h(problem)


@SOON
@given(rich_problems())
def test_exposure_follows_changes(problem: Problem) -> None:
    problem = exposed(problem)
    frame = take_frame(tabulate(problem))
    exposure, nothing = Exposure(frame), np.zeros(len(frame.rate))
    group = np.flatnonzero(frame.most > 0)
    assert exposure.usd_per_h() == 0.0  # nobody is answered, nobody exposed
    half = np.where(np.arange(len(frame.rate)) % 2 == 0, 1.0, 0.25)
    exposure.put(group, frame.most[group], shed=half)
    told = exposure.after_usd_per_h(group[::2], -frame.most[group[::2]], shed=nothing)
    exposure.put(group[::2], -frame.most[group[::2]], shed=nothing)
    assert exposure.usd_per_h() == pytest.approx(told)
    at_once = Exposure(frame)
    at_once.put(group[1::2], frame.most[group[1::2]], shed=nothing)
    assert exposure.usd_per_h() == pytest.approx(at_once.usd_per_h())


@SOON
@given(rich_problems())
def test_cuts_only_add(problem: Problem) -> None:
    problem = exposed(problem)
    whole = solve(problem)
    assert whole.plan is not None
    ledger = taken_up(problem, whole.plan)
    before = ledger.cost_usd_per_h()
    for _ in range(3):
        if not add_cuts(ledger, SerialWorkers(), range(len(ledger.frame.components))):
            break
    assert ledger.cost_usd_per_h() >= before - 1e-9
    assert add_cuts(ledger, SerialWorkers(), range(len(ledger.frame.components))) == set()


@SOON
@given(rich_problems())
def test_who_finds_room_elsewhere_lacks_no_cut(problem: Problem) -> None:
    problem = exposed(problem)
    whole = solve(problem)
    assert whole.plan is not None
    for thinned in (1.0, 0.5):
        found = []
        for is_asked in (True, False):
            ledger = taken_up(problem, whole.plan)
            ledger.replicas = np.floor(ledger.replicas * thinned)
            with pytest.MonkeyPatch.context() as patch:
                if not is_asked:
                    patch.setattr(_Sharing, "_moves_over", lambda *_: False)
                add_cuts(ledger, SerialWorkers(), range(len(ledger.frame.components)))
            found.append([(one.site, one.ranks.tolist()) for one in ledger.exposure.cuts])
        assert found[0] == found[1]
