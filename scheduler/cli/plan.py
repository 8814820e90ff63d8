"""Commands about plans that change nothing: plan, show, diff.

The optimizer decides; here its question is put together (files, and the running fleet where a
server is known) and its answer shown, saved and turned into an exit code.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scheduler.cli.client import NoServerError, connected
from scheduler.cli.output import CliError, ExitCode
from scheduler.cli.session import Command, GivenPath, Seconds, Session, pass_session

if TYPE_CHECKING:
    from optimizer.outcome import Outcome, SharedPrices
    from optimizer.plan import Plan
    from optimizer.problem import Problem
    from scheduler.plan_file import SavedPlan
    from scheduler.view import FleetView

WHY = click.option(
    "--why", "why", multiple=True, metavar="CLASS", help="Only this class, site by site."
)
PERIODS_MOST = 168
"""A week of hours, the most that `optimizer.solve_day` plans together."""

FULL = click.option("--full", is_flag=True, help="Everything, unchanged and rejected too.")


class Percent(click.ParamType[float]):
    """A part of a whole: ``1%`` or ``0.01``."""

    name = "percent"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        text = str(value)
        try:
            part = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            part = -1.0
        if not 0 <= part <= 1:
            self.fail(f"{text!r} is no part of a whole; write 1% or 0.01", param, ctx)
        return part


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What `plan` was asked: the question, where it came from, the plan in force meanwhile."""

    problem: Problem
    fleet_digest: str
    fleet_paths: tuple[str, ...]
    state_serial: int
    before: Plan | None


@click.command(cls=Command)
@click.option(
    "-f",
    "--file",
    "paths",
    multiple=True,
    type=GivenPath(),
    help="Fleet files or folders.  [default: the running server's fleet]",
)
@click.option("--out", "out_path", type=GivenPath(), help="Save the plan for apply.")
@click.option("--period", type=click.IntRange(0, 23), default=None, help="Hour of day (UTC).")
@click.option("--time-limit", type=Seconds(min_open=True), help="Most seconds to search.")
@click.option("--gap", type=Percent(), help="Stop within this distance of the best: 1% or 0.01.")
@click.option(
    "--what-if",
    "changes",
    multiple=True,
    metavar="CHANGE",
    help="Compare with the plan after a change, e.g. 'site NAME power +500 kW'.",
)
@click.option(
    "--periods",
    type=click.IntRange(1, PERIODS_MOST),
    default=None,
    help="Plan so many hours together; --out saves the first.",
)
@click.option("--detailed-exitcode", is_flag=True, help="Exit with 2 if anything would change.")
@WHY
@FULL
@pass_session
def plan(
    session: Session,
    paths: tuple[Path, ...],
    *,
    out_path: Path | None,
    period: int | None,
    time_limit: float | None,
    gap: float | None,
    changes: tuple[str, ...],
    periods: int | None,
    detailed_exitcode: bool,
    why: tuple[str, ...],
    full: bool,
) -> None:
    """Decide what should run where, and show what would change. Changes nothing itself."""
    if changes and (out_path is not None or why):
        raise click.UsageError("--what-if only compares: leave --out and --why away")
    if periods is not None and why:
        raise click.UsageError("--why explains one plan: leave --periods away")
    limits = {"gap_limit": gap, "time_limit_s": time_limit}
    given = {name: value for name, value in limits.items() if value is not None}
    asked = _ask(session, paths, period=period, plan_policy=given)
    if changes:
        from scheduler.cli.what_if import show_what_if

        differs = show_what_if(session, asked, changes, periods=periods, full=full)
    elif periods is not None:
        differs = _plan_day(session, asked, periods=periods, out_path=out_path)
    else:
        differs = _plan_once(session, asked, out_path=out_path, why=why, full=full)
    if detailed_exitcode and differs:
        raise CliError(ExitCode.CHANGES)


def _plan_once(
    session: Session, asked: Asked, *, out_path: Path | None, why: tuple[str, ...], full: bool
) -> bool:
    """Plan, save and show one plan, or the classes asked for; returns whether anything changes."""
    _require_classes(asked.problem, why)
    outcome = solved(session, asked.problem, before=asked.before)
    require_plan(session, outcome)
    _refuse_lawless(session, asked, outcome)
    saved = _saved(asked, outcome)
    _write(saved, out_path)
    if why:
        _show_classes(session, saved, why)
        differs = _differs(saved)
    else:
        differs = _show(session, saved, outcome, full=full)
    _note_saved(session, out_path)
    return differs


