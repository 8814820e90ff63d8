"""From a problem to an outcome: arcs, formulation, point, plan, and the checker's word on it.

Decides which search a problem takes and what the outcome is called. A plan the independent checker
refuses never leaves here as a plan. Time is measured only where a clock is handed in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from optimizer.arcs import Candidates, find_arcs
from optimizer.milp.elastic import infeasible_message, mending_slack, relaxations
from optimizer.milp.formulate import formulate
from optimizer.milp.highs import PointStatus
from optimizer.milp.model import RowKey
from optimizer.milp.rounds import Found, Rounds
from optimizer.milp.scale.solve import PASSES_SPENT, solve_at_scale
from optimizer.milp.scale.workers import Workers
from optimizer.milp.stopping import INTERRUPT
from optimizer.milp.survive import Losses
from optimizer.milp.whole.solve import solve_whole
from optimizer.outcome import Outcome, Progress, SharedPrices, SolveStatus, Untold
from optimizer.plan import CandidateArc, Plan
from optimizer.problem import Problem
from optimizer.reach import Reach
from optimizer.verify import check_plan
from sites.clock import Clock
from sites.errors import Violation
from sites.units import MS_PER_S

LARGE_ARCS = 60_000
"""From so many arcs Pyomo's build and a search with every arc in it take too long."""

PARTED_ARCS = 20_000
"""From so many arcs parts of a search find better plans than one search. Measured on generated
fleets with a limit of 60 s: gaps of 2.6 % after 14 s (27 000 arcs) and 4.8 % after 50 s (64 000)
where one search came to 29 and 25 % after 76 and 129 s; with 14 000 arcs 2.4 and 1.2 %.
"""

HASTY_ARCS = 5_000
HASTY_ARCS_PER_S = 500
"""From so many arcs, and so many for each second of the time limit, parts of a search do better as
well: 14 000 arcs planned anew in 3 s after more demand, with one search: a gap of 17 % after 6 s;
the European example fleet in 8 s: a gap of 22 %, with one search 86 %.
"""

SCOUTED_ARCS = 3_000
SCOUTED_PART = 0.5
"""From so many arcs an ordinary search without a first guess begins at the plan and the bound of a
large one that had at most such a part of the time limit. With losses to outlive, to the gap asked
for: 20 sites (14 000 arcs at most) in 9 s, not 19; the European example fleet in 11 s, not 16. From
an earlier plan it takes 2 to 3 s by itself after a change of prices.
"""

PRICED_ARCS = 500
"""From so many arcs problems most of whose sites have a fixed price take the tree over arrays: 3 to
8 times as quick as the plain search there, slower on whole replicas alone."""


def solve(
    problem: Problem,
    *,
    clock: Clock | None = None,
    start: Plan | None = None,
    workers: Workers | None = None,
    progress: Progress | None = None,
    known: SharedPrices | None = None,
) -> Outcome:
    """The cheapest checked plan of a problem within its policy's gap and node budget.

    `start` (a greedy or earlier plan) is a first guess, `known` prices (an earlier outcome's) where
    a large search begins. `clock` fills `build_s` and `solve_s`;
    `progress` hears how it goes, except while the tree over arrays searches.

    Large problems go to a search that prices arcs, component by component (on `workers`) where
    that suits them; its outcome lists no arcs. Which sites to open is found by the same tree where
    that is the question. Infeasible ordinary problems come back with what to relax. Raises
    FatalError if the solver errs.
    """
    watch, told = _Watch(clock), progress or Untold()
    large = _solve_large(
        problem, clock=clock, start=start, workers=workers, progress=told, known=known
    )
    if large is not None and not _may_go_on(problem, large, since_s=watch.since_s()):
        return replace(large, solve_s=watch.lap_s())
    candidates = find_arcs(problem)
    slack = mending_slack(problem, candidates.arcs)
    if is_of_sites(problem, candidates.arcs) and not slack:
        build_s = watch.lap_s()
        outcome = solve_whole(problem, clock=clock, start=start)
        if outcome.plan is not None or outcome.status is SolveStatus.NO_PLAN:
            whole = replace(outcome, arcs=candidates.arcs, pruned=candidates.pruned)
            return replace(whole, build_s=build_s, solve_s=watch.lap_s())
    held, scout_s = None if large is None else large.plan, 0.0
    is_long = start is None and len(candidates.arcs) >= SCOUTED_ARCS
    if held is None and is_long and not slack:
        first = solve_at_scale(
            problem, clock=clock, workers=workers, progress=told, part=SCOUTED_PART
        )
        held, scout_s = first.plan, watch.lap_s()
        if held is not None and (first.status is SolveStatus.OPTIMAL or _is_interrupted(held)):
            found = replace(first, arcs=candidates.arcs, pruned=candidates.pruned)
            return replace(found, solve_s=scout_s)
    outcome = _by_rounds(
        problem, candidates, slack, watch=watch, start=start, held=held, told=told, scout_s=scout_s
    )
    return outcome if large is None else replace(outcome, prices=large.prices)


