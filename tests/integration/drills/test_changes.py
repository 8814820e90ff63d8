"""Changes that cannot be made, stop half-way, or empty a site: clear words, exact receipts."""

from __future__ import annotations

import json

import pytest

from scheduler.cli.output import ExitCode
from scheduler.receipt import ChangeReason, Receipt, RolloutState, StepStatus
from scheduler.view import FleetView
from sites.hub_messages import ConnectionState
from sites.steps import StepKind
from sites.telemetry import ReplicaState
from tests.integration.drills.stage import Stage

SITE = "osl-1"


def _newest(view: FleetView) -> Receipt:
    return view.receipts[-1]


def _ready(view: FleetView) -> dict[str, int]:
    """Ready replicas per site, sites without any left out."""
    counts = {
        s.site_id: sum(r.state is ReplicaState.READY for r in s.observation.replicas)
        for s in view.sites
        if s.observation is not None
    }
    return {site: n for site, n in counts.items() if n}


def test_apply_to_an_unreachable_site_is_refused_as_a_whole(stage: Stage) -> None:
    before = stage.settle()
    wider = stage.plan(stage.wider_fleet())
    with stage.traffic():
        stage.kill(stage.processes(SITE)["agent"])
        stage.until(
            lambda v: any(
                s.site_id == SITE and s.state is ConnectionState.UNREACHABLE for s in v.sites
            ),
            what=f"{SITE} to be unreachable",
        )
        code, said = stage.command("apply", str(wider), "--yes")
        stage.restart_agent(SITE)
        after = stage.settle()
    assert code == ExitCode.ERROR, said
    assert SITE in said and "unreachable" in said, said
    assert "Traceback" not in said
    assert _newest(after).state is RolloutState.REJECTED
    assert not _newest(after).steps
    assert after.plan == before.plan
    assert _ready(after) == _ready(before)


def test_partial_apply_is_told_resumed_and_undone(stage: Stage) -> None:
    before = stage.settle()
    with stage.traffic():
        wider = stage.plan(stage.wider_fleet())
        with stage.refusing(SITE):
            code, said = stage.command("apply", str(wider), "--yes")
        assert code == ExitCode.PARTIAL, said
        assert "rollout resume" in said and "rollout undo" in said, said
        stopped = stage.view()
        code, said = stage.command("rollout", "resume", "--yes")
        assert code == 0, said
        resumed = stage.settle()
        code, said = stage.command("rollout", "undo", "--yes")
        assert code == 0, said
        after = stage.settle()
    receipt = _newest(stopped)
    assert receipt.state is RolloutState.STOPPED
    told = {(s.step.site_id, s.step.kind): s.status for s in receipt.steps}
    assert told[("rix-1", StepKind.START_REPLICAS)] is StepStatus.DONE
    assert told[(SITE, StepKind.START_REPLICAS)] is StepStatus.FAILED
    assert told[(SITE, StepKind.SET_ROUTES)] is StepStatus.NOT_STARTED
    failed = next(s for s in receipt.steps if s.status is StepStatus.FAILED)
    assert "no licence for this model server" in failed.detail
    assert all(s.step.version >= receipt.steps[0].step.version for s in receipt.steps)
    assert _newest(resumed).reason is ChangeReason.RESUME
    assert _ready(resumed) == {"osl-1": 2, "rix-1": 2, "waw-1": 1}
    assert after.plan == before.plan
    assert _ready(after) == _ready(before)
    stage.require_complete_audit()


@pytest.mark.slow
def test_partial_apply_undone_at_once(stage: Stage) -> None:
    before = stage.settle()
    with stage.traffic(), stage.refusing(SITE):
        wider = stage.plan(stage.wider_fleet())
        code, said = stage.command("apply", str(wider), "--yes")
        assert code == ExitCode.PARTIAL, said
        code, said = stage.command("rollout", "undo", "--yes")
        assert code == 0, said
        after = stage.settle()
    assert after.plan == before.plan
    assert _ready(after) == _ready(before)
    assert after.version > before.version, "taking back is a new version"


def _is_starting_at_site(view: FleetView) -> bool:
    return bool(view.rollout_receipt_id) and any(
        s.status is StepStatus.SENT and s.step.site_id == SITE for s in _newest(view).steps
    )


@pytest.mark.slow
def test_agent_killed_in_the_middle_of_a_rollout(stage: Stage) -> None:
    before = stage.settle()
    wider = str(stage.plan(stage.wider_fleet()))
    with stage.traffic():
        with stage.begun("apply", wider, "--yes") as applying:
            with stage.refusing(SITE):  # keeps its START under way while its agent is killed
                stage.until(_is_starting_at_site, what="the rollout to be in the middle")
                stage.kill(stage.processes(SITE)["agent"])
            stage.restart_agent(SITE)
            said, _ = applying.communicate(timeout=120)
        after = stage.settle()
        code, undone = stage.command("rollout", "undo", "--yes")
        assert code == 0, undone
        stage.settle()
    assert applying.returncode == 0, said
    assert _ready(after) == {"osl-1": 2, "rix-1": 2, "waw-1": 1}
    assert after.version > before.version


@pytest.mark.slow
def test_cordon_drain_and_uncordon_through_the_command_line(stage: Stage) -> None:
    before = stage.settle()
    with stage.traffic():
        code, said = stage.command("site", "cordon", "rix-1", "--reason", "works", "--yes")
        assert code == 0, said
        cordoned = stage.settle()
        code, said = stage.command("site", "drain", "rix-1", "--yes")
        assert code == 0, said
        drained = stage.settle()
        code, listed = stage.command("get", "sites", "-o", "json")
        assert code == 0, listed
        stage.wait(1.0)
        code, said = stage.command("site", "uncordon", "rix-1", "--yes")
        assert code == 0, said
        after = stage.settle()
        stage.wait(1.0)
    assert cordoned.plan == before.plan, "a cordon moves nothing"
    assert next(s for s in cordoned.sites if s.site_id == "rix-1").cordoned
    assert "works" in listed, "a drain keeps the reason of the cordon before it"
    assert "rix-1" not in _ready(drained)
    assert drained.plan is not None
    assert not [s for s in drained.plan.shares if s.site_id == "rix-1"]
    _require_moved_before_stopped(next(r for r in reversed(drained.receipts) if r.steps))
    assert "rix-1" in json.dumps(json.loads(listed))
    assert not any(s.cordoned or s.drained for s in after.sites)
    assert _ready(after) == _ready(before)
    stage.require_complete_audit()


def _require_moved_before_stopped(receipt: Receipt) -> None:
    assert receipt.reason is ChangeReason.DRAIN
    moved = [
        s.finished_at_ms
        for s in receipt.steps
        if s.step.kind is StepKind.SET_ROUTES and s.phase == "move"
    ]
    ended = [
        s.sent_at_ms
        for s in receipt.steps
        if s.step.kind in (StepKind.DRAIN_REPLICAS, StepKind.STOP_REPLICAS)
    ]
    assert moved and ended
    assert max(moved) <= min(ended)
