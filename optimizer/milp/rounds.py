"""The ordinary search: rounds in which one problem learns what the losses of its sites cost.

Decides how far each round searches, where it looks next and when it is enough; what a loss asks
for is `survive`'s, what the outcome is called `optimizer.solve`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import inf

from optimizer.costs import relative_gap
from optimizer.milp.constraints_survive import SurvivalCut, survive_one
from optimizer.milp.extract import extract_plan
from optimizer.milp.formulate import Attempt, attempt, budget_of, formulate
from optimizer.milp.highs import Budget, Point, PointStatus
from optimizer.milp.model import Formulation, RowKey
from optimizer.milp.stopping import INTERRUPT, OUTSIDE
from optimizer.milp.support import WORTHWHILE_INTEGERS
from optimizer.milp.survive import Losses
from optimizer.milp.survive_root import root_cuts
from optimizer.outcome import Progress
from optimizer.plan import CandidateArc, Plan
from optimizer.problem import Problem
from optimizer.verify_limits import is_above

METHOD = "milp"

_MOST_ROUNDS = 12
"""Rounds of cuts for lost sites; tiny problems need two to four."""

_ROUNDS_SPENT = "survival_rounds"

_STEP = 8
"""How many times the nodes of one round the next one gets, the first one being the root alone: on
the European example fleet 19 to 29 s with four seeds, where rounds of all nodes took 33 to 120 s.
"""
_NODES_NEARBY = 20
"""Nodes of the first search among the groups seen."""
_MOST_NEARBY = 4
_WHOLE_PART = 0.6
"""Of the time left, what a search of the whole gets at most: what its plan lacks for a loss costs
more than what it may still save.
"""
_LEAST_S = 0.1
_WITH_POINT = (PointStatus.PROVEN, PointStatus.STOPPED)


@dataclass(kw_only=True, slots=True)
class Found:
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
class Rounds:
    """Solve, ask every loss, cut, solve again, until no loss costs more than the point says.

    Without protected classes that is one solve. A cut never rules a plan out, it makes the
    formulation see what a loss would cost; so each round's bound holds and any round's plan will
    do. `start` is a first guess, `held` a checked plan of this very problem, whose bound holds here
    too: the search begins there and ends with no worse. In a large problem a round begins with few
    nodes and goes on among the groups of the plans seen so far, where one that survives is soon
    found.
    """

    problem: Problem
    arcs: tuple[CandidateArc, ...]
    slack: Mapping[RowKey, float]
    first: Formulation
    losses: Losses
    start: Plan | None
    held: Plan | None
    since_s: Callable[[], float]
    progress: Progress

    def run(self, *, presolve: bool) -> Found:
        """The best plan of all rounds, with the best bound and the nodes of all. An interrupt ends
        the search; raises KeyboardInterrupt where there is no plan yet.
        """
        found = Found(point=Point(status=PointStatus.NONE), guess=self.held or self.start)
        found.seen = _placed(found.guess)
        if self.held is not None:
            found.plan, found.bound = self.held, self.held.bound_usd_per_h
            found.heard(self.held.hit_limit)
        try:
            self._go_on(found, budget_of(self.problem, presolve=presolve))
        except KeyboardInterrupt:
            if found.plan is None:
                raise
            found.hit_limit = INTERRUPT
        if found.plan is not None:
            best = _bounded(found.plan, found.bound, hit_limit=found.hit_limit)
            is_own = self.held is None or found.bound > self.held.bound_usd_per_h
            found.plan = replace(best, method=METHOD if is_own else best.method)
        return found

    def _go_on(self, found: Found, budget: Budget) -> None:
        found.cuts = root_cuts(self.first, self.losses)
        in_steps = self.losses.asked and len(self.first.inputs.groups) >= WORTHWHILE_INTEGERS
        for turn in range(_MOST_ROUNDS):
            nodes = min(budget.nodes, _STEP**turn) if in_steps else budget.nodes
            part = _WHOLE_PART if in_steps else 1.0
            made = self._attempt(found, replace(budget, nodes=nodes), part=part)
            point = found.point = made.point
            found.bound = max(found.bound, point.bound)
            found.heard(point.hit_limit)
            if point.status not in _WITH_POINT:
                is_last = point.hit_limit in OUTSIDE or nodes == budget.nodes
                if is_last or point.status is PointStatus.INFEASIBLE:
                    return
                continue
            new = self._take(found, made)
            if (point.status is PointStatus.PROVEN and not new) or self._is_close(found):
                found.heard("")
                return
            if point.hit_limit == INTERRUPT or (not new and nodes == budget.nodes):
                return
            if in_steps and self._nearby(found, budget, nodes=_NODES_NEARBY * _STEP**turn):
                found.heard("")
                return
            if found.hit_limit in OUTSIDE:
                return
        found.hit_limit = found.hit_limit or _ROUNDS_SPENT

    def _nearby(self, found: Found, budget: Budget, *, nodes: int) -> bool:
        """Look among the groups seen so far and those of the relaxation; whether a plan there is
        close enough.
        """
        fine = replace(budget, gap=budget.gap / 2, nodes=min(budget.nodes, nodes))
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
        self,
        found: Found,
        budget: Budget,
        *,
        near: frozenset[str] | None = None,
        part: float = 1.0,
    ) -> Attempt:
        left_s = part * (budget.time_s - self.since_s())
        time_s = min(budget.time_s, max(_LEAST_S, left_s))
        formulation = self.first
        if found.cuts:
            formulation = formulate(self.problem, self.arcs, slack=self.slack)
            survive_one(formulation, found.cuts)
        made = attempt(
            formulation,
            budget=replace(budget, time_s=time_s),
            start=_replicas(found.guess),
            near=near,
            told=lambda cost, bound: self._tell(found, cost, bound if near is None else -inf),
        )
        found.nodes += made.point.nodes
        return made

    def _take(self, found: Found, made: Attempt) -> tuple[SurvivalCut, ...]:
        """Take in the plan of a point; the cuts that its losses add."""
        survived = self.losses.survive(extract_plan(made.inputs, made.point, method=METHOD))
        new = _violated(survived.cuts, made.point)
        found.cuts += new
        found.guess, found.seen = survived.plan, found.seen | _placed(survived.plan)
        if found.plan is None or _cost(survived.plan) < _cost(found.plan):
            found.plan = survived.plan
        return new

    def _tell(self, found: Found, cost: float, bound: float) -> None:
        """What losses cost is known of plans only, not of the points on the way to one."""
        best = _cost(found.plan) if found.plan else inf
        self.progress.stands(
            cost_usd_per_h=best if self.losses.asked else min(best, cost),
            bound_usd_per_h=max(bound, found.bound),
        )

    def _is_close(self, found: Found) -> bool:
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


def _placed(plan: Plan | None) -> frozenset[str]:
    return frozenset(one.group.group_id for one in plan.groups) if plan else frozenset()


def _replicas(plan: Plan | None) -> Mapping[str, int] | None:
    if plan is None:
        return None
    return {one.group.group_id: one.replicas for one in plan.groups}
