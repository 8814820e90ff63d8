"""What must hold between the optima of two related problems, whatever they are."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.arcs import find_arcs
from optimizer.milp.formulate import attempt, formulate
from optimizer.problem import Problem
from sites.fleet import Fleet, Link, Market, PowerSupply, Site
from tests.optimizer import builders as b

SLACK = 1e-6


def optimum(problem: Problem) -> float:
    """Cost of the solver's point, before shares are rounded (USD/h)."""
    return attempt(formulate(problem, find_arcs(problem).arcs)).point.cost


def no_more(actual: float, limit: float) -> bool:
    return actual <= limit + SLACK * max(1.0, abs(limit))


def with_sites(problem: Problem, sites: tuple[Site, ...]) -> Problem:
    return replace(problem, fleet=replace(problem.fleet, sites=sites))


def repriced(supply: PowerSupply, factor: float) -> PowerSupply:
    return replace(supply, price_usd_per_kwh=tuple(p * factor for p in supply.price_usd_per_kwh))


@settings(max_examples=40, deadline=None)
@given(b.small_problems(), st.integers(0, 2), st.floats(0, 1))
def test_cheaper_power_never_costs_more(problem: Problem, which: int, factor: float) -> None:
    sites = list(problem.fleet.sites)
    at = which % len(sites)
    cheaper = tuple(repriced(s, factor) for s in sites[at].supplies)
    sites[at] = replace(sites[at], supplies=cheaper)
    assert no_more(optimum(with_sites(problem, tuple(sites))), optimum(problem))


@settings(max_examples=40, deadline=None)
@given(b.small_problems(max_sites=2))
def test_one_more_site_never_costs_more(problem: Problem) -> None:
    fleet = problem.fleet
    more = replace(
        fleet,
        sites=(*fleet.sites, b.site("z", country="FR")),
        links=(*fleet.links, *(b.link(s.site_id, "z", rtt_ms=400.0) for s in fleet.sites)),
    )
    assert no_more(optimum(replace(problem, fleet=more)), optimum(problem))


@settings(max_examples=40, deadline=None)
@given(b.small_problems(), st.integers(0, 3))
def test_stricter_residency_never_costs_less(problem: Problem, which: int) -> None:
    classes = list(problem.classes)
    at = which % len(classes)
    classes[at] = replace(classes[at], residency_policy_id="eu")
    stricter = replace(problem, classes=tuple(classes))
    assert no_more(optimum(problem), optimum(stricter)) or _enters_elsewhere(problem, stricter)


def _enters_elsewhere(problem: Problem, stricter: Problem) -> bool:
    """A stricter class may have to enter farther out, and from there reach sites more cheaply."""
    ways = {(a.class_id, a.group, a.path) for one in (problem,) for a in find_arcs(one).arcs}
    return any((a.class_id, a.group, a.path) not in ways for a in find_arcs(stricter).arcs)


@settings(max_examples=40, deadline=None)
@given(b.small_problems(), st.sampled_from([0.5, 3.0]))
def test_scaling_all_prices_scales_the_cost(problem: Problem, factor: float) -> None:
    policy = problem.plan_policy
    sites = tuple(
        replace(
            site,
            supplies=tuple(repriced(s, factor) for s in site.supplies),
            pools=tuple(
                replace(p, price_usd_per_accelerator_h=p.price_usd_per_accelerator_h * factor)
                for p in site.pools
            ),
            fixed_price_usd_per_h=site.fixed_price_usd_per_h * factor,
        )
        for site in problem.fleet.sites
    )
    links = tuple(
        replace(k, price_usd_per_gb=k.price_usd_per_gb * factor) for k in problem.fleet.links
    )
    scaled = replace(
        problem,
        fleet=replace(problem.fleet, sites=sites, links=links),
        plan_policy=replace(
            policy,
            shed_usd_per_mtok=policy.shed_usd_per_mtok * factor,
            carbon_usd_per_t=policy.carbon_usd_per_t * factor,
            migration_usd_per_gib=policy.migration_usd_per_gib * factor,
        ),
    )
    assert optimum(scaled) == pytest.approx(optimum(problem) * factor, rel=SLACK, abs=SLACK)


@settings(max_examples=40, deadline=None)
@given(b.small_problems())
def test_other_names_for_the_sites_change_no_cost(problem: Problem) -> None:
    assert optimum(_renamed(problem)) == pytest.approx(optimum(problem), rel=SLACK, abs=SLACK)


def _renamed(problem: Problem) -> Problem:
    """The same fleet with its sites' names in the opposite order."""
    ids = [s.site_id for s in problem.fleet.sites]
    new = {old: f"site-{len(ids) - i}" for i, old in enumerate(ids)}

    def link(one: Link) -> Link:
        return replace(one, site_a=new[one.site_a], site_b=new[one.site_b])

    def market(one: Market) -> Market:
        accesses = tuple(replace(a, site_id=new[a.site_id]) for a in one.accesses)
        return replace(one, accesses=accesses)

    fleet = Fleet(
        sites=tuple(replace(s, site_id=new[s.site_id]) for s in problem.fleet.sites),
        links=tuple(link(k) for k in problem.fleet.links),
        markets=tuple(market(m) for m in problem.fleet.markets),
    )
    running = tuple(
        replace(r, group=replace(r.group, site_id=new[r.group.site_id])) for r in problem.running
    )
    return replace(problem, fleet=fleet, running=running)
