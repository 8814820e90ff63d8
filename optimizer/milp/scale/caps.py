"""Limits over the whole fleet beside pools, power and supplies: carbon, budgets, caps, moves.

Facts and arithmetic. Emission and what tenants are charged have prices (`CapPrices`): a plan that
keeps the limits costs at most `given_back_usd_per_h` more at these than it does, so what no plan
undercuts at prices, less that, no plan undercuts that keeps the limits. Which prices are good is
`price_lp`'s question.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.milp.arrays_mix import charged_usd_per_h
from optimizer.milp.arrays_rows import merged_bounds
from optimizer.milp.constraints_mix import G_PER_KG
from optimizer.tables import NOWHERE, Floats, Tables

Positions = NDArray[np.intp]

_NEVER_USD_PER_H = 1e9
"""Of groups that are never there to be busy: finite, as solvers ask."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CapPrices:
    """USD per kg emitted, and per USD that each tenant with a budget is charged (by rank)."""

    carbon_usd_per_kg: float
    budget: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Caps:
    """Limits over the whole fleet, infinite or without members where a problem has none.

    `tenant[class]` ranks the tenants with a budget, `bound[group]` the caps on replicas of a
    variant at a site (NOWHERE: none). `busy_usd_per_h[group]` is what a busy replica counts in a
    budget, transfer aside. `moves` is how many replicas may start or stop.
    """

    carbon_kg_per_h: float
    tenant: Positions
    budget_usd_per_h: Floats
    busy_usd_per_h: Floats
    bound: Positions
    bound_most: Floats
    moves: float

    @property
    def are_none(self) -> bool:
        """Whether a problem has no such limit."""
        return not (self.are_priced or len(self.bound_most) or np.isfinite(self.moves))

    @property
    def are_priced(self) -> bool:
        """Whether some limit has a price."""
        return len(self.budget_usd_per_h) > 0 or np.isfinite(self.carbon_kg_per_h)

    def no_prices(self) -> CapPrices:
        """Prices of limits that do not bind."""
        return CapPrices(carbon_usd_per_kg=0.0, budget=np.zeros(len(self.budget_usd_per_h)))

    def charged_usd_per_h(
        self, group: Positions, *, busy: Floats, network_usd_per_h: Floats
    ) -> Floats:
        """What busy replicas of some groups and the transfer to them count in a budget."""
        charged: Floats = self.busy_usd_per_h[group] * busy + network_usd_per_h
        return charged

    def given_back_usd_per_h(self, prices: CapPrices) -> float:
        """What the limits are worth at prices."""
        worth = float(prices.budget @ self.budget_usd_per_h)
        if prices.carbon_usd_per_kg > 0:
            worth += prices.carbon_usd_per_kg * self.carbon_kg_per_h
        return worth


def take_caps(tables: Tables) -> Caps:
    """The limits of a problem."""
    policy, problem = tables.problem.plan_policy, tables.problem
    budgets = {
        t.tenant_id: t.budget_usd_per_h for t in problem.tenants if t.budget_usd_per_h is not None
    }
    capped = [tenant_id for tenant_id in tables.tenant_ids if tenant_id in budgets]
    rank = np.array(
        [capped.index(t) if t in budgets else NOWHERE for t in tables.tenant_ids], dtype=np.intp
    )
    bound, bound_most = _bounds(tables)
    cap, moves = policy.carbon_cap_g_per_h, policy.move_limit_replicas
    return Caps(
        carbon_kg_per_h=np.inf if cap is None else cap / G_PER_KG,
        tenant=rank[tables.classes.tenant],
        budget_usd_per_h=np.array([budgets[t] for t in capped], dtype=np.float64),
        busy_usd_per_h=np.nan_to_num(charged_usd_per_h(tables), posinf=_NEVER_USD_PER_H),
        bound=bound,
        bound_most=bound_most,
        moves=np.inf if moves is None else float(moves),
    )


def of_bound(tables: Tables, site_id: str, variant_id: str) -> Positions:
    """The groups of a variant at a site."""
    if site_id not in tables.sites.ids or variant_id not in tables.variants.ids:
        return np.zeros(0, dtype=np.intp)
    groups = tables.groups
    there = groups.site == tables.sites.ids.index(site_id)
    return np.flatnonzero(there & (groups.variant == tables.variants.ids.index(variant_id)))


def _bounds(tables: Tables) -> tuple[Positions, Floats]:
    """Per group the rank of its replica cap, and the caps."""
    most = {k: b.most for k, b in merged_bounds(tables.problem).items() if b.most is not None}
    bound = np.full(tables.groups.count, NOWHERE, dtype=np.intp)
    limits = np.zeros(len(most))
    for rank, key in enumerate(most):
        mine = of_bound(tables, *key)
        bound[mine] = rank
        limits[rank] = most[key]
    return bound, limits
