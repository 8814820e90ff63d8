"""The large search from a problem to a checked outcome: prices, bound, plan, the checker's word.

Decides in what order things are made and when to stop: at the gap asked for, when passes save
nothing more, or at the time limit (an outer abort; the plan then says so).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from optimizer.costs import relative_gap, trivial_bound_usd_per_h
from optimizer.milp.elastic import may_need_mending
from optimizer.milp.scale.ascent import Cleared, clear, opening_prices, sampled_arcs
from optimizer.milp.scale.at_prices import FEW_GROUPS, AtPrices, apart_of, at_prices
from optimizer.milp.scale.batch import Search
from optimizer.milp.scale.bound import bound_by_components
from optimizer.milp.scale.building import build
from optimizer.milp.scale.cap_search import keep_caps, keep_shed_cap, shed_dearly
from optimizer.milp.scale.carried import carried, cleared_at
from optimizer.milp.scale.cluster import Effort
from optimizer.milp.scale.confined import refused
from optimizer.milp.scale.contention import add_cuts
from optimizer.milp.scale.frame import Frame, take_frame, with_floors
from optimizer.milp.scale.ledger import Ledger
from optimizer.milp.scale.mending import moved_limits
from optimizer.milp.scale.mixes import trim_mixes
from optimizer.milp.scale.opening import split
from optimizer.milp.scale.plan_search import (
    begin,
    mend,
    open_doors,
    pain_usd_per_h,
    relieve,
    renew,
    renew_at_once,
    renew_components,
)
from optimizer.milp.scale.to_plan import plan_of
from optimizer.milp.scale.trim import trim
from optimizer.milp.scale.warm_start import take_up
from optimizer.milp.scale.workers import SerialWorkers, Workers
from optimizer.milp.stopping import (
    INTERRUPT,
    TIME_LIMIT,
    Deadline,
    Interrupts,
    noted_interrupts,
)
from optimizer.milp.survive_local import certify
from optimizer.outcome import Outcome, Progress, SharedPrices, SolveStatus, Untold
from optimizer.plan import Plan
from optimizer.problem import Problem
from optimizer.reach import Reach
from optimizer.survive_plan import certified
from optimizer.tabulate import tabulate
from optimizer.verify import judge
from sites.clock import Clock
from sites.units import MS_PER_S

METHOD_LP = "scale: relaxation with whole-replica rows, priced over all arcs"
METHOD_KNOWN = "scale: whole-replica rows at the prices of the search before"
METHOD_MIP = "scale: components in whole replicas at shared prices"
_STEPS = 200
_ROUNDING = 1e-3
"""What whole basis points of shed and exposed traffic may take off a plan's cost, relative."""
_PASSES = 8
PASSES_SPENT = "passes"
_SITES = 6
_ROUGH_SITES = 4
_NODES, _NODES_AT_ONCE = 20, 300
_BUILD_PART = 0.9
"""Of the time then left to search in, after which the first plan is completed greedily: at 600
sites its last tenth is worth more than what a pass saves in a quarter of the time.
"""
_FINISH_TIMES, _FINISH_TIMES_KNOWN = 4.0, 6.0
_FINISH_MOST = 0.5
"""For rounding, the certificate and the check: so many times what tables and first sample took,
which sweep the same pairs, but at most such a part of a time limit. Measured at 200 and 600 sites:
3.6 and 3.2 times; 4.8 and 4.4 times where prices were known and all arcs are swept at those, which
takes half as long as a sample. What a first plan cut short still fills and rescues comes on top.
"""
_UNKEPT = frozenset({"shed_cap", "replica_floor", "move_limit", "carbon_cap", "tenant_budget"})
"""Limits that a plan of this search may miss for want of room or time: then there is none."""
_ACUTE, _ACHES, _HASTE = 0.1, 2e-4, 0.005
"""Where what is shed or exposed makes up the first part of a plan's cost, it is mended before the
first pass (to a gap of the third) wherever a class costs more than the second. At 200 sites after
the loss of one (limit 10 s) components found nothing of $34 400/h shed, this 9 400. Done at 1 % it
took 10 s of a first plan's 30, for $16/h.
"""
_TIRED = 0.25
"""A pass that saves less, in parts of the gap asked for, is followed by a finer one."""


