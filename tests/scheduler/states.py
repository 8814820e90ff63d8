"""Control-loop states made by hand: a fleet on which a plan is already in force."""

from __future__ import annotations

from optimizer.plan import Plan
from optimizer.problem import Problem
from scheduler.entries import PlanAccepted
from scheduler.receipt import ChangeReason
from scheduler.simulation.site import SimulatedReplica, SimulatedSite
from scheduler.state import CycleConfig, CycleState, Desired, Keys
from sites.hub_messages import AssignmentWanted, ConnectionState
from sites.telemetry import ReplicaObservation, ReplicaState


def bare_state(problem: Problem) -> CycleState:
    """Every agent connected, nothing runs, nothing was ever in force."""
    state = CycleState(config=CycleConfig(), keys=Keys(), problem=problem, epoch=1)
    for site_id in state.site_ids():
        state.site(site_id).connection = ConnectionState.CONNECTED
    return state


def state_in_force(problem: Problem, plan: Plan) -> CycleState:
    """Every agent connected, `plan` in force and running to the letter."""
    state = bare_state(problem)
    state.version = 1
    finals = state.cut(problem, plan, version=1, now_ms=0)
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
    state.desired = Desired(accepted=accepted, assignments=finals)
    for site_id, assignment in finals.items():
        site = state.site(site_id)
        site.rank, site.in_force = assignment.rank, assignment
        site.replicas = tuple(
            ReplicaObservation(
                replica_id=f"{t.group.group_id}#{n}", group=t.group, state=ReplicaState.READY
            )
            for t in assignment.groups
            for n in range(t.replicas)
        )
    return state


def simulated(state: CycleState) -> dict[str, SimulatedSite]:
    """Simulated sites that run what the state says is in force."""
    sites = {s: SimulatedSite(s) for s in state.site_ids()}
    for site_id, site in sites.items():
        in_force = state.site(site_id).in_force
        if in_force is None:
            continue
        site.take(AssignmentWanted(assignment=in_force), 0)
        site.applied = site.accepted
        site.replicas = [
            SimulatedReplica(
                replica_id=r.replica_id, group=r.group, state=ReplicaState.READY, due_at_ms=0
            )
            for r in state.site(site_id).replicas
        ]
    return sites
