"""SIGKILL of a whole site at 50 requests/s, with retries allowed: what clients and operators see.

Limits beside the figures: no failed request; noticed within 150 ms. Model servers are simulated, so
that two cores carry the load; gateways, agents and the control plane are the real ones.
"""

from __future__ import annotations

import statistics
from collections import Counter

from benchmarks.embedded import CLOCK, running_fleet
from benchmarks.report import head, line, ratio, spread
from scheduler.demo.clients import Answer, Traffic, tally
from scheduler.demo.operator import Operator
from scheduler.embedded import EmbeddedFleet

REQUESTS_PER_S = 50.0
REPEATS = 3
CALM_MS = 5_000
AFTER_MS = 6_000
NOTICE_LIMIT_MS = 150
THREADS_PER_CALLER = 6


def run() -> None:
    """Lose and bring back the busiest site several times; print failures and recovery."""
    head(f"Loss of a site by SIGKILL at {REQUESTS_PER_S:g} requests/s")
    recoveries, notices, failed, requests = [], [], 0, 0
    with running_fleet() as (fleet, operator):
        planned = sum(c.requests_per_s for c in operator.callers())
        callers = operator.callers(rate_factor=REQUESTS_PER_S / planned)
        for _ in range(REPEATS):
            traffic = Traffic(callers, clock=CLOCK, threads_per_caller=THREADS_PER_CALLER)
            traffic.start()
            CLOCK.block_ms(CALM_MS)
            site_id = _busiest(traffic.answers())
            killed_at_ms, noticed_ms = _kill(fleet, operator, site_id)
            CLOCK.block_ms(AFTER_MS)
            answers = traffic.stop()
            after = [a for a in answers if a.started_ms + a.total_ms >= killed_at_ms]
            failed += sum(not a.ok for a in after)
            requests += len(after)
            recoveries.append(_recovery_ms(answers, killed_at_ms))
            notices.append(noticed_ms)
            _bring_back(fleet, operator, site_id)
    line("requests under way or sent after the kill", f"{requests}, {failed} failed (limit 0)")
    line("longest request started within 2 s of it", spread(recoveries, unit="ms", digits=0))
    line("noticed and rerouted by the control plane", spread(notices, unit="ms", digits=0))
    ratio("noticed and rerouted", statistics.median(notices) / NOTICE_LIMIT_MS, of="150 ms limit")


def _busiest(answers: tuple[Answer, ...]) -> str:
    return Counter(a.serving_site for a in answers if a.ok).most_common(1)[0][0]


def _kill(fleet: EmbeddedFleet, operator: Operator, site_id: str) -> tuple[int, int]:
    """Kill; return when (monotonic ms) and how long the ledgered failover took after it (ms)."""
    killed_wall_ms = CLOCK.wall_ms()
    killed_at_ms = CLOCK.monotonic_ms()
    fleet.kill_site(site_id)
    view = operator.until(
        lambda v: any(
            r.reason == "failover" and r.started_at_ms >= killed_wall_ms and r.is_final
            for r in v.receipts
        ),
        what=f"the failover of {site_id}",
        timeout_s=30,
    )
    done = max(r.finished_at_ms for r in view.receipts if r.reason == "failover")
    return killed_at_ms, done - killed_wall_ms


def _recovery_ms(answers: tuple[Answer, ...], killed_at_ms: int) -> int:
    """The longest any request sent within two seconds of the kill took to be answered."""
    near = [a for a in answers if 0 <= a.started_ms - killed_at_ms <= 2_000]
    return tally(near).longest_ms


def _bring_back(fleet: EmbeddedFleet, operator: Operator, site_id: str) -> None:
    fleet.forget_site(site_id)
    fleet.start_site(site_id)
    operator.until(
        lambda v: (
            site_id not in v.problem.lost_sites and not v.solving and not v.rollout_receipt_id
        ),
        what=f"the return of {site_id}",
        timeout_s=60,
    )
    CLOCK.block_ms(3_000)  # the re-balancing plan follows the return
