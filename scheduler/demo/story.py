"""The demo as a story: every chapter is what a user would do, with the command they would type.

Decides the order of chapters and when one is over (a condition seen through the operator API, with
a timeout). Everything it shows comes from the product: its commands, its API, its clients' answers.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

from scheduler.cli.output import Column, Output
from scheduler.demo.clients import Answer, Caller, Tally, Traffic, ask, tally
from scheduler.demo.operator import Operator
from scheduler.embedded import EmbeddedFleet
from scheduler.failover import share_moves
from scheduler.receipt import ChangeReason, RolloutState
from scheduler.view import FleetView
from sites.clock import Clock
from sites.errors import FatalError

CALM_S = 12
LOSS_S = 12
SPOOL_S = 2
"""Gateways write their logs and agents send their records within this."""
RETURN_TIMEOUT_S = 90
RATE_FACTOR = 1.5
"""Clients ask this many times as often as planned, so that a short demo shows many requests."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """What the demo saw of the loss of a site."""

    site_id: str
    predicted_digest: str
    actual_digest: str
    tally: Tally


class Story:
    """One run of the demo on a started fleet."""

    def __init__(self, *, fleet: EmbeddedFleet, out: Output, clock: Clock) -> None:
        self._fleet = fleet
        self._out = out
        self._clock = clock
        self._operator = Operator(state_dir=fleet.state_dir, clock=clock)
        self._plan_path = fleet.state_dir / "demo.plan"

    def run(self) -> bool:
        """Tell it; returns whether everything went as it should.

        Raises FatalError where the story cannot go on.
        """
        self._operator.until_connected()
        self._chapter("Plan: which model runs where, which traffic goes to which site")
        self._hinterland("plan", "--out", str(self._plan_path))
        self._chapter("Apply: make before break, step by step, with a receipt")
        self._hinterland("apply", str(self._plan_path), "--yes")
        callers = self._operator.callers(rate_factor=RATE_FACTOR)
        self._chapter("Traffic: the openai client, streaming, from every market")
        refusals = self._refusals(callers)
        traffic = Traffic(callers, clock=self._clock)
        traffic.start()
        try:
            self._wait_s(CALM_S)
            calm = tally(traffic.answers())
            self._show_tally(calm)
            loss = self._lose_a_site(traffic)
            self._bring_back(loss.site_id)
        finally:
            answers = traffic.stop()
        self._chapter("All requests of this demo")
        everything = tally(answers)
        self._show_tally(everything)
        self._audit()
        return self._verdict(loss, everything, refusals=refusals)

    # Chapters.

    def _refusals(self, callers: tuple[Caller, ...]) -> bool:
        """Ask for what must be refused; whether each was, and how, is shown."""
        one = max(callers, key=lambda c: (c.tenant_id == "alpine-travel", c.market_id))
        asked = (
            ("no valid API key", 401, _changed(one, api_key="not-a-key")),
            ("a model nobody serves", 404, _changed(one, service_id="gpt-unknown")),
            ("data may run in CH only", 451, _changed(one, residency_header="ch-only")),
        )
        rows = []
        for what, expected, caller in asked:
            answer = ask(caller, prompt="hello", clock=self._clock)
            rows.append(
                {
                    "what": what,
                    "expected": expected,
                    "status": answer.status,
                    "said": answer.detail[:90],
                }
            )
        columns = (
            Column(title="asked", field="what"),
            Column(title="status", field="status", number=True),
            Column(title="answer", field="said"),
        )
        self._out.line("What the gateway itself refuses:")
        self._out.rows("refusals", rows, columns)
        return all(r["status"] == r["expected"] for r in rows)

    def _lose_a_site(self, traffic: Traffic) -> Loss:
        before = self._operator.view()
        site_id = _busiest(before, traffic.answers())
        self._chapter(f"Failover drill: what if {site_id} were lost now?")
        self._hinterland("failover", site_id, "--drill", expect=(0, 3))
        predicted = self._operator.drill(site_id)
        self._chapter(f"SIGKILL to the agent, the gateway and the model servers of {site_id}")
        killed_at_ms = self._clock.monotonic_ms()
        for record in self._fleet.kill_site(site_id):
            self._out.line(f"  killed {record.name} (pid {record.pid})")
        self._operator.until(
            lambda view: site_id in view.problem.lost_sites and _failover_digest(view) != "",
            what=f"the control plane to notice the loss of {site_id}",
            timeout_s=30,
        )
        noticed_ms = self._clock.monotonic_ms() - killed_at_ms
        self._out.line(f"  noticed and rerouted after at most {noticed_ms} ms")
        self._wait_s(LOSS_S)
        since = [a for a in traffic.answers() if a.started_ms + a.total_ms >= killed_at_ms]
        seen = tally(since)
        self._out.line("Requests under way at the kill, or sent since:")
        self._show_tally(seen)
        self._hinterland("get", "sites")
        self._show_moves(before, self._operator.view())
        return Loss(
            site_id=site_id,
            predicted_digest=predicted.plan_digest,
            actual_digest=_failover_digest(self._operator.view()),
            tally=seen,
        )

    def _bring_back(self, site_id: str) -> None:
        self._chapter(f"{site_id} comes back")
        started = len(self._operator.view().receipts)
        self._fleet.forget_site(site_id)
        self._fleet.start_site(site_id)
        self._operator.until(
            lambda view: site_id not in view.problem.lost_sites and _settled(view, started),
            what=f"{site_id} to be back in the plan",
            timeout_s=RETURN_TIMEOUT_S,
        )
        self._wait_s(CALM_S)
        self._hinterland("rollout", "history")
        self._hinterland("get", "sites")

    def _audit(self) -> None:
        self._chapter("Audit: where did each tenant's data run, and is the answer complete?")
        self._wait_s(SPOOL_S)
        for tenant in self._operator.view().problem.tenants:
            self._hinterland("audit", "residency", "--tenant", tenant.tenant_id)
        self._hinterland("audit", "verify")

    def _verdict(self, loss: Loss, everything: Tally, *, refusals: bool) -> bool:
        self._chapter("What this demo came to")
        as_predicted = loss.predicted_digest == loss.actual_digest != ""
        facts = (
            (
                everything.failed == 0,
                f"{everything.failed} of {everything.requests} requests failed",
            ),
            (as_predicted, f"the loss of {loss.site_id} went as the drill predicted"),
            (refusals, "what had to be refused was refused"),
            (True, "every tenant's audit is complete and without breach; the ledger verifies"),
        )
        for good, text in facts:
            mark = self._out.styled("yes", "green") if good else self._out.styled("NO ", "red")
            self._out.line(f"  {mark}  {text}")
        return all(good for good, _ in facts)

    # Means.

    def _chapter(self, title: str) -> None:
        self._out.line()
        self._out.line(f"== {title}", style="bold")

    def _hinterland(self, *arguments: str, expect: tuple[int, ...] = (0,)) -> None:
        """Show and run a command; raises FatalError if it ends with an exit code not expected."""
        self._out.line(self._out.styled(f"$ hinterland {' '.join(arguments)}", "dim"))
        done = self._operator.command(*arguments)
        self._out.line(done.stdout.rstrip())
        if done.stderr.strip():
            self._out.line(done.stderr.rstrip())
        if done.returncode not in expect:
            raise FatalError(f"hinterland {arguments[0]} ended with exit code {done.returncode}")

    def _show_moves(self, before: FleetView, after: FleetView) -> None:
        assert before.plan is not None and after.plan is not None, "a plan is in force"
        rows = [
            {
                "class": move.class_id,
                "site": move.site_id or "(shed)",
                "before": f"{move.before_bp / 100:g}%",
                "after": f"{move.after_bp / 100:g}%",
            }
            for move in share_moves(before.plan, after.plan)
        ]
        columns = (
            Column(title="class", field="class"),
            Column(title="site", field="site"),
            Column(title="before", field="before", number=True),
            Column(title="after", field="after", number=True),
        )
        self._out.line(f"What moved where, now by {after.plan.method} ({after.plan_reason}):")
        self._out.rows("moves", rows, columns)

    def _wait_s(self, duration_s: float) -> None:
        self._clock.block_ms(int(duration_s * 1_000))

    def _show_tally(self, seen: Tally) -> None:
        sites = "  ".join(f"{site or '-'} {n}" for site, n in seen.by_site)
        self._out.line(
            f"  {seen.requests} requests, {seen.failed} failed, {seen.second_gateway} went on to a "
            f"second gateway; TTFT p50 {seen.ttft_ms_p50} ms, p99 {seen.ttft_ms_p99} ms, "
            f"longest {seen.longest_ms} ms"
        )
        self._out.line(f"  answered by: {sites}")
        statuses = [f"{s or 'no answer'} x{n}" for s, n in seen.by_status if s != 200]
        if statuses:
            self._out.line(f"  not answered: {', '.join(statuses)}")


def tell(*, fleet: EmbeddedFleet, out: Output, clock: Clock) -> bool:
    """Start the fleet, tell the story, stop everything; returns whether all went as it should.

    Raises FatalError if the fleet cannot be started or does not get to where a chapter ends.
    """
    try:
        asyncio.run(fleet.start(lambda text: out.line(f"  {text}")))
        good = Story(fleet=fleet, out=out, clock=clock).run()
    finally:
        left = asyncio.run(fleet.stop())
    out.line()
    if left:
        raise FatalError(f"still running: {', '.join(left)}; end them by hand")
    out.line("Everything is stopped.")
    return good


def _changed(caller: Caller, *, api_key: str = "", service_id: str = "", **given: str) -> Caller:
    return Caller(
        market_id=caller.market_id,
        tenant_id=caller.tenant_id,
        service_id=service_id or caller.service_id,
        api_key=api_key or caller.api_key,
        gateways=caller.gateways,
        requests_per_s=caller.requests_per_s,
        residency_header=given.get("residency_header", ""),
    )


def _busiest(view: FleetView, answers: tuple[Answer, ...]) -> str:
    """The site that answered most so far: the loss that matters."""
    served = Counter({s.site_id: 0 for s in view.sites})
    served.update(a.serving_site for a in answers if a.ok and a.serving_site in served)
    return min(served, key=lambda s: (-served[s], s))


def _failover_digest(view: FleetView) -> str:
    """Digest of the newest plan a failover put into force; "" if none has been yet."""
    for receipt in reversed(view.receipts):
        if receipt.reason is ChangeReason.FAILOVER:
            return receipt.plan_digest
    return ""


def _settled(view: FleetView, receipts_before: int) -> bool:
    """Whether a re-balancing change made since has ended and nothing is under way."""
    newer = view.receipts[receipts_before:]
    rebalanced = any(
        r.reason is ChangeReason.REBALANCE
        and r.state in (RolloutState.DONE, RolloutState.UNCHANGED)
        for r in newer
    )
    return rebalanced and not view.rollout_receipt_id and not view.solving
