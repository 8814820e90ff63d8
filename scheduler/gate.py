"""Accepts or rejects a plan against the newest observations, with reasons.

The last look before anything is written or sent: is the plan still about this fleet, does it hold
by the independent checker, can it reach the sites it changes. How it gets there safely is judged by
`change`.
"""

from __future__ import annotations

from collections.abc import Iterable

from optimizer.plan import Plan
from optimizer.problem import Problem
from optimizer.verify import check_plan
from scheduler.change import Change, is_same_content
from scheduler.state import CycleState
from sites.errors import Violation
from sites.telemetry import ReplicaState
from sites.units import WHOLE_BP


def check_proposal(
    state: CycleState,
    problem: Problem,
    plan: Plan,
    *,
    state_serial: int,
    allow_empty: bool,
) -> tuple[Violation, ...]:
    """Why a plan may not be considered now; empty if it may.

    Codes: ``stale_plan``, ``lost_site``, ``empty_plan``, and those of `optimizer.verify`. A stale
    plan is judged no further.
    """
    if state_serial != state.serial:
        return (
            Violation(
                code="stale_plan",
                subject="plan",
                limit=state.serial,
                actual=state_serial,
                unit="state serial",
                remedy="the fleet has changed since; plan again",
            ),
        )
    return (
        *_lost(state, problem, plan),
        *(() if allow_empty else _empty(problem, plan)),
        *check_plan(problem, plan),
    )


def check_reach(state: CycleState, change: Change) -> tuple[Violation, ...]:
    """Sites the change must alter that cannot be told of it (``unreachable_site``)."""
    reachable = set(state.reachable())
    return tuple(
        Violation(
            code="unreachable_site",
            subject=f'site "{site_id}"',
            limit="connected",
            actual=f"{state.site(site_id).connection}: {state.site(site_id).connection_reason}",
            remedy="bring its agent back, or plan with the site lost or drained",
        )
        for site_id in sorted(change.finals)
        if site_id not in reachable
        and site_id not in state.lost
        and site_id not in change.problem.lost_sites
        and not is_same_content(state.site(site_id).in_force, change.finals[site_id])
    )


def check_no_site_forgotten(state: CycleState, problem: Problem) -> tuple[Violation, ...]:
    """Sites the problem no longer knows although replicas run there (``forgotten_site``)."""
    known = {s.site_id for s in problem.fleet.sites}
    return tuple(
        Violation(
            code="forgotten_site",
            subject=f'site "{site_id}"',
            limit="no replica",
            actual="still runs replicas",
            remedy="drain the site before its file is removed",
        )
        for site_id in sorted(set(state.site_ids()) - known)
        if state.site(site_id).counts(ReplicaState.READY)
    )


def _lost(state: CycleState, problem: Problem, plan: Plan) -> Iterable[Violation]:
    used = {g.group.site_id for g in plan.groups} | {s.ingress_site_id for s in plan.shares}
    for site_id in sorted(used & (set(state.lost) | state.drained)):
        yield Violation(
            code="lost_site",
            subject=f'site "{site_id}"',
            limit="a site that may be used",
            actual=state.lost.get(site_id, "drained"),
            remedy="plan again without it",
        )
    yield from check_no_site_forgotten(state, problem)


def _empty(problem: Problem, plan: Plan) -> Iterable[Violation]:
    """A plan that serves nothing although something is asked for is more likely an accident."""
    asked = any(problem.rate_rps(c) > 0 for c in problem.classes)
    if asked and not plan.shares:
        yield Violation(
            code="empty_plan",
            subject="plan",
            limit="some traffic served",
            actual=f"{len(plan.groups)} groups, all classes shed ({WHOLE_BP} bp)",
            remedy="apply with the override if this is meant",
        )
