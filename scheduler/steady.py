"""Keeps the plan in force where a new one is no cheaper: equal answers must not move traffic.

Many plans of one problem cost the same. Which of them a solve returns may depend on where it
started, so without this a fleet at rest would be told to move.
"""

from __future__ import annotations

import dataclasses

from optimizer.costs import priced_plan
from optimizer.outcome import Outcome
from optimizer.plan import Plan
from optimizer.problem import Problem
from optimizer.reach import Reach
from optimizer.verify import check_plan

TIE = 1e-6
"""Relative difference in cost up to which two plans count as equally good."""


def steadied(problem: Problem, outcome: Outcome, *, before: Plan | None) -> Outcome:
    """The outcome with `before` in place of its plan, if that still holds and costs no more.

    `before` is priced and judged again under `problem`; the bound stays the outcome's.
    """
    found = outcome.plan
    if before is None or found is None or not is_known(problem, before):
        return outcome
    kept = priced_plan(
        Reach(problem),
        groups=before.groups,
        shares=before.shares,
        shed=before.shed,
        bound_usd_per_h=found.bound_usd_per_h,
        method=found.method,
        hit_limit=found.hit_limit,
        survival=before.survival,
        exposed=before.exposed,
    )
    cost, asked = kept.cost.total_usd_per_h, found.cost.total_usd_per_h
    if cost > asked + TIE * abs(asked) or check_plan(problem, kept):
        return outcome
    return dataclasses.replace(outcome, plan=kept, bound_usd_per_h=kept.bound_usd_per_h)


def is_known(problem: Problem, plan: Plan) -> bool:
    """Whether everything the plan names exists in the problem."""
    reach = Reach(problem)
    classes = {c.class_id for c in problem.classes}
    named = {s.class_id for s in plan.shares} | {s.class_id for s in plan.shed}
    return named <= classes and all(reach.point(g.group) is not None for g in plan.groups)
