"""`plan --what-if`: the plan as asked and the plan after the changes, side by side.

Nothing is written or carried out. What the changes mean is `optimizer.whatif`'s, the comparison
`optimizer.compare`'s; here they are shown and turned into an exit code. Hours planned together are
`what_if_day`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from scheduler.cli.output import CliError, ExitCode
from scheduler.cli.session import Session

if TYPE_CHECKING:
    from optimizer.compare import Comparison, Figure, Side
    from optimizer.outcome import Outcome
    from scheduler.cli.plan import Asked


def show_what_if(
    session: Session, asked: Asked, changes: tuple[str, ...], *, periods: int | None, full: bool
) -> bool:
    """Show both plans, or those of so many hours; returns whether they differ.

    Raises WhatIfError for changes that are not understood, CliError (infeasible) where the changed
    problem has no plan.
    """
    if periods is not None:
        from scheduler.cli.what_if_day import show_what_if_day

        return show_what_if_day(session, asked.problem, changes, periods=periods, full=full)
    return _show_once(session, asked, changes, full=full)


def _show_once(session: Session, asked: Asked, changes: tuple[str, ...], *, full: bool) -> bool:
    from optimizer.compare import Side, compare
    from optimizer.whatif import what_if
    from scheduler.cli.plan import solved
    from scheduler.steady import steadied

    changed = what_if(asked.problem, changes)
    first = solved(session, asked.problem, before=asked.before)
    start = first.plan if asked.before is None else asked.before
    then = solved(session, changed, before=start, known=first.prices)
    then = steadied(changed, then, before=first.plan)
    # a plan found after the change may be the better one before it: or dearer power looks cheap
    first = steadied(asked.problem, first, before=then.plan)
    before = Side(problem=asked.problem, outcome=first)
    after = Side(problem=changed, outcome=then)
    found = compare(before, after)
    if session.out.for_people:
        _show_lines(session, changes, found)
        if full:
            _show_changes(session, before, after)
    else:
        _show_data(session, changes, before, after)
    _require_plan(after.outcome)
    return _differ(before, after)


def _differ(before: Side, after: Side) -> bool:
    one, other = before.outcome.plan, after.outcome.plan
    if one is None or other is None:
        return one is not other
    return (one.groups, one.shares, one.shed) != (other.groups, other.shares, other.shed)


def _show_lines(session: Session, changes: tuple[str, ...], found: Comparison) -> None:
    from optimizer.compare import comparison_lines

    show_lines(session, changes, comparison_lines(found))


def show_lines(
    session: Session, changes: tuple[str, ...], lines: Iterable[tuple[str, Figure | None]]
) -> None:
    """The changes, and what they come to, each line in the colour of its figure."""
    for change in changes:
        session.out.line(f"What if: {change}", style="bold")
    for text, figure in lines:
        session.out.line(text, style=style_of(figure))


def style_of(figure: Figure | None) -> str:
    """Green for the better, red for the worse, nothing where neither can be said."""
    if figure is None or figure.lower_is_better is None or not figure.told_change:
        return ""
    return "green" if figure.told_change < 0 else "red"


def _show_changes(session: Session, before: Side, after: Side) -> None:
    """What would run elsewhere, line by line."""
    from optimizer.diff import diff_lines, diff_plans

    if after.outcome.plan is None:
        return
    changes = diff_plans(before.outcome.plan, after.outcome.plan, after.problem)
    for line in diff_lines(changes, full=True):
        session.out.line(line.text)


def _show_data(session: Session, changes: tuple[str, ...], before: Side, after: Side) -> None:
    from optimizer.compare import compare
    from sites.digest import to_plain

    found = compare(before, after)
    session.out.data(
        "what_if",
        {
            "changes": list(changes),
            "comparison": to_plain(found),
            "within_gaps": found.within_gaps,
            "before": _side(before),
            "after": _side(after),
        },
    )


def _side(side: Side) -> dict[str, object]:
    from sites.digest import to_plain

    outcome = side.outcome
    return {
        "status": outcome.status.value,
        "message": outcome.message,
        "plan": to_plain(outcome.plan) if outcome.plan else None,
        "plan_digest": outcome.plan.plan_digest if outcome.plan else None,
        "relaxations": to_plain(outcome.relaxations),
        "only_at": list(outcome.only_at),
    }


def _require_plan(outcome: Outcome) -> None:
    from optimizer.outcome import SolveStatus
    from scheduler.cli.plan_text import infeasible_lines

    if outcome.plan is not None:
        return
    if outcome.status is SolveStatus.INFEASIBLE:
        head, *rest = infeasible_lines(outcome)
        raise CliError(ExitCode.INFEASIBLE, "\n".join([f"after the change {head}", *rest]))
    raise CliError(ExitCode.ERROR, f"after the change no plan: {outcome.message}")
