"""A day as a chain of ordinary one-period answers, and what moved between them. Facts only.

Each hour has its own problem (its demand after deferral, what runs when it begins, its prices) and
its plan; deferrals say which demand was moved. How the hours were found is `solve_day`'s, whether
they hold is `verify_day`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import fsum

from optimizer.outcome import Relaxation, SolveStatus
from optimizer.plan import Plan
from optimizer.problem import Problem, RunningGroup
from sites.digest import digest
from sites.traffic import Demand
from sites.units import require_nonnegative, require_positive

HOURS_PER_DAY = 24
PERIOD_H = 1.0
"""Length of a period (h): a plan's USD/h is what its hour costs in USD."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PeriodPlan:
    """One hour: the ordinary problem it was, and the plan for it."""

    problem: Problem
    plan: Plan


@dataclass(frozen=True, kw_only=True, slots=True)
class Deferral:
    """Demand of a class (requests/s) asked for in one hour and answered, or shed, in a later one.

    Hours are counted from 0, the first of the schedule.
    """

    class_id: str
    from_period: int
    to_period: int
    rate_rps: float

    def __post_init__(self) -> None:
        name = f"deferral of {self.class_id}"
        require_nonnegative(self.from_period, field=f"{name}: from_period")
        require_positive(self.to_period - self.from_period, field=f"{name}: hours later")
        require_positive(self.rate_rps, field=f"{name}: rate_rps")


@dataclass(frozen=True, kw_only=True, slots=True)
class DaySchedule:
    """A chain of hours: each starts with what the hour before left running.

    `bound_usd` is the least any schedule of these hours can cost, None where `method` proves
    nothing about the whole; `gap` is (cost - bound) / max(|cost|, 1e-9). `hit_limit` names the
    budget that stopped a search ("" if none did).
    """

    periods: tuple[PeriodPlan, ...]
    deferrals: tuple[Deferral, ...]
    bound_usd: float | None
    gap: float | None
    method: str
    hit_limit: str = ""

    @property
    def cost_usd(self) -> float:
        """What all hours cost together (USD)."""
        return fsum(one.plan.cost.total_usd_per_h * PERIOD_H for one in self.periods)

    @property
    def schedule_digest(self) -> str:
        """Digest over everything the schedule says; equal problems give equal schedules."""
        return digest(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class DayOutcome:
    """What planning a day came to; `status` as for one period.

    `failed_period` is the first hour that has no plan of its own, where that is known. `build_s`
    and `solve_s` are wall seconds.
    """

    status: SolveStatus
    schedule: DaySchedule | None
    bound_usd: float | None = None
    nodes: int = 0
    build_s: float = 0.0
    solve_s: float = 0.0
    message: str = ""
    relaxations: tuple[Relaxation, ...] = ()
    failed_period: int | None = None


def born_rates(problem: Problem, at: int) -> dict[str, float]:
    """What each class asks for in hour `at` of a schedule (requests/s), by class id."""
    hour = replace(problem, period=(problem.period + at) % HOURS_PER_DAY)
    return {c.class_id: hour.rate_rps(c) for c in hour.classes}


def hour_problem(
    problem: Problem,
    at: int,
    *,
    rates: Mapping[str, float],
    running: tuple[RunningGroup, ...],
) -> Problem:
    """The ordinary problem that hour `at` is, with the limits that stand over the day in it.

    Demand is `rates` (requests/s by class id). A start is paid whole in its hour.
    """
    period = (problem.period + at) % HOURS_PER_DAY
    return replace(
        problem,
        plan_policy=replace(problem.plan_policy, migration_horizon_h=PERIOD_H),
        demand=tuple(
            Demand(class_id=class_id, period=period, rate_rps=rates[class_id])
            for class_id in sorted(rates)
        ),
        running=running,
        period=period,
    )


def with_hour_limits(problem: Problem, limits: Mapping[tuple[str, str], float]) -> Problem:
    """An hour's problem with its own part of what is limited over the day.

    ``("tenant_budget", tenant id)`` in USD/h and ``("carbon_cap", "fleet")`` in g/h.
    """
    return replace(
        problem,
        tenants=tuple(
            replace(t, budget_usd_per_h=limits.get(("tenant_budget", t.tenant_id)))
            for t in problem.tenants
        ),
        plan_policy=replace(
            problem.plan_policy, carbon_cap_g_per_h=limits.get(("carbon_cap", "fleet"))
        ),
    )


def budget_of_tenant(problem: Problem, tenant_id: str) -> float:
    """A tenant's budget in an hour's problem (USD/h); 0 for one that has none there."""
    given = {t.tenant_id: t.budget_usd_per_h for t in problem.tenants}
    return given.get(tenant_id) or 0.0


def left_running(plan: Plan) -> tuple[RunningGroup, ...]:
    """What a plan leaves running for the hour after it."""
    return tuple(RunningGroup(group=one.group, replicas=one.replicas) for one in plan.groups)
