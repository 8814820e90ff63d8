"""The search for one large component, from a problem to a checked outcome.

Decides in what order things are made: tables, all arcs, matrix, search, plan, and again with the
cuts that lost sites teach. Budgets are the policy's gap and nodes; its time limit is an outer abort
that keeps the best plan so far and its bound.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from optimizer.costs import relative_gap
from optimizer.milp.arrays import Matrix, compile_arrays
from optimizer.milp.constraints_survive import SurvivalCut
from optimizer.milp.highs import Point
from optimizer.milp.stopping import INTERRUPT, OUTSIDE, TIME_LIMIT
from optimizer.milp.survive import Losses, Survived
from optimizer.milp.survive_local import certify
from optimizer.milp.whole.fallback import fall_back
from optimizer.milp.whole.limit import Limit
from optimizer.milp.whole.search import search, take_root
from optimizer.milp.whole.to_plan import plan_of
from optimizer.outcome import Outcome, SolveStatus
from optimizer.plan import Plan
from optimizer.problem import Problem
from optimizer.reach import Reach
from optimizer.survive import is_asked
from optimizer.sweep import ArcTable, Sweep
from optimizer.tables import Floats, Tables
from optimizer.tabulate import tabulate
from optimizer.verify import check_plan
from optimizer.verify_limits import is_above
from sites.clock import Clock

METHOD = "tree over the columns that matter, the rest left at a bound"

_MOST_ROUNDS = 12
"""Rounds of cuts for lost sites, as for ordinary problems."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """What a search is about, and when its time is over."""

    problem: Problem
    tables: Tables
    arcs: ArcTable
    reach: Reach
    limit: Limit


@dataclass(frozen=True, kw_only=True, slots=True)
class _Round:
    """One search: its plan if any, its point, the bound, nodes, and what cut it short."""

    plan: Plan | None
    point: Point | None
    bound: float
    nodes: int
    hit_limit: str
    is_empty: bool = False


def solve_whole(
    problem: Problem, *, clock: Clock | None = None, start: Plan | None = None
) -> Outcome:
    """The cheapest checked plan within the policy's gap and nodes, over all arcs and rows.

    `start` is a first guess. Without a clock there is no time limit. Where time ends before there
    is a plan, `start` or a greedy plan is taken if it keeps every limit. An infeasible problem
    comes back without relaxations. Raises FatalError if the solver errs.
    """
    limit = Limit(problem, clock)
    tables = tabulate(problem)
    asked = _Asked(
        problem=problem,
        tables=tables,
        arcs=Sweep(tables).table(),
        reach=Reach(problem),
        limit=limit,
    )
    rounds = _Rounds(asked, start=start)
    try:
        rounds.run()
    except KeyboardInterrupt:
        if rounds.best is None:
            raise
        rounds.hit_limit = INTERRUPT
    bound, nodes, hit = rounds.bound, rounds.nodes, rounds.hit_limit
    if rounds.is_empty:
        return _no_plan(SolveStatus.INFEASIBLE, bound, nodes, "infeasible: no plan fits")
    if rounds.best is not None:
        return _judged(problem, rounds.best, bound=bound, nodes=nodes, hit_limit=hit)
    message = f"no plan found before {hit} was spent"
    if hit == TIME_LIMIT:
        plan = fall_back(asked.reach, tables, asked.arcs, start=start, limit=limit)
        outcome = _judged(problem, plan, bound=bound, nodes=nodes, hit_limit=hit)
        if outcome.plan is not None:
            return outcome
        message += f"; raise it or start from a plan. Of a greedy plan {outcome.message}"
    return _no_plan(SolveStatus.NO_PLAN, bound, nodes, message)


class _Rounds:
    """Search, ask every loss, cut, search again; what is known at any moment is its state."""

    def __init__(self, asked: _Asked, *, start: Plan | None) -> None:
        self._asked, self._start = asked, start
        self.best: Plan | None = None
        self.bound, self.nodes, self.hit_limit = -float("inf"), 0, ""
        self.is_empty = False

    def run(self) -> None:
        """Until no loss asks for more than the point pays for it, or a limit is hit."""
        asked = self._asked
        gap_limit = asked.problem.plan_policy.gap_limit
        losses: Losses | None = None
        cuts: tuple[SurvivalCut, ...] = ()
        for turn in range(_MOST_ROUNDS):
            matrix = compile_arrays(asked.tables, asked.arcs, cuts=cuts)
            if turn == 0:
                asked.limit.set_aside()
            made = _search(asked, matrix, start=self._start)
            self._note(made)
            is_cut_short = self.hit_limit == TIME_LIMIT and not asked.limit.is_over()
            if made.plan is None or made.point is None:
                if is_cut_short:
                    continue
                return
            if losses is None:
                groups = [asked.tables.group(int(at)) for at in matrix.horizon[0].placeable.group]
                losses = Losses(asked.reach, groups, is_over=asked.limit.is_over)
            if asked.limit.is_over():  # no cut will be used any more
                survived = Survived(plan=certify(asked.reach, made.plan))
            else:
                survived = losses.survive(made.plan)
            self._start = survived.plan
            if self.best is None or _cost(survived.plan) < _cost(self.best):
                self.best = survived.plan
            if is_asked(asked.reach) and asked.limit.is_over():
                self.hit_limit = TIME_LIMIT
                return
            new = tuple(cut for cut in survived.cuts if _is_broken(cut, made.point))
            if (self.hit_limit and not is_cut_short) or not (new or is_cut_short):
                return
            if _gap(self.best, self.bound) <= gap_limit:
                return
            cuts += new
        self.hit_limit = "survival_rounds"

    def _note(self, made: _Round) -> None:
        self.bound, self.nodes = max(self.bound, made.bound), self.nodes + made.nodes
        was_cut_short = self.hit_limit == TIME_LIMIT
        self.hit_limit = made.hit_limit or (TIME_LIMIT if was_cut_short else "")
        self.is_empty = made.is_empty


def _search(asked: _Asked, matrix: Matrix, *, start: Plan | None) -> _Round:
    """One matrix solved, its point made a plan."""
    guess = None if start is None else _columns_of(matrix, start)
    root = take_root(matrix, limit=asked.limit)
    if is_asked(asked.reach):
        asked.limit.take_half()
    made = search(root, policy=asked.problem.plan_policy, limit=asked.limit, guess=guess)
    found = made.found
    plan, point = None, None
    if found.values is not None:
        plan, point = plan_of(asked.reach, matrix, found.values, bound=found.bound, method=METHOD)
    return _Round(
        plan=plan,
        point=point,
        bound=found.bound,
        nodes=found.nodes,
        hit_limit=made.hit_limit,
        is_empty=found.values is None and not made.hit_limit,
    )


def _columns_of(matrix: Matrix, plan: Plan) -> Floats:
    """An earlier plan's replicas, the sites they open and how many those are, by column."""
    p = matrix.horizon[0]
    replicas = {one.group.group_id: one.replicas for one in plan.groups}
    named = [p.tables.group_id(int(at)) for at in p.placeable.group]
    values = np.zeros(len(matrix.cost))
    values[p.column("n")] = [replicas.get(group_id, 0) for group_id in named]
    held = {one.group.site_id for one in plan.groups if one.replicas}
    values[p.column("open")] = [p.tables.sites.ids[at] in held for at in p.priced]
    return values


