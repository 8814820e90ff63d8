"""The benchmark tiers: sizes as promised, the same every time, lawful, and servable as stated."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.fleets import TIERS, tier
from benchmarks.fleets.geography import rtt_fit
from benchmarks.fleets.hardware import accelerators
from benchmarks.fleets.relaxed import served
from benchmarks.fleets.scaling import DEMAND_PART
from optimizer.backbone import Backbone, ingress_of
from optimizer.problem import Problem
from sites.digest import digest
from sites.fleet import Ownership, SupplyKind
from sites.residency import may_process
from sites.units import HOURS_PER_DAY

SMALL = ("S", "M")


@pytest.fixture(scope="module", params=SMALL)
def named(request: pytest.FixtureRequest, data_dir: Path) -> tuple[str, Problem]:
    return request.param, tier(request.param, data=data_dir)


def test_counts(named: tuple[str, Problem]) -> None:
    name, problem = named
    sites = problem.fleet.sites
    counted = len(sites), len(problem.catalog.models), len(problem.classes)
    assert counted == (TIERS[name].sites, TIERS[name].models, TIERS[name].classes)
    assert len(problem.services) == TIERS[name].models
    per_model = Counter(v.model_id for v in problem.catalog.variants)
    assert set(per_model.values()) == {2, 3}
    assert len({p.accelerator for s in sites for p in s.pools}) >= 5
    assert all(1 <= len(s.pools) <= 4 for s in sites)
    assert all(4 <= p.count <= 32 for s in sites for p in s.pools)


def test_budgets_and_supplies(named: tuple[str, Problem], data_dir: Path) -> None:
    full_w = {a.name: a.full_w for a in accelerators(data_dir)}
    for site in named[1].fleet.sites:
        peak_w = site.pue * sum(p.count * full_w[p.accelerator] for p in site.pools)
        assert 0.5499 <= site.power_budget_w[0] / peak_w <= 0.9501
        kinds = {s.kind for s in site.supplies}
        assert kinds >= {SupplyKind.PPA, SupplyKind.GRID, SupplyKind.PEAK}
        grid = next(s for s in site.supplies if s.kind is SupplyKind.GRID)
        assert len(grid.price_usd_per_kwh) == len(grid.carbon_g_per_kwh) == HOURS_PER_DAY
        spot = [p for p in site.pools if p.ownership is Ownership.SPOT]
        assert all(p.interruption_per_h > 0 for p in spot)


def test_traffic(named: tuple[str, Problem]) -> None:
    problem = named[1]
    bound = [c for c in problem.classes if c.residency_policy_id != "anywhere"]
    assert len(bound) == len(problem.classes) // 2
    protected = sum(c.protected for c in problem.classes) / len(problem.classes)
    assert 0.15 <= protected <= 0.2
    assert {c.slo.ttft_ms for c in problem.classes} >= {50.0, 600.0}
    country_of = {m.market_id: m.country for m in problem.fleet.markets}
    for one in bound:
        allowed = problem.residency(one.residency_policy_id).processing_countries
        assert allowed is not None and country_of[one.market_id] in allowed


def test_rates_are_log_normal(named: tuple[str, Problem]) -> None:
    logs = np.log([c.rate_rps[0] for c in named[1].classes])
    assert 1.0 <= logs.std() <= 2.5
    assert abs(float(np.mean(((logs - logs.mean()) / logs.std()) ** 3))) < 1.0  # symmetric in logs


def test_every_class_has_a_lawful_way_in_and_site(data_dir: Path) -> None:
    problem = tier("S", data=data_dir)
    backbone = Backbone(problem.fleet)
    for one in problem.classes:
        access = ingress_of(problem, one)
        assert access is not None, one.class_id
        policy = problem.residency(one.residency_policy_id)
        reached = backbone.paths_from(policy, access.site_id)
        lawful = [
            s
            for s in problem.fleet.sites
            if s.site_id in reached
            and may_process(policy, country=s.country, tags=s.residency_tags)
        ]
        assert lawful, one.class_id


def test_all_of_it_can_be_served(named: tuple[str, Problem]) -> None:
    found = served(named[1])
    assert found.without_arc == 0
    assert found.shed_part < 0.01
    assert 0.5 <= found.power_part <= 0.75


def test_the_demand_is_the_part_stated(data_dir: Path) -> None:
    problem = tier("S", data=data_dir)

    def times(factor: float) -> Problem:
        more = (
            replace(c, rate_rps=(c.rate_rps[0] * factor / DEMAND_PART,)) for c in problem.classes
        )
        return replace(problem, classes=tuple(more))

    assert served(times(0.9), per_class=200).shed_part < 1e-6
    assert served(times(1.2), per_class=200).shed_part > 0.001


def test_the_same_every_time_and_another_with_another_seed(data_dir: Path) -> None:
    digests = [digest(tier("S", data=data_dir, seed=seed)) for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_rtts_follow_distance(data_dir: Path) -> None:
    fit = rtt_fit(data_dir)
    assert fit.pairs > 3_000
    # Light in fibre needs 0.0098 ms per km and back; detours make it up to twice that.
    assert 0.0098 <= fit.ms_per_km <= 0.02
    assert fit.median_error < 0.25
