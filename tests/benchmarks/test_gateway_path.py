"""The fleet of the gateway benchmark has what it measures: an answer near, and one far away."""

from __future__ import annotations

from pathlib import Path

from benchmarks.gateway_path import warsaw_answered_elsewhere
from optimizer.solve import solve
from scheduler.fleet_problem import read_problem


def test_some_traffic_passes_two_gateways_and_some_one(tmp_path: Path) -> None:
    plan = solve(read_problem((warsaw_answered_elsewhere(tmp_path),))).plan
    assert plan is not None
    is_local = {share.ingress_site_id == share.site_id for share in plan.shares}
    assert is_local == {True, False}
