"""From a problem to an outcome: arcs, formulation, point, plan, and the checker's word on it.

Decides which solves to make, among them the rounds that let protected classes outlive the loss of
one site, and what the outcome is called. A plan the independent checker refuses never leaves here
as a plan. Time is measured only where a clock is handed in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf

from optimizer.arcs import Candidates, find_arcs, group_options
from optimizer.costs import relative_gap
from optimizer.milp.constraints_survive import SurvivalCut, survive_one
from optimizer.milp.elastic import mending_slack, relaxations
from optimizer.milp.extract import extract_plan
from optimizer.milp.formulate import Attempt, attempt, formulate
from optimizer.milp.highs import OUTSIDE, Point, PointStatus
from optimizer.milp.model import Formulation, RowKey
from optimizer.milp.scale.solve import solve_at_scale, unsuited
from optimizer.milp.scale.workers import Workers
from optimizer.milp.survive import Losses, Survived
from optimizer.milp.survive_root import root_cuts
from optimizer.milp.whole.solve import solve_whole
from optimizer.outcome import Outcome, Relaxation, SolveStatus
from optimizer.plan import CandidateArc, Plan
from optimizer.problem import Problem
from optimizer.reach import Reach
from optimizer.verify import check_plan
from optimizer.verify_limits import is_above
from sites.clock import Clock
from sites.errors import Violation
from sites.units import MS_PER_S

METHOD = "milp"

_MOST_ROUNDS = 12
"""Rounds of cuts for lost sites; tiny problems need two to four."""

_ROUNDS_SPENT = "survival_rounds"

LARGE_ARCS = 60_000
"""From so many arcs Pyomo's build and a search with every arc in it take too long."""

PARTED_ARCS = 20_000
"""From so many arcs parts of a search find better plans than one search. Measured on generated
fleets with a limit of 60 s: gaps of 2.6 % after 14 s (27 000 arcs) and 4.8 % after 50 s (64 000)
where one search came to 29 and 25 % after 76 and 129 s; with 14 000 arcs 2.4 and 1.2 %.
"""

HASTY_ARCS = 5_000
HASTY_ARCS_PER_S = 1_000
"""From so many arcs, and so many for each second of the time limit, parts of a search do better as
well: 14 000 arcs planned anew in 3 s after more demand, with one search: a gap of 17 % after 6 s.
"""

PRICED_ARCS = 500
"""From so many arcs problems whose every site has a fixed price take the tree over arrays: 3 to 8
times as quick as the plain search there, slower on whole replicas alone."""


def solve(
    problem: Problem,
    *,
    clock: Clock | None = None,
    start: Plan | None = None,
    workers: Workers | None = None,
) -> Outcome:
    """The cheapest checked plan of a problem within its policy's gap and node budget.

    `start` (a greedy or earlier plan) is a first guess. `clock` fills `build_s` and `solve_s`.
    Large problems go to a search that prices arcs, component by component (on `workers`) where
    that suits them; its outcome lists no arcs. Which sites to open is found by the same tree where
    that is the question. Infeasible ordinary problems come back with what to relax. Raises
    FatalError if the solver errs.
    """
    watch = _Watch(clock)
    large = _solve_large(problem, clock=clock, start=start, workers=workers)
    if large is not None:
        return replace(large, solve_s=watch.lap_s())
    candidates = find_arcs(problem)
    slack = mending_slack(problem, candidates.arcs)
    if is_of_sites(problem, candidates.arcs) and not slack:
        build_s = watch.lap_s()
        outcome = solve_whole(problem, clock=clock, start=start)
        if outcome.plan is not None or outcome.status is SolveStatus.NO_PLAN:
            known = replace(outcome, arcs=candidates.arcs, pruned=candidates.pruned)
            return replace(known, build_s=build_s, solve_s=watch.lap_s())
    formulation = formulate(problem, candidates.arcs, slack=slack)
    build_s = watch.lap_s()
    groups = [facts.option.group for facts in formulation.inputs.groups.values()]
    search = _Search(
        problem=problem,
        arcs=candidates.arcs,
        slack=slack,
        first=formulation,
        losses=Losses(Reach(problem), groups),
        start=start,
    )
    outcome = _judge(problem, candidates, search.run(presolve=True))
    if outcome.status is SolveStatus.FAULT:  # presolve has known faults; the plain search is slower
        outcome = _judge(problem, candidates, search.run(presolve=False))
    return replace(outcome, build_s=build_s, solve_s=watch.lap_s())


