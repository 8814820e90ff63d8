"""A plan as people read it: how good it is, what changes, what is refused and why, what it costs.

The lines themselves are the optimizer's (`optimizer.diff`, `optimizer.explain_text`); here they
get their order and their colours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from optimizer.diff import DiffLine, Mark, PlanDiff, diff_lines, diff_plans
from optimizer.explain import Explanation, explain_plan
from optimizer.explain_text import REJECTED_SHOWN, binding_lines, rejected_lines, shed_lines
from optimizer.outcome import Outcome, SolveStatus
from optimizer.plan import Plan
from optimizer.problem import Problem
from scheduler.plan_file import SavedPlan
from sites.units import WHOLE_BP

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

    @classmethod
    def of(cls, saved: SavedPlan, outcome: Outcome | None) -> PlanText:
        """`outcome` spares looking for the candidate arcs again where the solve just found them."""
        return cls(
            saved=saved,
            diff=diff_plans(saved.before, saved.plan, saved.problem),
            explanation=explain_plan(
                saved.problem,
                saved.plan,
                arcs=outcome.arcs if outcome else None,
                pruned=outcome.pruned if outcome else (),
            ),
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
        for text in binding_lines(self.explanation):
            yield text, ""
        for line in lines[-2:]:
            yield _styled(line)

    def _headline(self) -> str:
        plan, summary = self.saved.plan, self.saved.summary
        limit = self.saved.problem.plan_policy.gap_limit
        words = {
            SolveStatus.OPTIMAL: "Optimal",
            SolveStatus.LIMIT: f"Stopped by {plan.hit_limit or 'its budget'}",
        }
        parts = [
            words.get(summary.status, summary.status.value),
            f"gap {_percent(plan.gap)} (limit {_percent(limit)})",
            f"{summary.build_s + summary.solve_s:.1f} s",
            f"state serial {self.saved.binding.state_serial}",
        ]
        return ", ".join(parts)


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
    explained = explain_plan(whole, plan).classes
    lawless = tuple(
        one for one in explained if one.class_id in shed and one.shed and not one.shed.lawful
    )
    return list(shed_lines(Explanation(classes=lawless, binding=())))


def infeasible_lines(outcome: Outcome) -> list[str]:
    """Why there is no plan, and what to relax, by how much, at what price."""
    lines = ["no plan meets every limit"]
    for one in outcome.relaxations:
        price = f" (${one.price_usd_per_h:,.2f}/h)" if one.price_usd_per_h else ""
        figures = f"{one.limit:g} → {one.needed:g} {one.unit}".rstrip()
        lines.append(f"  {one.code} {one.subject}: {figures}{price}; {one.remedy}")
    return lines if outcome.relaxations else [*lines, f"  {outcome.message}"]
