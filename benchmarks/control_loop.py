"""What the loss of one site costs the control loop, up to assignments that are ready to send.

By the loop's own code, on a fleet where a plan is in force and runs to the letter: the loss is
looked up, every site's assignment cut, checked and named after the one it follows. The peer, in the
same run, is the same loss after a start in which nothing was cut or digested yet.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from optimizer.plan import Plan
from optimizer.problem import Problem
from optimizer.reroute_detours import Detours
from scheduler.entries import PlanAccepted
from scheduler.planner import Planner
from scheduler.receipt import ChangeReason
from scheduler.state import CycleConfig, CycleState, Desired, HeldDetours, Keys
from sites.hub_messages import ConnectionState
from sites.telemetry import ReplicaObservation, ReplicaState


@dataclass(frozen=True, kw_only=True, slots=True)
class LossCost:
    """CPU seconds of one loss after a plan was cut (`warm_s`) and without that (`cold_s`); of the
    digests worked out ahead, in quiet ticks; routes of the fleet, and those made anew.
    """

    warm_s: float
    cold_s: float
    ahead_s: float
    routes: int
    made: int


def loss_cost(problem: Problem, plan: Plan, detours: Detours, *, site_id: str) -> LossCost:
    """Lose `site_id`, once with what the loop remembers and once without."""
    state = _in_force(problem, plan)
    standing = replace(state.problem_now(ready_only=True), running=())
    state.held = HeldDetours(problem=standing, plan=plan, detours=detours)
    started = time.process_time()
    for _ in state.site_ids():
        state.digest_one()
    ahead_s = time.process_time() - started
    warm_s = _lose(state, site_id)
    assert state.routes is not None, "a change was cut"
    made = state.routes.made
    for one in state.sites.values():
        assert one.in_force is not None, "a plan is in force everywhere"
        one.in_force = replace(one.in_force)
    state.routes = None
    return LossCost(
        warm_s=warm_s,
        cold_s=_lose(state, site_id),
        ahead_s=ahead_s,
        routes=sum(map(len, state.routes.routes.values())) if state.routes else 0,
        made=made,
    )


def _lose(state: CycleState, site_id: str) -> float:
    """CPU seconds until the reroute waits for the ledger."""
    state.lost[site_id] = "benchmark"
    planner = Planner(state)
    started = time.process_time()
    planner.fail_over(site_id, 1)
    assert planner.desk.is_busy, "the reroute was judged safe"
    return time.process_time() - started


def _in_force(problem: Problem, plan: Plan) -> CycleState:
    """Every agent connected, `plan` in force and all its replicas ready."""
    state = CycleState(
        config=CycleConfig(auto_replan=False), keys=Keys(), problem=problem, epoch=1, version=1
    )
    accepted = PlanAccepted(
        receipt_id="first",
        reason=ChangeReason.APPLY,
        epoch=1,
        first_version=1,
        version=1,
        at_ms=0,
        plan_digest=plan.plan_digest,
        policy_digest="",
        problem=problem,
        plan=plan,
    )
    cut = state.cut(problem, plan, version=1, now_ms=0)
    state.desired = Desired(accepted=accepted, assignments=cut)
    for site_id, assignment in cut.items():
        site = state.site(site_id)
        site.connection = ConnectionState.CONNECTED
        site.rank, site.in_force = assignment.rank, assignment
        site.replicas = tuple(
            ReplicaObservation(
                replica_id=f"{t.group.group_id}#{n}", group=t.group, state=ReplicaState.READY
            )
            for t in assignment.groups
            for n in range(t.replicas)
        )
    return state