def _solve_large(
    problem: Problem, *, clock: Clock | None, start: Plan | None, workers: Workers | None
) -> Outcome | None:
    """The outcome of a large problem; None where the problem is an ordinary one."""
    arcs = arcs_at_most(problem)
    if unsuited(problem):
        return solve_whole(problem, clock=clock, start=start) if arcs > LARGE_ARCS else None
    is_hasty = arcs > max(HASTY_ARCS, HASTY_ARCS_PER_S * problem.plan_policy.time_limit_s)
    if arcs <= PARTED_ARCS and not is_hasty:
        return None
    watch = _Watch(clock)
    found = solve_at_scale(problem, clock=clock, start=start, workers=workers)
    has_time = watch.lap_s() < problem.plan_policy.time_limit_s
    # where it finds no plan the ordinary search may, or can say what to relax
    return None if found.plan is None and arcs <= LARGE_ARCS and has_time else found


def is_of_sites(problem: Problem, arcs: tuple[CandidateArc, ...]) -> bool:
    """Whether what is to be decided is above all which sites open: every site an arc leads to has a
    fixed price, and no loss of a site is looked at.
    """
    priced = {s.site_id for s in problem.fleet.sites if s.fixed_price_usd_per_h > 0}
    protected = any(one.protected for one in problem.classes)
    return (
        len(arcs) >= PRICED_ARCS
        and not protected
        and all(arc.group.site_id in priced for arc in arcs)
    )


def arcs_at_most(problem: Problem) -> int:
    """How many candidate arcs a problem has if neither law nor SLO nor quality rules one out."""
    options = Counter(option.variant.variant_id for option in group_options(problem).values())
    of_service = {
        service.service_id: sum(options[v] for v in service.variant_ids)
        for service in problem.services
    }
    return sum(of_service[one.service_id] for one in problem.classes)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """What a search came to: its last point, its best plan if any, and the best bound."""

    point: Point
    plan: Plan | None
    bound: float
    nodes: int
    hit_limit: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Search:
    """Solve, ask every loss, cut, solve again, until no loss costs more than the point says.

    Without protected classes that is one solve. A cut never rules a plan out, it makes the
    formulation see what a loss would cost; so each round's bound holds and any round's plan will
    do.
    """

    problem: Problem
    arcs: tuple[CandidateArc, ...]
    slack: Mapping[RowKey, float]
    first: Formulation
    losses: Losses
    start: Plan | None

    def run(self, *, presolve: bool) -> _Found:
        """The best plan of all rounds, with the best bound and the nodes of all."""
        cuts = root_cuts(self.first, self.losses)
        best, guess = None, self.start
        bound, nodes, limit = -inf, 0, ""
        for _ in range(_MOST_ROUNDS):
            made = attempt(self._formulation(cuts), presolve=presolve, start=_replicas(guess))
            point = made.point
            bound, nodes = max(bound, point.bound), nodes + point.nodes
            limit = limit if limit in OUTSIDE else point.hit_limit
            if point.status not in (PointStatus.PROVEN, PointStatus.STOPPED):
                break
            survived = self._survived(made)
            guess = survived.plan
            if best is None or _cost(guess) < _cost(best):
                best = guess
            new = _violated(survived.cuts, point)
            proven = point.status is PointStatus.PROVEN
            if (proven and not new) or self._is_close(best, bound):
                limit = limit if limit in OUTSIDE else ""
                break
            if not new or (not proven and point.hit_limit in OUTSIDE):
                break
            cuts += new
        else:
            limit = limit or _ROUNDS_SPENT
        plan = _bounded(best, bound, hit_limit=limit) if best else None
        return _Found(point=point, plan=plan, bound=bound, nodes=nodes, hit_limit=limit)

    def _formulation(self, cuts: tuple[SurvivalCut, ...]) -> Formulation:
        if not cuts:
            return self.first
        formulation = formulate(self.problem, self.arcs, slack=self.slack)
        survive_one(formulation, cuts)
        return formulation

    def _survived(self, made: Attempt) -> Survived:
        return self.losses.survive(extract_plan(made.inputs, made.point, method=METHOD))

    def _is_close(self, plan: Plan, bound: float) -> bool:
        """Whether the plan, what its losses cost included, is within the gap asked for."""
        limit = self.problem.plan_policy.gap_limit
        return bool(plan.exposed) and relative_gap(_cost(plan), bound) <= limit


