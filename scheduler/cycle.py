"""The whole control loop as a value: event in, effects out.

Decides what happens when: a plan is proposed, a site is lost or back, a solve ends, time passes.
It never waits, reads a clock or sends anything; `driver` carries its effects out, and in
simulation something else does. The parts it decides with: `gate` and `change` (may this plan be
acted on, and how), `desk` (one change at a time), `replan` (one solve at a time), `watch` (who is
lost), `failover` (where traffic goes then), `reconcile` (has anything drifted).
"""

from __future__ import annotations

from dataclasses import replace

from optimizer.outcome import Outcome
from optimizer.plan import Plan
from optimizer.problem import Problem
from scheduler.change import Change, is_same_content, plan_change, reroute_change
from scheduler.desk import ChangeDesk, Order
from scheduler.entries import CordonChanged, LedgerEntry, PlanAccepted, ServerStarted, SiteBack
from scheduler.entries import SiteLost as SiteLostEntry
from scheduler.events import (
    Alert,
    CordonRequested,
    CycleEffect,
    CycleEvent,
    HubsRestarted,
    LedgerAppended,
    LedgerFailed,
    PlanProposed,
    ReceiptChanged,
    ReplanRequested,
    ResumeRequested,
    SolveFinished,
    Started,
    UncordonRequested,
    UndoRequested,
)
from scheduler.failover import predict_failover
from scheduler.gate import check_proposal, check_reach
from scheduler.receipt import ChangeReason, Receipt, RolloutState
from scheduler.reconcile import changes_at, drift
from scheduler.replan import Asked, SolverDesk
from scheduler.state import CycleConfig, CycleState, Desired, Keys
from scheduler.view import Drill, FleetView
from scheduler.view_of import fleet_view
from scheduler.watch import Loss, losses, returns
from sites.errors import RefusedError, Violation
from sites.hub_messages import (
    AssignmentJudged,
    ConnectionChanged,
    CordonWanted,
    SiteCordoned,
    SiteObserved,
    SiteSaidHello,
    StepFinished,
    Ticked,
    UncordonWanted,
)

Effects = tuple[CycleEffect, ...]
