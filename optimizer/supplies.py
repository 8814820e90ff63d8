"""Which of a site's power supplies cover its draw, and what that emits.

Decides the cheapest cover of given draws: each site's supplies in order of price, and where the
fleet's carbon cap would be passed, cleaner ones where that costs least per gram. How much a site
draws is `costs`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise

from optimizer.plan import SupplyUse
from optimizer.problem import Problem
from sites.fleet import PowerSupply, Site, at_period
from sites.units import W_PER_KW

G_PER_T = 1e6

_Watts = dict[tuple[str, str], float]
"""Power by (site id, supply id)."""


def supply_price_usd_per_w_h(problem: Problem, supply: PowerSupply) -> tuple[float, float]:
    """Price of one W for one hour from a supply: (energy, carbon), USD/W/h, in this period."""
    energy = at_period(supply.price_usd_per_kwh, problem.period) / W_PER_KW
    carbon_t = carbon_g_per_w_h(problem, supply) / G_PER_T
    return energy, carbon_t * problem.plan_policy.carbon_usd_per_t


def carbon_g_per_w_h(problem: Problem, supply: PowerSupply) -> float:
    """What one W for one hour from a supply emits in this period (g)."""
    return at_period(supply.carbon_g_per_kwh, problem.period) / W_PER_KW


def emission_g_per_h(problem: Problem, supplies: Iterable[SupplyUse]) -> float:
    """What the power taken emits (g/h): the left side of `carbon_cap`."""
    intensity = {
        (site.site_id, k.supply_id): carbon_g_per_w_h(problem, k)
        for site in problem.fleet.sites
        for k in site.supplies
    }
    return sum(use.power_w * intensity[use.site_id, use.supply_id] for use in supplies)


def by_price(problem: Problem, site: Site) -> list[PowerSupply]:
    """A site's supplies, cheapest (energy + carbon) in this period first, ties by id."""
    return _ranked(problem, site, usd_per_g=0.0)


def _ranked(problem: Problem, site: Site, *, usd_per_g: float) -> list[PowerSupply]:
    """Supplies in order of price where each gram costs so much more than the carbon price."""

    def price(one: PowerSupply) -> float:
        paid = sum(supply_price_usd_per_w_h(problem, one))
        return paid + usd_per_g * carbon_g_per_w_h(problem, one)

    return sorted(site.supplies, key=lambda s: (price(s), s.supply_id))


def supply_stack(problem: Problem, site: Site, *, watts: float) -> tuple[SupplyUse, ...]:
    """Cover a site's draw from its supplies, cheapest (energy + carbon) first, each to its limit.

    What no supply can cover is put on the dearest, so that the checker sees it exceed its limit.
    """
    return _uses(_stacks(problem, {site.site_id: watts}, usd_per_g=0.0))


def supply_stacks(problem: Problem, drawn_w: Mapping[str, float]) -> tuple[SupplyUse, ...]:
    """Cover every site's draw (W by site id), sorted by site and supply.

    Each site for itself as `supply_stack` does. Where that emits more than `carbon_cap_g_per_h`,
    the cheapest cover that keeps the cap; the cleanest of all where none does.
    """
    cap = problem.plan_policy.carbon_cap_g_per_h
    cheapest = _stacks(problem, drawn_w, usd_per_g=0.0)
    if cap is None or _emission(problem, cheapest) <= cap:
        return _uses(cheapest)
    return _uses(_capped(problem, drawn_w, cheapest=cheapest, cap_g_per_h=cap))


def _capped(
    problem: Problem, drawn_w: Mapping[str, float], *, cheapest: _Watts, cap_g_per_h: float
) -> _Watts:
    """The two neighbouring covers around the price per gram that meets the cap, mixed to meet it.

    Covers that are cheapest at one price per gram are best for what they emit; between two prices
    at which two supplies of a site change places the cover stays the same.
    """
    levels = _levels(problem, drawn_w)
    low, high = 0, len(levels) - 1  # a bisection: emission falls from level to level
    before, after = cheapest, _stacks(problem, drawn_w, usd_per_g=levels[high])
    if _emission(problem, after) >= cap_g_per_h:
        return after
    while high - low > 1:
        middle = (low + high) // 2
        tried = _stacks(problem, drawn_w, usd_per_g=levels[middle])
        if _emission(problem, tried) > cap_g_per_h:
            low, before = middle, tried
        else:
            high, after = middle, tried
    dirty, clean = _emission(problem, before), _emission(problem, after)
    part = (dirty - cap_g_per_h) / (dirty - clean)
    keys = sorted({*before, *after})
    return {k: (1 - part) * before.get(k, 0.0) + part * after.get(k, 0.0) for k in keys}


def _levels(problem: Problem, drawn_w: Mapping[str, float]) -> list[float]:
    """Prices per gram, one between each two at which supplies of a site change places; 0 first."""
    changes: set[float] = set()
    for site_id in sorted(drawn_w):
        figures = [
            (sum(supply_price_usd_per_w_h(problem, k)), carbon_g_per_w_h(problem, k))
            for k in problem.fleet.site(site_id).supplies
        ]
        for price, carbon in figures:
            changes |= {
                (price - other) / (dirtier - carbon)
                for other, dirtier in figures
                if dirtier > carbon and price >= other
            }
    ordered = sorted(changes)
    between = [(low + high) / 2 for low, high in pairwise(ordered)]
    return [0.0, *between, 2 * ordered[-1] + 1.0] if ordered else [0.0]


def _stacks(problem: Problem, drawn_w: Mapping[str, float], *, usd_per_g: float) -> _Watts:
    taken: _Watts = {}
    for site_id in sorted(drawn_w):
        site, left = problem.fleet.site(site_id), drawn_w[site_id]
        for supply in _ranked(problem, site, usd_per_g=usd_per_g):
            used = min(left, at_period(supply.limit_w, problem.period))
            taken[site_id, supply.supply_id] = used
            left -= used
        taken[site_id, by_price(problem, site)[-1].supply_id] += left
    return taken


def _emission(problem: Problem, taken: _Watts) -> float:
    return emission_g_per_h(problem, _uses(taken))


def _uses(taken: _Watts) -> tuple[SupplyUse, ...]:
    return tuple(
        SupplyUse(site_id=site_id, supply_id=supply_id, power_w=taken[site_id, supply_id])
        for site_id, supply_id in sorted(taken)
        if taken[site_id, supply_id] > 0
    )


def cleanest_g_per_h(problem: Problem, site: Site, *, watts: float) -> float:
    """The least a site's draw can emit (g/h): its cleanest supplies first, each to its limit."""
    left, total = watts, 0.0
    for carbon, limit in _by_carbon(problem, site):
        total += carbon * min(left, limit)
        left -= min(left, limit)
    return total + left * _by_carbon(problem, site)[-1][0]


def clean_room_w(problem: Problem, site: Site, *, watts: float, spare_g_per_h: float) -> float:
    """How much more a site that draws so many W may draw before it emits so much more (W)."""
    begun, spare, room = watts, spare_g_per_h, 0.0
    for carbon, limit in _by_carbon(problem, site):
        free = max(0.0, limit - begun)
        begun = max(0.0, begun - limit)
        if carbon > 0 and carbon * free > spare:
            return room + max(0.0, spare) / carbon
        room += free
        spare -= carbon * free
    return room


def _by_carbon(problem: Problem, site: Site) -> list[tuple[float, float]]:
    """(g per W and hour, limit in W) of each supply, cleanest first."""
    return sorted(
        (carbon_g_per_w_h(problem, k), at_period(k.limit_w, problem.period)) for k in site.supplies
    )
