"""`plan --periods N --what-if`: the hours as asked and the hours after the changes, side by side.

Nothing is written or carried out. What the changes mean is `optimizer.whatif`'s, the comparison
`optimizer.compare_day`'s; here they are shown and turned into an exit code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scheduler.cli.output import CliError, ExitCode
from scheduler.cli.session import Session

if TYPE_CHECKING:
    from optimizer.compare_day import DayComparison
    from optimizer.problem import Problem
    from optimizer.schedule import DayOutcome, DaySchedule


def show_what_if_day(
    session: Session, problem: Problem, changes: tuple[str, ...], *, periods: int, full: bool
) -> bool:
    """Show both schedules; returns whether they differ.

    Raises WhatIfError for changes that are not understood, CliError where the changed hours have no
    schedule.
    """
    from optimizer.compare_day import compare_days
    from optimizer.whatif import what_if
    from scheduler.cli.day import solved_day
    from scheduler.steady_day import steadied_day

    changed = what_if(problem, changes)
    first = solved_day(session, problem, periods=periods)
    then = solved_day(session, changed, periods=periods)
    then = steadied_day(changed, then, before=first.schedule)
    # found after the change, it may be the better one before it: or dearer power looks cheap
    first = steadied_day(problem, first, before=then.schedule)
    found = compare_days(first, then)
    if session.out.for_people:
        _show_lines(session, changes, found, after=then.schedule if full else None)
    else:
        _show_data(session, changes, found, before=first, after=then)
    _require_schedule(then)
    return _differ(first.schedule, then.schedule)


def _show_lines(
    session: Session,
    changes: tuple[str, ...],
    found: DayComparison,
    *,
    after: DaySchedule | None,
) -> None:
    """The comparison, and the hours after the change where they are asked for."""
    from optimizer.compare_day import day_comparison_lines
    from scheduler.cli.day import hour_lines
    from scheduler.cli.what_if import show_lines

    show_lines(session, changes, day_comparison_lines(found))
    if after is not None:
        session.out.line("After the change:", style="bold")
        for line in hour_lines(after):
            session.out.line(line)


def _show_data(
    session: Session,
    changes: tuple[str, ...],
    found: DayComparison,
    *,
    before: DayOutcome,
    after: DayOutcome,
) -> None:
    from sites.digest import to_plain

    session.out.data(
        "what_if_day",
        {
            "changes": list(changes),
            "comparison": to_plain(found),
            "within_gaps": found.within_gaps,
            "before": _side(before),
            "after": _side(after),
        },
    )


def _side(outcome: DayOutcome) -> dict[str, object]:
    from scheduler.cli.day import day_data
    from sites.digest import to_plain

    if outcome.schedule is not None:
        return day_data(outcome, outcome.schedule)
    return {
        "status": outcome.status.value,
        "message": outcome.message,
        "failed_period": outcome.failed_period,
        "relaxations": to_plain(outcome.relaxations),
    }


def _differ(one: DaySchedule | None, other: DaySchedule | None) -> bool:
    if one is None or other is None:
        return one is not other
    parts = (
        [(hour.plan.groups, hour.plan.shares, hour.plan.shed) for hour in schedule.periods]
        for schedule in (one, other)
    )
    before, after = parts
    return before != after or one.deferrals != other.deferrals


def _require_schedule(outcome: DayOutcome) -> None:
    from optimizer.outcome import SolveStatus

    if outcome.schedule is None:
        infeasible = outcome.status is SolveStatus.INFEASIBLE
        code = ExitCode.INFEASIBLE if infeasible else ExitCode.ERROR
        raise CliError(code, f"after the change no plan of these hours: {outcome.message}")
