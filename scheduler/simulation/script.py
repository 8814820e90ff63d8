"""One line of text per event or effect that tells the story; "" for the chatter."""

from __future__ import annotations

from scheduler.entries import PlanAccepted, RolloutEnded, kind_of
from scheduler.events import (
    Alert,
    AppendLedger,
    DetoursFilled,
    FillDetours,
    PlanProposed,
    Solve,
    SolveFinished,
)
from sites.hub_messages import (
    AssignmentJudged,
    ConnectionChanged,
    SendAssignment,
    SendStep,
    StepFinished,
)


def line_of(event: object) -> str:
    """What happened, in one line."""
    match event:
        case ConnectionChanged():
            return f"{event.site_id} is {event.state}: {event.reason}"
        case SendAssignment():
            verb = "would you accept" if event.validate_only else "accept"
            return f"-> {event.site_id}: {verb} {_rank(event.rank)}"
        case SendStep():
            group = f" {event.step.group_id} = {event.step.replicas}" if event.step.group_id else ""
            rank = _rank((event.step.epoch, event.step.version))
            return f"-> {event.site_id}: {event.step.kind}{group} ({rank})"
        case AssignmentJudged():
            answer = "yes" if event.verdict.accepted else "no"
            return f"<- {event.site_id}: {answer}"
        case StepFinished():
            return f"<- {event.site_id}: {event.result.outcome} {event.result.detail}".rstrip()
        case PlanProposed():
            return f"plan proposed ({event.receipt_id})"
        case Solve() | SolveFinished() | FillDetours() | DetoursFilled():
            return _work(event)
        case Alert():
            return f"alert: {event.text}"
        case AppendLedger():
            return f"ledger: {_entry(event)}"
        case _:
            return ""


def _work(event: Solve | SolveFinished | FillDetours | DetoursFilled) -> str:
    match event:
        case Solve():
            return f"solve asked for: {event.reason}"
        case SolveFinished():
            return f"solve ended: {event.outcome.status if event.outcome else 'failed'}"
        case FillDetours():
            return "detours asked for"
        case DetoursFilled():
            return f"detours ended: {'filled' if event.detours else event.message or 'none'}"


def _entry(append: AppendLedger) -> str:
    entry = append.entry
    kind = kind_of(entry)
    if isinstance(entry, PlanAccepted):
        first, last = entry.first_version, entry.version
        return f"{kind} {entry.reason} {entry.epoch}.{first}-{entry.epoch}.{last}"
    if isinstance(entry, RolloutEnded):
        return f"{kind} {entry.receipt.reason} {entry.receipt.state}"
    return kind


def _rank(rank: tuple[int, int]) -> str:
    return f"{rank[0]}.{rank[1]}"
