"""The demo fleet: small, lawful after any one loss, and with one request no site may serve."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from optimizer.reroute import reroute
from optimizer.solve import solve
from scheduler.fleet_problem import problem_of
from sites.fleet_file import FleetDescription, load_fleet
from sites.residency import is_at_least_as_strict, may_process

EXAMPLE = Path(__file__).resolve().parents[2] / "deploy" / "examples" / "demo"


@pytest.fixture(scope="module")
def demo() -> FleetDescription:
    return load_fleet(EXAMPLE)


def test_the_plan_uses_two_sites_or_more_and_routes_between_them(demo: FleetDescription) -> None:
    plan = solve(problem_of(demo)).plan
    assert plan is not None
    assert not plan.shed
    assert len({share.site_id for share in plan.shares}) >= 2
    assert any(share.site_id != share.ingress_site_id for share in plan.shares)


@pytest.mark.parametrize("lost", ["osl-1", "rix-1", "waw-1"])
def test_losing_any_one_site_sheds_nothing_even_before_a_re_plan(
    demo: FleetDescription, lost: str
) -> None:
    problem = problem_of(demo)
    plan = solve(problem).plan
    assert plan is not None
    assert not reroute(problem, plan, lost_sites=(lost,)).shed


@pytest.mark.parametrize("lost", ["osl-1", "rix-1", "waw-1"])
def test_any_one_site_may_be_planned_without(demo: FleetDescription, lost: str) -> None:
    plan = solve(dataclasses.replace(problem_of(demo), lost_sites=(lost,))).plan
    assert plan is not None
    assert not plan.shed
    assert lost not in {share.site_id for share in plan.shares}


def test_a_stricter_ask_has_no_lawful_site(demo: FleetDescription) -> None:
    policies = {policy.policy_id: policy for policy in demo.policies}
    travel = next(t for t in demo.tenants if t.tenant_id == "alpine-travel")
    asked = policies["ch-only"]
    assert is_at_least_as_strict(asked, policies[travel.residency_policy_id])
    assert not any(
        may_process(asked, country=site.country, tags=site.residency_tags)
        for site in demo.fleet.sites
    )


def test_every_site_can_be_run(demo: FleetDescription) -> None:
    addresses = [
        address
        for site in demo.fleet.sites
        if site.gateway
        for address in (site.gateway.client_address, site.gateway.peer_address)
    ]
    assert len(set(addresses)) == 2 * len(demo.fleet.sites)
    assert all(variant.artifact_sha256 for variant in demo.catalog.variants)
