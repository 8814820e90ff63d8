"""What the reroute benchmark's child process hands over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import reroute
from tests.optimizer import builders as b


def test_figures_of_a_tier_with_its_control_loop_go_over_as_json(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = b.two_sites(classes=[b.traffic_class(protected=True)])
    monkeypatch.setattr(reroute, "tier", lambda name, data: problem)
    monkeypatch.setattr(reroute, "data_folder", Path)

    found = json.loads(json.dumps(reroute.measure(name="S")))

    assert found["losses"] > 0
    assert found["loop"]["routes"] > 0
