"""The Europe example: as large as promised, sourced throughout, lawful, and what its generator
writes.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from optimizer.arcs import find_arcs
from optimizer.solve import solve
from scheduler.fleet_problem import problem_of
from sites.catalog import Model, ServingPoint, Variant
from sites.fleet import HardwarePool, Link, Market, PowerSupply
from sites.fleet_file import FleetDescription, load_fleet
from sites.residency import may_process
from sites.traffic import TrafficClass
from sites.units import WHOLE_BP

EXAMPLE = Path(__file__).resolve().parents[2] / "deploy" / "examples" / "europe"
PEAK_HOUR_UTC = 20


@pytest.fixture(scope="module")
def europe() -> FleetDescription:
    return load_fleet(EXAMPLE)


def test_it_is_as_large_as_promised(europe: FleetDescription) -> None:
    sites = europe.fleet.sites
    countries = {site.country for site in sites}
    assert len(sites) >= 14
    assert len(countries) >= 10
    assert {"CH", "GB", "NO"} <= countries
    assert len({pool.accelerator for site in sites for pool in site.pools}) >= 6
    assert len(europe.catalog.models) >= 10
    quantised = {v.model_id for v in europe.catalog.variants if v.precision != "bf16"}
    assert len(quantised) >= 10
    assert len(europe.classes) >= 120


def sourced(value: Any) -> list[Any]:
    """Every fact below `value` that holds figures of the world."""
    kinds = (PowerSupply, HardwarePool, Link, Market, Model, Variant, ServingPoint, TrafficClass)
    found = [value] if isinstance(value, kinds) else []
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            found += sourced(getattr(value, field.name))
    elif isinstance(value, tuple):
        for one in value:
            found += sourced(one)
    return found


def test_every_figure_carries_its_source(europe: FleetDescription) -> None:
    facts = sourced(europe)
    assert len(facts) > 400
    assert not [fact for fact in facts if not fact.source]
    assert all(site.source for site in europe.fleet.sites)


def test_estimates_say_so(europe: FleetDescription) -> None:
    points = europe.catalog.serving_points
    assert all(point.source.startswith("estimate") for point in points if point.estimated)
    assert all(point.source.startswith("measured") for point in points if not point.estimated)
    assert any(not point.estimated for point in points)


def test_every_accelerator_has_serving_points_that_fit_it(europe: FleetDescription) -> None:
    for site in europe.fleet.sites:
        for pool in site.pools:
            points = [p for p in europe.catalog.serving_points if p.accelerator == pool.accelerator]
            assert points, pool.accelerator
            assert all(p.memory_mib <= pool.memory_mib_per_accelerator for p in points)


def test_every_variant_can_run_somewhere(europe: FleetDescription) -> None:
    running = {point.variant_id for point in europe.catalog.serving_points}
    assert running == {variant.variant_id for variant in europe.catalog.variants}


def test_every_class_has_a_lawful_arc(europe: FleetDescription) -> None:
    arcs = find_arcs(problem_of(europe)).arcs
    assert {arc.class_id for arc in arcs} == {one.class_id for one in europe.classes}


def test_protected_classes_stay_lawful_when_any_one_site_is_lost(europe: FleetDescription) -> None:
    policies = {policy.policy_id: policy for policy in europe.policies}
    for one in europe.classes:
        policy = policies[one.residency_policy_id]
        lawful = [
            site
            for site in europe.fleet.sites
            if may_process(policy, country=site.country, tags=site.residency_tags)
        ]
        assert len(lawful) >= (2 if one.protected else 1), one.class_id


@pytest.mark.slow
def test_the_busiest_hour_is_served(europe: FleetDescription) -> None:
    problem = problem_of(europe, period=PEAK_HOUR_UTC)
    wanted = {one.class_id: problem.rate_rps(one) for one in europe.classes}
    plan = solve(problem).plan
    assert plan is not None
    shed_rps = sum(one.basis_points / WHOLE_BP * wanted[one.class_id] for one in plan.shed)
    assert shed_rps <= 0.01 * sum(wanted.values())
    assert any(share.site_id != share.ingress_site_id for share in plan.shares)


def test_the_files_are_what_the_generator_writes(tmp_path: Path, data_dir: Path) -> None:
    script = [sys.executable, str(EXAMPLE / "build.py")]
    given = ["--data", str(data_dir), "--out", str(tmp_path)]
    subprocess.run([*script, *given], check=True, timeout=120)
    written = {p.relative_to(tmp_path): p.read_text() for p in sorted(tmp_path.rglob("*.yaml"))}
    committed = {p.relative_to(EXAMPLE): p.read_text() for p in sorted(EXAMPLE.rglob("*.yaml"))}
    assert sorted(written) == sorted(committed)
    for name, text in written.items():
        assert text == committed[name], f"{name}: run build.py again"


def test_the_generator_without_data_says_what_it_needs(tmp_path: Path) -> None:
    script = [sys.executable, str(EXAMPLE / "build.py"), "--data", "", "--out", str(tmp_path)]
    done = subprocess.run(script, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 64
    assert "--data or HINTERLAND_DATA" in done.stderr
    assert not list(tmp_path.iterdir())
