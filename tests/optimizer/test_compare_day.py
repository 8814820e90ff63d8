"""Two schedules side by side: what is said, what is proven, and a side without one."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings

from optimizer.compare_day import DayComparison, compare_days, day_comparison_lines
from optimizer.outcome import SolveStatus
from optimizer.problem import Problem
from optimizer.schedule import DayOutcome
from optimizer.solve_day import solve_day
from optimizer.whatif import what_if
from tests.optimizer import days


def text(found: DayComparison) -> list[str]:
    return [line for line, _ in day_comparison_lines(found)]


def bounded(outcome: DayOutcome, bound_usd: float | None) -> DayOutcome:
    assert outcome.schedule is not None
    gap = None if bound_usd is None else 1 - bound_usd / outcome.schedule.cost_usd
    return replace(outcome, schedule=replace(outcome.schedule, bound_usd=bound_usd, gap=gap))


def two_days() -> tuple[DayOutcome, DayOutcome]:
    """Traffic that may wait for cheap hours ($12.12), and that may not wait so long."""
    problem = days.dear_then_cheap()
    hasty = what_if(problem, ["class later deferrable = 1 h"])
    return solve_day(problem, periods=4), solve_day(hasty, periods=4)


def test_figures_of_all_hours_stand_side_by_side() -> None:
    lines = text(compare_days(*two_days()))
    assert lines[0].split() == ["now", "what", "if", "change"]
    named = {line.split("  ")[0]: line.split() for line in lines[2:]}
    assert named["cost"][1:4] == ["$12.12", "$15.09", "+$2.97"]
    assert named["deferred"][1:5] == ["72,000", "req", "36,000", "req"]
    assert {"bound", "gap", "drawn", "emission", "started", "stopped", "unserved"} <= named.keys()
    assert named["unserved"] == lines[-1].split()  # optimal both: there is nothing to prove
    before, after = two_days()
    proven = text(compare_days(bounded(before, 12.0), after))[-1]
    assert proven == "Proven: the best schedule costs $2.97 to $3.09 more after the change"


def test_what_the_gaps_could_explain_is_said_to_be_so() -> None:
    before, after = two_days()
    found = compare_days(bounded(before, 11.0), bounded(after, 12.0))
    assert found.within_gaps
    assert text(found)[-1].startswith(
        "Within the gap: the difference in cost is no more than the gaps of the two schedules"
    )
    assert not compare_days(bounded(before, 11.0), bounded(after, 13.0)).within_gaps


def test_a_side_without_a_bound_proves_nothing() -> None:
    before, after = two_days()
    for one, other in ((bounded(before, None), after), (before, bounded(after, None))):
        found = compare_days(one, other)
        assert not found.within_gaps
        lines = text(found)
        assert lines[-1].startswith("Nothing proven: a schedule has no bound")
        assert "none" in next(line for line in lines if line.startswith("gap"))


def test_a_side_without_a_schedule_has_no_figures() -> None:
    before, _ = two_days()
    nothing = DayOutcome(status=SolveStatus.INFEASIBLE, schedule=None)
    found = compare_days(before, nothing)
    assert (found.least_usd, found.most_usd, found.within_gaps) == (None, None, False)
    assert all(f.after is None for f in found.figures)
    assert text(found)[1].split() == ["status", "optimal", "infeasible"]
    assert not text(found)[-1].startswith(("Nothing", "Proven", "Within"))


@settings(max_examples=10, deadline=None)
@given(days.day_problems(max_classes=2))
def test_a_day_compared_with_itself_changes_nothing(problem: Problem) -> None:
    outcome = solve_day(problem, periods=2)
    found = compare_days(outcome, outcome)
    assert {figure.told_change for figure in found.figures} <= {0.0}
    assert found.least_usd is None or found.least_usd <= 1e-6