def _plan_day(session: Session, asked: Asked, *, periods: int, out_path: Path | None) -> bool:
    """Plan and show so many hours; the first is saved. Returns whether that changes anything."""
    from scheduler.cli.day import first_hour, plan_day

    problem, outcome = first_hour(plan_day(session, asked.problem, periods=periods))
    saved = _saved(dataclasses.replace(asked, problem=problem), outcome)
    _write(saved, out_path)
    _note_saved(session, out_path)
    return _differs(saved)


def _write(saved: SavedPlan, out_path: Path | None) -> None:
    if out_path is not None:
        from scheduler.plan_file import write_plan

        write_plan(out_path, saved)


def _note_saved(session: Session, out_path: Path | None) -> None:
    if out_path is not None:
        session.out.note(f"Saved: {out_path}. Carry it out with: hinterland apply {out_path}")


def _ask(
    session: Session, paths: tuple[Path, ...], *, period: int | None, plan_policy: dict[str, Any]
) -> Asked:
    from scheduler.fleet_problem import as_running, description_digest, read_problem

    live = _live(session, needed=not paths)
    if paths:
        hour = period if period is not None else (live.problem.period if live else 0)
        described = read_problem(paths, period=hour, plan_policy=plan_policy)
        problem = as_running(described, live.problem) if live else described
    else:
        assert live is not None, "without files a server is needed"
        policy = dataclasses.replace(live.problem.plan_policy, **plan_policy)
        hour = live.problem.period if period is None else period
        problem = dataclasses.replace(live.problem, plan_policy=policy, period=hour)
    return Asked(
        problem=problem,
        fleet_digest=description_digest(problem),
        fleet_paths=tuple(str(path) for path in paths),
        state_serial=live.state_serial if live else 0,
        before=live.plan if live else None,
    )


def _live(session: Session, *, needed: bool) -> FleetView | None:
    try:
        with connected(session.state_dir) as api:
            return api.state()
    except NoServerError as fault:
        if needed:
            raise CliError(fault.code, f"{fault}; or plan from files with -f") from fault
        return None


def solved(
    session: Session,
    problem: Problem,
    *,
    before: Plan | None,
    known: SharedPrices | None = None,
) -> Outcome:
    """Solve a problem, starting from and not needlessly leaving the plan before; `known` prices
    come from an earlier outcome.
    """
    from optimizer.milp.scale.workers import ThreadWorkers
    from optimizer.solve import solve
    from scheduler.cli.progress import searching
    from scheduler.steady import steadied
    from sites.clock import SystemClock

    workers = ThreadWorkers(os.cpu_count() or 1)
    with searching(session.out, f"Planning {len(problem.classes)} traffic classes") as progress:
        outcome = solve(
            problem,
            clock=SystemClock(),
            start=before,
            workers=workers,
            progress=progress,
            known=known,
        )
    return steadied(problem, outcome, before=before)


def require_plan(session: Session, outcome: Outcome) -> None:
    """End the command where there is no plan, with what to relax if the problem is infeasible."""
    from optimizer.outcome import SolveStatus
    from scheduler.cli.plan_text import infeasible_lines

    if outcome.plan is not None:
        return
    if outcome.status is not SolveStatus.INFEASIBLE:
        raise CliError(ExitCode.ERROR, f"no plan: {outcome.message}")
    if not session.out.for_people:
        from sites.digest import to_plain

        ways = to_plain(outcome.relaxations)
        told = {"status": "infeasible", "relaxations": ways, "only_at": list(outcome.only_at)}
        session.out.data("plan", told)
    raise CliError(ExitCode.INFEASIBLE, "\n".join(infeasible_lines(outcome)))


def _refuse_lawless(session: Session, asked: Asked, outcome: Outcome) -> None:
    """Refuse a fleet with a class that no site may serve even while every site is there."""
    from scheduler.cli.plan_text import lawless_lines

    assert outcome.plan is not None, "only an outcome with a plan is judged"
    lines = lawless_lines(asked.problem, outcome.plan)
    if not lines:
        return
    if not session.out.for_people:
        session.out.data("plan", {"status": "policy_denied", "classes": lines})
    head = (
        "no plan: a traffic class has no lawful site; allow its policy a country, describe a site "
        "where it may run, or remove the class"
    )
    raise CliError(ExitCode.POLICY_DENIED, "\n  ".join([head, *lines]))


