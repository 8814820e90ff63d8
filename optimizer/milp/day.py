"""The hours of a horizon as one formulation: index sets of every hour, the search, plans of each.

Decides what deferral can make of a class's rate, how many replicas an hour may need, how tiny
deferrals are tidied and how limits over the day fall to its hours. The rows are `constraints`'s,
which hours a horizon has is `solve_day`'s.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from math import fsum, inf
from typing import Any

import pyomo.environ as pyo

from optimizer.costs import relative_gap, trivial_bound_usd_per_h
from optimizer.milp.constraints import add_rows
from optimizer.milp.constraints_survive import SurvivalCut, survive_one
from optimizer.milp.day_limits import hour_limits
from optimizer.milp.day_rounds import TimedRounds, hold
from optimizer.milp.extract import extract_plan
from optimizer.milp.formulate import formulate
from optimizer.milp.highs import Budget, Point, PointStatus, compile_model
from optimizer.milp.inputs import Inputs, take_inputs
from optimizer.milp.model import (
    Elasticity,
    Formulation,
    Pending,
    PeriodInputs,
    RowKey,
    loading_part,
    start_horizon,
)
from optimizer.milp.objective import add_cost
from optimizer.milp.stopping import TIME_LIMIT
from optimizer.milp.survive import Losses
from optimizer.milp.survive_root import root_cuts
from optimizer.plan import CandidateArc
from optimizer.problem import Problem, RunningGroup
from optimizer.reach import Reach
from optimizer.schedule import PERIOD_H, PeriodPlan, left_running, with_hour_limits
from optimizer.survive import is_asked
from optimizer.verify_limits import is_above
from sites.clock import Clock
from sites.traffic import Demand

DeferKey = tuple[str, int, int]
"""(class id, from hour, to hour), hours counted from the first of the horizon; from below 0 where
it was deferred before.
"""

_DUST = 1e-6
"""Deferrals below this part of a class's rate are the solver's tolerance, not a decision."""

_NOISE = 1e-12

_MOST_ROUNDS = 6
"""Rounds of cuts for lost sites."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hour:
    """One hour of a horizon: its problem with the rates born in it.

    `problem.running` counts in the first hour only. `slack` as in `Elasticity`.
    """

    problem: Problem
    slack: Mapping[RowKey, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Horizon:
    """Consecutive hours to be planned together. `left` hours of the schedule are still to come,
    the first of these included: what they leave of a limit over the day is kept for all of them.
    The first `planned` hours get whole replicas and plans, those behind are only looked at, their
    replicas in parts. `pending` was deferred before.
    """

    hours: tuple[Hour, ...]
    arcs: tuple[CandidateArc, ...]
    left: int
    planned: int
    method: str
    pending: Pending = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class HoursAnswer:
    """What a search of a horizon came to: its plans and deferrals, no plans where there is none.

    Amounts that leave or reach hours only looked at are what the search would do there.

    `proven`: within the gap asked for. `bound_usd` holds for any plans of these hours, of a search
    among few groups there is none. `cuts` of each planned hour hold for every plan of it.
    `horizon_usd`: what all hours come to, those only looked at included, once the planned ones'
    losses are priced.
    """

    status: PointStatus
    periods: tuple[PeriodPlan, ...] = ()
    amounts: Mapping[DeferKey, float] = field(default_factory=dict)
    bound_usd: float = -inf
    nodes: int = 0
    hit_limit: str = ""
    proven: bool = False
    horizon_usd: float = inf
    cuts: tuple[tuple[SurvivalCut, ...], ...] = ()

    @property
    def cost_usd(self) -> float:
        """What the hours cost together (USD)."""
        return fsum(one.plan.cost.total_usd_per_h * PERIOD_H for one in self.periods)


def formulate_hours(
    asked: Horizon, cuts: Sequence[Sequence[SurvivalCut]] = ()
) -> tuple[Formulation, ...]:
    """Variables, rows and cost of consecutive hours, with cuts of the first. Needs at least one."""
    horizon = start_horizon(_period_inputs(asked), pending=asked.pending)
    add_rows(horizon[0])
    add_cost(horizon[0])
    for f in horizon[asked.planned :]:
        for replicas in f.model.n.values():
            replicas.domain = pyo.NonNegativeReals
        for opened in f.model.open.values():
            opened.domain = pyo.UnitInterval
    for f, of_hour in zip(horizon, cuts, strict=False):
        if of_hour:
            add_cuts(f, of_hour)
    return horizon


def search_hours(
    asked: Horizon,
    budget: Budget,
    *,
    start: Sequence[Mapping[str, int]] | None = None,
    near: Collection[str] | None = None,
    keeps_start: bool = False,
    known: Sequence[tuple[SurvivalCut, ...]] | None = None,
    clock: Clock | None = None,
) -> HoursAnswer:
    """Solve, ask what each loss of a site would cost each hour, cut, solve again: `optimizer.solve`
    for a horizon. `start` is a first guess, replicas by group id, hour by hour. A large search that
    is given `near` (group ids) looks among those, the start's and what its relaxation uses alone:
    finding no plan there proves nothing. With `keeps_start` the first round is the start itself:
    where that is lawful the answer is no worse, as `horizon_usd` has it, however little time is
    left. `known` cuts of the planned hours are as `add_cuts` takes them. With a clock all rounds
    share the budget's time, which is the solver's alone.
    """
    rounds = TimedRounds(budget, clock)
    cuts = _first_cuts(asked) if known is None else list(known)
    best = HoursAnswer(status=PointStatus.NONE, cuts=tuple(cuts))
    sees_all = asked.planned == len(asked.hours)
    guess = tuple(start or ())
    for turn in range(_MOST_ROUNDS + keeps_start):
        holds = keeps_start and turn == 0
        horizon = formulate_hours(asked, cuts)
        if holds:
            hold(horizon, guess)
        among = None if near is None or holds else {*near, *chain(*guess)}
        point = rounds.run(
            compile_model(horizon[0]), is_held=holds, start=guess or None, near=among
        )
        best = replace(
            best,
            nodes=best.nodes + point.nodes,
            bound_usd=max(best.bound_usd, -inf if holds or near is not None else point.bound),
            hit_limit=point.hit_limit or best.hit_limit,
        )
        if point.status in (PointStatus.INFEASIBLE, PointStatus.NONE):
            if not holds:
                return best if best.periods else replace(best, status=point.status)
            continue
        found, new = _planned(asked, horizon, point)
        if not best.periods or _usd(found, sees_all) < _usd(best, sees_all):
            plans, total_usd = found.periods, found.horizon_usd
            best = replace(best, periods=plans, amounts=found.amounts, horizon_usd=total_usd)
        cuts = [old + more for old, more in zip(cuts, new, strict=True)]
        best = replace(best, cuts=tuple(cuts), status=point.status)
        over = rounds.are_over(point)
        if holds and not over:
            continue
        close = sees_all and relative_gap(best.cost_usd, best.bound_usd) <= budget.gap
        proven = point.status is PointStatus.PROVEN and not any(new)
        best = replace(best, proven=not holds and (proven or close))
        if best.proven or not any(new) or over:
            return replace(best, hit_limit=best.hit_limit or (TIME_LIMIT if holds else ""))
        guess = tuple(replicas_of(one) for one in best.periods)
    return replace(best, hit_limit=best.hit_limit or "survival_rounds")


def _usd(found: HoursAnswer, sees_all: bool) -> float:
    """What answers are compared by: the cost of their plans, else with what is in sight."""
    return found.cost_usd if sees_all else found.horizon_usd


def replicas_of(one: PeriodPlan) -> dict[str, int]:
    """Replicas of an hour's plan by group id."""
    return {g.group.group_id: g.replicas for g in one.plan.groups}


def _period_inputs(asked: Horizon) -> tuple[PeriodInputs, ...]:
    hours, arcs = asked.hours, asked.arcs
    born = [{c.class_id: h.problem.rate_rps(c) for c in h.problem.classes} for h in hours]
    most = [_most_rates(asked, born, at) for at in range(len(hours))]
    envelope = {class_id: max(rates[class_id] for rates in most) for class_id in most[0]}
    # the same groups in every hour, each wide enough for the busiest: what idles through an hour
    # or loads ahead of one may be worth its price
    steady = take_inputs(_asking(hours[0].problem, envelope), arcs)
    parts = [loading_part(facts) for facts in steady.groups.values()]
    ahead = max((1.0 / (1.0 - part) for part in parts if part < 1), default=1.0)
    wide = {class_id: rate * ahead for class_id, rate in envelope.items()}
    return tuple(
        PeriodInputs(
            inputs=_narrowed(
                take_inputs(_asking(hour.problem, wide), arcs),
                problem=_asking(hour.problem, most[at]),
                rates=most[at],
            ),
            born=born[at],
            elasticity=Elasticity(slack=hour.slack),
        )
        for at, hour in enumerate(hours)
    )


def _most_rates(asked: Horizon, born: Sequence[Mapping[str, float]], at: int) -> dict[str, float]:
    """The most that deferral can make of each class's rate in one hour (requests/s)."""
    rates = {}
    for one in asked.hours[at].problem.classes:
        since = max(0, at - one.deferrable_h)
        parts = [born[u][one.class_id] for u in range(since, at + 1)]
        old = asked.pending.get(one.class_id, {})
        parts += [rate for ago, rate in old.items() if at == 0 or ago + at <= one.deferrable_h]
        rates[one.class_id] = fsum(parts)
    return rates


def _asking(problem: Problem, rates: Mapping[str, float]) -> Problem:
    """A problem whose demand is `rates` in its period."""
    demand = tuple(
        Demand(class_id=class_id, period=problem.period, rate_rps=rates[class_id])
        for class_id in sorted(rates)
    )
    return replace(problem, demand=demand)


def _narrowed(inputs: Inputs, *, problem: Problem, rates: Mapping[str, float]) -> Inputs:
    """The same groups for other rates; classes without demand and their arcs are left out."""
    classes = {c: one for c, one in inputs.classes.items() if rates[c] > 0}
    arcs = {key: arc for key, arc in inputs.arcs.items() if key[0] in classes}
    by_group = {
        group_id: tuple(key for key in keys if key in arcs)
        for group_id, keys in inputs.arcs_of_group.items()
    }
    return replace(
        inputs,
        problem=problem,
        classes=classes,
        rates={class_id: rates[class_id] for class_id in classes},
        arcs=arcs,
        arcs_of_class={c: inputs.arcs_of_class[c] for c in classes},
        arcs_of_group={group_id: keys for group_id, keys in by_group.items() if keys},
    )


def deferred(horizon: tuple[Formulation, ...], point: Point) -> dict[DeferKey, float]:
    """What a point defers (requests/s), tidied: no dust, never a sliver of a class left behind."""
    leaving: dict[tuple[str, int], dict[int, float]] = {}
    for f, values in zip(horizon, (point.values, *point.later), strict=True):
        for (class_id, to), rate in values.get("defer", {}).items():
            leaving.setdefault((class_id, f.at), {})[to] = rate
    for (class_id, ago, to), rate in point.values.get("due", {}).items():
        leaving.setdefault((class_id, -ago), {})[to] = rate
    amounts: dict[DeferKey, float] = {}
    for (class_id, start), targets in sorted(leaving.items()):
        first = horizon[0].pending[class_id][-start] if start < 0 else horizon[start].born[class_id]
        kept = {to: rate for to, rate in sorted(targets.items()) if rate > _DUST * first}
        total = fsum(kept.values())
        # all but dust: make it all, so that no class is left with a rate of solver noise
        scale = first / total if total > first * (1 - _DUST) else 1.0
        amounts |= {(class_id, start, to): rate * scale for to, rate in kept.items()}
    return amounts


def _planned(
    asked: Horizon, horizon: tuple[Formulation, ...], point: Point
) -> tuple[HoursAnswer, list[tuple[SurvivalCut, ...]]]:
    """Every planned hour of a point as an ordinary problem and its certified plan, each starting
    with what the one before leaves running; and the cuts each breaks.

    A plan's bound is the trivial one: a day's bound says nothing about one of its hours.
    """
    amounts = deferred(horizon, point)
    limits = hour_limits(horizon, point, left=asked.left)
    running: tuple[RunningGroup, ...] = asked.hours[0].problem.running
    periods: list[PeriodPlan] = []
    cuts: list[tuple[SurvivalCut, ...]] = []
    unseen_usd: list[float] = []
    for f, values in zip(horizon[: asked.planned], (point.values, *point.later), strict=False):
        rates = after_deferral(f, amounts)
        problem = replace(_asking(f.inputs.problem, rates), running=running)
        problem = with_hour_limits(problem, {key: given[f.at] for key, given in limits.items()})
        bound = trivial_bound_usd_per_h(problem)
        own = replace(point, values=values, later=(), bound=bound)
        inputs = _narrowed(f.inputs, problem=problem, rates=rates)
        plan = extract_plan(inputs, own, method=asked.method)
        groups = [facts.option.group for facts in inputs.groups.values()]
        survived = Losses(Reach(problem), groups).survive(plan)
        periods.append(PeriodPlan(problem=problem, plan=survived.plan))
        cuts.append(_broken(survived.cuts, f, values=values, rates=rates))
        losses = survived.plan.cost.total_usd_per_h - plan.cost.total_usd_per_h
        unseen_usd.append((losses - fsum(values.get("risk", {}).values())) * PERIOD_H)
        running = left_running(survived.plan)
    found = HoursAnswer(
        status=point.status,
        periods=tuple(periods),
        amounts=amounts,
        horizon_usd=fsum([point.cost, *unseen_usd]),
    )
    return found, cuts


def _first_cuts(asked: Horizon) -> list[tuple[SurvivalCut, ...]]:
    """The cuts that bind each planned hour's relaxation, taken as a steady state by itself."""
    found: list[tuple[SurvivalCut, ...]] = []
    for hour in asked.hours[: asked.planned]:
        reach = Reach(hour.problem)
        if not is_asked(reach):
            found.append(())
            continue
        steady = formulate(hour.problem, asked.arcs)
        groups = [facts.option.group for facts in steady.inputs.groups.values()]
        found.append(root_cuts(steady, Losses(reach, groups)))
    return found


def add_cuts(f: Formulation, cuts: Sequence[SurvivalCut]) -> None:
    """Rows for cuts whose `least` counts the rates before deferral: what is deferred from an hour
    need not outlive its losses, what arrives must.
    """
    survive_one(f, cuts)
    for row, cut in zip(f.model.survive_one.values(), cuts, strict=True):
        moved = [
            (-price * sign, variable)
            for class_id, price in sorted(cut.per_rps.items())
            for sign, variable in f.asked(class_id)[1]
        ]
        if moved:
            low, body, _ = row.to_bounded_expression()
            row.set_value(body + f.sum_of(moved) >= low)


def _broken(
    cuts: tuple[SurvivalCut, ...],
    f: Formulation,
    *,
    values: Mapping[str, Mapping[Any, float]],
    rates: Mapping[str, float],
) -> tuple[SurvivalCut, ...]:
    """Cuts that ask for more risk than the point allows, as `add_cuts` takes them: made for the
    rates after deferral, given for those before it.
    """
    n, shed, risk = (values.get(name, {}) for name in ("n", "shed", "risk"))
    return tuple(
        replace(
            cut,
            least=fsum(
                [cut.least, *(p * (f.asked(c)[0] - rates[c]) for c, p in cut.per_rps.items())]
            ),
        )
        for cut in cuts
        if is_above(
            cut.risk_usd_per_h(n=n, shed=shed),
            fsum(risk.get((cut.lost_site_id, part), 0.0) for part in cut.parts),
        )
    )


def after_deferral(f: Formulation, amounts: Mapping[DeferKey, float]) -> dict[str, float]:
    """Each class's demand in one hour once deferrals are counted (requests/s), by class id."""
    parts = {c.class_id: [f.born.get(c.class_id, 0.0)] for c in f.inputs.problem.classes}
    for (class_id, start, to), rate in sorted(amounts.items()):
        if start == f.at:
            parts[class_id].append(-rate)
        if to == f.at:
            parts[class_id].append(rate)
    # a class that left whole leaves the last digits of a sum behind, not demand
    rest = {class_id: fsum(some) for class_id, some in parts.items()}
    return {
        class_id: rate if rate > _NOISE * max(parts[class_id]) else 0.0
        for class_id, rate in rest.items()
    }
