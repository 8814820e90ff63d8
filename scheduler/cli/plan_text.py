"""A plan as people read it: how good it is, what changes, what is refused and why, what it costs.

The lines themselves are the optimizer's (`optimizer.diff`, `optimizer.explain_text`); here they
get their order and their colours.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass

from optimizer.arcs import find_arcs
from optimizer.compare import OPTIMAL_GAP
from optimizer.diff import DiffLine, Mark, PlanDiff, diff_lines, diff_plans
from optimizer.explain import explain_plan, is_large
from optimizer.explain_text import (
    BINDING_SHOWN,
    REJECTED_SHOWN,
    binding_lines,
    left_out_lines,
    loss_lines,
    rejected_lines,
    shed_lines,
)
from optimizer.explanation import Explanation
from optimizer.milp.scale.workers import ThreadWorkers
from optimizer.outcome import Outcome, Relaxation, SolveStatus
from optimizer.plan import CandidateArc, Plan
from optimizer.problem import Problem
from optimizer.worth import WORTH_SHOWN, Worth, worth_lines
from scheduler.plan_file import SavedPlan
from sites.clock import Clock
from sites.units import MS_PER_S, WHOLE_BP

Styled = tuple[str, str]
"""A line and the name of its colour ("" for none)."""

_STYLES = {
    Mark.ADD: "green",
    Mark.CHANGE: "yellow",
    Mark.REPLACE: "yellow",
    Mark.REMOVE: "red",
    Mark.UNCHANGED: "dim",
}


@dataclass(frozen=True, kw_only=True)
class PlanText:
    """A saved plan compared with the plan before it, ready to be shown."""

    saved: SavedPlan
    diff: PlanDiff
    explanation: Explanation
    worth: tuple[Worth, ...] | None

    @classmethod
    def of(cls, saved: SavedPlan, outcome: Outcome | None, *, clock: Clock | None) -> PlanText:
        """`outcome` spares looking for the candidate arcs again where the solve just found them.

        With a `clock` also what a unit of each limit is worth, which takes a solve of its own: of a
        large fleet at most as long as the plan's time limit, after which it is None.
        """
        compared = diff_plans(saved.before, saved.plan, saved.problem)
        if is_large(saved.problem):
            explanation = explain_plan(saved.problem, saved.plan)
            worth = _worth(saved.problem, None, clock) if clock else ()
            return cls(saved=saved, diff=compared, explanation=explanation, worth=worth)
        found = outcome if outcome and outcome.arcs else find_arcs(saved.problem)
        return cls(
            saved=saved,
            diff=compared,
            explanation=explain_plan(
                saved.problem, saved.plan, arcs=found.arcs, pruned=found.pruned
            ),
            worth=_worth(saved.problem, found.arcs, clock) if clock else (),
        )

    @property
    def changes(self) -> bool:
        """Whether the plan differs from the one before it."""
        return not self.diff.is_empty

    def lines(self, *, full: bool) -> Iterator[Styled]:
        """Everything there is to say, top to bottom."""
        yield self._headline(), "bold"
        lines = diff_lines(self.diff, full=full)
        for line in lines[:-2]:
            yield _styled(line)
        for text in shed_lines(self.explanation):
            yield f"Shed: {text}", "red"
        for text in rejected_lines(self.explanation, limit=None if full else REJECTED_SHOWN):
            yield text, ""
        for text in left_out_lines(self.explanation):
            yield text, "dim"
        for text in loss_lines(self.explanation):
            yield text, "red" if self.explanation.exposed else "green"
        for text in binding_lines(self.explanation, limit=None if full else BINDING_SHOWN):
            yield text, ""
        for text in worth_lines(self.worth, limit=None if full else WORTH_SHOWN):
            yield text, ""
        for line in lines[-2:]:
            yield _styled(line)

    def _headline(self) -> str:
        plan, summary = self.saved.plan, self.saved.summary
        limit = self.saved.problem.plan_policy.gap_limit
        proven = abs(plan.gap) < OPTIMAL_GAP
        words = {
            SolveStatus.OPTIMAL: "Optimal" if proven else "Within the gap limit",
            SolveStatus.LIMIT: f"Stopped by {plan.hit_limit or 'its budget'}",
        }
        parts = [
            words.get(summary.status, summary.status.value),
            f"gap {_percent(plan.gap)} (limit {_percent(limit)}, bound by {plan.method})",
            f"{summary.build_s + summary.solve_s:.1f} s",
            f"state serial {self.saved.binding.state_serial}",
        ]
        return ", ".join(parts)


def _worth(
    problem: Problem, arcs: tuple[CandidateArc, ...] | None, clock: Clock
) -> tuple[Worth, ...] | None:
    from optimizer.milp.worth import find_worth  # the formulation's library takes long to load

    limit_ms = clock.monotonic_ms() + problem.plan_policy.time_limit_s * MS_PER_S
    return find_worth(
        problem,
        arcs,
        workers=ThreadWorkers(os.cpu_count() or 1),
        is_over=lambda: clock.monotonic_ms() >= limit_ms,
    )


def _percent(part: float) -> str:
    """Two digits that count: a limit of 0.001 % is not 0 %, rounding noise is."""
    return f"{part * 100:.2g}%" if abs(part) > 1e-9 else "0%"


def _styled(line: DiffLine) -> Styled:
    return line.text, _STYLES[line.mark] if line.mark is not None else ""


def lawless_lines(problem: Problem, plan: Plan) -> list[str]:
    """Of each class shed whole, why no site may lawfully serve it, lost sites counted as there."""
    shed = {s.class_id for s in plan.shed if s.basis_points == WHOLE_BP}
    if not shed:
        return []
    whole = dataclasses.replace(problem, lost_sites=())
    explained = explain_plan(whole, plan, class_ids=shed).classes
    lawless = tuple(one for one in explained if one.shed and not one.shed.lawful)
    return list(shed_lines(Explanation(classes=lawless, binding=())))


def infeasible_lines(outcome: Outcome) -> list[str]:
    """Why there is no plan, and what to relax, by how much, at what price, the cheapest way first.

    Limits of one way stand together; any one way is enough.
    """
    ways = outcome.ways
    if not ways:
        return ["no plan meets every limit", f"  {outcome.message}"]
    where = ", ".join(outcome.only_at)
    why = f": what only {where} may answer does not fit there" if where else ""
    several = "; any one of these is enough" + (" for it" if where else "") if len(ways) > 1 else ""
    lines = [f"no plan meets every limit{why}{several}:"]
    for number, way in enumerate(ways, start=1):
        for at, one in enumerate(way):
            head = f"{number}." if at == 0 else "   and"
            lines.append(f"  {head} {_relaxation_text(one)}")
    return lines


def _relaxation_text(one: Relaxation) -> str:
    price = f" (${one.price_usd_per_h:,.2f}/h)" if one.price_usd_per_h else ""
    figures = f"{one.limit:g} → {one.needed:g} {one.unit}".rstrip()
    return f"{one.code} {one.subject}: {figures}{price}; {one.remedy}"
