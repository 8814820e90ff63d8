"""A fleet of processes with simulated models for the tests of bad input, on ports of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agents.processes import free_port
from scheduler.demo.operator import Operator
from scheduler.embedded import EmbeddedFleet
from scheduler.fleet_problem import read_problem
from sites.clock import SystemClock

DEMO = Path(__file__).resolve().parents[2] / "deploy" / "examples" / "demo"


def fleet_files(folder: Path) -> Path:
    """The demo fleet on free ports."""
    target = folder / "fleet"
    target.mkdir()
    ports = [free_port() for _ in range(6)]
    for source in sorted(DEMO.glob("*.yaml")):
        text = source.read_text()
        for number, port in enumerate(ports):
            old = f"127.0.0.1:18{number // 2 + 1}0{number % 2 + 1}"
            text = text.replace(old, f"127.0.0.1:{port}")
        (target / source.name).write_text(text)
    return target


@contextmanager
def running_fleet(folder: Path) -> Iterator[tuple[Operator, Path]]:
    """(operator, fleet files) of a fleet that is up and carries its plan."""
    files = fleet_files(folder)
    problem = read_problem((files,))
    clock = SystemClock()
    fleet = EmbeddedFleet(
        state_dir=folder / "state",
        fleet_dir=files,
        site_ids=tuple(s.site_id for s in problem.fleet.sites),
        clock=clock,
        runtime="simulated",
    )
    operator = Operator(state_dir=fleet.state_dir, clock=clock)
    try:
        asyncio.run(fleet.start(lambda _: None))
        operator.until_connected(timeout_s=60)
        operator.must("plan", "--out", str(folder / "first.plan"))
        operator.must("apply", str(folder / "first.plan"), "--yes")
        operator.until(
            lambda v: all(s.observation and s.observation.version == v.version for s in v.sites),
            what="every site to have reported the plan",
            timeout_s=30,
        )
        yield operator, files
    finally:
        left = asyncio.run(fleet.stop())
    assert left == (), left
