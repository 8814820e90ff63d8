"""What-if: changes people write in a line each, applied to a problem. Nothing is carried out.

Decides what may be changed and under which words; numbers are read as fleet files read them, and
the facts refuse what cannot be. Every limit whose worth is told (`worth`) has its words here. All
faults of all lines are reported at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from optimizer.amount import Amount, read_amount
from optimizer.policy import GroupBound, PlanPolicy
from optimizer.problem import Problem
from sites.errors import RefusedError
from sites.fleet import HardwarePool, Link, PowerSupply, Site
from sites.fleet_file.facts import POLICY_FIELDS
from sites.fleet_file.faults import did_you_mean
from sites.traffic import TrafficClass

EXAMPLES = (
    "site NAME power +500 kW",
    "price NAME +20%",
    "site NAME accelerators POOL +8",
    "link A--B bandwidth +10 Gbit/s",
    "demand class NAME +30%",
    "tenant NAME budget = $50/h",
    "policy carbon-price $100/t",
    "lose NAME",
)
"""One line of each kind, for help and messages."""

_SUPPLY = "Site.spec.power.supplies"
_SITE: Mapping[str, tuple[str, str]] = {
    "power": ("power_budget_w", "Site.spec.power.budget"),
    "pue": ("pue", "Site.spec.power.pue"),
    "fixed-price": ("fixed_price_usd_per_h", "Site.spec.fixedPrice"),
    "cordoned": ("cordoned", "Site.spec.cordoned"),
}
_ENERGY: Mapping[str, tuple[str, str]] = {
    "price": ("price_usd_per_kwh", f"{_SUPPLY}.price"),
    "carbon": ("carbon_g_per_kwh", f"{_SUPPLY}.carbon"),
    "limit": ("limit_w", f"{_SUPPLY}.limit"),
}
_POOL: Mapping[str, tuple[str, str]] = {
    "accelerators": ("count", "Site.spec.pools.count"),
    "hardware-price": ("price_usd_per_accelerator_h", "Site.spec.pools.price"),
    "interruption": ("interruption_per_h", "Site.spec.pools.interruption"),
}
_LINK: Mapping[str, tuple[str, str]] = {
    "bandwidth": ("bandwidth_bps", "Link.spec.bandwidth"),
    "price": ("price_usd_per_gb", "Link.spec.price"),
    "rtt": ("rtt_ms", "Link.spec.rtt"),
}
_TENANT: Mapping[str, tuple[str, str]] = {
    "budget": ("budget_usd_per_h", "Tenant.spec.budget"),
}
_CLASS: Mapping[str, tuple[str, str]] = {
    "priority": ("priority", "TrafficClass.spec.priority"),
    "protected": ("protected", "TrafficClass.spec.protected"),
    "quality-floor": ("quality_floor", "TrafficClass.spec.qualityFloor"),
    "mean-quality-floor": ("mean_quality_floor", "TrafficClass.spec.meanQualityFloor"),
    "spread-sites": ("spread_sites", "TrafficClass.spec.spreadSites"),
    "spread-zones": ("spread_zones", "TrafficClass.spec.spreadZones"),
    "deferrable": ("deferrable_h", "TrafficClass.spec.deferrable"),
    "context-tokens": ("context_tokens", "TrafficClass.spec.contextTokens"),
    "input-tokens": ("input_tokens", "TrafficClass.spec.inputTokens"),
    "output-tokens": ("output_tokens", "TrafficClass.spec.outputTokens"),
}
_SLO: Mapping[str, tuple[str, str]] = {
    "ttft": ("ttft_ms", "TrafficClass.spec.slo.ttft"),
    "tpot": ("tpot_ms", "TrafficClass.spec.slo.tpot"),
    "over-mix": ("over_mix", "TrafficClass.spec.slo.overMix"),
}
_BOUND: Mapping[str, tuple[str, str]] = {
    "fewest": ("fewest", "PlanPolicy.spec.replicaBounds.fewest"),
    "most": ("most", "PlanPolicy.spec.replicaBounds.most"),
}
_OWNERS = {
    "class": "class_id",
    "service": "service_id",
    "market": "market_id",
    "tenant": "tenant_id",
}


class WhatIfError(RefusedError):
    """Lines no problem can be made of; `faults` has one text per faulty line, in their order."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n  ".join(("what-if not understood:", *self.faults)))


def what_if(problem: Problem, lines: Iterable[str]) -> Problem:
    """The problem with every line applied, in order. Raises WhatIfError naming each bad line."""
    faults = []
    for line in lines:
        try:
            problem = _applied(problem, line)
        except RefusedError as refused:
            faults.append(f'"{_shown(line)}": {refused}')
    if faults:
        raise WhatIfError(faults)
    return problem


def _shown(line: str) -> str:
    text = line if line.isprintable() else ascii(line)[1:-1]
    return text if len(text) <= 100 else f"{text[:100]}…"