def _saved(asked: Asked, outcome: Outcome) -> SavedPlan:
    from scheduler.plan_file import Binding, SavedPlan, summary_of
    from sites.digest import digest

    assert outcome.plan is not None, "only an outcome with a plan is saved"
    return SavedPlan(
        problem=asked.problem,
        plan=outcome.plan,
        before=asked.before,
        summary=summary_of(outcome),
        binding=Binding(
            state_serial=asked.state_serial,
            fleet_digest=asked.fleet_digest,
            problem_digest=digest(asked.problem),
            fleet_paths=asked.fleet_paths,
        ),
    )


def _show(
    session: Session,
    saved: SavedPlan,
    outcome: Outcome | None,
    *,
    full: bool,
    priced: bool = True,
) -> bool:
    """Show a plan against the one before it; returns whether anything changes.

    `priced`: with what a unit of each limit is worth.
    """
    from scheduler.cli.plan_text import PlanText
    from scheduler.cli.progress import searching
    from sites.clock import SystemClock
    from sites.digest import to_plain

    with searching(session.out, "Explaining the plan"):
        text = PlanText.of(saved, outcome, clock=SystemClock() if priced else None)
    if session.out.for_people:
        for line, style in text.lines(full=full):
            session.out.line(line, style=style)
    else:
        session.out.data(
            "plan",
            {
                "status": saved.summary.status.value,
                "plan_digest": saved.plan.plan_digest,
                "binding": to_plain(saved.binding),
                "summary": to_plain(saved.summary),
                "changes": to_plain(text.diff),
                "explanation": to_plain(text.explanation),
                "worth": to_plain(text.worth),
                "plan": to_plain(saved.plan),
            },
        )
    return text.changes


@click.command(cls=Command)
@click.argument("plan_path", metavar="PLAN", type=GivenPath())
@WHY
@FULL
@pass_session
def show(session: Session, plan_path: Path, *, why: tuple[str, ...], full: bool) -> None:
    """Show a saved plan: what it would change, what it costs, why not otherwise."""
    from scheduler.plan_file import read_plan

    saved = read_plan(plan_path)
    if why:
        _require_classes(saved.problem, why)
        _show_classes(session, saved, why)
    else:
        _show(session, saved, None, full=full)


def _require_classes(problem: Problem, class_ids: tuple[str, ...]) -> None:
    """Refuse to explain classes without demand."""
    demanded = sorted(c.class_id for c in problem.classes if problem.rate_rps(c) > 0)
    for one in class_ids:
        if one not in demanded:
            known = ", ".join(demanded[:20])
            raise CliError(ExitCode.ERROR, f"no traffic class {one!r} with demand; try {known}")


def _show_classes(session: Session, saved: SavedPlan, class_ids: tuple[str, ...]) -> None:
    from optimizer.explain import explain_plan
    from optimizer.explain_text import class_lines
    from sites.digest import to_plain

    for one in explain_plan(saved.problem, saved.plan, class_ids=class_ids).classes:
        if session.out.for_people:
            for line in class_lines(one):
                session.out.line(line)
        else:
            session.out.data("class_explanation", to_plain(one))


def _differs(saved: SavedPlan) -> bool:
    from optimizer.diff import diff_plans

    return not diff_plans(saved.before, saved.plan, saved.problem).is_empty


@click.command(cls=Command)
@click.argument("before_path", metavar="PLAN", type=GivenPath())
@click.argument("after_path", metavar="[OTHER]", required=False, type=GivenPath())
@click.option("--detailed-exitcode", is_flag=True, help="Exit with 2 if they differ.")
@FULL
@pass_session
def diff(
    session: Session,
    before_path: Path,
    after_path: Path | None,
    *,
    detailed_exitcode: bool,
    full: bool,
) -> None:
    """Compare two saved plans, or the plan in force with a saved one."""
    from scheduler.plan_file import read_plan

    first = read_plan(before_path)
    if after_path is None:
        with connected(session.state_dir) as api:
            before, after = api.state().plan, first
    else:
        before, after = first.plan, read_plan(after_path)
    compared = dataclasses.replace(after, before=before)
    changes = _show(session, compared, None, full=full, priced=False)
    if detailed_exitcode and changes:
        raise CliError(ExitCode.CHANGES)
