"""Commands that change plans in force: apply and the rollout family, each with its receipt.

The server decides what is carried out and in which order; here a saved plan is checked to be fresh,
confirmed, sent, watched, and its receipt shown step by step.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scheduler.cli.client import Api, connected
from scheduler.cli.output import CliError, Column, ExitCode, Output
from scheduler.cli.session import Command, GivenPath, Group, Seconds, Session, pass_session

if TYPE_CHECKING:
    from scheduler.plan_file import SavedPlan
    from scheduler.receipt import Receipt
    from sites.clock import Clock

WAIT_MS = 1_000
YES = click.option("--yes", is_flag=True, help="Do not ask.")
TIMEOUT = click.option(
    "--timeout",
    "timeout_s",
    type=Seconds(),
    default=600.0,
    show_default=True,
    help="Seconds to watch; the rollout itself goes on.",
)

_STYLES = {"done": "green", "failed": "red", "refused": "red", "sent": "yellow"}


@click.command(cls=Command)
@click.argument("plan_path", metavar="PLAN", type=GivenPath())
@click.option("--allow-empty", is_flag=True, help="Let a plan without any replica take effect.")
@YES
@TIMEOUT
@pass_session
def apply(
    session: Session, plan_path: Path, *, allow_empty: bool, yes: bool, timeout_s: float
) -> None:
    """Carry out a saved plan, step by step, or refuse it because the state has moved on."""
    from scheduler.plan_file import read_plan
    from sites.digest import to_plain

    saved = read_plan(plan_path)
    with connected(session.state_dir) as api:
        _require_fresh(api, saved)
        groups = sum(g.replicas for g in saved.plan.groups)
        question = f"Apply {plan_path} ({groups} replicas, {len(saved.plan.shares)} shares)?"
        session.confirm(question, yes=yes)
        body = {"plan": to_plain(saved), "allow_empty": allow_empty}
        started = api.post("/v1/plans", body)
        finish(session, watch(session, api, started["receipt_id"], timeout_s=timeout_s))


def _require_fresh(api: Api, saved: SavedPlan) -> None:
    from scheduler.fleet_problem import description_digest, read_problem
    from scheduler.plan_file import require_fresh

    paths = tuple(Path(one) for one in saved.binding.fleet_paths)
    fleet_digest = ""
    if paths and all(path.exists() for path in paths):
        fleet_digest = description_digest(
            read_problem(
                paths,
                period=saved.problem.period,
                plan_policy=_search_limits(saved),
            )
        )
    require_fresh(saved, state_serial=api.state().state_serial, fleet_digest=fleet_digest)


def _search_limits(saved: SavedPlan) -> dict[str, Any]:
    """Overrides given on the command line are part of the plan, not of the files."""
    policy = saved.problem.plan_policy
    return {"gap_limit": policy.gap_limit, "time_limit_s": policy.time_limit_s}


def watch(session: Session, api: Api, receipt_id: str, *, timeout_s: float) -> Receipt:
    """Follow a receipt until it is final or the time is up; progress goes to a terminal only."""
    from sites.clock import SystemClock
    from sites.digest import digest

    clock: Clock = SystemClock()
    end_ms = clock.monotonic_ms() + int(timeout_s * 1_000)
    receipt, seen, shown = api.receipt(receipt_id), "", 0
    while not receipt.is_final and clock.monotonic_ms() < end_ms:
        if session.out.live:
            shown = _show_progress(session.out, receipt, shown)
        seen = digest(receipt)
        left_ms = max(1, end_ms - clock.monotonic_ms())
        receipt = api.receipt(receipt_id, wait_ms=min(WAIT_MS, left_ms), seen=seen)
    if session.out.live:
        _show_progress(session.out, receipt, shown)
    return receipt


def _show_progress(out: Output, receipt: Receipt, shown: int) -> int:
    """Note every step that ended since the last look; returns how many have."""
    ended = [s for s in receipt.steps if s.finished_at_ms]
    for one in sorted(ended, key=lambda s: s.finished_at_ms)[shown:]:
        step = one.step
        target = step.group_id or "routes"
        out.note(f"  {step.site_id}  {step.kind.value}  {target}  {one.status.value}")
    return len(ended)


STEP_COLUMNS = (
    Column(title="#", field="number", number=True),
    Column(title="phase", field="phase"),
    Column(title="site", field="site"),
    Column(title="does", field="does"),
    Column(title="target", field="target"),
    Column(title="to", field="replicas", number=True),
    Column(title="status", field="status"),
    Column(title="ms", field="took_ms", number=True),
    Column(title="step", field="step", wide=True),
    Column(title="detail", field="detail", wide=True),
)


def step_rows(receipt: Receipt) -> list[dict[str, Any]]:
    """A receipt's steps as rows."""
    return [
        {
            "number": number,
            "step": one.step.step_id,
            "phase": one.phase,
            "site": one.step.site_id,
            "does": one.step.kind.value,
            "target": one.step.group_id or f"version {one.step.version}",
            "replicas": one.step.replicas if one.step.group_id else None,
            "status": one.status.value,
            "took_ms": one.finished_at_ms - one.sent_at_ms if one.finished_at_ms else None,
            "detail": one.detail,
        }
        for number, one in enumerate(receipt.steps, start=1)
    ]