def _applied(problem: Problem, line: str) -> Problem:
    head, *words = line.split() or [""]
    if not head:
        raise RefusedError(f"is empty; write e.g. {'; '.join(EXAMPLES)}")
    change = _HEADS.get(head)
    if change is None:
        hint = did_you_mean(head, _HEADS) or f"; write e.g. {'; '.join(EXAMPLES)}"
        raise RefusedError(f'no change is called "{_shown(head)}"{hint}')
    return change(problem, words)


def _take(words: list[str], what: str) -> str:
    """The next word, which names `what`."""
    if not words:
        raise RefusedError(f"{what} is missing")
    return words.pop(0)


def _known(name: str, known: Iterable[str], noun: str, *, where: str = "") -> str:
    listed = sorted(known)
    if name not in listed:
        hint = did_you_mean(name, listed) or f"; one of {', '.join(listed[:12]) or '(none)'}"
        raise RefusedError(f'no {noun} "{_shown(name)}"{where}{hint}')
    return name


def _changed(fact: Any, field: tuple[str, str], amount: Amount) -> Any:
    """A fact with one field changed; the fact itself refuses what cannot be."""
    name, path = field
    new = amount.applied(getattr(fact, name), path=path)
    if name == "deferrable_h":
        new = round(new)
    return replace(fact, **{name: new})


def _site(problem: Problem, words: list[str]) -> Problem:
    """``site S power|pue|price|… AMOUNT``, ``site S supply K limit AMOUNT``, ``site S accelerators
    POOL AMOUNT``.
    """
    name = _known(_take(words, "site"), (s.site_id for s in problem.fleet.sites), "site")
    what = _take(words, f"what to change of site {name}")
    _known(what, {*_SITE, *_POOL, "price", "carbon", "supply"}, "figure of a site")
    site = problem.fleet.site(name)
    if what in _SITE:
        new = _changed(site, _SITE[what], read_amount(" ".join(words)))
    elif what in _POOL:
        new = _pool_changed(site, what, words)
    elif what == "supply":
        new = _supply_changed(site, words)
    else:
        amount = read_amount(" ".join(words))
        new = replace(
            site, supplies=tuple(_changed(k, _ENERGY[what], amount) for k in site.supplies)
        )
    return _with_site(problem, new)


def _pool_changed(site: Site, what: str, words: list[str]) -> Site:
    known = [p.pool_id for p in site.pools]
    pool_id = _known(_take(words, "pool"), known, "pool", where=f" at {site.site_id}")
    amount = read_amount(" ".join(words))

    def changed(pool: HardwarePool) -> HardwarePool:
        return _changed(pool, _POOL[what], amount) if pool.pool_id == pool_id else pool

    return replace(site, pools=tuple(changed(pool) for pool in site.pools))


def _supply_changed(site: Site, words: list[str]) -> Site:
    known = [k.supply_id for k in site.supplies]
    supply_id = _known(_take(words, "supply"), known, "supply", where=f" at {site.site_id}")
    what = _known(_take(words, "limit, price or carbon"), _ENERGY, "figure of a supply")
    amount = read_amount(" ".join(words))

    def changed(supply: PowerSupply) -> PowerSupply:
        return _changed(supply, _ENERGY[what], amount) if supply.supply_id == supply_id else supply

    return replace(site, supplies=tuple(changed(supply) for supply in site.supplies))


def _with_site(problem: Problem, new: Site) -> Problem:
    sites = tuple(new if s.site_id == new.site_id else s for s in problem.fleet.sites)
    return replace(problem, fleet=replace(problem.fleet, sites=sites))


def _of_site(what: str) -> Callable[[Problem, list[str]], Problem]:
    """``power S AMOUNT`` for ``site S power AMOUNT``."""

    def change(problem: Problem, words: list[str]) -> Problem:
        return _site(problem, [_take(words, "site"), what, *words])

    return change


def _link(problem: Problem, words: list[str]) -> Problem:
    """``link A--B bandwidth|price|rtt AMOUNT``."""
    fleet = problem.fleet
    given = "--".join(sorted(_take(words, "link").split("--")))
    link_id = _known(given, (k.link_id for k in fleet.links), "link")
    what = _known(_take(words, "bandwidth, price or rtt"), _LINK, "figure of a link")
    amount = read_amount(" ".join(words))

    def changed(link: Link) -> Link:
        return _changed(link, _LINK[what], amount) if link.link_id == link_id else link

    links = tuple(changed(link) for link in fleet.links)
    return replace(problem, fleet=replace(fleet, links=links))


