"""Steps of the large search: what fits of a batch, who found no room, an earlier plan taken up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from optimizer.milp.scale.batch import Job, step
from optimizer.milp.scale.building import build, rescue
from optimizer.milp.scale.catalogue import component_arcs
from optimizer.milp.scale.cluster import Effort, rearrange
from optimizer.milp.scale.frame import Prices
from optimizer.milp.scale.ledger import Change, Ledger
from optimizer.milp.scale.plan_search import renew_components
from optimizer.milp.scale.warm_start import take_up
from optimizer.problem import Problem
from optimizer.solve import solve
from sites.residency import ResidencyPolicy
from tests.optimizer import builders as b
from tests.optimizer.builders import rich_problems
from tests.optimizer.scale.test_scale import never, plain
from tests.optimizer.scale.test_survival import begun, exposed

SOON = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
EFFORT = Effort(sites=6, gap=0.0, nodes=10)


def one_class_over_eight_sites() -> Problem:
    """Five of eight sites with one accelerator each are needed for a single class."""
    names = "abcdefgh"
    return b.problem(
        sites=[b.site(name, pools=[b.pool(count=1)]) for name in names],
        links=[b.link("a", name) for name in names[1:]],
        classes=[b.traffic_class("c", rate_rps=45.0)],
    )


def one_accelerator_two_want() -> Problem:
    """ "a" ($1/h) has one; class x may go to "b" ($1.2/h) as well, class y to "c" ($3/h)."""
    prices = {"a": ("DE", 1.0), "b": ("FR", 1.2), "c": ("IT", 3.0)}
    policies = [
        ResidencyPolicy(policy_id=name, processing_countries=countries, transit_countries=None)
        for name, countries in (("x", ("DE", "FR")), ("y", ("DE", "IT")))
    ]
    return b.problem(
        sites=[
            b.site(name, country=country, pools=[b.pool(count=1, price=price)])
            for name, (country, price) in prices.items()
        ],
        links=[b.link("a", "b"), b.link("a", "c")],
        variants=[b.variant("vx"), b.variant("vy")],
        points=[b.point("vx"), b.point("vy")],
        services={"x": ["vx"], "y": ["vy"]},
        policies=[b.ANYWHERE, *policies],
        classes=[b.traffic_class(name, service_id=name, policy_id=name) for name in ("x", "y")],
    )


@SOON
@given(rich_problems())
def test_a_batch_leaves_the_limits_whole_and_names_who_goes_without(problem: Problem) -> None:
    search = begun(exposed(problem))
    frame, ledger = search.frame, search.ledger
    every, free = np.arange(len(frame.rate)), frame.most > 0
    halves = [half for half in (every[::2], every[1::2]) if len(half)]
    alone = [Job(classes=half, free=free, early=True) for half in halves]
    late = step(search, alone, EFFORT, again=False)
    assert ledger.fits(ledger.whole())
    # whoever a batch-mate left no room is named: alone in an empty fleet all would be as before
    for half in halves:
        empty = begun(exposed(problem))
        step(empty, [Job(classes=half, free=free, early=True)], EFFORT)
        lost = half[ledger.shed_part[half] > empty.ledger.shed_part[half] + 1e-6]
        assert np.isin(lost, np.concatenate([*late, np.zeros(0, dtype=np.intp)])).all()


@SOON
@given(rich_problems())
def test_a_rescue_never_costs_more_and_keeps_the_limits(problem: Problem) -> None:
    search = begun(exposed(problem))
    before = search.ledger.cost_usd_per_h()
    rescue(search, effort=EFFORT)
    cuts = sum(search.ledger.exposure.beyond(search.ledger.shed_part).values())
    assert search.ledger.cost_usd_per_h() - cuts <= before + 1e-6
    assert search.ledger.fits(search.ledger.whole())


def test_whoever_found_no_room_near_goes_where_there_is_some() -> None:
    search = replace(begun(one_class_over_eight_sites()), is_over=lambda: True)
    frame, ledger = search.frame, search.ledger
    # as if the search had left the class unserved although sites are empty
    rescue(search, effort=EFFORT)
    assert ledger.shed_part.max() < 1e-6
    assert ledger.replicas.sum() == 5
    assert component_arcs(frame, np.array([0])).count == 8


def test_an_earlier_plan_flows_over_as_many_groups_as_before() -> None:
    problem = one_class_over_eight_sites()
    plan = solve(problem).plan
    assert plan is not None
    search = replace(begun(problem), is_over=lambda: True)  # also without time
    take_up(search, plan)
    assert search.ledger.shed_part.max() < 1e-6
    assert search.ledger.cost_usd_per_h() == pytest.approx(plan.cost.total_usd_per_h, rel=1e-4)


def test_of_an_earlier_plan_as_many_replicas_stay_as_a_lower_budget_leaves_room_for() -> None:
    """Groups of 3 and 2 replicas of 300 W on a budget of 900 W, which holds 3: the two whose
    traffic costs more to shed stay, and one of the others.
    """
    classes = [
        b.traffic_class("few", rate_rps=20.0, priority=0, service_id="chat"),
        b.traffic_class("many", rate_rps=30.0, priority=9, service_id="talk"),
    ]
    problem = b.problem(
        sites=[b.site(budget_w=1_500.0, pools=[b.pool(count=8)])],
        variants=[b.variant("v"), b.variant("w")],
        points=[b.point("v"), b.point("w")],
        services={"chat": ["v"], "talk": ["w"]},
        classes=classes,
    )
    plan = solve(problem).plan
    assert plan is not None
    assert {g.group.group_id: g.replicas for g in plan.groups} == {"a/p/v/x1": 2, "a/p/w/x1": 3}
    search = begun(
        replace(
            problem, fleet=b.problem(sites=[b.site(budget_w=900.0, pools=[b.pool(count=8)])]).fleet
        )
    )
    take_up(search, plan)
    tables, ledger = search.frame.tables, search.ledger
    stands = {tables.group_id(at): ledger.replicas[at] for at in np.flatnonzero(ledger.replicas)}
    assert stands == {"a/p/v/x1": 2, "a/p/w/x1": 1}
    assert ledger.shed_part == pytest.approx(np.array([0.0, 2 / 3]), abs=1e-4)


@SOON
@given(rich_problems())
def test_an_earlier_plan_costs_again_what_it_cost(problem: Problem) -> None:
    problem = plain(problem)
    plan = solve(problem).plan
    assert plan is not None
    search = begun(problem)
    take_up(search, plan)
    dust = 1e-4 * float(search.frame.shed_usd_per_h.sum()) + 1e-6
    assert search.ledger.cost_usd_per_h() <= plan.cost.total_usd_per_h + dust


@pytest.mark.parametrize("is_late", [False, True])
@SOON
@given(problem=rich_problems())
def test_what_is_built_fits(is_late: bool, problem: Problem) -> None:
    search = begun(plain(problem))
    build(search, effort=EFFORT, is_late=lambda: is_late)
    whole = search.ledger.whole()
    assert search.ledger.fits(whole)
    again = Ledger(search.frame)
    again.put(whole)
    assert search.ledger.cost_usd_per_h() == pytest.approx(again.cost_usd_per_h(), rel=1e-9)
    none = np.zeros(0, dtype=np.intp)
    more = Change(
        classes=none,
        group=np.arange(search.frame.groups),
        replicas=search.frame.most + 1e6,
        flows=search.ledger.flows_of(none),
    )
    assert search.ledger.lacking(more).any()


def test_who_has_a_cheap_way_out_leaves_what_another_needs_once_it_has_a_price() -> None:
    problem = one_accelerator_two_want()
    plan = b.plan(
        problem,
        groups={"a/p/vx/x1": 1, "c/p/vy/x1": 1},
        shares={("x", "a/p/vx/x1"): 10_000, ("y", "c/p/vy/x1"): 10_000},
    )
    search = begun(problem)
    search.worth[:] = True
    frame, ledger = search.frame, search.ledger
    take_up(search, plan)
    power = 2 * 0.3 * 0.1
    assert ledger.cost_usd_per_h() == pytest.approx(1.0 + 3.0 + power, abs=1e-3)
    # on its own, x gains nothing by leaving
    renew_components(search, effort=EFFORT)
    assert ledger.cost_usd_per_h() == pytest.approx(1.0 + 3.0 + power, abs=1e-3)
    # $1/h for the accelerator that both want: x leaves (the plan is dearer), then y comes
    pool = np.array([1.0 if name == "a/p" else 0.0 for name in ("a/p", "b/p", "c/p")])
    shared = Prices(pool=pool, power=np.zeros(3), energy=search.prices.shared.energy)
    priced = replace(search, prices=frame.price_list(shared), priced=True)
    renew_components(priced, effort=EFFORT)
    assert ledger.cost_usd_per_h() == pytest.approx(1.2 + 3.0 + power, abs=1e-3)
    renew_components(priced, effort=EFFORT)
    assert ledger.cost_usd_per_h() == pytest.approx(1.2 + 1.0 + power, abs=1e-3)


def test_few_classes_may_use_every_arc_to_the_groups_they_have() -> None:
    names = [f"s{k:02d}" for k in range(60)]
    near = b.problem(
        sites=[b.site(name, pools=[b.pool(price=1.0 + k / 100)]) for k, name in enumerate(names)],
        links=[b.link(names[0], name) for name in names[1:]],
        markets=[b.market(accesses={names[0]: 5.0})],
    )
    search = begun(near)
    frame, first = search.frame, np.array([0])
    free = np.arange(frame.groups) < 40
    free[-1] = True
    chosen = rearrange(
        search.ledger,
        first,
        free=free,
        prices=search.prices,
        effort=EFFORT,
        is_over=never,
    )
    assert chosen is not None
    assert len(chosen.group) == 41  # not the cheapest 32
