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
from optimizer.milp.formulate import Attempt, attempt, budget_of, formulate
from optimizer.milp.highs import INTERRUPT, OUTSIDE, Budget, Point, PointStatus
from optimizer.milp.model import Formulation, RowKey
from optimizer.milp.scale.solve import solve_at_scale, unsuited
from optimizer.milp.scale.workers import Workers
from optimizer.milp.support import WORTHWHILE_INTEGERS
from optimizer.milp.survive import Losses
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

_STEP = 8
"""How many times the nodes of one round the next one gets, the first one being the root alone."""
_NODES_NEARBY = 20
_LEAST_S = 0.1
_MOST_NEARBY = 4
_WITH_POINT = (PointStatus.PROVEN, PointStatus.STOPPED)

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
        watch=watch,
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


@dataclass(kw_only=True, slots=True)
class _Found:
    """What a search came to so far: its last search of the whole, its best plan if any, the best
    bound; the cuts it knows, its next first guess and the ids of the groups its plans used.
    """

    point: Point
    plan: Plan | None = None
    bound: float = -inf
    nodes: int = 0
    hit_limit: str = ""
    cuts: tuple[SurvivalCut, ...] = ()
    guess: Plan | None = None
    seen: frozenset[str] = frozenset()

    def heard(self, hit_limit: str) -> None:
        """Note what stopped a search; what cut any part of it outside stays noted."""
        self.hit_limit = self.hit_limit if self.hit_limit in OUTSIDE else hit_limit


@dataclass(frozen=True, kw_only=True, slots=True)
class _Search:
    """Solve, ask every loss, cut, solve again, until no loss costs more than the point says.

    Without protected classes that is one solve. A cut never rules a plan out, it makes the
    formulation see what a loss would cost; so each round's bound holds and any round's plan will
    do. In a large problem a round begins with few nodes and goes on among the groups of the plans
    seen so far, where one that survives is soon found.
    """

    problem: Problem
    arcs: tuple[CandidateArc, ...]
    slack: Mapping[RowKey, float]
    first: Formulation
    losses: Losses
    start: Plan | None
    watch: _Watch

    def run(self, *, presolve: bool) -> _Found:
        """The best plan of all rounds, with the best bound and the nodes of all. An interrupt ends
        the search; raises KeyboardInterrupt where there is no plan yet.
        """
        found = _Found(point=Point(status=PointStatus.NONE), guess=self.start)
        found.seen = _placed(self.start)
        try:
            self._go_on(found, budget_of(self.problem, presolve=presolve))
        except KeyboardInterrupt:
            if found.plan is None:
                raise
            found.hit_limit = INTERRUPT
        if found.plan is not None:
            found.plan = _bounded(found.plan, found.bound, hit_limit=found.hit_limit)
        return found

    def _go_on(self, found: _Found, budget: Budget) -> None:
        found.cuts = root_cuts(self.first, self.losses)
        in_steps = self.losses.asked and len(self.first.inputs.groups) >= WORTHWHILE_INTEGERS
        for turn in range(_MOST_ROUNDS):
            nodes = min(budget.nodes, _STEP**turn) if in_steps else budget.nodes
            made = self._attempt(found, replace(budget, nodes=nodes))
            point = found.point = made.point
            found.bound = max(found.bound, point.bound)
            found.heard(point.hit_limit)
            if point.status not in _WITH_POINT:
                if point.hit_limit in OUTSIDE or nodes == budget.nodes:
                    return
                continue
            new = self._take(found, made)
            if (point.status is PointStatus.PROVEN and not new) or self._is_close(found):
                found.heard("")
                return
            if point.hit_limit in OUTSIDE or (not new and nodes == budget.nodes):
                return
            if in_steps and self._nearby(found, budget):
                found.heard("")
                return
        found.hit_limit = found.hit_limit or _ROUNDS_SPENT

    def _nearby(self, found: _Found, budget: Budget) -> bool:
        """Look among the groups seen so far; whether a plan there is close enough."""
        fine = replace(budget, gap=budget.gap / 2, nodes=min(budget.nodes, _NODES_NEARBY))
        for _ in range(_MOST_NEARBY):
            made = self._attempt(found, fine, near=found.seen)
            if made.point.hit_limit in OUTSIDE:
                found.heard(made.point.hit_limit)
            if made.point.status not in _WITH_POINT:
                break
            new = self._take(found, made)
            if self._is_close(found):
                return True
            if not new or made.point.hit_limit in OUTSIDE:
                break
        found.guess = found.plan
        return False

    def _attempt(
        self, found: _Found, budget: Budget, *, near: frozenset[str] | None = None
    ) -> Attempt:
        left_s = max(_LEAST_S, budget.time_s - self.watch.since_s())
        formulation = self.first
        if found.cuts:
            formulation = formulate(self.problem, self.arcs, slack=self.slack)
            survive_one(formulation, found.cuts)
        budget = replace(budget, time_s=left_s)
        made = attempt(formulation, budget=budget, start=_replicas(found.guess), near=near)
        found.nodes += made.point.nodes
        return made

    def _take(self, found: _Found, made: Attempt) -> tuple[SurvivalCut, ...]:
        """Take in the plan of a point; the cuts that its losses add."""
        survived = self.losses.survive(extract_plan(made.inputs, made.point, method=METHOD))
        new = _violated(survived.cuts, made.point)
        found.cuts += new
        found.guess, found.seen = survived.plan, found.seen | _placed(survived.plan)
        if found.plan is None or _cost(survived.plan) < _cost(found.plan):
            found.plan = survived.plan
        return new

    def _is_close(self, found: _Found) -> bool:
        """Whether the best plan, what its losses cost included, is within the gap asked for."""
        limit = self.problem.plan_policy.gap_limit
        return found.plan is not None and relative_gap(_cost(found.plan), found.bound) <= limit


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


def _placed(plan: Plan | None) -> frozenset[str]:
    return frozenset(one.group.group_id for one in plan.groups) if plan else frozenset()


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
    """Seconds between laps and since it was made; always 0 without a clock."""

    def __init__(self, clock: Clock | None) -> None:
        self._clock = clock
        self._first_ms = self._last_ms = clock.monotonic_ms() if clock else 0

    def since_s(self) -> float:
        """Seconds since the watch was made."""
        return (self._clock.monotonic_ms() - self._first_ms) / MS_PER_S if self._clock else 0.0

    def lap_s(self) -> float:
        if self._clock is None:
            return 0.0
        now_ms = self._clock.monotonic_ms()
        lap_ms, self._last_ms = now_ms - self._last_ms, now_ms
        return lap_ms / MS_PER_S