def _is_broken(cut: SurvivalCut, point: Point) -> bool:
    """Whether a cut asks for more than the point pays for that loss."""
    values = point.values
    risk = values.get("risk", {})
    paid = sum(risk.get((cut.lost_site_id, part), 0.0) for part in cut.parts)
    return is_above(cut.risk_usd_per_h(n=values["n"], shed=values["shed"]), paid)


def _judged(problem: Problem, plan: Plan, *, bound: float, nodes: int, hit_limit: str) -> Outcome:
    bound = min(bound, _cost(plan))
    gap = relative_gap(_cost(plan), bound)
    if gap <= problem.plan_policy.gap_limit and hit_limit not in OUTSIDE:
        hit_limit = ""
    plan = replace(plan, bound_usd_per_h=bound, gap=gap, hit_limit=hit_limit)
    violations = check_plan(problem, plan)
    if violations:
        told = "; ".join(v.message() for v in violations[:5])
        message = f"the checker refused the plan ({len(violations)} violations): {told}"
        return _no_plan(SolveStatus.FAULT, bound, nodes, message)
    return Outcome(
        status=SolveStatus.LIMIT if hit_limit else SolveStatus.OPTIMAL,
        plan=plan,
        arcs=(),
        pruned=(),
        bound_usd_per_h=bound,
        nodes=nodes,
        message=f"stopped by {hit_limit}; gap {gap:.2%}" if hit_limit else "",
    )


def _no_plan(status: SolveStatus, bound: float, nodes: int, message: str) -> Outcome:
    return Outcome(
        status=status,
        plan=None,
        arcs=(),
        pruned=(),
        bound_usd_per_h=bound,
        nodes=nodes,
        message=message,
    )


def _cost(plan: Plan) -> float:
    return plan.cost.total_usd_per_h


def _gap(plan: Plan, bound: float) -> float:
    return relative_gap(_cost(plan), min(bound, _cost(plan)))
