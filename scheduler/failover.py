"""What the loss of a site leads to: one function for the drill and for the real thing.

Decides nothing itself (the reroute table does); it makes sure that both ask the same question of
the same observations, so that a drill's prediction is what then happens. A site that fails is
looked up in the detours held; until they are worked out (`detours`), or where so many replicas are
missing that mending made one too dear, it is worked out alone.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

from optimizer.plan import Plan
from optimizer.problem import Problem
from optimizer.reroute import detour_plan, reroute, rerouted_problem
from optimizer.reroute_table import RerouteTable, stands_on
from scheduler.state import CycleState
from scheduler.view import Drill, ShareMove
from sites.errors import FatalError

_DEARER_PART = 0.01
"""A detour that was mended is used if that made it no dearer than this part of the plan's cost."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failover:
    """The answer to a loss: the plan, and the problem it answers; `trouble` on the way to it, for
    whoever runs the fleet.
    """

    problem: Problem
    plan: Plan
    drill: Drill
    trouble: str = ""


def predict_failover(state: CycleState, site_id: str) -> Failover | None:
    """Where traffic goes if `site_id` is lost now; None while no plan is in force.

    Raises KeyError for a site the fleet has not.
    """
    state.problem.fleet.site(site_id)
    if state.desired is None:
        return None
    before = state.desired.plan
    asked = state.problem_now(ready_only=True)
    lost = (site_id,)
    plan, trouble = _rerouted(state, asked, before, site_id)
    return Failover(
        problem=rerouted_problem(asked, before, lost_sites=lost, running=asked.running),
        plan=plan,
        drill=Drill(
            site_id=site_id,
            plan_before_digest=before.plan_digest,
            plan=plan,
            moves=share_moves(before, plan),
            shed_before_bp=sum(s.basis_points for s in before.shed),
            shed_after_bp=sum(s.basis_points for s in plan.shed),
            cost_before_usd_per_h=before.cost.total_usd_per_h,
            cost_after_usd_per_h=plan.cost.total_usd_per_h,
        ),
        trouble=trouble,
    )


def _rerouted(state: CycleState, asked: Problem, before: Plan, site_id: str) -> tuple[Plan, str]:
    """By the detours held where they answer this question well enough, else by one worked out now;
    whole where the plan in force does not stand on what the question knows. Also what went wrong.
    """
    trouble = ""
    others = tuple(s for s in asked.lost_sites if s != site_id)
    standing = replace(asked, lost_sites=others, running=())
    held = state.held
    if held is not None and held.plan == before and held.problem == standing:
        detour = held.detours.answer(site_id, running=asked.running)
        if detour.dearer_usd_per_h > _DEARER_PART * before.cost.total_usd_per_h:
            try:
                seen = held.detours.standing.seeing(asked.running)
                detour = RerouteTable.on(seen).detour(site_id)
            except FatalError as error:  # the mended one is better than none
                trouble = f"reroute mended, not worked out anew, so it may shed too much: {error}"
    elif stands_on(standing, before):
        detour = RerouteTable(standing, before, running=asked.running).detour(site_id)
    else:
        return reroute(asked, before, lost_sites=(site_id,), running=asked.running), trouble
    return detour_plan(standing, before, detour, running=asked.running), trouble


def share_moves(before: Plan, after: Plan) -> tuple[ShareMove, ...]:
    """Every (class, site) whose share differs between two plans, sorted; site "" is shed."""
    old, new = _by_site(before), _by_site(after)
    return tuple(
        ShareMove(
            class_id=class_id,
            site_id=site_id,
            before_bp=old.get((class_id, site_id), 0),
            after_bp=new.get((class_id, site_id), 0),
        )
        for class_id, site_id in sorted(old.keys() | new.keys())
        if old.get((class_id, site_id), 0) != new.get((class_id, site_id), 0)
    )


def _by_site(plan: Plan) -> dict[tuple[str, str], int]:
    shares: dict[tuple[str, str], int] = defaultdict(int)
    for share in plan.shares:
        shares[(share.class_id, share.site_id)] += share.basis_points
    for shed in plan.shed:
        shares[(shed.class_id, "")] += shed.basis_points
    return dict(shares)
