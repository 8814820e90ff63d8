"""How limits over a whole day fall to its hours: tenant budgets and the carbon cap.

Decides what part of each an hour's own problem states, so that the ordinary checker can judge the
hour by itself. The rows over the day are `constraints_mix`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import fsum

from optimizer.costs import charged_price_usd_per_h
from optimizer.milp.constraints_mix import G_PER_KG
from optimizer.milp.highs import Point
from optimizer.milp.inputs import ArcKey
from optimizer.milp.model import Formulation, RowKey
from optimizer.reach import Reach
from optimizer.supplies import carbon_g_per_w_h
from sites.units import S_PER_H, W_PER_KW


def hour_limits(
    horizon: tuple[Formulation, ...], point: Point, *, left: int
) -> dict[RowKey, list[float]]:
    """What each hour may take of every limit over the day: what it takes, and an equal part of what
    nobody takes, over the `left` hours of the schedule. Tenant budgets in USD/h, carbon in g/h.
    """
    taken = [
        _taken(f, values) for f, values in zip(horizon, (point.values, *point.later), strict=True)
    ]
    first, limits = horizon[0], {}
    for key, whole in _day_limits(first).items():
        parts = [one.get(key, 0.0) for one in taken]
        spare = max(0.0, whole - fsum(parts)) / left
        limits[key] = [part + spare for part in parts]
    return limits


def _day_limits(first: Formulation) -> dict[RowKey, float]:
    """Limits over the day as the rows of a horizon have them, carbon in g."""
    problem, slack = first.inputs.problem, first.elasticity.slack
    hours = len(first.horizon)
    limits: dict[RowKey, float] = {}
    for tenant in problem.tenants:
        if tenant.budget_usd_per_h is not None:
            key = ("tenant_budget", tenant.tenant_id)
            limits[key] = tenant.budget_usd_per_h * hours + slack.get(key, 0.0)
    cap_g = problem.plan_policy.carbon_cap_g_per_h
    if cap_g is not None:
        key = ("carbon_cap", "fleet")
        limits[key] = cap_g * hours + slack.get(key, 0.0) * G_PER_KG
    return limits


def _taken(f: Formulation, values: Mapping[str, Mapping[ArcKey, float]]) -> dict[RowKey, float]:
    """What an hour of a point takes of the limits over the day, carbon in g."""
    problem = f.inputs.problem
    reach = Reach(problem)
    charged: dict[str, float] = {}
    taken: dict[RowKey, list[float]] = {("carbon_cap", "fleet"): []}
    for key, arc in f.inputs.arcs.items():
        rate = values["x"][key]
        if rate > 0:
            if key[1] not in charged:
                charged[key[1]] = charged_price_usd_per_h(reach, arc.group)
            price = charged[key[1]] * arc.replica_seconds + arc.network_usd_per_request * S_PER_H
            subject = ("tenant_budget", f.inputs.classes[key[0]].tenant_id)
            taken.setdefault(subject, []).append(price * rate)
    for site_id, site in f.inputs.sites.items():
        for supply in site.supplies:
            power_w = max(0.0, values["e"][site_id, supply.supply_id]) * W_PER_KW
            taken["carbon_cap", "fleet"].append(power_w * carbon_g_per_w_h(problem, supply))
    return {key: fsum(parts) for key, parts in taken.items()}