def _demand(problem: Problem, words: list[str]) -> Problem:
    """``demand AMOUNT`` of all classes, ``demand class|service|market|tenant NAME AMOUNT``."""
    chosen = list(problem.classes)
    if words and words[0].isalpha() and words[0] != "x":
        kind = _known(_take(words, "class"), _OWNERS, "part of the demand")
        known = {getattr(c, _OWNERS[kind]) for c in chosen}
        name = _known(_take(words, kind), known, kind)
        chosen = [c for c in chosen if getattr(c, _OWNERS[kind]) == name]
    amount = read_amount(" ".join(words))
    if amount.sign != "x" and len(chosen) != 1:
        raise RefusedError(f"{len(chosen)} classes: scale them with +20% or x2, or name one class")
    ids = {c.class_id for c in chosen}
    field = ("rate_rps", "TrafficClass.spec.rate")
    forecasts = []
    for one in problem.demand:
        if one.class_id not in ids:
            forecasts.append(one)
        elif amount.sign != "=":
            (rate,) = amount.applied((one.rate_rps,), path=field[1])
            forecasts.append(replace(one, rate_rps=rate))
    classes = tuple(_changed(c, field, amount) if c.class_id in ids else c for c in problem.classes)
    return replace(problem, classes=classes, demand=tuple(forecasts))


def _class(problem: Problem, words: list[str]) -> Problem:
    """``class C FIELD AMOUNT``, ``class C ttft AMOUNT``."""
    known = {c.class_id for c in problem.classes}
    name = _known(_take(words, "class"), known, "traffic class")
    what = _take(words, f"what to change of class {name}")
    _known(what, {*_CLASS, *_SLO}, "figure of a traffic class")
    amount = read_amount(" ".join(words))

    def changed(one: TrafficClass) -> TrafficClass:
        if one.class_id != name:
            return one
        if what in _SLO:
            return replace(one, slo=_changed(one.slo, _SLO[what], amount))
        new: TrafficClass = _changed(one, _CLASS[what], amount)
        return new

    return replace(problem, classes=tuple(changed(one) for one in problem.classes))


def _tenant(problem: Problem, words: list[str]) -> Problem:
    """``tenant T budget AMOUNT``."""
    name = _known(_take(words, "tenant"), (t.tenant_id for t in problem.tenants), "tenant")
    what = _known(_take(words, "budget"), _TENANT, "figure of a tenant")
    amount = read_amount(" ".join(words))
    tenants = tuple(
        _changed(t, _TENANT[what], amount) if t.tenant_id == name else t for t in problem.tenants
    )
    return replace(problem, tenants=tenants)


def _policy(problem: Problem, words: list[str]) -> Problem:
    """``policy FIELD AMOUNT``: any single figure of the plan policy, its words joined by ``-``."""
    named = {field.replace("_", "-"): field for field in POLICY_FIELDS}
    given = _take(words, "field of the plan policy")
    longer = sorted(one for one in named if one.startswith(f"{given}-"))
    name = given if given in named or len(longer) != 1 else longer[0]
    field = named[_known(name, named, "field of the plan policy")]
    alias = _camel(field)
    amount = read_amount(" ".join(words))
    policy: PlanPolicy = _changed(
        problem.plan_policy, (POLICY_FIELDS[field], f"PlanPolicy.spec.{alias}"), amount
    )
    return replace(problem, plan_policy=policy)


def _camel(field: str) -> str:
    first, *rest = field.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _replicas(problem: Problem, words: list[str]) -> Problem:
    """``replicas SITE VARIANT fewest|most AMOUNT``."""
    site_id = _known(_take(words, "site"), (s.site_id for s in problem.fleet.sites), "site")
    variants = (v.variant_id for v in problem.catalog.variants)
    variant_id = _known(_take(words, "variant"), variants, "variant")
    what = _known(_take(words, "fewest or most"), _BOUND, "replica bound")
    bounds = problem.plan_policy.replica_bounds
    here = [b for b in bounds if (b.site_id, b.variant_id) == (site_id, variant_id)]
    old = here or [GroupBound(site_id=site_id, variant_id=variant_id)]
    amount = read_amount(" ".join(words))
    new = [_changed(bound, _BOUND[what], amount) for bound in old]
    others = [b for b in bounds if b not in here]
    policy = replace(problem.plan_policy, replica_bounds=(*others, *new))
    return replace(problem, plan_policy=policy)


def _lose(problem: Problem, words: list[str]) -> Problem:
    """``lose SITE``."""
    site_id = _known(_take(words, "site"), (s.site_id for s in problem.fleet.sites), "site")
    if words:
        raise RefusedError(f'"{_shown(" ".join(words))}" is too much; one site a line')
    return replace(problem, lost_sites=tuple(sorted({*problem.lost_sites, site_id})))


_HEADS: Mapping[str, Callable[[Problem, list[str]], Problem]] = {
    "site": _site,
    "power": _of_site("power"),
    "price": _of_site("price"),
    "link": _link,
    "demand": _demand,
    "class": _class,
    "tenant": _tenant,
    "policy": _policy,
    "replicas": _replicas,
    "lose": _lose,
}
