"""Worth in a large fleet: at least and at most what a unit saves in the relaxation of all arcs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, assume, given, settings

from optimizer.arcs import find_arcs
from optimizer.milp import worth as whole
from optimizer.milp.scale import lp
from optimizer.milp.scale.ascent import clear, opening_prices, sampled_arcs
from optimizer.milp.scale.catalogue import component_arcs
from optimizer.milp.scale.frame import take_frame
from optimizer.milp.scale.price_lp import lp_over, relax, union
from optimizer.milp.scale.sides import Sides
from optimizer.milp.scale.workers import SerialWorkers, ThreadWorkers
from optimizer.milp.scale.worth import find_worth_at_scale
from optimizer.milp.scale.worth_lp import Part, Place, WorthLp
from optimizer.milp.worth import find_worth
from optimizer.policy import GroupBound
from optimizer.problem import Problem
from optimizer.tabulate import tabulate
from optimizer.whatif import what_if
from optimizer.worth import Worth, worth_lines, worth_text
from tests.optimizer import builders as b
from tests.optimizer.scale.test_scale import plain
from tests.optimizer.test_worth import CHANGES, many_small

NEAR = 1e-6
WITHIN = 0.01


def found(problem: Problem) -> tuple[Worth, ...]:
    """The figures, there being all the time in the world."""
    worth = find_worth_at_scale(problem)
    assert worth is not None
    return worth


def never() -> bool:
    """No time limit."""
    return False


def named(worth: tuple[Worth, ...] | None) -> dict[tuple[str, str], Worth]:
    """By row family and subject."""
    assert worth is not None
    return {(one.code, one.subject): one for one in worth}


def saved(one: Worth) -> float:
    """What a unit saves (USD/h), which is known."""
    assert one.usd_per_h is not None
    return one.usd_per_h


def optimum(problem: Problem) -> float:
    """The relaxation with every arc and every row at once (USD/h)."""
    frame = take_frame(tabulate(problem))
    arcs = union(frame, [component_arcs(frame, classes) for classes in frame.components])
    highs = lp.opened(lp_over(frame, arcs, frame.shed_usd_per_h, capped=True))
    sides = Sides(frame)
    terms, rows = sides.terms(arcs), lp.RowBuilder()
    entries = [(terms.side, terms.arc, terms.value)]
    rows.block(-lp.INF, sides.limit, entries=entries, count=len(sides.limit))
    lp.add_rows(highs, rows.rows())
    lp.must_run(highs)
    return float(highs.getInfo().objective_function_value)


def sparse(problem: Problem) -> WorthLp:
    """The relaxation with no arcs at first but those that carry traffic."""
    frame, hands = take_frame(tabulate(problem)), SerialWorkers()
    opening = opening_prices(frame)
    cleared, _ = clear(frame, sampled_arcs(frame, opening, hands), prices=opening, steps=20)
    capped = frame.caps.are_priced
    near = relax(frame, cleared, hands, tolerance=1e-2, is_over=never, capped=capped)
    few = near.part > 1e-9
    return WorthLp(frame, replace(near, arcs=near.arcs.only(few), part=near.part[few]), hands)


def busy(problem: Problem) -> Problem:
    """Every limit pressed: ten times the traffic; no site has a fixed price."""
    sites = tuple(replace(one, fixed_price_usd_per_h=0.0) for one in problem.fleet.sites)
    return replace(
        problem,
        fleet=replace(problem.fleet, sites=sites),
        classes=tuple(
            replace(c, rate_rps=tuple(10 * rate for rate in c.rate_rps)) for c in problem.classes
        ),
    )


def flowing(problem: Problem) -> Problem:
    """A problem whose whole relaxation is the plain one: no losses, spread or means, nothing runs
    yet, every class fills replicas anywhere.
    """
    return replace(
        busy(busy(problem)),
        running=(),
        classes=tuple(
            replace(
                c,
                rate_rps=tuple(100 * rate for rate in c.rate_rps),
                protected=False,
                spread_sites=1,
                spread_zones=1,
                mean_quality_floor=0.0,
                slo=replace(c.slo, over_mix=False),
            )
            for c in problem.classes
        ),
    )


SOON = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@SOON
@given(b.rich_problems(max_sites=4, max_classes=6, limits=True))
def test_a_unit_saves_at_least_the_figure_and_at_most_its_first_rate(problem: Problem) -> None:
    problem = plain(busy(problem))
    before = optimum(problem)
    slack = NEAR * (1 + abs(before))
    for (code, subject), one in named(found(problem)).items():
        changed = what_if(problem, [CHANGES[code].format(*subject.split("/"))])
        if find_arcs(changed).arcs != find_arcs(problem).arcs:
            continue  # room for a larger replica: more than a unit of the limit
        saves = before - optimum(changed)
        assert saved(one) <= saves + slack, (code, subject)
        assert saves <= one.at_first_usd_per_h + slack, (code, subject)
        if saved(one) < (1 - WITHIN) * one.at_first_usd_per_h:
            assert saved(one) == pytest.approx(saves, abs=slack)


@SOON
@given(b.rich_problems(max_sites=4, max_classes=6, limits=True))
def test_over_few_arcs_the_optimum_is_that_over_all_and_its_prices_prove_it(
    problem: Problem,
) -> None:
    problem = plain(busy(problem))
    relaxation, best = sparse(problem), optimum(problem)
    solved = relaxation.solve(never)
    assert solved is not None
    assert solved.cost_usd_per_h == pytest.approx(best, rel=NEAR, abs=NEAR)
    assert solved.bound_usd_per_h == pytest.approx(best, rel=NEAR, abs=NEAR)
    for at, pool_id in enumerate(relaxation.frame.tables.pools.ids):
        place = Place(of=Part.ROW, at=relaxation.first_pool + at)
        cost = relaxation.cost_with(place, more=1.0, enough_usd_per_h=-1e9, is_over=never)
        changed = what_if(problem, [CHANGES["pool_accelerators"].format(*pool_id.split("/"))])
        if find_arcs(changed).arcs == find_arcs(problem).arcs:
            assert cost == pytest.approx(optimum(changed), rel=NEAR, abs=NEAR)


@SOON
@given(b.rich_problems(max_sites=4, max_classes=6, limits=True))
def test_what_is_not_listed_saves_nothing(problem: Problem) -> None:
    problem = plain(busy(problem))
    before, listed = optimum(problem), named(found(problem))
    frame = take_frame(tabulate(problem))
    for code, ids in (
        ("pool_accelerators", frame.tables.pools.ids),
        ("site_power", frame.tables.sites.ids),
        ("supply_limit", frame.tables.supplies.ids),
        ("link_bandwidth", frame.tables.links.ids),
    ):
        for subject in ids:
            changed = what_if(problem, [CHANGES[code].format(*subject.split("/"))])
            if (code, subject) in listed or find_arcs(changed).arcs != find_arcs(problem).arcs:
                continue
            assert before - optimum(changed) <= NEAR * (1 + abs(before)), (code, subject)


@SOON
@given(b.rich_problems(max_sites=4, max_classes=6))
def test_where_both_relaxations_are_one_so_are_the_figures(problem: Problem) -> None:
    problem = plain(flowing(problem))
    own = named(found(problem))
    other = named(find_worth(problem, find_arcs(problem).arcs))
    assume(len(other) < 24)
    scale = optimum(problem)
    for key in own.keys() | other.keys():
        one = saved(own[key]) if key in own else 0.0
        two = saved(other[key]) if key in other else 0.0
        assert one == pytest.approx(two, rel=WITHIN, abs=NEAR * (1 + abs(scale))), key


@settings(max_examples=10, deadline=None, derandomize=True)
@given(b.rich_problems(max_sites=4, max_classes=6, limits=True))
def test_the_number_of_workers_and_the_order_of_facts_change_no_figure(problem: Problem) -> None:
    problem = plain(busy(problem))
    turned = replace(problem, classes=problem.classes[::-1])
    assert found(problem) == find_worth_at_scale(problem, workers=ThreadWorkers(3))
    assert found(problem) == found(turned)


def test_figures_by_hand() -> None:
    # a kW at "b" ($1/h) runs 3 1/3 replicas there instead of at "a" ($2/h)
    (one,) = found(many_small())
    assert worth_text(one) == "one more kW of power budget at b saves $3.33/h"
    assert one.is_plain
    assert worth_lines([one])[-1] == (
        "Worth is a relaxation's: parts of replicas, no losses, spread, means, floors, moves; "
        "--what-if plans for sure"
    )


def test_a_link_that_is_full_is_worth_what_its_traffic_saves() -> None:
    # 40 req/s of 1e5 bytes are 32 Mbit/s; the link takes 8, so "b" serves a quarter
    problem = b.two_sites(classes=[b.traffic_class(rate_rps=40.0, bytes_per_request=1e5)])
    link = replace(problem.fleet.links[0], bandwidth_bps=8e6)
    pools = [replace(s, pools=(replace(s.pools[0], count=9),)) for s in problem.fleet.sites]
    problem = replace(problem, fleet=replace(problem.fleet, sites=tuple(pools), links=(link,)))
    one = named(found(problem))["link_bandwidth", "a--b"]
    # 3 of 4 replicas move from $2/h to $1/h; at first 1 Gbit/s would move 125
    assert one.usd_per_h == pytest.approx(3.0)
    assert one.at_first_usd_per_h == pytest.approx(125.0)
    assert named(find_worth(problem, find_arcs(problem).arcs))[
        "link_bandwidth", "a--b"
    ].usd_per_h == pytest.approx(3.0)


def test_a_unit_saves_no_more_than_a_link_then_carries() -> None:
    # the link carries 24 Mbit/s, 30 req/s of 1e5 bytes: 1 replica more at "b", not 3 1/3
    problem = many_small()
    (link,), (one,) = problem.fleet.links, problem.classes
    problem = replace(
        problem,
        fleet=replace(problem.fleet, links=(replace(link, bandwidth_bps=24e6),)),
        classes=(replace(one, bytes_per_request=1e5),),
    )
    (power,) = found(problem)
    assert (power.code, power.usd_per_h) == ("site_power", pytest.approx(1.0))
    assert worth_text(power).endswith("saves $1.00/h (its first part at the rate of $3.33/h)")


def test_a_unit_more_finds_the_arcs_that_nobody_wanted_without() -> None:
    # "b" holds 1 replica; c ($1/h less there) leaves half of a second to d ($0.5/h less)
    problem = b.two_sites(
        classes=[
            b.traffic_class("c", rate_rps=15.0),
            b.traffic_class("d", rate_rps=10.0, bytes_per_request=1e5),
        ]
    )
    dear, cheap = problem.fleet.sites
    small = replace(cheap, pools=(replace(cheap.pools[0], count=1),))
    links = (replace(problem.fleet.links[0], price_usd_per_gb=0.5 / 3.6),)
    problem = replace(problem, fleet=replace(problem.fleet, sites=(dear, small), links=links))
    relaxation = sparse(problem)
    solved = relaxation.solve(never)
    place = Place(of=Part.ROW, at=relaxation.first_pool + 1)
    cost = relaxation.cost_with(place, more=1.0, enough_usd_per_h=-1e9, is_over=never)
    assert solved is not None and cost is not None
    assert solved.cost_usd_per_h - cost == pytest.approx(0.75)
    assert named(found(problem))["pool_accelerators", "b/p"].usd_per_h == pytest.approx(0.75)


def test_a_cordoned_site_is_worth_nothing_more_and_a_cap_is() -> None:
    problem = many_small()
    dear, cheap = problem.fleet.sites
    shut = replace(problem.fleet, sites=(dear, replace(cheap, cordoned=True)))
    assert found(replace(problem, fleet=shut)) == ()
    bounds = (GroupBound(site_id="b", variant_id="v", most=1),)
    capped = replace(problem, plan_policy=replace(problem.plan_policy, replica_bounds=bounds))
    one = named(found(capped))["replica_cap", "b/v"]
    assert one.usd_per_h == pytest.approx(1.0)


def test_out_of_time_nothing_is_known() -> None:
    assert find_worth_at_scale(many_small(), is_over=lambda: True) is None
    assert worth_lines(None) == (
        "Worth: not known, its relaxation takes longer than the plan's time limit",
    )


def test_out_of_time_later_the_most_a_unit_saves_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WorthLp, "cost_with", lambda *_, **__: None)
    (one,) = found(many_small())
    assert one.usd_per_h is None
    assert worth_text(one) == "one more kW of power budget at b saves at most $3.33/h"


def test_too_many_arcs_are_not_formulated(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = many_small()
    arcs = find_arcs(problem).arcs
    assert not any(one.is_plain for one in find_worth(problem, arcs) or ())
    assert find_worth(problem, None) == found(problem)
    monkeypatch.setattr(whole, "ARCS_MAX", len(arcs) - 1)
    assert find_worth(problem, arcs) == found(problem)


def test_fixed_prices_of_sites_change_no_figure() -> None:
    sites = [b.site("a", pools=[b.pool(count=1)]), b.site("b", country="FR", budget_w=900.0)]
    free = b.problem(sites=sites, links=[b.link("a", "b")], classes=[b.traffic_class(rate_rps=90)])
    priced = replace(
        free,
        fleet=replace(
            free.fleet, sites=tuple(replace(one, fixed_price_usd_per_h=5.0) for one in sites)
        ),
    )

    assert find_worth_at_scale(free)
    assert find_worth_at_scale(priced) == find_worth_at_scale(free)
