"""The formulation of one period in linopy, as its users would write it: labelled arrays, grouped
sums. A peer of our compilers; needs `benchmarks/requirements.lock`.
"""

from __future__ import annotations

from typing import Any

import linopy
import numpy as np
import pandas as pd
import xarray as xr

from optimizer.sweep import ArcTable
from optimizer.tables import Tables
from optimizer.tabulate_routes import path_links
from sites.units import BITS_PER_BYTE, W_PER_KW


def build(tables: Tables, arcs: ArcTable) -> Any:
    """demand_balance, throughput, pool_accelerators, site_power, supply_limit (as bounds),
    link_bandwidth, replica_change and the cost, over the groups the arcs speak of.
    """
    used, local = np.unique(arcs.group, return_inverse=True)
    groups, classes, supplies = tables.groups, tables.classes, tables.supplies
    on = {"group": np.arange(len(used)), "arc": np.arange(arcs.count)}
    model = linopy.Model()
    n = model.add_variables(
        lower=0, upper=_over(groups.room[used], "group"), integer=True, name="n"
    )
    up = model.add_variables(lower=0, coords=[pd.Index(on["group"], name="group")], name="up")
    down = model.add_variables(lower=0, coords=[pd.Index(on["group"], name="group")], name="down")
    x = model.add_variables(lower=0, coords=[pd.Index(on["arc"], name="arc")], name="x")
    shed = model.add_variables(lower=0, upper=_over(classes.rate_rps, "cls"), name="shed")
    e = model.add_variables(lower=0, upper=_over(supplies.limit_kw, "supply"), name="e")

    busy = _over(arcs.replica_seconds, "arc") * x
    ceiling = tables.problem.plan_policy.utilisation_ceiling
    model.add_constraints(
        x.groupby(_key(arcs.cls, "arc", "cls")).sum() + shed == _over(classes.rate_rps, "cls"),
        name="demand_balance",
    )
    model.add_constraints(
        busy.groupby(_key(local, "arc", "group")).sum()
        - _over(ceiling * groups.available[used], "group") * n
        <= 0,
        name="throughput",
    )
    _limits(model, tables, used, n=n)
    drawn = _over(groups.idle_kw[used], "group") * n
    busy_kw = _over(groups.busy_kw[arcs.group] * arcs.replica_seconds, "arc") * x
    model.add_constraints(
        drawn.groupby(_key(groups.site[used], "group", "site")).sum()
        + busy_kw.groupby(_key(groups.site[arcs.group], "arc", "site")).sum()
        - (1 * e).groupby(_key(supplies.site, "supply", "site")).sum()
        == 0,
        name="site_draw",
    )
    _bandwidth(model, tables, arcs, x=x)
    model.add_constraints(
        n - up + down == _over(groups.running[used], "group"), name="replica_change"
    )
    usd = supplies.usd_per_kwh + supplies.carbon_usd_per_kwh
    model.add_objective(
        (_over((groups.hardware_usd_per_h + groups.risk_usd_per_h)[used], "group") * n).sum()
        + (_over(groups.start_usd_per_h[used], "group") * up).sum()
        + (_over(usd, "supply") * e).sum()
        + (_over(arcs.network_usd_per_h, "arc") * x).sum()
        + (_over(classes.shed_usd_per_h_per_rps, "cls") * shed).sum()
    )
    return model


def _limits(model: Any, tables: Tables, used: Any, *, n: Any) -> None:
    groups = tables.groups
    pools, sites = np.unique(groups.pool[used]), np.unique(groups.site[used])
    model.add_constraints(
        (_over(groups.accelerators[used], "group") * n)
        .groupby(_key(groups.pool[used], "group", "pool"))
        .sum()
        <= _over(tables.pools.count[pools], "pool", at=pools),
        name="pool_accelerators",
    )
    model.add_constraints(
        (_over(groups.possible_kw[used], "group") * n)
        .groupby(_key(groups.site[used], "group", "site"))
        .sum()
        <= _over(tables.sites.budget_w[sites] / W_PER_KW, "site", at=sites),
        name="site_power",
    )


def _bandwidth(model: Any, tables: Tables, arcs: ArcTable, *, x: Any) -> None:
    route = tables.classes.route[arcs.cls]
    pair, link = path_links(
        tables.routes, tables.links, route=route, site=tables.groups.site[arcs.group]
    )
    if len(link) == 0:
        return
    bits = BITS_PER_BYTE * tables.classes.bytes_per_request[arcs.cls[pair]] / 1e6
    crossed = np.unique(link)
    step = np.arange(len(pair))
    carried = xr.DataArray(bits, coords={"step": step}) * x.sel(
        arc=xr.DataArray(pair, coords={"step": step}, dims="step")
    )
    model.add_constraints(
        carried.groupby(_key(link, "step", "link")).sum()
        <= _over(tables.links.bandwidth_mbps[crossed], "link", at=crossed),
        name="link_bandwidth",
    )


def _over(values: Any, dim: str, *, at: Any = None) -> Any:
    index = np.arange(len(values)) if at is None else at
    return xr.DataArray(np.asarray(values, dtype=float), coords={dim: index}, dims=dim)


def _key(values: Any, dim: str, name: str) -> Any:
    return pd.Series(
        np.asarray(values), index=pd.Index(np.arange(len(values)), name=dim), name=name
    )
