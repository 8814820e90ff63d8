"""What the control loop knows as one value to look at, secrets left out. Decides nothing else."""

from __future__ import annotations

from scheduler.planner import Planner
from scheduler.state import CycleState
from scheduler.view import FleetView, SiteView
from sites.assignment import SiteAssignment


def fleet_view(state: CycleState, planner: Planner) -> FleetView:
    """The fleet as known now."""
    return FleetView(
        epoch=state.epoch,
        version=state.serial,
        state_serial=state.serial,
        problem=state.problem_now(),
        plan=state.desired.plan if state.desired else None,
        plan_reason=state.desired.accepted.reason if state.desired else "",
        sites=tuple(_site_view(state, site_id) for site_id in state.site_ids()),
        receipts=tuple(state.receipts.values()),
        rollout_receipt_id=planner.desk.receipt_id,
        solving=planner.solver.asked is not None,
    )


def _site_view(state: CycleState, site_id: str) -> SiteView:
    site = state.site(site_id)
    return SiteView(
        site_id=site_id,
        state=site.connection,
        lost=site_id in state.lost,
        cordoned=site_id in state.cordoned,
        drained=site_id in state.drained,
        reason=state.lost.get(site_id) or state.cordoned.get(site_id) or site.connection_reason,
        heard_at_ms=site.heard_at_ms,
        applied_epoch=site.rank[0],
        applied_version=site.rank[1],
        assignment=_shown(state, site_id),
        observation=site.observation,
    )


def _shown(state: CycleState, site_id: str) -> SiteAssignment | None:
    """The desired assignment without the tenants' pseudonym keys."""
    wanted = state.desired.assignments.get(site_id) if state.desired else None
    return state.site(site_id).shown(wanted) if wanted is not None else None
