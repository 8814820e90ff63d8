"""The whole loop as a story: start, plan, apply, load, site lost, rerouted, site back, rebalanced.

Real control loop, real hubs, real optimizer; only the sites are simulated. The script of the story
is golden text; to renew it, delete the file and run the test once.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from optimizer.outcome import Outcome, SolveStatus
from optimizer.problem import Problem
from optimizer.solve import solve
from scheduler.entries import PlanAccepted
from scheduler.events import (
    CordonRequested,
    LedgerSnapshot,
    PlanProposed,
    ReplanRequested,
    ResumeRequested,
    UncordonRequested,
    UndoRequested,
)
from scheduler.receipt import ChangeReason, Receipt, RolloutState, StepStatus
from scheduler.simulation.site import SiteHabits
from scheduler.simulation.world import World
from scheduler.state import Keys
from sites.digest import to_plain
from sites.hub_messages import ConnectionState
from sites.steps import StepKind
from sites.telemetry import ReplicaState
from tests.scenarios.fleets import three_sites

GOLDEN = Path(__file__).with_name("story.txt")


def opened(problem: Problem | None = None, **habits: SiteHabits) -> World:
    """A fleet whose agents have all said hello."""
    world = World(problem or three_sites(), solver=solve, habits=habits)
    world.run(1_000)
    return world


def propose(world: World, receipt_id: str = "apply-1", problem: Problem | None = None) -> Receipt:
    """Plan what is known now (or `problem`), apply it, wait for the end."""
    view = world.cycle.view()
    outcome = solve(problem or view.problem)
    assert outcome.plan is not None
    world.tell(
        PlanProposed(
            receipt_id=receipt_id,
            problem=problem or view.problem,
            plan=outcome.plan,
            state_serial=view.state_serial,
        )
    )
    return settled(world, receipt_id)


def settled(world: World, receipt_id: str) -> Receipt:
    world.run_until(lambda: receipt_id in world.receipts and world.receipts[receipt_id].is_final)
    return world.receipts[receipt_id]


def plans(world: World) -> list[PlanAccepted]:
    return [entry for entry in world.ledger if isinstance(entry, PlanAccepted)]


def running(world: World, site_id: str) -> int:
    return sum(1 for r in world.sites[site_id].replicas if r.state is ReplicaState.READY)


def test_the_story() -> None:
    # Three agents dial in; nothing runs anywhere.
    world = opened()
    assert {s.state for s in world.cycle.view().sites} == {ConnectionState.CONNECTED}

    # An operator plans and applies: the cheapest sites take the traffic.
    assert propose(world).state is RolloutState.DONE
    assert (running(world, "bru"), running(world, "lyo"), running(world, "zur")) == (3, 2, 0)

    # A drill predicts what the loss of bru would do, and changes nothing.
    world.run(2_000)
    drill = world.cycle.predict_failover("bru")
    assert drill.shed_after_bp > drill.shed_before_bp == 0
    assert world.kinds()[-1] == "RolloutEnded"

    # bru dies. Its peers' gateways say so, and what was predicted is what happens.
    world.kill_site("bru")
    world.run_until(lambda: len(plans(world)) == 2)
    assert plans(world)[1].reason is ChangeReason.FAILOVER
    assert plans(world)[1].plan_digest == drill.plan_digest

    # A full plan without bru follows: zur helps out, with what may lawfully go there.
    world.run_until(lambda: len(plans(world)) == 3)
    world.run(5_000)
    assert plans(world)[2].reason is ChangeReason.REPLAN
    assert (running(world, "lyo"), running(world, "zur")) == (3, 2)

    # bru comes back; the fleet returns to the cheapest placement and zur is empty again.
    world.bring_back("bru")
    world.run_until(lambda: len(plans(world)) == 4)
    world.run(5_000)
    assert plans(world)[3].reason is ChangeReason.REBALANCE
    assert (running(world, "bru"), running(world, "lyo"), running(world, "zur")) == (3, 2, 0)

    assert world.faults == []
    compare_with_golden("\n".join(world.script) + "\n")


def compare_with_golden(text: str) -> None:
    if not GOLDEN.exists():
        GOLDEN.write_text(text, encoding="utf-8")
        pytest.fail(f"{GOLDEN.name} was missing and has been written: read it, then run again")
    assert text == GOLDEN.read_text(encoding="utf-8")


def test_the_story_is_the_same_every_time() -> None:
    scripts = []
    for _ in range(2):
        world = opened()
        propose(world)
        world.kill_site("lyo")
        world.run(5_000)
        scripts.append(world.script)
    assert scripts[0] == scripts[1]


def test_a_site_whose_gateway_lives_keeps_its_traffic_when_its_agent_dies() -> None:
    world = opened()
    propose(world)
    world.kill_agent("bru")
    world.run(20_000)
    view = world.cycle.view()
    assert view.sites[0].state is ConnectionState.UNREACHABLE
    assert not view.sites[0].lost
    assert len(plans(world)) == 1
    assert running(world, "bru") == 3

    refused = propose_scaled(world, "while-away")
    assert refused.state is RolloutState.REJECTED
    assert "unreachable_site" in {v.code for v in refused.violations}

    world.bring_back("bru")
    world.run(2_000)
    assert propose_scaled(world, "once-back").state is RolloutState.DONE
    assert world.faults == []


def propose_scaled(world: World, receipt_id: str, *, factor: float = 0.5) -> Receipt:
    """A plan for that part of the demand."""
    problem = world.cycle.view().problem
    classes = tuple(replace(c, rate_rps=(c.rate_rps[0] * factor,)) for c in problem.classes)
    return propose(world, receipt_id, replace(problem, classes=classes))


def test_the_control_plane_cut_off_from_every_site_loses_none() -> None:
    world = opened()
    propose(world)
    for site_id in world.sites:
        world.kill_agent(site_id)
    world.run(60_000)
    assert not any(s.lost for s in world.cycle.view().sites)
    assert len(plans(world)) == 1


def test_a_failed_step_stops_the_rollout_and_the_receipt_is_exact() -> None:
    world = opened(lyo=SiteHabits(failing=(StepKind.START_REPLICAS,)))
    receipt = propose(world)
    assert receipt.state is RolloutState.STOPPED
    assert "start_replicas at lyo failed" in receipt.message
    by_kind = {(s.step.site_id, s.step.kind): s.status for s in receipt.steps}
    assert by_kind[("bru", StepKind.START_REPLICAS)] is StepStatus.DONE
    assert by_kind[("lyo", StepKind.START_REPLICAS)] is StepStatus.FAILED
    assert by_kind[("bru", StepKind.SET_ROUTES)] is StepStatus.NOT_STARTED
    assert running(world, "bru") == 3

    # Nothing happens by itself: a person stands behind this change.
    world.run(30_000)
    assert len(plans(world)) == 1

    world.sites["lyo"].habits = SiteHabits()
    world.tell(ResumeRequested(receipt_id="resume-1"))
    assert settled(world, "resume-1").state is RolloutState.DONE
    assert settled(world, "resume-1").undoes == "apply-1"
    assert running(world, "lyo") == 2
    assert world.faults == []


def test_undo_puts_the_earlier_plan_back_as_a_new_version() -> None:
    world = opened()
    propose(world)
    before = plans(world)[0]
    propose_scaled(world, "apply-2")
    assert (running(world, "bru"), running(world, "lyo")) == (3, 0)
    world.tell(UndoRequested(receipt_id="undo-1", undone_receipt_id="apply-2"))
    assert settled(world, "undo-1").state is RolloutState.DONE
    assert plans(world)[-1].plan_digest == before.plan_digest
    assert plans(world)[-1].version > plans(world)[1].version
    assert (running(world, "bru"), running(world, "lyo")) == (3, 2)
    assert world.faults == []
    world.tell(UndoRequested(receipt_id="undo-2", undone_receipt_id="apply-1"))
    assert settled(world, "undo-2").state is RolloutState.REJECTED


def test_undo_after_a_resume_goes_back_before_the_whole_change() -> None:
    world = opened()
    propose(world)
    propose_scaled(world, "apply-2")
    world.sites["lyo"].habits = SiteHabits(failing=(StepKind.START_REPLICAS,))
    assert propose_scaled(world, "apply-3", factor=2).state is RolloutState.STOPPED
    world.sites["lyo"].habits = SiteHabits()
    world.tell(ResumeRequested(receipt_id="resume-1"))
    assert settled(world, "resume-1").state is RolloutState.DONE
    assert running(world, "lyo") == 2
    world.tell(UndoRequested(receipt_id="undo-1"))
    assert settled(world, "undo-1").state is RolloutState.DONE
    assert plans(world)[-1].receipt_id == "undo-1"
    assert plans(world)[-1].plan_digest == plans(world)[1].plan_digest
    assert (running(world, "bru"), running(world, "lyo")) == (3, 0)
    world.tell(ReplanRequested(receipt_id="replan-1"))
    assert settled(world, "replan-1").state is RolloutState.UNCHANGED, "what is undone stays so"
    assert world.faults == []


def test_a_refused_assignment_changes_nothing() -> None:
    world = opened(zur=SiteHabits(refusing=True))
    receipt = propose(world)
    assert receipt.state is RolloutState.REJECTED
    assert "zur refused" in receipt.message
    assert plans(world) == []
    assert all(site.accepted is None and not site.replicas for site in world.sites.values())


def test_a_stale_plan_is_refused() -> None:
    world = opened()
    stale = world.cycle.view()
    propose(world)
    outcome = solve(stale.problem)
    assert outcome.plan is not None
    world.tell(
        PlanProposed(
            receipt_id="late",
            problem=stale.problem,
            plan=outcome.plan,
            state_serial=stale.state_serial,
        )
    )
    assert [v.code for v in settled(world, "late").violations] == ["stale_plan"]


def test_the_same_plan_again_changes_nothing() -> None:
    world = opened()
    propose(world)
    world.run(1_000)
    assert propose(world, "apply-2").state is RolloutState.UNCHANGED
    assert len(plans(world)) == 1


def test_a_drained_site_is_emptied_and_freed_again() -> None:
    world = opened()
    propose(world)
    world.run(1_000)
    world.tell(CordonRequested(receipt_id="drain-1", site_id="bru", drain=True))
    assert settled(world, "drain-1").state is RolloutState.DONE
    world.run(1_000)
    assert running(world, "bru") == 0
    assert world.kinds().count("CordonChanged") == 1
    world.tell(UncordonRequested(receipt_id="free-1", site_id="bru"))
    assert settled(world, "free-1").state is RolloutState.DONE
    assert running(world, "bru") == 3
    assert world.faults == []


def test_a_second_loss_during_the_first_ones_replan_is_rerouted_too() -> None:
    world = opened()
    propose(world)
    world.kill_site("bru")
    world.run_until(lambda: world.receipts.get("replan-1.2") is not None)
    world.run(700)
    world.kill_site("lyo")
    world.run(20_000)
    assert sum(1 for p in plans(world) if p.reason is ChangeReason.FAILOVER) == 2
    assert {s.site_id for s in world.cycle.view().sites if s.lost} == {"bru", "lyo"}
    assert world.faults == []
    world.bring_back("bru")
    world.bring_back("lyo")
    world.run(30_000)
    assert (running(world, "bru"), running(world, "lyo"), running(world, "zur")) == (3, 2, 0)
    assert world.faults == []


def test_a_crashed_server_takes_up_what_the_ledger_says() -> None:
    world = opened()
    propose(world)
    world.run(1_000)
    newest = plans(world)[-1]
    snapshot = LedgerSnapshot(accepted=newest, last_version=newest.version)
    world.start_server(snapshot)
    world.run(20_000)
    assert len(plans(world)) == 1  # the fleet is as it should be: nothing to do
    assert world.alerts == []
    world.kill_site("bru")
    world.run(10_000)
    assert [p.epoch for p in plans(world)] == [1, 2, 2]
    assert world.faults == []


def test_files_edited_before_a_restart_wait_for_an_apply() -> None:
    world = opened()
    propose(world)
    world.run(1_000)
    newest = plans(world)[-1]
    described = replace(newest.problem, running=(), demand=())
    stricter = replace(described, plan_policy=replace(described.plan_policy, seed=7))
    fewer = replace(
        stricter,
        fleet=replace(
            stricter.fleet,
            sites=tuple(s for s in stricter.fleet.sites if s.site_id != "zur"),
            links=tuple(k for k in stricter.fleet.links if "zur" not in (k.site_a, k.site_b)),
            markets=tuple(
                replace(m, accesses=tuple(a for a in m.accesses if a.site_id != "zur"))
                for m in stricter.fleet.markets
            ),
        ),
    )
    applied = replace(newest, problem=fewer)  # the files have another policy and one more site
    world.start_server(LedgerSnapshot(accepted=applied, last_version=newest.version))
    world.run(1_000)
    assert any("fleet files differ" in text for text in world.alerts)
    question = world.cycle.view().problem
    assert question.plan_policy.seed == 7
    assert {s.site_id: s.cordoned for s in question.fleet.sites}["zur"]


def test_a_server_that_crashed_in_mid_rollout_finishes_it() -> None:
    world = opened()
    world.tell(ReplanRequested(receipt_id="first"))
    world.run_until(lambda: len(plans(world)) == 1)
    newest = plans(world)[-1]
    world.start_server(LedgerSnapshot(accepted=newest, last_version=newest.version))
    world.run(20_000)
    assert plans(world)[-1].reason is ChangeReason.RECONCILE
    assert (running(world, "bru"), running(world, "lyo")) == (3, 2)
    assert world.faults == []


def test_hubs_that_forget_everything_in_mid_rollout_do_not_stop_it() -> None:
    world = opened()
    world.tell(ReplanRequested(receipt_id="first"))
    for _ in range(12):
        world.run(100)
        world.restart_hubs()
    world.run(5_000)
    assert world.receipts["first"].state is RolloutState.DONE
    assert world.faults == []


def test_a_replica_that_vanishes_is_started_again() -> None:
    world = opened()
    propose(world)
    world.run(1_000)
    world.sites["lyo"].replicas.pop()
    world.run(10_000)
    assert running(world, "lyo") == 2
    assert plans(world)[-1].reason is ChangeReason.RECONCILE


@pytest.mark.parametrize("site_id", ["bru", "lyo", "zur"])
def test_every_drill_says_what_then_happens(site_id: str) -> None:
    world = opened()
    propose(world)
    world.run(1_000)
    drill = world.cycle.predict_failover(site_id)
    world.kill_site(site_id)
    world.run_until(lambda: len(plans(world)) == 2)
    assert plans(world)[1].plan == drill.plan


def test_a_plan_the_ledger_cannot_take_changes_nothing() -> None:
    world = opened()
    world.ledger_is_full = True
    receipt = propose(world)
    assert receipt.state is RolloutState.REJECTED
    assert "disk full" in receipt.message
    assert world.cycle.view().plan is None
    assert all(not site.replicas and site.applied is None for site in world.sites.values())
    world.ledger_is_full = False
    assert propose(world, "apply-2").state is RolloutState.DONE


def test_no_site_is_cordoned_or_freed_that_the_ledger_cannot_take() -> None:
    world = opened()
    propose(world)
    world.run(1_000)
    world.ledger_is_full = True
    world.tell(CordonRequested(receipt_id="drain-1", site_id="bru", drain=True))
    refused = settled(world, "drain-1")
    assert refused.state is RolloutState.REJECTED
    assert "bru was not cordoned: the ledger refused the entry: disk full" in refused.message
    assert not any(s.cordoned or s.drained for s in world.cycle.view().sites)
    assert all(hub.cordoned_because == "" for hub in world.hubs.values())

    world.ledger_is_full = False
    world.tell(CordonRequested(receipt_id="cordon-2", site_id="bru", reason="works"))
    assert settled(world, "cordon-2").state is RolloutState.DONE
    assert world.hubs["bru"].cordoned_because == "works"
    assert "CordonChanged" in world.kinds()

    world.ledger_is_full = True
    world.tell(UncordonRequested(receipt_id="free-3", site_id="bru"))
    assert settled(world, "free-3").state is RolloutState.REJECTED
    assert [s.site_id for s in world.cycle.view().sites if s.cordoned] == ["bru"]


@pytest.mark.parametrize("how", ["ledger", "agent", "loss"])
def test_policies_of_a_change_that_came_to_nothing_are_not_followed(how: str) -> None:
    world = opened()
    propose(world)
    world.run(1_000)
    problem = world.cycle.view().problem
    laxer = tuple(replace(p, processing_countries=None) for p in problem.policies)
    world.ledger_is_full = how == "ledger"
    world.sites["lyo"].habits = SiteHabits(refusing=how == "agent", silent=how == "loss")
    asked = replace(problem, policies=laxer)
    plan = solve(asked).plan
    assert plan is not None
    serial = world.cycle.view().state_serial
    world.tell(PlanProposed(receipt_id="lax", problem=asked, plan=plan, state_serial=serial))
    if how == "loss":
        world.kill_site("bru")
    ended = settled(world, "lax").state
    assert ended is (RolloutState.SUPERSEDED if how == "loss" else RolloutState.REJECTED)
    assert world.cycle.view().problem.policies == problem.policies

    world.ledger_is_full = False
    world.sites["lyo"].habits = SiteHabits()
    if how != "loss":
        world.kill_site("bru")
    world.run(10_000)
    assert len(plans(world)) >= 2
    assert all(p.problem.policies == problem.policies for p in plans(world))


def test_a_solver_that_keeps_failing_is_asked_again_and_then_given_up() -> None:
    def broken(problem: Problem) -> Outcome:
        return Outcome(
            status=SolveStatus.NO_PLAN,
            plan=None,
            arcs=(),
            pruned=(),
            bound_usd_per_h=0.0,
            message="no plan within the budget",
        )

    world = World(three_sites(), solver=broken)
    world.run(500)
    world.tell(ReplanRequested(receipt_id="first"))
    receipt = settled(world, "first")
    assert receipt.state is RolloutState.REJECTED
    assert "no plan within the budget" in receipt.message
    assert any("no plan within the budget" in text for text in world.alerts)


def test_no_view_shows_a_pseudonym_key() -> None:
    keys = Keys(pseudonym_keys={"t": "5ec4e7"})
    world = World(three_sites(), solver=solve, keys=keys)
    world.run(500)
    propose(world)
    sent = world.sites["bru"].applied
    assert sent is not None
    assert sent.tenants[0].pseudonym_key == "5ec4e7"
    assert "5ec4e7" not in str(to_plain(world.cycle.view()))
    assert "5ec4e7" not in repr(sent)
    assert "5ec4e7" not in str([to_plain(entry) for entry in world.ledger])


def test_one_change_at_a_time() -> None:
    world = opened()
    view = world.cycle.view()
    plan = solve(view.problem).plan
    assert plan is not None
    for receipt_id in ("one", "two"):
        world.tell(
            PlanProposed(receipt_id=receipt_id, problem=view.problem, plan=plan, state_serial=0)
        )
    assert [v.code for v in settled(world, "two").violations] == ["rollout_in_progress"]
    assert settled(world, "one").state is RolloutState.DONE


def test_an_agent_that_restarts_in_mid_rollout_without_its_replicas_stops_it() -> None:
    world = opened()
    view = world.cycle.view()
    plan = solve(view.problem).plan
    assert plan is not None
    world.tell(PlanProposed(receipt_id="apply-1", problem=view.problem, plan=plan, state_serial=0))
    world.run(400)
    world.kill_site("bru")
    world.bring_back("bru")
    receipt = settled(world, "apply-1")
    assert receipt.state is RolloutState.STOPPED
    assert "bru restarted and lost replicas of bru/p/v/x1" in receipt.message
    world.tell(ResumeRequested(receipt_id="resume-1", stopped_receipt_id="apply-1"))
    assert settled(world, "resume-1").state is RolloutState.DONE
    assert world.faults == []
