"""The receipt of one change: what was wanted, and of every step whether it was done. Facts only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sites.errors import Violation
from sites.steps import Step


class StepStatus(StrEnum):
    """Where a step stands. NOT_STARTED after the rollout stopped means it never left."""

    NOT_STARTED = "not_started"
    SENT = "sent"
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"


class RolloutState(StrEnum):
    """Where a rollout stands. The last six are final, but STOPPED may be resumed or undone."""

    ACCEPTING = "accepting"
    VALIDATING = "validating"
    RUNNING = "running"
    DONE = "done"
    UNCHANGED = "unchanged"
    REJECTED = "rejected"
    STOPPED = "stopped"
    SUPERSEDED = "superseded"
    RESUMED = "resumed"


FINAL_STATES = frozenset(
    {
        RolloutState.DONE,
        RolloutState.UNCHANGED,
        RolloutState.REJECTED,
        RolloutState.STOPPED,
        RolloutState.SUPERSEDED,
        RolloutState.RESUMED,
    }
)


class ChangeReason(StrEnum):
    """Why a plan was put into force."""

    APPLY = "apply"
    FAILOVER = "failover"
    REPLAN = "replan"
    REBALANCE = "rebalance"
    DRAIN = "drain"
    RESUME = "resume"
    UNDO = "undo"
    RECONCILE = "reconcile"


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReceipt:
    """One step: its phase (``open``, ``move``, ``close``, ...), status, wall times (ms; 0: not yet)
    and what the site said.
    """

    step: Step
    phase: str
    status: StepStatus
    sent_at_ms: int = 0
    finished_at_ms: int = 0
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """One change of plan, from proposal to end. `violations` say why it was rejected or stopped.

    `version` is the last version the change uses (0 while none is given); `message` is one line
    for people. `undoes` names the receipt an UNDO or RESUME continues.
    """

    receipt_id: str
    reason: ChangeReason
    state: RolloutState
    plan_digest: str
    epoch: int
    version: int
    started_at_ms: int
    finished_at_ms: int = 0
    steps: tuple[StepReceipt, ...] = ()
    violations: tuple[Violation, ...] = ()
    message: str = ""
    undoes: str = ""

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen under this receipt."""
        return self.state in FINAL_STATES

    def count(self, status: StepStatus) -> int:
        """How many steps have that status."""
        return sum(1 for s in self.steps if s.status is status)
