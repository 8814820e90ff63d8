"""The rows of `constraints_mix` as arrays: one function per family, named and meant as there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from optimizer.milp.arrays_period import Period
from optimizer.milp.arrays_rows import Rows, Term, no_rows, ranked, rows_of, shed_and_moved
from optimizer.milp.constraints_mix import G_PER_KG
from optimizer.tables import Floats, Ints, Tables
from optimizer.tabulate_routes import runs
from sites.units import MS_PER_S


def spread(p: Period) -> tuple[Rows, Rows]:
    """``k * sum_{r at s} x[d,r] + shed[d] <= rate[d]``, s a site (first) or a zone (second)."""
    classes, sites = p.tables.classes, p.tables.sites
    site = p.tables.groups.site[p.arcs.group]
    return (
        _spread(p, wanted=classes.spread_sites, place=site, ids=sites.ids, prefix=""),
        _spread(
            p,
            wanted=classes.spread_zones,
            place=sites.zone[site],
            ids=sites.zone_ids,
            prefix="zone:",
        ),
    )


def _spread(p: Period, *, wanted: Ints, place: Ints, ids: tuple[str, ...], prefix: str) -> Rows:
    arc = np.flatnonzero(wanted[p.arcs.cls] > 1)
    if len(arc) == 0:
        return no_rows("spread")
    key = p.arcs.cls[arc].astype(np.int64) * len(ids) + place[arc]
    pair, row = np.unique(key, return_inverse=True)
    cls = pair // len(ids)
    names = p.tables.classes.ids
    terms: list[Term] = [(row, p.column("x", arc), wanted[p.arcs.cls[arc]].astype(np.float64))]
    return rows_of(
        "spread",
        terms + _spread_of_classes(p, cls),
        limit=p.asked_rps[cls],
        subject=lambda i: f"{names[cls[i]]}@{prefix}{ids[pair[i] % len(ids)]}",
    )


def _spread_of_classes(p: Period, cls: NDArray[np.int64]) -> list[Term]:
    """Shed and deferrals of `cls[i]` in row i; `cls` ascends."""
    first = np.searchsorted(cls, np.arange(p.tables.classes.count))
    last = np.searchsorted(cls, np.arange(p.tables.classes.count), side="right")
    terms: list[Term] = []
    for of_class, column, value in shed_and_moved(p):
        times = (last - first)[of_class]
        values = np.repeat(np.broadcast_to(value, len(of_class)), times)
        terms.append((runs(first[of_class], times), np.repeat(column, times), values))
    return terms


def latency_mix(p: Period) -> Rows:
    """``sum_r (ttft[d,r] - slo[d]) * x[d,r] <= 0``, in seconds."""
    late_s = (p.arcs.ttft_ms - p.tables.classes.slo_ttft_ms[p.arcs.cls]) / MS_PER_S
    return _mean(p, "latency_mix", p.tables.classes.over_mix, excess=late_s)


def quality_floor(p: Period) -> Rows:
    """``sum_r (floor[d] - quality[r]) * x[d,r] <= 0``."""
    floor = p.tables.classes.mean_quality_floor
    quality = p.tables.variants.quality[p.tables.groups.variant[p.arcs.group]]
    return _mean(p, "quality_floor", floor > 0, excess=floor[p.arcs.cls] - quality)


def _mean(p: Period, family: str, asks: NDArray[np.bool_], *, excess: Floats) -> Rows:
    arc = np.flatnonzero(asks[p.arcs.cls])
    cls, row = ranked(p.arcs.cls[arc], among=p.tables.classes.count)
    ids = p.tables.classes.ids
    return rows_of(
        family,
        [(row, p.column("x", arc), excess[arc])],
        limit=np.zeros(len(cls)),
        subject=lambda i: ids[cls[i]],
    )


def tenant_budget(horizon: Sequence[Period]) -> Rows:
    """``sum_d,r (charged[r] * replica_seconds[d,r] + 3600 * network[d,r]) * x[d,r] <= budget[t]``.

    Over all periods within as many budgets.
    """
    tables = horizon[0].tables
    budgets = {
        t.tenant_id: t.budget_usd_per_h
        for t in tables.problem.tenants
        if t.budget_usd_per_h is not None
    }
    capped = np.array([tenant_id in budgets for tenant_id in tables.tenant_ids], dtype=np.bool_)
    arcs = [np.flatnonzero(capped[p.tables.classes.tenant[p.arcs.cls]]) for p in horizon]
    tenants = [
        p.tables.classes.tenant[p.arcs.cls[arc]] for p, arc in zip(horizon, arcs, strict=True)
    ]
    tenant = np.unique(np.concatenate(tenants))
    limit = [budgets[tables.tenant_ids[at]] or 0.0 for at in tenant]
    return rows_of(
        "tenant_budget",
        [
            (np.searchsorted(tenant, of), p.column("x", arc), _charged(p, arc))
            for p, arc, of in zip(horizon, arcs, tenants, strict=True)
        ],
        limit=np.array(limit, dtype=np.float64) * len(horizon),
        subject=lambda i: tables.tenant_ids[tenant[i]],
    )


def _charged(p: Period, arc: NDArray[np.intp]) -> Floats:
    """What one request/s over each arc counts against its tenant's budget (USD/h)."""
    price = charged_usd_per_h(p.tables)[p.arcs.group[arc]]
    return price * p.arcs.replica_seconds[arc] + p.arcs.network_usd_per_h[arc]


def charged_usd_per_h(tables: Tables) -> Floats:
    """What a busy replica of each group counts in a budget, transfer aside: its price at the
    ceiling and the site's dearest supply (`costs.charged_price_usd_per_h`); inf or NaN where it can
    never be busy.
    """
    groups, supplies = tables.groups, tables.supplies
    dearest = np.zeros(len(tables.sites.ids))
    np.maximum.at(dearest, supplies.site, supplies.usd_per_kwh + supplies.carbon_usd_per_kwh)
    usable = tables.problem.plan_policy.utilisation_ceiling * groups.available
    held = groups.hardware_usd_per_h + groups.risk_usd_per_h
    with np.errstate(divide="ignore", invalid="ignore"):
        busy_kw = groups.idle_kw / usable + groups.busy_kw
        price: Floats = held / usable + busy_kw * dearest[groups.site]
    return price


def carbon_cap(horizon: Sequence[Period]) -> Rows:
    """``sum_k carbon[k] * e[k] <= carbon_cap``, in kg/h, over all periods within as many caps."""
    cap = horizon[0].tables.problem.plan_policy.carbon_cap_g_per_h
    if cap is None:
        return no_rows("carbon_cap")
    return rows_of(
        "carbon_cap",
        [
            (
                np.zeros(len(p.supply), dtype=np.intp),
                p.column("e"),
                p.tables.supplies.carbon_g_per_kwh[p.supply] / G_PER_KG,
            )
            for p in horizon
        ],
        limit=np.array([cap / G_PER_KG * len(horizon)]),
        subject=lambda _: "fleet",
    )
