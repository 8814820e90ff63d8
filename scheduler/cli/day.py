"""A day as people read it: hour by hour what it costs, draws, starts, stops, defers and sheds.

Decides form only; the schedule is `optimizer.solve_day`'s. Deferring and shedding are told in
requests/s of the hour.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import fsum
from typing import TYPE_CHECKING, Any

from scheduler.cli.output import CliError, Column, ExitCode, count, money, power, table
from sites.units import S_PER_H, WHOLE_BP

if TYPE_CHECKING:
    from optimizer.outcome import Outcome
    from optimizer.problem import Problem
    from optimizer.schedule import DayOutcome, DaySchedule, PeriodPlan
    from scheduler.cli.session import Session

_BAR_WIDTH = 16
_NOISE = 1e-9
_EIGHTHS = " ▏▎▍▌▋▊▉█"

_COLUMNS = (
    Column(title="hour", field="period"),
    Column(title="cost", field="cost", number=True),
    Column(title="power", field="power", number=True),
    Column(title="replicas", field="replicas", number=True),
    Column(title="started", field="started", number=True),
    Column(title="stopped", field="stopped", number=True),
    Column(title="demand", field="demand", number=True),
    Column(title="deferred", field="deferred", number=True),
    Column(title="arrived", field="arrived", number=True),
    Column(title="shed", field="shed", number=True),
    Column(title="", field="bar"),
)


def plan_day(session: Session, problem: Problem, *, periods: int) -> DayOutcome:
    """Plan so many hours and show them; raises CliError where there is no schedule."""
    outcome = solved_day(session, problem, periods=periods)
    show_day(session, outcome)
    return outcome


def solved_day(session: Session, problem: Problem, *, periods: int) -> DayOutcome:
    """Plan so many hours."""
    from optimizer.solve_day import solve_day
    from scheduler.cli.progress import searching
    from sites.clock import SystemClock

    with searching(session.out, f"Planning {periods} hours of {len(problem.classes)} classes"):
        return solve_day(problem, periods=periods, clock=SystemClock())


def show_day(session: Session, outcome: DayOutcome) -> None:
    """Show a day; raises CliError where there is no schedule, with why and what to relax."""
    schedule = outcome.schedule
    if schedule is None:
        _refuse(session, outcome)
        return
    if not session.out.for_people:
        session.out.data("day", day_data(outcome, schedule))
        return
    session.out.line(_headline(outcome, schedule), style="bold")
    for line in hour_lines(schedule):
        session.out.line(line)


def hour_lines(schedule: DaySchedule) -> Iterator[str]:
    """The hours as a table, and what waits and is shed over all of them."""
    rows = _rows(schedule)
    dearest = max((abs(row["cost_usd"]) for row in rows), default=0.0)
    yield from table([_words(row, dearest) for row in rows], _COLUMNS)
    yield from _last_lines(schedule, rows)


def first_hour(outcome: DayOutcome) -> tuple[Problem, Outcome]:
    """The first hour of a day as an ordinary question and answer, to be saved and applied.

    Needs a schedule.
    """
    from optimizer.outcome import Outcome

    assert outcome.schedule is not None, "only a day with a schedule has a first hour"
    first = outcome.schedule.periods[0]
    answer = Outcome(
        status=outcome.status,
        plan=first.plan,
        arcs=(),
        pruned=(),
        bound_usd_per_h=first.plan.bound_usd_per_h,
        nodes=outcome.nodes,
        build_s=outcome.build_s,
        solve_s=outcome.solve_s,
        message=outcome.message,
    )
    return first.problem, answer


def _refuse(session: Session, outcome: DayOutcome) -> None:
    from optimizer.outcome import SolveStatus
    from sites.digest import to_plain

    infeasible = outcome.status is SolveStatus.INFEASIBLE
    code = ExitCode.INFEASIBLE if infeasible else ExitCode.ERROR
    if infeasible and not session.out.for_people:
        session.out.data(
            "day",
            {
                "status": outcome.status.value,
                "failed_period": outcome.failed_period,
                "message": outcome.message,
                "relaxations": to_plain(outcome.relaxations),
            },
        )
    raise CliError(code, f"no plan of these hours: {outcome.message}")


def _rows(schedule: DaySchedule) -> list[dict[str, Any]]:
    return [_row(schedule, at) for at in range(len(schedule.periods))]


def _row(schedule: DaySchedule, at: int) -> dict[str, Any]:
    """The figures of one hour."""
    from optimizer.compare_day import changes_of

    one = schedule.periods[at]
    changes = changes_of(one)
    rates = {c.class_id: one.problem.rate_rps(c) for c in one.problem.classes}
    return {
        "hour": at,
        "period": one.problem.period,
        "cost_usd": one.plan.cost.total_usd_per_h,
        "power_w": fsum(use.power_w for use in one.plan.supplies),
        "replicas": sum(g.replicas for g in one.plan.groups),
        "started": sum(c for c in changes if c > 0),
        "stopped": -sum(c for c in changes if c < 0),
        "demand_rps": fsum(rates[class_id] for class_id in sorted(rates)),
        "deferred_rps": fsum(d.rate_rps for d in schedule.deferrals if d.from_period == at),
        "arrived_rps": fsum(d.rate_rps for d in schedule.deferrals if d.to_period == at),
        "shed_rps": _shed_rps(one, rates),
    }


def _shed_rps(one: PeriodPlan, rates: dict[str, float]) -> float:
    return fsum(rates[s.class_id] * s.basis_points / WHOLE_BP for s in one.plan.shed)


def _words(row: dict[str, Any], dearest_usd: float) -> dict[str, Any]:
    """A row's figures as the table shows them; nothing where there is nothing."""
    return {
        "period": f"{row['period']:02d}:00",
        "cost": money(row["cost_usd"], ""),
        "power": power(row["power_w"]),
        "replicas": row["replicas"],
        "started": row["started"] or None,
        "stopped": row["stopped"] or None,
        "demand": count(row["demand_rps"]),
        "deferred": _some(row["deferred_rps"]),
        "arrived": _some(row["arrived_rps"]),
        "shed": _some(row["shed_rps"]),
        "bar": bar(row["cost_usd"], whole=dearest_usd),
    }


