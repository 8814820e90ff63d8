"""What the control loop knows, for people and programs that look at it. Facts only."""

from __future__ import annotations

from dataclasses import dataclass

from optimizer.plan import Plan
from optimizer.problem import Problem
from scheduler.receipt import Receipt
from sites.assignment import SiteAssignment
from sites.hub_messages import ConnectionState
from sites.telemetry import SiteObservation


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteView:
    """One site: *desired* (`assignment`) beside *observed*. `heard_at_ms` 0: never heard of."""

    site_id: str
    state: ConnectionState
    lost: bool
    cordoned: bool
    drained: bool
    reason: str
    heard_at_ms: int
    applied_epoch: int
    applied_version: int
    assignment: SiteAssignment | None
    observation: SiteObservation | None


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetView:
    """The whole fleet. `problem` is the newest question: what runs and what is lost as known now.

    `plan` is the desired plan (None before the first). `state_serial` names this state: a plan
    proposed from an older one is stale. `receipts` are the newest, oldest first. `hubs_in_ray`:
    hubs run as Ray's actors; false while the control plane itself stands in for a lost Ray.
    """

    epoch: int
    version: int
    state_serial: int
    problem: Problem
    plan: Plan | None
    plan_reason: str
    sites: tuple[SiteView, ...]
    receipts: tuple[Receipt, ...]
    rollout_receipt_id: str
    solving: bool
    hubs_in_ray: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class ShareMove:
    """How a class's share at one site changes (basis points of the class; site "" = shed)."""

    class_id: str
    site_id: str
    before_bp: int
    after_bp: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Drill:
    """What losing a site does: the very plan a real loss would put into force at this moment."""

    site_id: str
    plan_before_digest: str
    plan: Plan
    moves: tuple[ShareMove, ...]
    shed_before_bp: int
    shed_after_bp: int
    cost_before_usd_per_h: float
    cost_after_usd_per_h: float

    @property
    def plan_digest(self) -> str:
        """Digest of the predicted plan; the ledger shows the same after a real loss."""
        return self.plan.plan_digest
