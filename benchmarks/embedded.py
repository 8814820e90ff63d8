"""A running embedded fleet for benchmarks: in a temporary folder, planned, applied, stopped."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.fleets import fast_demo
from scheduler.demo.operator import Operator
from scheduler.embedded import EmbeddedFleet
from scheduler.fleet_problem import read_problem
from sites.clock import SystemClock

CLOCK = SystemClock()


@contextmanager
def running_fleet(
    *,
    write_fleet: Callable[[Path], Path] = fast_demo,
    runtime: str = "simulated",
    apply: bool = True,
) -> Iterator[tuple[EmbeddedFleet, Operator]]:
    """A fleet whose agents are connected and (with `apply`) whose first plan is in force."""
    with tempfile.TemporaryDirectory(prefix="hinterland-bench-") as folder:
        fleet_dir = write_fleet(Path(folder))
        problem = read_problem((fleet_dir,))
        fleet = EmbeddedFleet(
            state_dir=Path(folder) / "state",
            fleet_dir=fleet_dir,
            site_ids=tuple(s.site_id for s in problem.fleet.sites),
            clock=CLOCK,
            runtime=runtime,
        )
        operator = Operator(state_dir=fleet.state_dir, clock=CLOCK)
        try:
            asyncio.run(fleet.start(lambda _: None))
            operator.until_connected(timeout_s=240)
            if apply:
                plan_and_apply(operator, fleet.state_dir / "bench.plan")
            yield fleet, operator
        finally:
            asyncio.run(fleet.stop())


def plan_and_apply(operator: Operator, path: Path) -> None:
    """Plan from what the server knows and put it into force."""
    operator.must("plan", "--out", str(path))
    operator.must("apply", str(path), "--yes")