def _violated(cuts: tuple[SurvivalCut, ...], point: Point) -> tuple[SurvivalCut, ...]:
    """Cuts that ask for more than the point allows for that loss."""
    n, shed = point.values.get("n", {}), point.values.get("shed", {})
    risk = point.values.get("risk", {})
    return tuple(
        cut
        for cut in cuts
        if is_above(
            cut.risk_usd_per_h(n=n, shed=shed),
            sum(risk.get((cut.lost_site_id, part), 0.0) for part in cut.parts),
        )
    )


def _bounded(plan: Plan, bound: float, *, hit_limit: str = "") -> Plan:
    lowered = min(bound, _cost(plan))
    gap = relative_gap(_cost(plan), lowered)
    return replace(plan, bound_usd_per_h=lowered, gap=gap, hit_limit=hit_limit)


def _cost(plan: Plan) -> float:
    return plan.cost.total_usd_per_h


def _judge(problem: Problem, candidates: Candidates, found: _Found) -> Outcome:
    point, plan = found.point, found.plan
    outcome = Outcome(
        status=SolveStatus.NO_PLAN,
        plan=None,
        arcs=candidates.arcs,
        pruned=candidates.pruned,
        bound_usd_per_h=found.bound,
        nodes=found.nodes,
    )
    if point.status is PointStatus.INFEASIBLE:
        ways = relaxations(problem, candidates.arcs)
        return replace(
            outcome,
            status=SolveStatus.INFEASIBLE,
            message=_infeasible_message(ways),
            relaxations=tuple(relaxation for way in ways for relaxation in way),
        )
    if plan is None:
        message = f"no plan found before {point.hit_limit} was spent; raise it or start from a plan"
        return replace(outcome, message=message)
    violations = check_plan(problem, plan)
    if violations:
        return replace(outcome, status=SolveStatus.FAULT, message=_fault_message(violations))
    return replace(
        outcome,
        status=SolveStatus.LIMIT if found.hit_limit else SolveStatus.OPTIMAL,
        plan=plan,
        bound_usd_per_h=plan.bound_usd_per_h,
        message=f"stopped by {found.hit_limit}; gap {plan.gap:.2%}" if found.hit_limit else "",
    )


def _replicas(plan: Plan | None) -> Mapping[str, int] | None:
    if plan is None:
        return None
    return {one.group.group_id: one.replicas for one in plan.groups}


def _infeasible_message(ways: tuple[tuple[Relaxation, ...], ...]) -> str:
    if not ways:
        return "infeasible, whatever limit of the plan policy or the sites gives way"
    told = [" and ".join(_relaxation_text(r) for r in way) for way in ways]
    return "infeasible; any one of these is enough: " + "; or ".join(told)


def _relaxation_text(one: Relaxation) -> str:
    price = f" (${one.price_usd_per_h:.2f}/h)" if one.price_usd_per_h else ""
    figures = f"from {one.limit:g} to {one.needed:g} {one.unit}"
    return f'{one.code} of "{one.subject}" {figures}{price}: {one.remedy}'


def _fault_message(violations: tuple[Violation, ...]) -> str:
    head = f"the checker refused the solver's plan ({len(violations)} violations): "
    return head + "; ".join(v.message() for v in violations[:5])


class _Watch:
    """Seconds between laps; always 0 without a clock."""

    def __init__(self, clock: Clock | None) -> None:
        self._clock = clock
        self._last_ms = clock.monotonic_ms() if clock else 0

    def lap_s(self) -> float:
        if self._clock is None:
            return 0.0
        now_ms = self._clock.monotonic_ms()
        lap_ms, self._last_ms = now_ms - self._last_ms, now_ms
        return lap_ms / MS_PER_S
