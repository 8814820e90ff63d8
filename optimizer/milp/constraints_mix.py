"""Rows about mixes and sums: how a class is spread, what its mean must be, what the whole may cost.

One function per family, named as in messages and golden files; each docstring opens with its
inequality. The rows of replicas, power and flow are `constraints`'s. Budgets and the carbon cap
bind a horizon as a whole: they are declared in its first period, over all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from optimizer.costs import charged_price_usd_per_h
from optimizer.milp.inputs import ArcKey
from optimizer.milp.model import Formulation
from optimizer.reach import Reach, zone_of
from sites.fleet import at_period
from sites.traffic import TrafficClass
from sites.units import MS_PER_S, S_PER_H

G_PER_KG = 1_000.0


def spread(f: Formulation) -> None:
    """``k * sum_{r at s} x[d,r] + shed[d] <= rate[d]``: no site serves over 1/k of what is served.

    Whatever is served of a class is then served by at least k sites, without a binary per (class,
    site). It asks for more than k sites with any share, on purpose: a second site that takes one
    request in ten thousand is no spread. The same for zones (``class@zone:region``), with the k of
    `spread_zones` and s a region. In a horizon rate[d] is what is left after deferral.
    """
    places: dict[str, tuple[str, int, list[ArcKey]]] = {}
    for class_id, one in f.inputs.classes.items():
        for key in f.inputs.arcs_of_class[class_id]:
            site_id = f.inputs.arcs[key].group.site_id
            zone = zone_of(f.inputs.sites[site_id])
            for wanted, place in ((one.spread_sites, site_id), (one.spread_zones, f"zone:{zone}")):
                if wanted > 1:
                    subject = f"{class_id}@{place}"
                    places.setdefault(subject, (class_id, wanted, []))[2].append(key)

    def row(subject: str) -> Any:
        class_id, wanted, keys = places[subject]
        rate, moved = f.asked(class_id)
        terms = [(float(wanted), f.model.x[key]) for key in keys]
        terms += [(1.0, f.model.shed[class_id]), *((-sign, v) for sign, v in moved)]
        return f.sum_of(terms) <= f.room("spread", subject, limit=rate)

    f.rows("spread", sorted(places), row)


def latency_mix(f: Formulation) -> None:
    """``sum_r (ttft[d,r] - slo[d]) * x[d,r] <= 0``, in seconds: the mean TTFT of what is served.

    For classes whose SLO is on the mix (`over_mix`): a late arc needs early ones beside it.
    """

    def lateness_s(one: TrafficClass, key: ArcKey) -> float:
        return (f.inputs.arcs[key].ttft_ms - one.slo.ttft_ms) / MS_PER_S

    _mean(f, "latency_mix", lambda one: one.slo.over_mix, excess=lateness_s)


def quality_floor(f: Formulation) -> None:
    """``sum_r (floor[d] - quality[r]) * x[d,r] <= 0``: the mean quality of what is served.

    For classes with a `mean_quality_floor`; the floor of each single answer decides which arcs
    exist.
    """

    def shortfall(one: TrafficClass, key: ArcKey) -> float:
        return one.mean_quality_floor - f.inputs.groups[key[1]].option.variant.quality

    _mean(f, "quality_floor", lambda one: one.mean_quality_floor > 0, excess=shortfall)


def _mean(
    f: Formulation,
    family: str,
    asks: Callable[[TrafficClass], bool],
    *,
    excess: Callable[[TrafficClass, ArcKey], float],
) -> None:
    """Rows ``sum_r excess(d, r) * x[d,r] <= 0`` of classes that ask for them and have an arc."""
    subjects = [
        class_id
        for class_id, one in f.inputs.classes.items()
        if asks(one) and f.inputs.arcs_of_class[class_id]
    ]

    def row(class_id: str) -> Any:
        one = f.inputs.classes[class_id]
        mean = f.sum_of(
            (excess(one, key), f.model.x[key]) for key in f.inputs.arcs_of_class[class_id]
        )
        return mean <= f.room(family, class_id, limit=0.0)

    f.rows(family, subjects, row)


def tenant_budget(f: Formulation) -> None:
    """``sum_d,r (charged[r] * replica_seconds[d,r] + 3600 * network[d,r]) * x[d,r] <= budget[t]``.

    d over the tenant's classes; charged[r] is what one busy replica costs for an hour where all are
    used to the ceiling, at the site's dearest supply (`costs.charged_price_usd_per_h`), in USD/h.
    Over a horizon: the sum of all periods within as many budgets.
    """
    if f.at > 0:
        return
    budgets = {
        t.tenant_id: t.budget_usd_per_h
        for t in sorted(f.inputs.problem.tenants, key=lambda t: t.tenant_id)
        if t.budget_usd_per_h is not None
    }
    spent: dict[str, list[tuple[float, Any]]] = {}
    for period in f.horizon:
        reach = Reach(period.inputs.problem)
        charged: dict[str, float] = {}
        for key, arc in period.inputs.arcs.items():
            tenant_id = period.inputs.classes[key[0]].tenant_id
            if tenant_id in budgets:
                if key[1] not in charged:
                    charged[key[1]] = charged_price_usd_per_h(reach, arc.group)
                price = charged[key[1]] * arc.replica_seconds
                price += arc.network_usd_per_request * S_PER_H
                spent.setdefault(tenant_id, []).append((price, period.model.x[key]))

    def row(tenant_id: str) -> Any:
        limit = (budgets[tenant_id] or 0.0) * len(f.horizon)
        return f.sum_of(spent[tenant_id]) <= f.room("tenant_budget", tenant_id, limit=limit)

    f.rows("tenant_budget", sorted(spent), row)


def carbon_cap(f: Formulation) -> None:
    """``sum_k carbon[k] * e[k] <= carbon_cap``, in kg/h: what all supplies together may emit.

    Over a horizon: the sum of all periods within as many caps.
    """
    cap = f.inputs.problem.plan_policy.carbon_cap_g_per_h
    subjects = [] if f.at > 0 or cap is None else ["fleet"]

    def row(subject: str) -> Any:
        emitted = f.sum_of(
            (
                at_period(k.carbon_g_per_kwh, period.inputs.problem.period) / G_PER_KG,
                period.model.e[site_id, k.supply_id],
            )
            for period in f.horizon
            for site_id, site in period.inputs.sites.items()
            for k in site.supplies
        )
        limit = (cap or 0.0) / G_PER_KG * len(f.horizon)
        return emitted <= f.room("carbon_cap", subject, limit=limit)

    f.rows("carbon_cap", subjects, row)


MIX_FAMILIES: tuple[Callable[[Formulation], None], ...] = (
    spread,
    latency_mix,
    quality_floor,
    tenant_budget,
    carbon_cap,
)
"""The row families of this module, in the order the model declares them."""
