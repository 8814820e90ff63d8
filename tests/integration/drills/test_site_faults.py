"""Servers, gateways and whole sites die or hang; clients notice nothing but a detour."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from scheduler.receipt import ChangeReason, RolloutState
from scheduler.view import FleetView
from sites.telemetry import ReplicaState
from tests.integration.drills.stage import GATEWAY, Stage

SITE = "waw-1"


def _failed_over(before: FleetView) -> Callable[[FleetView], bool]:
    """Whether the site is lost and a failover that was not there before has ended."""
    known = {r.receipt_id for r in before.receipts}

    def holds(view: FleetView) -> bool:
        return any(s.lost for s in view.sites if s.site_id == SITE) and any(
            r.reason is ChangeReason.FAILOVER and r.is_final and r.receipt_id not in known
            for r in view.receipts
        )

    return holds


def _has_replanned(view: FleetView) -> bool:
    """Whether the newest re-plan belongs to the newest failover and has ended."""
    reasons = [r.reason for r in view.receipts if r.is_final]
    after = reasons[len(reasons) - reasons[::-1].index(ChangeReason.FAILOVER) :]
    return ChangeReason.REPLAN in after


def _newest(view: FleetView, reason: ChangeReason) -> str:
    """Plan digest of the newest change for that reason."""
    return next(r.plan_digest for r in reversed(view.receipts) if r.reason is reason)


def test_whole_site_killed_goes_as_the_drill_says_and_comes_back(stage: Stage) -> None:
    before = stage.settle()
    with stage.traffic():
        code, said = stage.command("failover", SITE, "--drill")
        assert code == 0, said
        predicted = stage.operator.drill(SITE)
        assert stage.view().plan == before.plan, "a drill changes nothing"
        stage.fleet.kill_site(SITE)
        lost = stage.until(_failed_over(before), what=f"{SITE} to be failed over")
        stage.until(
            lambda v: not v.solving and not v.rollout_receipt_id and _has_replanned(v),
            what="the re-plan after the loss",
        )
        stage.wait(1.0)
        stage.restart_agent(SITE)
        after = stage.settle()
        stage.wait(1.0)
    assert _newest(lost, ChangeReason.FAILOVER) == predicted.plan_digest
    assert after.plan is not None and before.plan is not None
    assert after.plan.groups == before.plan.groups, "rebalanced to what was there before"
    assert after.plan.shares == before.plan.shares
    assert after.version > lost.version > before.version
    stage.require_complete_audit()


@pytest.mark.slow
def test_model_server_killed_alone(stage: Stage) -> None:
    before = stage.settle()
    name, record = next(
        (n, r) for n, r in stage.processes(SITE).items() if n.startswith("replica/")
    )
    with stage.traffic():
        stage.kill(record)
        stage.until(
            lambda v: any(
                r.state is not ReplicaState.READY
                for s in v.sites
                if s.observation is not None
                for r in s.observation.replicas
            ),
            what="the agent to notice",
        )
        after = stage.settle()
        stage.wait(1.0)
    assert stage.processes(SITE)[name].pid != record.pid
    assert after.version == before.version, "the agent mended it by itself"
    stage.require_complete_audit()


@pytest.mark.slow
def test_gateway_killed_alone(stage: Stage) -> None:
    before = stage.settle()
    record = stage.processes(SITE)[GATEWAY]
    with stage.traffic():
        stage.kill(record)
        stage.wait(2.0)
        after = stage.settle()
        stage.wait(1.0)
    assert stage.processes(SITE)[GATEWAY].pid != record.pid
    assert after.plan == before.plan
    stage.require_complete_audit()


@pytest.mark.slow
def test_whole_site_frozen_and_thawed(stage: Stage) -> None:
    before = stage.settle()
    frozen = stage.processes(SITE)
    ranks = [(s.applied_epoch, s.applied_version) for s in before.sites if s.site_id == SITE]

    def watch(view: FleetView) -> FleetView:
        site = next(s for s in view.sites if s.site_id == SITE)
        ranks.append((site.applied_epoch, site.applied_version))
        return view

    gateway = before.problem.fleet.site(SITE).gateway
    assert gateway is not None
    own_gateway = gateway.client_address
    with stage.traffic() as seen:
        frozen_at_ms = stage.clock.monotonic_ms()
        for record in frozen.values():
            stage.kill(record, signal.SIGSTOP)
        try:
            lost = stage.until(_failed_over(before), what=f"{SITE} to be failed over")
            noticed_at_ms = stage.clock.monotonic_ms()
            for _ in range(16):
                stage.wait(0.5)
                watch(stage.view())
        finally:
            thawed_at_ms = stage.clock.monotonic_ms()
            for record in frozen.values():
                stage.kill(record, signal.SIGCONT)
        stage.until(lambda v: not any(s.lost for s in watch(v).sites), what=f"{SITE} to be back")
        after = watch(stage.settle())
        stage.wait(1.0)
    entered_elsewhere = [
        a
        for a in seen.answers
        if a.caller.gateways[0] != own_gateway and frozen_at_ms <= a.started_ms <= noticed_at_ms
    ]
    assert entered_elsewhere
    # Who entered at the frozen gateway itself waits for it, or for its own timeout.
    assert all(a.started_ms + a.total_ms < thawed_at_ms for a in entered_elsewhere)
    assert ranks == sorted(ranks), f"the applied rank of {SITE} fell: {ranks}"
    assert (after.epoch, after.version) > (lost.epoch, lost.version) > (0, before.version)
    pids = {n: r.pid for n, r in stage.processes(SITE).items()}
    assert pids["agent"] == frozen["agent"].pid
    assert pids[GATEWAY] == frozen[GATEWAY].pid
    rebalanced = [r for r in after.receipts if r.reason is ChangeReason.REBALANCE]
    assert rebalanced[-1].state in (RolloutState.DONE, RolloutState.UNCHANGED)
    stage.require_complete_audit()
