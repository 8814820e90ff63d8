"""Memory of the control plane with 3 and with 30 connected sites: server, solver, Ray, actors.

The figure is the proportional set size (shared pages counted once), summed over the server and all
its children. The peer is the smaller fleet.
"""

from __future__ import annotations

from functools import partial

import psutil

from benchmarks.embedded import CLOCK, running_fleet
from benchmarks.fleets import many_sites
from benchmarks.report import head, line, ratio
from scheduler.embedded import SERVER, EmbeddedFleet

FLEETS = (3, 30)
SETTLE_MS = 5_000


def run() -> None:
    """Start both fleets in turn and print their control planes' memory."""
    head("Memory of the control plane")
    totals = []
    for count in FLEETS:
        write = partial(many_sites, count=count)
        with running_fleet(write_fleet=write, apply=False) as (fleet, _):
            CLOCK.block_ms(SETTLE_MS)
            total, processes = _control_plane_mib(fleet)
        totals.append(total)
        line(f"{count} sites", f"{total:.0f} MiB in {processes} processes")
    per_site = (totals[1] - totals[0]) / (FLEETS[1] - FLEETS[0])
    line("each further site", f"{per_site:.1f} MiB")
    ratio(f"{FLEETS[1]} sites", totals[1] / totals[0], of=f"{FLEETS[0]} sites")


def _control_plane_mib(fleet: EmbeddedFleet) -> tuple[float, int]:
    record = fleet.process(SERVER)
    server = psutil.Process(record.pid)
    family = [server, *server.children(recursive=True)]
    total = 0
    for process in family:
        try:
            total += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue  # a short-lived child of Ray's
    return total / 2**20, len(family)