def show_receipt(out: Output, receipt: Receipt) -> None:
    """A receipt in the chosen form."""
    from sites.digest import to_plain

    if not out.for_people:
        out.data("receipt", {"receipt": to_plain(receipt)})
        return
    out.rows("step", step_rows(receipt), STEP_COLUMNS)
    for number, one in enumerate(receipt.steps, start=1):
        if one.detail and one.status.value in ("failed", "refused"):
            out.line(f"Step {number} at {one.step.site_id}: {one.detail}", style="red")
    for violation in receipt.violations:
        out.line(violation.message(), style="red")
    out.line(headline(receipt), style=_STYLES.get(receipt.state.value, ""))


def headline(receipt: Receipt) -> str:
    """One line: what became of the change, and of how many steps."""
    from scheduler.receipt import StepStatus

    total, done = len(receipt.steps), receipt.count(StepStatus.DONE)
    parts = [f"Receipt {receipt.receipt_id}: {receipt.reason.value} {receipt.state.value}"]
    if total:
        parts.append(f"{done} of {total} steps done")
        open_steps = {s: receipt.count(s) for s in StepStatus if s is not StepStatus.DONE}
        parts += [f"{n} {s.value.replace('_', ' ')}" for s, n in open_steps.items() if n]
    if receipt.version:
        parts.append(f"epoch {receipt.epoch} version {receipt.version}")
    return ", ".join(parts) + (f". {receipt.message}" if receipt.message else "")


def finish(session: Session, receipt: Receipt) -> None:
    """Show how a change ended and leave with the exit code that says so."""
    from scheduler.receipt import RolloutState, StepStatus

    show_receipt(session.out, receipt)
    if receipt.state in (RolloutState.DONE, RolloutState.UNCHANGED, RolloutState.RESUMED):
        return
    if receipt.state is RolloutState.REJECTED:
        raise CliError(_rejection_code(receipt))
    partial = receipt.count(StepStatus.DONE) > 0
    hint = "see `hinterland rollout status`"
    if receipt.state is RolloutState.STOPPED:
        hint = (
            "finish it with `hinterland rollout resume` or go back with `hinterland rollout undo`"
        )
    elif receipt.state is RolloutState.SUPERSEDED:
        hint = "a newer change took over: see `hinterland rollout history`"
    else:
        hint = "it still runs; watch it with `hinterland rollout status`"
    raise CliError(ExitCode.PARTIAL if partial else ExitCode.ERROR, hint)


def _rejection_code(receipt: Receipt) -> ExitCode:
    codes = {violation.code for violation in receipt.violations}
    if codes & {"state_serial", "stale", "stale_plan"}:
        return ExitCode.STALE
    if codes & {"residency", "transit", "policy"}:
        return ExitCode.POLICY_DENIED
    return ExitCode.ERROR


@click.group(cls=Group)
def rollout() -> None:
    """See, finish or take back changes of plan."""


@rollout.command("status")
@click.argument("receipt_id", required=False, default="")
@pass_session
def status(session: Session, receipt_id: str) -> None:
    """Show one change step by step (default: the running or the newest one)."""
    with connected(session.state_dir) as api:
        if not receipt_id:
            state = api.state()
            newest = state.receipts[-1].receipt_id if state.receipts else ""
            receipt_id = state.rollout_receipt_id or newest
        if not receipt_id:
            session.out.note("no change was made yet")
            return
        show_receipt(session.out, api.receipt(receipt_id))


HISTORY_COLUMNS = (
    Column(title="receipt", field="receipt_id"),
    Column(title="reason", field="reason"),
    Column(title="state", field="state"),
    Column(title="version", field="version", number=True),
    Column(title="steps", field="steps", number=True),
    Column(title="done", field="done", number=True),
    Column(title="started", field="started"),
    Column(title="ms", field="took_ms", number=True),
    Column(title="message", field="message", wide=True),
)


@rollout.command("history")
@pass_session
def history(session: Session) -> None:
    """List the newest changes, oldest first."""
    from scheduler.cli.times import show_time
    from scheduler.receipt import StepStatus

    with connected(session.state_dir) as api:
        receipts = api.state().receipts
    rows = [
        {
            "receipt_id": one.receipt_id,
            "reason": one.reason.value,
            "state": one.state.value,
            "version": one.version,
            "steps": len(one.steps),
            "done": one.count(StepStatus.DONE),
            "started": show_time(one.started_at_ms),
            "took_ms": one.finished_at_ms - one.started_at_ms if one.finished_at_ms else None,
            "message": one.message,
        }
        for one in receipts
    ]
    session.out.rows("receipt", rows, HISTORY_COLUMNS, empty="no change was made yet")


@rollout.command("resume")
@click.argument("receipt_id", required=False, default="")
@YES
@TIMEOUT
@pass_session
def resume(session: Session, receipt_id: str, *, yes: bool, timeout_s: float) -> None:
    """Finish a stopped change (default: the newest stopped one)."""
    _again(session, "resume", receipt_id, yes=yes, timeout_s=timeout_s)


@rollout.command("undo")
@click.argument("receipt_id", required=False, default="")
@YES
@TIMEOUT
@pass_session
def undo(session: Session, receipt_id: str, *, yes: bool, timeout_s: float) -> None:
    """Put back the plan from before a change (default: the newest), as a new version."""
    _again(session, "undo", receipt_id, yes=yes, timeout_s=timeout_s)


def _again(session: Session, verb: str, receipt_id: str, *, yes: bool, timeout_s: float) -> None:
    with connected(session.state_dir) as api:
        session.confirm(f"{verb.capitalize()} {receipt_id or 'the newest change'}?", yes=yes)
        started = api.post(f"/v1/rollouts/{verb}", {"receipt_id": receipt_id})
        finish(session, watch(session, api, started["receipt_id"], timeout_s=timeout_s))