def solve_at_scale(
    problem: Problem,
    *,
    clock: Clock | None = None,
    start: Plan | None = None,
    workers: Workers | None = None,
    progress: Progress | None = None,
    known: SharedPrices | None = None,
    part: float = 1.0,
) -> Outcome:
    """A checked plan with a proven gap. `start` (an earlier plan) stands at first; `known` prices
    are where the search for prices begins; it has such a `part` of the time limit.

    Without a clock there is no time limit. Never raises for lack of time:
    what is not placed when time runs out is placed greedily, without a search. So it is after a
    first Ctrl-C; raises KeyboardInterrupt after a second, or where there is no plan then.
    """
    told = progress or Untold()
    with noted_interrupts(told.stopping) as interrupts:
        found = _solved(
            problem,
            spent=_part_of_the_limit(problem, clock, interrupts, part=part),
            limit_s=part * problem.plan_policy.time_limit_s if clock else np.inf,
            start=start,
            known=known,
            hands=workers or SerialWorkers(),
            told=told,
            hit=lambda: INTERRUPT if interrupts.noted else TIME_LIMIT,
        )
    if interrupts.noted and found.plan is None:
        raise KeyboardInterrupt
    return found


def _solved(
    problem: Problem,
    *,
    spent: Callable[[], float],
    limit_s: float,
    start: Plan | None,
    known: SharedPrices | None,
    hands: Workers,
    told: Progress,
    hit: Callable[[], str],
) -> Outcome:
    """`hit` names what ended the search where `spent` did."""
    gap_limit = problem.plan_policy.gap_limit
    eased, mended = moved_limits(problem)
    frame, cleared, searched = _market(take_frame(tabulate(eased)), known, hands, spent=spent)
    is_over = Deadline(spent=spent, part=searched, limit_s=limit_s)
    made = at_prices(
        frame, cleared, hands, known=known, gap_limit=gap_limit, spent=spent, is_over=is_over
    )
    was_cut, bound = made.was_cut, made.bound_usd_per_h
    told.stands(cost_usd_per_h=np.inf, bound_usd_per_h=bound)
    search = _begun(made, start, mended, hands, is_over=is_over)
    frame, ledger = search.frame, search.ledger
    built = spent() + _BUILD_PART * (searched - spent())
    effort = Effort(sites=_SITES, gap=gap_limit / 4, nodes=1)
    ledger.caps_hold = not frame.caps.are_priced
    is_late = Deadline(spent=spent, part=built, limit_s=limit_s)
    was_cut |= build(search, effort=effort, is_late=is_late)
    nowhere = refused(problem, search, bound_usd_per_h=bound)
    if nowhere is not None:
        return nowhere
    keep_shed_cap(search)
    if frame.caps.are_priced:
        search = keep_caps(search, Effort(sites=_ROUGH_SITES, gap=gap_limit / 2, nodes=1))

    def in_whole() -> float:
        parts = made.apart or apart_of(made, hands, is_over=is_over)
        each = gap_limit / 10 * abs(bound) / len(frame.components)
        found = bound_by_components(made.frame, parts, hands, gap_usd_per_h=each, is_over=is_over)
        return made.frame.proven_usd_per_h(found)

    proven = [(bound, METHOD_KNOWN if made.by_known else METHOD_LP)]
    is_ready = made.apart is not None
    more = _search(
        search, bound, gap_limit=gap_limit, in_whole=in_whole, is_ready=is_ready, told=told
    )
    if more is not None:
        proven.append((more, METHOD_MIP))
    keep_shed_cap(search)
    trim(ledger)
    trim_mixes(ledger)
    # a solver that proves more than a plan costs has erred: such a bound counts for nothing
    most = _least_usd_per_h(ledger) * (1 + _ROUNDING)
    bound, method = max([one for one in proven if one[0] <= most] or proven[:1])
    was_cut |= is_over()
    stopped_by = hit() if was_cut else ""
    judged = _judged(problem, ledger, hands, bound=bound, method=method, stopped_by=stopped_by)
    known_next = carried(frame, made.plain, worth=made.worth, rows=made.rows)
    return replace(judged, prices=known_next)


