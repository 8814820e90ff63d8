"""The dumb oracle of days: every number of replicas in every hour, the best flow for each by an LP.

One site, one replica group, one supply without a limit.

Written from the raw facts, knowing nothing of blocks, rows or rounding.
"""

from __future__ import annotations

from itertools import product
from math import inf

import highspy

from optimizer.problem import Problem
from sites.fleet import at_period
from sites.units import S_PER_H, W_PER_KW


def cheapest_usd(problem: Problem, *, periods: int) -> float:
    """The least any schedule of so many hours can cost (USD)."""
    count = problem.fleet.sites[0].pools[0].count
    before = problem.running[0].replicas if problem.running else 0
    best = inf
    for path in product(range(count + 1), repeat=periods):
        best = min(best, _path_usd(problem, path, before=before, least=best))
    return best


def _path_usd(problem: Problem, path: tuple[int, ...], *, before: int, least: float) -> float:
    site, point = problem.fleet.sites[0], problem.catalog.serving_points[0]
    pool, policy = site.pools[0], problem.plan_policy
    gib = problem.catalog.variants[0].weights_mib / 1024
    start_h = point.start_ms / 3.6e6
    start_usd = gib * policy.migration_usd_per_gib + pool.price_usd_per_accelerator_h * start_h
    total, able, busy_usd = 0.0, [], []
    for at, replicas in enumerate(path):
        started = max(0, replicas - before)
        period = (problem.period + at) % 24
        usd_per_w = at_period(site.supplies[0].price_usd_per_kwh, period) / W_PER_KW
        total += replicas * pool.price_usd_per_accelerator_h + started * start_usd
        total += replicas * point.idle_w * site.pue * usd_per_w
        able.append((replicas - min(1.0, start_h) * started) * policy.utilisation_ceiling)
        busy_usd.append((point.full_w - point.idle_w) * site.pue * usd_per_w)
        before = replicas
    if total >= least:
        return inf
    return total + _flow_usd(problem, able, busy_usd)


def _flow_usd(problem: Problem, able: list[float], busy_usd: list[float]) -> float:
    """Serve or shed what is asked in each hour in it or later, before the deadline."""
    lp = highspy.Highs()
    lp.setOptionValue("output_flag", False)
    point, policy = problem.catalog.serving_points[0], problem.plan_policy
    work: list[list[tuple[int, float]]] = [[] for _ in able]
    for one in problem.classes:
        seconds = one.output_tokens / point.decode_tok_s
        shed_usd = (
            one.output_tokens * S_PER_H / 1e6 * policy.shed_usd_per_mtok * (10 - one.priority)
        )
        for at in range(len(able)):
            asked = at_period(one.rate_rps, (problem.period + at) % 24)
            columns = []
            for to in range(at, min(at + one.deferrable_h, len(able) - 1) + 1):
                columns.append(lp.getNumCol())
                work[to].append((lp.getNumCol(), seconds))
                lp.addCol(busy_usd[to] * seconds, 0.0, highspy.kHighsInf, 0, [], [])
            columns.append(lp.getNumCol())
            lp.addCol(shed_usd, 0.0, highspy.kHighsInf, 0, [], [])
            lp.addRow(asked, asked, len(columns), columns, [1.0] * len(columns))
    for entries, limit in zip(work, able, strict=True):
        columns = [column for column, _ in entries]
        lp.addRow(-highspy.kHighsInf, limit, len(entries), columns, [s for _, s in entries])
    lp.run()
    assert lp.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return float(lp.getInfo().objective_function_value)
