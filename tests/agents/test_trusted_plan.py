"""Whether a site accepts an assignment: what is refused, why, and what a refusal leaves alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.trusted_plan import Standing, judge, refuse_undurable, refuse_unreadable
from sites.assignment import Peer, RouteDecision, SiteAssignment, SiteShare
from sites.digest import digest
from sites.telemetry import PoolInventory
from tests.agents import site_facts as f

ACCEPTED = f.assignment(epoch=2, version=5)
APPLIED = f.assignment(epoch=2, version=4)
STANDING = Standing(site_id=f.SITE, accepted=ACCEPTED, applied=APPLIED)
FRESH = Standing(site_id=f.SITE)


def codes(assignment: SiteAssignment, standing: Standing = STANDING, *, wall_ms: int = 1) -> list:
    return [v.code for v in judge(assignment, standing, wall_ms=wall_ms).violations]


def test_a_newer_assignment_that_fits_is_accepted() -> None:
    newer = f.assignment(epoch=2, version=6)
    verdict = judge(newer, STANDING, wall_ms=1, validate_only=True)
    assert verdict.accepted
    assert verdict.validate_only
    assert verdict.assignment_digest == digest(newer)
    assert (verdict.applied_epoch, verdict.applied_version) == (2, 4)


@given(st.integers(0, 4), st.integers(0, 9))
def test_only_a_higher_rank_is_accepted(epoch: int, version: int) -> None:
    found = codes(f.assignment(epoch=epoch, version=version))
    if (epoch, version) >= (2, 5):  # (2, 5) is the accepted one, sent again
        assert found == []
    else:
        assert found == ["stale_epoch" if epoch < 2 else "stale_version"]


def test_the_accepted_one_sent_again_is_an_ack_even_after_its_time() -> None:
    assert codes(ACCEPTED, wall_ms=f.FOREVER_MS + 1) == []


def test_another_assignment_of_an_accepted_rank_is_refused() -> None:
    assert codes(f.assignment(epoch=2, version=5, power_budget_w=999.0)) == ["conflicting_version"]


def test_after_losing_its_accepted_one_a_site_still_knows_its_applied_rank() -> None:
    standing = replace(STANDING, accepted=None)
    assert codes(f.assignment(epoch=2, version=3), standing) == ["stale_version"]


@pytest.mark.parametrize(
    ("assignment", "code"),
    [
        (replace(f.assignment(), site_id="ghent"), "wrong_site"),
        (replace(f.assignment(), expires_at_ms=1), "expired"),
        (f.assignment(f.target(replicas=3), power_budget_w=50.0), "site_power"),
        (f.assignment(f.target(replicas=9)), "pool_accelerators"),
        (replace(f.assignment(), country="US"), "residency"),
        (f.assignment(routes=(f.route(f.OTHER),)), "absent_group"),
    ],
)
def test_what_does_not_fit_the_site_is_refused(assignment: SiteAssignment, code: str) -> None:
    assert code in codes(assignment, FRESH)


def test_data_that_may_not_even_enter_the_country_is_refused() -> None:
    abroad = Peer(site_id="liege", country="BE", residency_tags=(), peer_address="127.0.0.1:9")
    away = replace(f.route(), shares=(SiteShare(site_id="liege", basis_points=10_000),), groups=())
    at_home = replace(f.assignment(routes=(away,)), peers=(abroad,))
    assert codes(at_home, FRESH) == []
    in_transit = replace(at_home, country="CH")
    (violation,) = judge(in_transit, FRESH, wall_ms=1).violations
    assert violation.message() == (
        'site "bruges": route "chat|acme|eu": transit is enters in CH, limit BE, NL; '
        'policy "eu" must allow crossing CH'
    )
    no = replace(f.route(decision=RouteDecision.UNLAWFUL), key=away.key)
    assert codes(replace(in_transit, routes=(no,)), FRESH) == [], "to refuse is always lawful"


def test_power_beyond_the_site_is_said_in_watts() -> None:
    wanted = f.assignment(f.target(replicas=3), power_budget_w=50.0)
    (violation,) = judge(wanted, FRESH, wall_ms=1).violations
    assert violation.message() == (
        'site "bruges": site power is 54 W, limit 50 W; '
        "want fewer replicas there or raise the power budget"
    )


@pytest.mark.parametrize(
    ("pool", "is_refused"),
    [
        (PoolInventory(pool_id="cpu", accelerator="cpu-thread", count=8), False),
        (PoolInventory(pool_id="cpu", accelerator="cpu-thread", count=7), True),
        (PoolInventory(pool_id="cpu", accelerator="h100", count=8), True),
        (PoolInventory(pool_id="gpu", accelerator="cpu-thread", count=8), True),
    ],
)
def test_hardware_that_is_not_there_is_refused(pool: PoolInventory, is_refused: bool) -> None:
    found = codes(f.assignment(), replace(FRESH, inventory=(pool,)))
    assert found == (["missing_accelerators"] if is_refused else [])


def test_unreadable_and_undurable_ones_are_refused_with_the_rank_still_run() -> None:
    unreadable = refuse_unreadable("not JSON", STANDING)
    undurable = refuse_undurable("the disk is full", judge(ACCEPTED, STANDING, wall_ms=1))
    for verdict, code in ((unreadable, "envelope"), (undurable, "disk")):
        assert not verdict.accepted
        assert [v.code for v in verdict.violations] == [code]
        assert (verdict.applied_epoch, verdict.applied_version) == (2, 4)