def _begun(
    made: AtPrices,
    start: Plan | None,
    mended: Mapping[str, int] | None,
    hands: Workers,
    *,
    is_over: Callable[[], bool],
) -> Search:
    """A search at prices, with what has to stand and what stands of an earlier plan."""
    point = made.point
    frame = shed_dearly(with_floors(made.frame.as_paid(), point.prices), point.prices)
    search = begin(
        frame,
        point.prices,
        point.arcs,
        worth=made.worth,
        least_usd_per_h=point.asked_usd_per_h(frame),
        workers=hands,
        is_over=is_over,
    )
    if start is not None or np.isfinite(frame.caps.moves) or frame.least.any():
        take_up(search, start, mended)
    return search


def _market(
    frame: Frame, known: SharedPrices | None, hands: Workers, *, spent: Callable[[], float]
) -> tuple[Frame, Cleared, float]:
    """The frame with fixed prices of sites split, a cleared market, and the part of the time limit
    after which the search ends.
    """
    has_fixed = bool(frame.opening.usd_per_h.any())
    if known is not None and not has_fixed:
        return frame, cleared_at(frame, known, hands), _searched(spent(), times=_FINISH_TIMES_KNOWN)
    opening = opening_prices(frame)
    sample = sampled_arcs(frame, opening, hands)
    searched = _searched(spent(), times=_FINISH_TIMES)
    cleared, asked_kw = clear(frame, sample, prices=opening, steps=_STEPS)
    return split(frame, asked_kw) if has_fixed else frame, cleared, searched


def _searched(spent: float, *, times: float) -> float:
    return 1.0 - min(_FINISH_MOST, times * spent)


def _least_usd_per_h(ledger: Ledger) -> float:
    """What a ledger costs at least: with what its caps are worth at their prices taken off."""
    return ledger.cost_usd_per_h() - ledger.frame.given_back_usd_per_h


def _search(
    search: Search,
    bound: float,
    *,
    gap_limit: float,
    in_whole: Callable[[], float],
    is_ready: bool,
    told: Progress,
) -> float | None:
    """Passes until the plan is within the gap of the bound or nothing saves any more; the cheapest
    one seen, what classes lack together counted, is kept. The bound `in_whole` replicas is asked
    for, and returned, if the gap is not met: before the first pass if it `is_ready` (half a pass is
    worth something, half a bound is not).
    """
    ledger, components = search.ledger, range(len(search.frame.components))
    best, least, proven, relieved = ledger.whole(), np.inf, None, False

    def kept() -> float:
        """Saved since last time; after a first plan one that only looks cheaper may lack much."""
        nonlocal best, least
        if np.isfinite(least) or not search.is_over():
            add_cuts(ledger, search.workers, components)
        cost = _least_usd_per_h(ledger)
        saved = least - cost
        if saved > 0:
            best, least = ledger.whole(), cost
        told.stands(cost_usd_per_h=least, bound_usd_per_h=bound)
        return saved

    def prove() -> None:
        nonlocal bound, proven
        if proven is None and relative_gap(least, bound) > gap_limit and not search.is_over():
            proven = in_whole()
            bound = max(bound, proven)

    saved = kept()
    if _at_first(search, gap_limit=gap_limit, least_usd_per_h=least, bound_usd_per_h=bound):
        saved += max(0.0, kept())
    if is_ready:
        prove()
    for turn in range(_PASSES):
        if relative_gap(least, bound) <= gap_limit or search.is_over():
            break
        tired = saved <= _TIRED * gap_limit * abs(least)
        open_doors(search)
        effort = _effort(gap_limit, turn, is_fine=tired)
        now = replace(search, priced=not tired)  # till tired, what is shared costs its price
        renew_components(now, effort=effort, by_excess=turn > 0)
        saved = max(0.0, kept())
        prove()
        if tired and not relieved:
            relieved = True
            relieve(search, above_usd_per_h=_ACHES * abs(least))
        if tired:
            renew(search, turn=turn, effort=effort)
        open_doors(search)
        mend(search, effort=effort)
        saved += max(0.0, kept())
    ledger.put(best)
    return proven


