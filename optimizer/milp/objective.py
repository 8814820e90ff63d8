"""What a plan costs, in USD per hour: one function per term, prices shared with `optimizer.costs`.

Which prices hold is the problem's (fleet, period, plan policy); how a finished plan is priced again
from its rounded shares is `optimizer.costs`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pyomo.environ as pyo

from optimizer.costs import (
    replica_price_usd_per_h,
    risk_price_usd_per_h,
    shed_price_usd_per_h,
    start_price_usd_per_h,
)
from optimizer.milp.model import Formulation
from optimizer.reach import Reach
from optimizer.supplies import supply_price_usd_per_w_h
from sites.units import S_PER_H, W_PER_KW

Term = Callable[[Formulation, Reach], Any]


def _sum(f: Formulation, terms: Iterable[tuple[float, Any]]) -> Any:
    """A term's expression; 0 where nothing in it has a price."""
    priced = [(price, variable) for price, variable in terms if price != 0]
    return f.sum_of(priced) if priced else 0.0


def hardware(f: Formulation, reach: Reach) -> Any:
    """Price per accelerator-hour x accelerators x n."""
    return _sum(
        f,
        (
            (replica_price_usd_per_h(reach, facts.option.group), f.model.n[group_id])
            for group_id, facts in f.inputs.groups.items()
        ),
    )


def energy(f: Formulation, reach: Reach) -> Any:
    """Price per kWh x kW of each supply. Cooling is inside: supplies cover the draw x PUE."""
    return _per_supply(f, reach, term=0)


def carbon(f: Formulation, reach: Reach) -> Any:
    """Carbon price per tonne x tonnes per kWh x kW of each supply."""
    return _per_supply(f, reach, term=1)


def _per_supply(f: Formulation, reach: Reach, *, term: int) -> Any:
    return _sum(
        f,
        (
            (
                supply_price_usd_per_w_h(reach.problem, supply)[term] * W_PER_KW,
                f.model.e[site_id, supply.supply_id],
            )
            for site_id, site in f.inputs.sites.items()
            for supply in site.supplies
        ),
    )


def network(f: Formulation, reach: Reach) -> Any:
    """Transfer price per request over the arc's path x requests per hour."""
    return _sum(
        f,
        (
            (arc.network_usd_per_request * S_PER_H, f.model.x[key])
            for key, arc in f.inputs.arcs.items()
        ),
    )


def migration(f: Formulation, reach: Reach) -> Any:
    """Price of starting a replica (weights moved, hardware that waits) x up."""
    return _sum(
        f,
        (
            (start_price_usd_per_h(reach, facts.option.group), f.model.up[group_id])
            for group_id, facts in f.inputs.groups.items()
        ),
    )


def shedding(f: Formulation, reach: Reach) -> Any:
    """Price per output token not served, by priority, x shed."""
    return _sum(
        f,
        (
            (shed_price_usd_per_h(reach, class_id) / rate, f.model.shed[class_id])
            for class_id, rate in f.inputs.rates.items()
        ),
    )


def site_fixed(f: Formulation, reach: Reach) -> Any:
    """Fixed price of a site that holds any replica x open."""
    return _sum(
        f,
        (
            (f.inputs.sites[site_id].fixed_price_usd_per_h, f.model.open[site_id])
            for site_id in f.model.open
        ),
    )


def risk(f: Formulation, reach: Reach) -> Any:
    """Interruptions per hour x price of one start (USD) x n, on spot pools."""
    return _sum(
        f,
        (
            (risk_price_usd_per_h(reach, facts.option.group), f.model.n[group_id])
            for group_id, facts in f.inputs.groups.items()
        ),
    )


TERMS: tuple[Term, ...] = (
    hardware,
    energy,
    network,
    migration,
    carbon,
    shedding,
    site_fixed,
    risk,
)
"""Every cost term."""


def add_cost(f: Formulation) -> None:
    """Minimise the sum of all terms, over all periods of the horizon."""
    terms = []
    for period in f.horizon:
        reach = Reach(period.inputs.problem)
        terms += [term(period, reach) for term in TERMS]
    total = sum(term for term in terms if not isinstance(term, float))
    f.root.cost = pyo.Objective(
        expr=f.sum_of([]) if isinstance(total, int) else total, sense=pyo.minimize
    )
