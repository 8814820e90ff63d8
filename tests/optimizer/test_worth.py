"""Worth of a limit: a difference of two relaxations, at most the dual price, repeatable."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from optimizer.arcs import find_arcs
from optimizer.milp.elastic import mending_slack
from optimizer.milp.worth import find_worth, relaxed_usd_per_h
from optimizer.policy import GroupBound
from optimizer.problem import Problem
from optimizer.solve import solve
from optimizer.whatif import what_if
from optimizer.worth import STEPS, Worth, dearest_first, worth_lines, worth_text
from tests.optimizer import builders as b


def worth_of(problem: Problem) -> dict[tuple[str, str], Worth]:
    found = find_worth(problem, find_arcs(problem).arcs)
    assert found is not None
    return {(one.code, one.subject): one for one in found}


def relaxed(problem: Problem) -> float | None:
    return relaxed_usd_per_h(problem, find_arcs(problem).arcs)


def many_small(rate_rps: float = 80.0) -> Problem:
    """Two sites; the cheap one is short of power, so each kW more there saves the difference."""
    problem = b.two_sites(classes=[b.traffic_class(rate_rps=rate_rps)])
    dear, cheap = problem.fleet.sites
    big = [replace(p, count=100) for p in dear.pools]
    wide = [replace(p, count=100) for p in cheap.pools]
    sites = (
        replace(dear, pools=tuple(big)),
        replace(cheap, pools=tuple(wide), power_budget_w=(600.0,)),
    )
    return replace(problem, fleet=replace(problem.fleet, sites=sites))


def test_worth_of_power_is_what_the_cheaper_site_saves() -> None:
    problem = many_small()
    (key,) = worth_of(problem)
    assert key == ("site_power", "b")
    found = worth_of(problem)[key]
    assert found.usd_per_h == pytest.approx(found.at_first_usd_per_h)
    assert worth_text(found) == "one more kW of power budget at b saves $3.33/h"


@settings(max_examples=15, deadline=None)
@given(b.rich_problems(limits=True))
def test_worth_never_exceeds_its_first_rate_and_is_repeatable(problem: Problem) -> None:
    arcs = find_arcs(problem).arcs
    found = find_worth(problem, arcs)
    assert found is not None
    assert found == find_worth(problem, tuple(reversed(arcs)))
    assert found == dearest_first(reversed(found))
    for one in found:
        assert one.usd_per_h is not None
        assert 0 < one.usd_per_h <= one.at_first_usd_per_h * (1 + 1e-9)
        assert one.code in STEPS
        assert worth_text(one)


CHANGES = {
    "site_power": "site {0} power +1 kW",
    "pool_accelerators": "site {0} accelerators {1} +1",
    "supply_limit": "site {0} supply {1} limit +1 kW",
    "link_bandwidth": "link {0} bandwidth +1 Gbit/s",
    "tenant_budget": "tenant {0} budget +$1/h",
    "carbon_cap": "policy carbon-cap +1 kg/h",
    "move_limit": "policy move-limit +1",
    "replica_cap": "replicas {0} {1} most +1",
    "replica_floor": "replicas {0} {1} fewest -1",
}


@settings(max_examples=25, deadline=None)
@given(b.rich_problems(limits=True))
def test_worth_is_what_the_same_change_of_the_problem_saves(problem: Problem) -> None:
    """The step granted in the solver's row is the step a what-if makes in the problem."""
    before = relaxed(problem)
    for (code, subject), one in worth_of(problem).items():
        if code not in CHANGES:
            continue
        line = CHANGES[code].format(*subject.split("/"))
        changed = what_if(problem, [line])
        arcs = find_arcs(problem).arcs
        if find_arcs(changed).arcs != arcs:
            continue  # room for a larger replica: more than a unit of the limit
        if mending_slack(changed, arcs) != mending_slack(problem, arcs):
            continue  # a lower floor lets more be mended at once: less than the unit is left
        after = relaxed(changed)
        assert before is not None and after is not None
        assert one.usd_per_h == pytest.approx(before - after, rel=1e-5, abs=1e-5), line


def test_the_text_tells_where_a_unit_is_more_than_is_useful() -> None:
    one = Worth(
        code="pool_accelerators",
        subject="b/p",
        unit="accelerator",
        usd_per_h=0.5,
        at_first_usd_per_h=2.0,
    )
    assert worth_text(one) == (
        "one more accelerator in b/p saves $0.5/h (its first part at the rate of $2.00/h)"
    )
    assert worth_lines([]) == ()
    shown = worth_lines([one] * 9)
    assert shown[-2:] == (
        "Worth: 8 of 9 shown (--full shows all)",
        "Worth is the relaxation's, with parts of replicas; --what-if plans for sure",
    )


def test_a_floor_and_a_cap_have_their_worth() -> None:
    bounds = (GroupBound(site_id="a", variant_id="v", fewest=1),)
    problem = b.two_sites(plan_policy=replace(b.DEFAULT_POLICY, replica_bounds=bounds))
    assert ("replica_floor", "a/v") in worth_of(problem)
    bounds = (GroupBound(site_id="b", variant_id="v", most=0),)
    problem = b.two_sites(plan_policy=replace(b.DEFAULT_POLICY, replica_bounds=bounds))
    assert ("replica_cap", "b/v") in worth_of(problem)


def test_an_infeasible_problem_has_no_worth() -> None:
    policy = replace(b.DEFAULT_POLICY, max_shed_basis_points=0)
    problem = b.problem(sites=[b.site(pools=[b.pool(count=0)])], plan_policy=policy)
    assert solve(problem).plan is None
    assert find_worth(problem, find_arcs(problem).arcs) == ()


def test_what_a_loss_would_cost_counts_towards_the_worth_of_a_spare_site() -> None:
    problem = b.two_sites(classes=[b.traffic_class(rate_rps=20.0, protected=True)])
    dear, cheap = problem.fleet.sites
    small = replace(dear, pools=(replace(dear.pools[0], count=1),))
    problem = replace(problem, fleet=replace(problem.fleet, sites=(small, cheap)))
    asked = replace(problem, plan_policy=replace(problem.plan_policy, exposure_part=1.0))
    unasked = replace(problem, plan_policy=replace(problem.plan_policy, exposure_part=0.0))
    assert ("pool_accelerators", "a/p") in worth_of(asked)
    assert ("pool_accelerators", "a/p") not in worth_of(unasked)
