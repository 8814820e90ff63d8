"""What the control loop writes into the ledger: one fact per kind; the kind is the class's name.

Decisions only; execution records have their own path (`sites.execution`). Facts only.
"""

from __future__ import annotations

from dataclasses import dataclass

from optimizer.plan import Plan
from optimizer.problem import Problem
from scheduler.receipt import ChangeReason, Receipt


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerStarted:
    """A control plane took over under a new epoch."""

    epoch: int
    at_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanAccepted:
    """A plan became the desired one. Durable before any of its steps leaves.

    `problem` holds the residency policies, tenants and sites in force with it; `policy_digest` is
    the digest over the policies and is what assignments and execution records carry. Its rollout
    may use versions `first_version` to `version`; the last is the plan's final form.
    """

    receipt_id: str
    reason: ChangeReason
    epoch: int
    first_version: int
    version: int
    at_ms: int
    plan_digest: str
    policy_digest: str
    problem: Problem
    plan: Plan


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteLost:
    """A site was declared lost; `evidence` says on whose word."""

    site_id: str
    at_ms: int
    evidence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteBack:
    """A lost site serves again."""

    site_id: str
    at_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CordonChanged:
    """A site was cordoned (`drained`: its replicas are to go as well) or freed again."""

    site_id: str
    cordoned: bool
    drained: bool
    reason: str
    at_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutEnded:
    """A change ended, well or not; the receipt says how far it came."""

    receipt: Receipt
    at_ms: int


LedgerEntry = ServerStarted | PlanAccepted | SiteLost | SiteBack | CordonChanged | RolloutEnded


def kind_of(entry: LedgerEntry) -> str:
    """The ledger kind of an entry."""
    return type(entry).__name__
