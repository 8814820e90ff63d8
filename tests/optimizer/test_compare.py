"""Two plans side by side: what is said, what is proven, and a side without a plan."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings

from optimizer.compare import Comparison, Side, compare, comparison_lines
from optimizer.outcome import Outcome, SolveStatus
from optimizer.plan import Plan
from optimizer.problem import Problem
from optimizer.solve import solve
from optimizer.whatif import what_if
from tests.optimizer import builders as b

A, B = "a/p/v/x1", "b/p/v/x1"

GOLDEN = """\
                     now     what if              change
status        within gap  within gap
cost             $1.03/h     $2.03/h   +$1.00/h (+97.1%)
  hardware       $1.00/h     $2.00/h  +$1.00/h (+100.0%)
  energy       $0.0300/h   $0.0300/h                   =
bound            $1.00/h     $2.00/h  +$1.00/h (+100.0%)
gap               2.91 %      1.48 %             -1.43 %
power           300.00 W    300.00 W                   =
emission       0.00 kg/h   0.00 kg/h                   =
replicas               1           1                   =
accelerators           1           1                   =
unserved      0.00 req/s  0.00 req/s                   =
Moved: 100.0% of the traffic is served elsewhere or not at all
Proven: the best plan costs $0.97/h to $1.03/h more after the change
"""


def outcome(plan: Plan | None, *, status: SolveStatus = SolveStatus.OPTIMAL) -> Outcome:
    bound = plan.bound_usd_per_h if plan else 0.0
    return Outcome(status=status, plan=plan, arcs=(), pruned=(), bound_usd_per_h=bound)


def bounded(plan: Plan, bound: float) -> Plan:
    cost = plan.cost.total_usd_per_h
    return replace(plan, bound_usd_per_h=bound, gap=(cost - bound) / cost)


def sides(before_bound: float, after_bound: float) -> tuple[Side, Side]:
    """All traffic at "b", then (b lost) at "a"; costs $1.03/h and $2.03/h."""
    problem = b.two_sites()
    lost = what_if(problem, ["lose b"])
    first = b.plan(problem, groups={B: 1}, shares={("c", B): 10_000})
    second = b.plan(lost, groups={A: 1}, shares={("c", A): 10_000})
    return (
        Side(problem=problem, outcome=outcome(bounded(first, before_bound))),
        Side(problem=lost, outcome=outcome(bounded(second, after_bound))),
    )


def text(found: Comparison) -> list[str]:
    return [line for line, _ in comparison_lines(found)]


def test_the_two_stand_side_by_side_term_by_term() -> None:
    before, after = sides(1.0, 2.0)
    assert text(compare(before, after)) == GOLDEN.splitlines()


def test_a_difference_that_the_gaps_could_explain_is_said_to_be_so() -> None:
    before, after = sides(1.0, 1.02)
    found = compare(before, after)
    assert found.within_gaps
    assert text(found)[-1].startswith("Within the gap: the difference in cost is no more than")
    assert not compare(*sides(1.0, 1.5)).within_gaps


def test_a_side_without_a_plan_has_no_figures() -> None:
    before, after = sides(1.0, 2.0)
    nothing = replace(after, outcome=outcome(None, status=SolveStatus.INFEASIBLE))
    found = compare(before, nothing)
    assert (found.moved_part, found.least_usd_per_h, found.within_gaps) == (None, None, False)
    lines = text(found)
    assert lines[1].split() == ["status", "within", "gap", "infeasible"]
    assert lines[2].split() == ["cost", "$1.03/h", "no", "plan"]
    assert all(f.after is None for f in found.figures)


@settings(max_examples=20, deadline=None)
@given(b.rich_problems(max_classes=3))
def test_a_problem_compared_with_itself_changes_nothing(problem: Problem) -> None:
    side = Side(problem=problem, outcome=solve(problem))
    found = compare(side, side)
    assert {figure.told_change for figure in found.figures} <= {0.0}
    assert found.moved_part in (None, 0.0)
    assert found.binding_before == found.binding_after
    assert all("Newly full" not in line for line in text(found))


@settings(max_examples=15, deadline=None)
@given(b.small_problems(max_classes=3))
def test_dearer_power_is_never_told_to_save(problem: Problem) -> None:
    """The proven range and the told change agree with what the change can do."""
    dearer = what_if(problem, [f"price {s.site_id} +50%" for s in problem.fleet.sites])
    before = Side(problem=problem, outcome=solve(problem))
    after = Side(problem=dearer, outcome=solve(dearer))
    found = compare(before, after)
    if found.most_usd_per_h is not None:
        negative = any(
            price < 0
            for s in problem.fleet.sites
            for k in s.supplies
            for price in k.price_usd_per_kwh
        )
        assert negative or found.most_usd_per_h >= -1e-4
