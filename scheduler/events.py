"""What the control loop is told and what it wants done. Facts only; `scheduler.cycle` decides.

The effects of hubs other than ``Send*`` are events here, unchanged; see `sites.hub_messages`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from optimizer.outcome import Outcome
from optimizer.plan import Plan
from optimizer.problem import Problem, RunningGroup
from optimizer.reroute_detours import Detours
from scheduler.entries import LedgerEntry, PlanAccepted
from scheduler.receipt import Receipt
from sites.hub_messages import (
    AssignmentJudged,
    AssignmentWanted,
    ConnectionChanged,
    CordonWanted,
    SiteCordoned,
    SiteObserved,
    SiteSaidHello,
    StepFinished,
    StepsForgotten,
    StepWanted,
    Ticked,
    UncordonWanted,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerSnapshot:
    """What the ledger says at start: the newest accepted plan and who is cordoned or drained.

    `last_version` is the highest version any `PlanAccepted` holds (0: none); `receipts` the newest
    ended ones, oldest first. `previous` is the plan accepted before `accepted` (what an undo after
    a restart puts back).
    """

    accepted: PlanAccepted | None = None
    previous: PlanAccepted | None = None
    last_version: int = 0
    cordoned: tuple[str, ...] = ()
    drained: tuple[str, ...] = ()
    receipts: tuple[Receipt, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """First event: the new epoch, the ledger's word, and the problem of the fleet files.

    `problem` is what the files describe (no running groups, no lost sites).
    """

    epoch: int
    problem: Problem
    snapshot: LedgerSnapshot = field(default_factory=LedgerSnapshot)


@dataclass(frozen=True, kw_only=True, slots=True)
class HubsRestarted:
    """These sites' hubs were rebuilt from nothing: say again what is wanted there."""

    site_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanProposed:
    """An operator applies a plan. The receipt of `receipt_id` answers.

    `state_serial` is the `FleetView.state_serial` the plan was made from (0: no server yet).
    """

    receipt_id: str
    problem: Problem
    plan: Plan
    state_serial: int
    allow_empty: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class SolveFinished:
    """A solve the loop asked for ended. `outcome` None: the solver's process failed or was late."""

    request_id: str
    outcome: Outcome | None
    message: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class DetoursFilled:
    """Detours the loop asked for are worked out. `detours` None: the plan does not stand on its
    problem any more, or, with a `message`, the process failed or was late.
    """

    request_id: str
    detours: Detours | None
    message: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerAppended:
    """The entry of that token is durable."""

    token: str
    index: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerFailed:
    """The entry of that token could not be written; what waited for it does not happen."""

    token: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplanRequested:
    """Solve now with what is known and put the answer into force."""

    receipt_id: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class CordonRequested:
    """An operator wants nothing new at a site; `drain` also moves away what runs there."""

    receipt_id: str
    site_id: str
    drain: bool = False
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class UncordonRequested:
    """An operator frees a cordoned or drained site."""

    receipt_id: str
    site_id: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResumeRequested:
    """Finish the stopped rollout `stopped_receipt_id` ("" = the newest stopped)."""

    receipt_id: str
    stopped_receipt_id: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class UndoRequested:
    """Put back, as a new version, the plan that was desired before `undone_receipt_id`."""

    receipt_id: str
    undone_receipt_id: str = ""


CycleEvent = (
    Started
    | HubsRestarted
    | ConnectionChanged
    | SiteSaidHello
    | SiteObserved
    | AssignmentJudged
    | StepFinished
    | SiteCordoned
    | PlanProposed
    | SolveFinished
    | DetoursFilled
    | LedgerAppended
    | LedgerFailed
    | Ticked
    | ReplanRequested
    | CordonRequested
    | UncordonRequested
    | ResumeRequested
    | UndoRequested
)


@dataclass(frozen=True, kw_only=True, slots=True)
class AppendLedger:
    """Append the entry (kind: its class's name) durably, then answer with the token."""

    token: str
    entry: LedgerEntry


@dataclass(frozen=True, kw_only=True, slots=True)
class Solve:
    """Run the optimizer on the problem (worker process, timeout), answer with `SolveFinished`.

    `before` is the plan in force: where the search starts, and what stays if nothing is cheaper.
    """

    request_id: str
    problem: Problem
    reason: str
    before: Plan | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FillDetours:
    """Work out every single loss for the replicas seen `running` (worker process, timeout), answer
    with `DetoursFilled`. A solve or another fill asked for meanwhile ends it.
    """

    request_id: str
    problem: Problem
    plan: Plan
    running: tuple[RunningGroup, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceiptChanged:
    """Newest form of a receipt, for whoever watches."""

    receipt: Receipt


@dataclass(frozen=True, kw_only=True, slots=True)
class Alert:
    """One line a person should see."""

    text: str
    site_id: str = ""


CycleEffect = (
    AssignmentWanted
    | StepWanted
    | StepsForgotten
    | CordonWanted
    | UncordonWanted
    | AppendLedger
    | Solve
    | FillDetours
    | ReceiptChanged
    | Alert
)
