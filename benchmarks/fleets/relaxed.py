"""A linear programme over some arcs of each class: whether a generated fleet can serve its demand.

Replicas may be parts, each class has only `per_class` of its arcs, so all arcs would serve at least
as much. Minimises what is shed, by output
tokens; no prices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import highspy
import numpy as np

from optimizer.problem import Problem
from optimizer.sweep import Sweep
from optimizer.tables import Tables
from optimizer.tabulate import tabulate
from sites.units import W_PER_KW

CROWD = 3.0
"""How much dearer than another an arc may be and yet be drawn first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """Parts of the output tokens shed, of accelerators and of power budgets that served the rest,
    and classes without any arc.
    """

    shed_part: float
    accelerator_part: float
    power_part: float
    without_arc: int


def served(problem: Problem, *, per_class: int = 15) -> Served:
    """Solve the programme. Raises RuntimeError where HiGHS finds no optimum."""
    tables = tabulate(problem)
    classes, groups = tables.classes, tables.groups
    arcs = [np.stack(one) for one in _frugal(tables, per_class, problem)]
    cls = np.concatenate([np.full(a.shape[1], d) for d, a in enumerate(arcs)]).astype(np.int64)
    group, busy = (np.concatenate([a[k] for a in arcs]) for k in (0, 1))
    used, n_of = np.unique(group.astype(np.int64), return_inverse=True)
    ceiling = problem.plan_policy.utilisation_ceiling
    d, r, p = classes.count, len(used), len(tables.pools.ids)
    tokens = classes.rate_rps * classes.output_tokens
    total = float(tokens.sum())
    x, n = d + r, np.arange(r)  # columns: shed parts, replicas, arcs (parts of their class)
    arc = np.arange(len(cls))
    entries = (
        (np.arange(d), np.arange(d), np.ones(d)),  # all of a class is served or shed
        (cls, x + arc, np.ones(len(cls))),
        (d + n_of, x + arc, busy * classes.rate_rps[cls]),  # within the replicas
        (d + n, d + n, -ceiling * groups.available[used]),
        (d + r + groups.pool[used], d + n, groups.accelerators[used].astype(float)),
        (d + r + p + groups.site[used], d + n, groups.possible_kw[used]),
    )
    row, column, value = (np.concatenate([e[k] for e in entries]) for k in range(3))
    high = np.concatenate(
        [np.ones(d), np.zeros(r), tables.pools.count, tables.sites.budget_w / W_PER_KW]
    )
    low = np.where(np.arange(len(high)) < d, 1.0, -highspy.kHighsInf)
    cost = np.zeros(x + len(cls))
    cost[:d] = tokens / total
    solution = _minimise(cost, row, column, value, low=low, high=high)
    replicas = solution[d:x]
    return Served(
        shed_part=float(solution[:d] @ tokens) / total,
        accelerator_part=float(replicas @ groups.accelerators[used])
        / float(high[d + r :][:p].sum()),
        power_part=float(replicas @ groups.possible_kw[used]) / float(high[d + r + p :].sum()),
        without_arc=sum(a.shape[1] == 0 for a in arcs),
    )


def _frugal(
    tables: Tables, per_class: int, problem: Problem
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Per class: groups and replica-seconds of arcs that need little power and accelerators (as
    parts of what site and pool have), drawn so that classes do not all crowd on the same groups.
    """
    groups, sweep = tables.groups, Sweep(tables)
    chance = np.random.default_rng(0)
    scarce = groups.possible_kw / tables.sites.budget_w[groups.site] * W_PER_KW
    scarce = scarce + groups.accelerators / np.maximum(tables.pools.count[groups.pool], 1)
    for d in range(tables.classes.count):
        arcs = sweep.arcs_of(d)
        price = arcs.replica_seconds * scarce[arcs.group]
        price = price * chance.uniform(1.0, CROWD, len(price))
        kept = np.argsort(price, kind="stable")[:per_class]
        yield arcs.group[kept], arcs.replica_seconds[kept]


def _minimise(
    cost: np.ndarray,
    row: np.ndarray,
    column: np.ndarray,
    value: np.ndarray,
    *,
    low: np.ndarray,
    high: np.ndarray,
) -> np.ndarray:
    order = np.lexsort((column, row))
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = len(cost), len(high)
    lp.col_cost_ = cost
    lp.col_lower_ = np.zeros(len(cost))
    lp.col_upper_ = np.full(len(cost), highspy.kHighsInf)
    lp.row_lower_, lp.row_upper_ = low, high
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = np.searchsorted(row[order], np.arange(len(high) + 1)).astype(np.int32)
    lp.a_matrix_.index_ = column[order].astype(np.int32)
    lp.a_matrix_.value_ = value[order]
    highs = highspy.Highs()
    for name, setting in {"output_flag": False, "threads": 1}.items():
        highs.setOptionValue(name, setting)
    highs.passModel(lp)
    highs.run()
    if highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        raise RuntimeError(f"the relaxed fleet ended as {highs.getModelStatus()}")
    return np.array(highs.getSolution().col_value)
