"""Facility location put as fleets: the reader, the generator, what the fleets cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.fleets import facility_location
from benchmarks.fleets.facility import Facilities, as_problem, read_cflp
from optimizer.outcome import SolveStatus
from optimizer.solve import solve
from sites.digest import digest


def test_two_facilities_by_hand() -> None:
    """Both customers fit the dear facility; opening the cheap one too costs more than it saves."""
    given = Facilities(
        throughput_rps=(10.0, 4.0),
        fixed_usd_per_h=(100.0, 60.0),
        demand_rps=(4.0, 6.0),
        all_usd_per_h=((40.0, 4.0), (6.0, 60.0)),
    )

    outcome = solve(as_problem(given, gap_limit=1e-6))

    assert outcome.status is SolveStatus.OPTIMAL, outcome.message
    assert outcome.plan is not None
    assert outcome.plan.cost.total_usd_per_h == pytest.approx(100 + 40 + 6)


def test_a_short_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("2 1\n10 5\n10 5\n3 1\n")
    with pytest.raises(ValueError, match=r"short\.txt: 8 numbers, its header asks for 9"):
        read_cflp(path)


def test_generated_instances_have_room_and_repeat() -> None:
    problem = facility_location(sites=10, classes=30, seed=3)
    again = facility_location(sites=10, classes=30, seed=3)
    assert digest(problem) == digest(again) != digest(facility_location(sites=10, classes=30))
    rates = [p.decode_tok_s for p in problem.catalog.serving_points]
    demand = sum(c.rate_rps[0] for c in problem.classes)
    assert sum(rates) == pytest.approx(5 * demand, rel=1e-3)
    assert len(problem.classes) == 30
    assert sum(s.fixed_price_usd_per_h > 0 for s in problem.fleet.sites) == 10