def _by_rounds(
    problem: Problem,
    candidates: Candidates,
    slack: Mapping[RowKey, float],
    *,
    watch: _Watch,
    start: Plan | None,
    held: Plan | None,
    told: Progress,
    scout_s: float,
) -> Outcome:
    """The ordinary search's outcome; `held` as in `Rounds`."""
    formulation = formulate(problem, candidates.arcs, slack=slack)
    build_s = watch.lap_s()
    groups = [facts.option.group for facts in formulation.inputs.groups.values()]
    search = Rounds(
        problem=problem,
        arcs=candidates.arcs,
        slack=slack,
        first=formulation,
        losses=Losses(Reach(problem), groups),
        start=start,
        held=held,
        since_s=watch.since_s,
        progress=told,
    )
    outcome = _judge(problem, candidates, search.run(presolve=True))
    if outcome.status is SolveStatus.FAULT:  # presolve has known faults; the plain search is slower
        outcome = _judge(problem, candidates, search.run(presolve=False))
    return replace(outcome, build_s=build_s, solve_s=scout_s + watch.lap_s())


def _solve_large(
    problem: Problem,
    *,
    clock: Clock | None,
    start: Plan | None,
    workers: Workers | None,
    progress: Progress,
    known: SharedPrices | None,
) -> Outcome | None:
    """The outcome of a large problem; None where the problem is an ordinary one."""
    arcs = arcs_at_most(problem)
    if _opens_sites(problem):
        return solve_whole(problem, clock=clock, start=start) if arcs > LARGE_ARCS else None
    is_hasty = arcs > max(HASTY_ARCS, HASTY_ARCS_PER_S * problem.plan_policy.time_limit_s)
    if arcs <= PARTED_ARCS and not is_hasty:
        return None
    watch = _Watch(clock)
    found = solve_at_scale(
        problem, clock=clock, start=start, workers=workers, progress=progress, known=known
    )
    has_time = watch.lap_s() < problem.plan_policy.time_limit_s
    # where it finds no plan the ordinary search may, or can say what to relax
    is_open = found.plan is None and found.status is not SolveStatus.INFEASIBLE
    return None if is_open and arcs <= LARGE_ARCS and has_time else found


def _is_interrupted(plan: Plan) -> bool:
    return plan.hit_limit == INTERRUPT


def _may_go_on(problem: Problem, large: Outcome, *, since_s: float) -> bool:
    """Whether a large search ended by itself before its gap, where an ordinary one may go on."""
    plan, limit_s = large.plan, problem.plan_policy.time_limit_s
    by_itself = plan is not None and plan.hit_limit == PASSES_SPENT
    has_time = since_s <= SCOUTED_PART * limit_s
    return by_itself and arcs_at_most(problem) <= PARTED_ARCS and has_time


def is_of_sites(problem: Problem, arcs: tuple[CandidateArc, ...]) -> bool:
    """Whether what is to be decided is above all which sites open: most sites an arc leads to have
    a fixed price, and no loss of a site is looked at.
    """
    return len(arcs) >= PRICED_ARCS and _opens(problem, {arc.group.site_id for arc in arcs})


def _opens_sites(problem: Problem) -> bool:
    """`is_of_sites` before arcs are known: of the sites that have hardware."""
    return _opens(problem, {s.site_id for s in problem.fleet.sites if s.pools})


def _opens(problem: Problem, site_ids: set[str]) -> bool:
    priced = {s.site_id for s in problem.fleet.sites if s.fixed_price_usd_per_h > 0}
    protected = any(one.protected for one in problem.classes)
    return not protected and 2 * len(priced & site_ids) > len(site_ids)


def arcs_at_most(problem: Problem) -> int:
    """How many candidate arcs a problem has if neither law nor SLO nor quality rules one out, for
    the classes that ask for anything: the large searches have no use for a problem without demand.
    """
    rates, lost = Reach(problem).rates, problem.lost_sites
    pools = Counter(
        pool.accelerator
        for site in problem.fleet.sites
        if site.site_id not in lost
        for pool in site.pools
    )
    options: Counter[str] = Counter()
    for point in problem.catalog.serving_points:
        options[point.variant_id] += pools[point.accelerator]
    of_service = {
        service.service_id: sum(options[v] for v in service.variant_ids)
        for service in problem.services
    }
    return sum(of_service[c.service_id] for c in problem.classes if rates[c.class_id] > 0)


def _judge(problem: Problem, candidates: Candidates, found: Found) -> Outcome:
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
            message=infeasible_message(ways),
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