def _some(rate_rps: float) -> str | None:
    return count(rate_rps) if rate_rps > 0 else None


def bar(value: float, *, whole: float) -> str:
    """A bar of eighths of a character, 16 characters for `whole`; none for nothing or less."""
    if value <= 0 or whole <= 0:
        return ""
    eighths = round(min(1.0, value / whole) * _BAR_WIDTH * 8)
    full, rest = divmod(eighths, 8)
    return "█" * full + _EIGHTHS[rest].strip()


def _headline(outcome: DayOutcome, schedule: DaySchedule) -> str:
    parts = [f"{len(schedule.periods)} hours for {money(schedule.cost_usd, '')}"]
    if schedule.gap is None:
        parts.append(f"no bound: {schedule.method.partition('no bound: ')[2]}")
    else:
        gap = schedule.gap if schedule.gap > _NOISE else 0.0
        parts.append(f"gap {gap * 100:.2g}%")
    if schedule.hit_limit:
        parts.append(f"stopped by {schedule.hit_limit}")
    return ", ".join([*parts, schedule.method.partition(";")[0], f"{outcome.solve_s:.1f} s"])


def _last_lines(schedule: DaySchedule, rows: list[dict[str, Any]]) -> Iterator[str]:
    moved: dict[str, float] = {}
    for one in schedule.deferrals:
        moved[one.class_id] = moved.get(one.class_id, 0.0) + one.rate_rps
    for class_id in sorted(moved):
        waits = [d for d in schedule.deferrals if d.class_id == class_id]
        longest = max(d.to_period - d.from_period for d in waits)
        requests = count(moved[class_id] * S_PER_H)
        yield f'Deferred: {requests} requests of "{class_id}", by {longest} h at the most'
    shed = fsum(row["shed_rps"] for row in rows)
    if shed > 0:
        yield f"Shed: {count(shed * S_PER_H)} requests over all hours"


def day_data(outcome: DayOutcome, schedule: DaySchedule) -> dict[str, Any]:
    """Everything a day says, its hours with their plans."""
    from sites.digest import to_plain

    rows = _rows(schedule)
    plans = [to_plain(one.plan) for one in schedule.periods]
    return {
        "status": outcome.status.value,
        "message": outcome.message,
        "method": schedule.method,
        "schedule_digest": schedule.schedule_digest,
        "cost_usd": schedule.cost_usd,
        "bound_usd": schedule.bound_usd,
        "gap": schedule.gap,
        "hit_limit": schedule.hit_limit,
        "nodes": outcome.nodes,
        "solve_s": outcome.solve_s,
        "hours": [{**row, "plan": plan} for row, plan in zip(rows, plans, strict=True)],
        "deferrals": to_plain(schedule.deferrals),
    }
