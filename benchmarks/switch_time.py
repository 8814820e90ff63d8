"""From an applied plan to the first request on the new site, under steady requests.

The change is a drain of the busiest site. Measured from the moment the control plane sent the first
step that moves traffic to the first answered request a new site served; the peer is that step's own
duration as its receipt tells it.
"""

from __future__ import annotations

import statistics
from collections import Counter

from benchmarks.embedded import CLOCK, running_fleet
from benchmarks.report import head, line, ratio, spread
from scheduler.demo.clients import Answer, Traffic
from scheduler.demo.operator import Operator
from scheduler.receipt import Receipt
from sites.steps import StepKind

REPEATS = 3
REQUESTS_PER_S = 40.0
WARM_MS = 3_000
AFTER_MS = 2_000


def run() -> None:
    """Drain and free a site several times; print switch times and failed requests."""
    head(f"Switch time at {REQUESTS_PER_S:g} requests/s")
    switches, steps, failed, requests = [], [], 0, 0
    with running_fleet() as (_, operator):
        planned = sum(c.requests_per_s for c in operator.callers())
        callers = operator.callers(rate_factor=REQUESTS_PER_S / planned)
        for _ in range(REPEATS):
            traffic = Traffic(callers, clock=CLOCK, threads_per_caller=4)
            traffic.start()
            CLOCK.block_ms(WARM_MS)
            site_id = Counter(a.serving_site for a in traffic.answers() if a.ok).most_common(1)[0][
                0
            ]
            wall_offset_ms = CLOCK.wall_ms() - CLOCK.monotonic_ms()
            operator.must("site", "drain", site_id, "--yes")
            CLOCK.block_ms(AFTER_MS)
            answers = traffic.stop()
            failed += sum(not a.ok for a in answers)
            requests += len(answers)
            sent_ms, step_ms = _first_move(operator, "drain")
            switches.append(_first_new_ms(answers, site_id, sent_ms - wall_offset_ms))
            steps.append(step_ms)
            operator.must("site", "uncordon", site_id, "--yes")
            _settle(operator)
    line("requests, failed", f"{requests}, {failed}")
    line("step sent to first request on the new site", spread(switches, unit="ms", digits=0))
    line("the step itself (sent to done)", spread(steps, unit="ms", digits=0))
    ratio("switch", statistics.median(switches) / statistics.median(steps), of="the step")


def _first_move(operator: Operator, reason: str) -> tuple[int, int]:
    """Wall ms at which the newest such change first moved traffic, and how long that step took."""
    receipts = [r for r in operator.view().receipts if r.reason == reason]
    moves = [s for s in _moves(receipts[-1]) if s[0] > 0]
    sent_ms, done_ms = min(moves)
    return sent_ms, done_ms - sent_ms


def _moves(receipt: Receipt) -> list[tuple[int, int]]:
    return [
        (s.sent_at_ms, s.finished_at_ms)
        for s in receipt.steps
        if s.step.kind is StepKind.SET_ROUTES and s.phase.endswith("move")
    ]


def _first_new_ms(answers: tuple[Answer, ...], old_site: str, since_ms: int) -> int:
    """From `since_ms` (monotonic) to the start of the first request a class's new site served."""
    before = {
        (a.caller.market_id, a.caller.tenant_id, a.caller.service_id)
        for a in answers
        if a.serving_site == old_site and a.started_ms < since_ms
    }
    moved = [
        a.started_ms - since_ms
        for a in answers
        if a.ok
        and a.started_ms >= since_ms
        and a.serving_site != old_site
        and (a.caller.market_id, a.caller.tenant_id, a.caller.service_id) in before
    ]
    return min(moved)


def _settle(operator: Operator) -> None:
    operator.until(
        lambda v: not v.solving and not v.rollout_receipt_id,
        what="the fleet to be at rest",
        timeout_s=60,
    )
    CLOCK.block_ms(2_000)
