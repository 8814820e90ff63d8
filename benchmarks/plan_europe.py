"""The Europe fleet from files to checked plan, beside the same MILP handed to HiGHS directly.

The peer is the solver alone on the finished matrix, with the same budget: what is above 1 x is
reading, pruning arcs, building, checking and explaining.
"""

from __future__ import annotations

import statistics
from pathlib import Path

from benchmarks.report import head, line, ratio, seconds_of, spread
from optimizer.arcs import find_arcs
from optimizer.milp.formulate import budget_of, formulate
from optimizer.milp.highs import compile_model
from optimizer.milp.highs import run as run_highs
from optimizer.outcome import Outcome
from optimizer.problem import Problem
from optimizer.solve import solve
from optimizer.verify import check_plan
from scheduler.fleet_problem import read_problem

FLEET = Path(__file__).resolve().parents[1] / "deploy" / "examples" / "europe"
RUNS = 3


def run() -> None:
    """Print each stage, the whole, the solver alone, and their ratio."""
    head("Plan of the Europe fleet, end to end")
    problem = read_problem((FLEET,))
    candidates = find_arcs(problem)
    formulation = formulate(problem, candidates.arcs)
    compiled = compile_model(formulation)
    budget = budget_of(problem)
    outcome = solve(problem)
    assert outcome.plan is not None, outcome.message
    _show_size(problem, outcome, rows=compiled.lp.num_row_, columns=compiled.lp.num_col_)
    plan = outcome.plan
    stages = {
        "read files": lambda: read_problem((FLEET,)),
        "candidate arcs": lambda: find_arcs(problem),
        "formulate (Pyomo)": lambda: formulate(problem, candidates.arcs),
        "hand over to HiGHS": lambda: compile_model(formulation),
        "check the plan": lambda: check_plan(problem, plan),
    }
    for name, work in stages.items():
        line(name, spread(seconds_of(work, runs=RUNS), unit="s"))
    whole = seconds_of(lambda: solve(read_problem((FLEET,))), runs=RUNS)
    alone = seconds_of(lambda: run_highs(compiled, budget), runs=RUNS)
    line("end to end", spread(whole, unit="s"))
    line("HiGHS alone on the same matrix", spread(alone, unit="s"))
    ratio("end to end", statistics.median(whole) / statistics.median(alone), of="HiGHS alone")


def _show_size(problem: Problem, outcome: Outcome, *, rows: int, columns: int) -> None:
    plan = outcome.plan
    assert plan is not None
    line("sites, classes", f"{len(problem.fleet.sites)}, {len(problem.classes)}")
    line("arcs kept, pruned", f"{len(outcome.arcs)}, {len(outcome.pruned)}")
    line("rows, columns", f"{rows}, {columns}")
    line(
        "status, gap, nodes",
        f"{outcome.status}, {plan.gap:.3%} of limit {problem.plan_policy.gap_limit:.1%}, "
        f"{outcome.nodes}",
    )