def _at_first(
    search: Search, *, gap_limit: float, least_usd_per_h: float, bound_usd_per_h: float
) -> bool:
    """What comes before passes over everything: all classes at once where few groups are worth
    having, or else the sites around what costs most by being shed or exposed, where much is.
    Whether anything came.
    """
    if relative_gap(least_usd_per_h, bound_usd_per_h) <= gap_limit:
        return False
    if search.worth.sum() <= FEW_GROUPS:
        renew_at_once(search, effort=Effort(sites=0, gap=gap_limit / 4, nodes=_NODES_AT_ONCE))
        return True
    if pain_usd_per_h(search.ledger).sum() <= _ACUTE * abs(least_usd_per_h):
        return False
    aches = _ACHES * abs(least_usd_per_h)
    relieve(search, above_usd_per_h=aches, at_least=1)  # in 3 s, 0.1 of it saved $7 900/h there
    open_doors(search)
    mend(search, effort=Effort(sites=_SITES, gap=_HASTE, nodes=1), above_usd_per_h=aches)
    return True


def _effort(gap_limit: float, turn: int, *, is_fine: bool) -> Effort:
    """How hard a pass searches: at 200 sites a first one to 1 % took 11 s, to 0.5 % 14, and came as
    far in the end.
    """
    if is_fine:
        return Effort(sites=_SITES, gap=gap_limit / 4, nodes=_NODES * (turn + 1))
    return Effort(sites=_ROUGH_SITES, gap=gap_limit / (2 if turn else 1), nodes=1)


def _judged(
    problem: Problem,
    ledger: Ledger,
    hands: Workers,
    *,
    bound: float,
    method: str,
    stopped_by: str,
) -> Outcome:
    hit = stopped_by or PASSES_SPENT
    reach = Reach(problem)
    plan = plan_of(ledger, reach, bound_usd_per_h=bound, method=method)
    # the linear problem's certificate exposes less, but rounding may push it over a limit
    answered = certify(reach, plan, hands)
    violations = judge(reach, answered)
    if violations:
        answered = certified(reach, plan)
        violations = judge(reach, answered)
    plan = _named(answered, problem, stopped_by=stopped_by)
    if violations:
        named = "; ".join(v.message() for v in violations[:5])
        unkept = {v.code for v in violations} <= _UNKEPT
        told = f"no plan found that keeps every limit; the best found misses: {named}"
        if may_need_mending(problem):  # for what must be served limits may give way further
            bound = trivial_bound_usd_per_h(problem)
        refused = f"the checker refused the plan ({len(violations)} violations): {named}"
        return Outcome(
            status=SolveStatus.NO_PLAN if unkept else SolveStatus.FAULT,
            plan=None,
            arcs=(),
            pruned=(),
            bound_usd_per_h=bound,
            message=told if unkept else refused,
        )
    proven = plan.gap <= problem.plan_policy.gap_limit
    return Outcome(
        status=SolveStatus.OPTIMAL if proven else SolveStatus.LIMIT,
        plan=plan,
        arcs=(),
        pruned=(),
        bound_usd_per_h=plan.bound_usd_per_h,
        message="" if proven else f"stopped by {hit}; gap {plan.gap:.2%}",
    )


def _named(plan: Plan, problem: Problem, *, stopped_by: str) -> Plan:
    """The plan with what stopped its search: a time limit also where the gap is met, since another
    machine may come to another plan.
    """
    met = plan.gap <= problem.plan_policy.gap_limit
    return replace(plan, hit_limit=stopped_by or ("" if met else PASSES_SPENT))


def _part_of_the_limit(
    problem: Problem, clock: Clock | None, interrupts: Interrupts, *, part: float
) -> Callable[[], float]:
    """How much of a part of the time limit has passed since now: all of it after an interrupt."""
    started_ms = clock.monotonic_ms() if clock else 0
    limit_ms = part * problem.plan_policy.time_limit_s * MS_PER_S

    def spent() -> float:
        passed = (clock.monotonic_ms() - started_ms) / limit_ms if clock else 0.0
        return max(1.0, passed) if interrupts.noted else passed

    return spent
