"""Parts of control die one at a time; sites go on serving and nothing is planned anew."""

from __future__ import annotations

from scheduler.receipt import ChangeReason, RolloutState
from scheduler.view import FleetView
from sites.hub_messages import ConnectionState
from tests.integration.drills.stage import SERVER, Stage

SITE = "rix-1"


def _replicas(view: FleetView) -> int:
    assert view.plan is not None
    return sum(g.replicas for g in view.plan.groups)


def test_agent_killed_alone_serves_on_and_its_successor_adopts(stage: Stage) -> None:
    before, children = stage.settle(), stage.children_pids(SITE)
    assert len(children) == 2, "a gateway and a model server are there to be adopted"
    served = stage.serving_records()
    with stage.traffic() as seen:
        stage.kill(stage.processes(SITE)["agent"])
        stage.until(
            lambda v: any(
                s.site_id == SITE and s.state is ConnectionState.UNREACHABLE for s in v.sites
            ),
            what=f"{SITE} to be unreachable",
        )
        stage.wait(6.0)  # longer than a silent site without healthy peers is given
        silent = stage.view()
        held = stage.held_records()[SITE]
        assert stage.children_pids(SITE) == children, "nothing at the site ended"
        stage.restart_agent(SITE)
        after = stage.settle()
        stage.wait(1.0)
    assert not any(s.lost for s in silent.sites), "its peers see its gateway healthy"
    assert (silent.version, after.version) == (before.version, before.version)
    assert after.plan == before.plan
    assert stage.children_pids(SITE) == children, "adopted, not started anew"
    stage.require_complete_audit()
    assert stage.held_records()[SITE] > held, "what it recorded while silent arrived"
    assert stage.serving_records() - served == seen.tally.requests


def test_control_plane_killed_and_started_again(stage: Stage) -> None:
    before = stage.settle()
    served, receipts = stage.serving_records(), len(before.receipts)
    children = {s: stage.children_pids(s) for s in stage.site_ids}
    with stage.traffic() as seen:
        stage.kill_server()
        stage.wait(4.0)
        stage.start_server()
        after = stage.settle()
        stage.wait(1.0)
    assert after.epoch == before.epoch + 1
    assert after.plan == before.plan
    assert after.version == before.version, "nothing was applied again"
    assert len(after.receipts) == receipts
    assert {s: stage.children_pids(s) for s in stage.site_ids} == children
    stage.require_complete_audit()
    assert stage.serving_records() - served == seen.tally.requests


def test_ray_head_killed(stage: Stage) -> None:
    before = stage.settle()
    wider = stage.plan(stage.wider_fleet())
    with stage.traffic():
        head = stage.ray_head()
        assert {p.name() for p in head} == {"gcs_server", "raylet"}
        for process in head:
            process.kill()
        stage.until(lambda v: not v.hubs_in_ray, what="the loss of Ray to be noticed")
        assert all(s.state is ConnectionState.CONNECTED for s in stage.view().sites)
        stage.until(lambda v: v.hubs_in_ray, what="hubs to be Ray's actors again")
        assert {p.pid for p in stage.ray_head()}.isdisjoint(p.pid for p in head)
        assert stage.settle().version == before.version, "nothing was changed by it"
        code, said = stage.command("apply", str(wider), "--yes")
        assert code == 0, said
        changed = stage.settle()
        code, said = stage.command("rollout", "undo", "--yes")
        assert code == 0, said
        after = stage.settle()
    assert _replicas(changed) == _replicas(before) + 2
    assert after.plan == before.plan
    assert [(r.reason, r.state) for r in after.receipts[-2:]] == [
        (ChangeReason.APPLY, RolloutState.DONE),
        (ChangeReason.UNDO, RolloutState.DONE),
    ]
    assert stage.fleet.process(SERVER).pid, "the control plane itself never ended"
    stage.require_complete_audit()
