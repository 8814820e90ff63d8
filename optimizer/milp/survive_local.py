"""A plan's certificate, the classes a loss leaves short placed again with those beside them.

Decides the certificate where moving traffic to the nearest sites (`survive_plan`) leaves something
exposed or pushes other traffic out: the protected classes that share replica groups with those the
loss touches are served as well as the replicas left allow, moving as little and pushing out as
cheap traffic as that takes. Cuts are `survive`'s.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from optimizer.costs import exposure_usd_per_h, shed_price_usd_per_h
from optimizer.milp.flows import Flow, cheapest_flows
from optimizer.plan import Plan
from optimizer.reach import Reach
from optimizer.survive import AfterLoss, RowKey, is_asked
from optimizer.survive_plan import LossAnswer, Survivors, Tally, whole_shares, with_certificate
from sites.units import WHOLE_BP

_MOVING_PART = 1e-5
"""What moving traffic that could stay costs, as part of leaving it exposed: it breaks ties only."""

_PUSHING_PART = 1e-3
"""What traffic that gives way costs, as part of the exposure it makes room for: less than any."""


def certify(reach: Reach, plan: Plan) -> Plan:
    """The plan with its certificate and the price of what is exposed; unchanged if none is asked.

    As `survive_plan.certified`, with a linear problem for each loss that this leaves exposed.
    """
    if not is_asked(reach):
        return plan
    survivors = Survivors(reach, plan)
    gives = cheapest_others(survivors, plan)
    answers = [best_answer(survivors, site_id, gives=gives) for site_id in survivors.losses()]
    return with_certificate(reach, plan, answers=answers)


def cheapest_others(survivors: Survivors, plan: Plan) -> dict[RowKey, float]:
    """Least shed price (USD/h) of a busy replica that other classes keep busy, by group."""
    reach, prices = survivors.reach, dict[RowKey, float]()
    for share in plan.shares:
        one, key = reach.classes[share.class_id], ("throughput", share.group_id)
        if share.class_id not in survivors.classes and reach.rates[share.class_id] > 0:
            group = survivors.groups[share.group_id].group
            busy = reach.rates[share.class_id] * reach.replica_seconds(one, group)
            price = shed_price_usd_per_h(reach, share.class_id) / busy
            prices[key] = min(prices.get(key, price), price)
    return prices


def best_answer(
    survivors: Survivors, lost_site_id: str, *, gives: Mapping[RowKey, float]
) -> LossAnswer:
    """The nearest sites' answer to a loss, or the linear problem's where that is better.

    `gives` are the prices of `cheapest_others`.
    """
    nearest = survivors.nearest(lost_site_id)
    if not nearest.exposed and not nearest.pushes:
        return nearest
    again = _placed_again(survivors, lost_site_id, gives=gives)
    before, after = (exposure_usd_per_h(survivors.reach, a.exposed) for a in (nearest, again))
    return again if after <= before else nearest


def _placed_again(
    survivors: Survivors, lost_site_id: str, *, gives: Mapping[RowKey, float]
) -> LossAnswer:
    reach, left = survivors.reach, AfterLoss(survivors.reach, lost_site_id)
    classes = _concerned(survivors, left, lost_site_id)
    tally = Tally(now=survivors.now, limits=survivors.limits, others=survivors.others)
    for class_id in classes:
        for group_id, basis_points in survivors.held[class_id].items():
            tally.add(survivors.uses(reach, class_id, group_id), -basis_points)
    part = reach.problem.plan_policy.exposure_part
    price = {c: part * shed_price_usd_per_h(reach, c) / WHOLE_BP for c in classes}
    flows = [
        Flow(
            class_id=c,
            group_id=g,
            price=0.0 if g in survivors.held[c] else _MOVING_PART * price[c],
            uses=survivors.uses(left, c, g),
        )
        for c in classes
        for g in survivors.options(left, c)
    ]
    held = {key: tally.others.get(key, 0.0) for flow in flows for key in flow.uses}
    limits = {key: tally.left(key) - (used if key in gives else 0.0) for key, used in held.items()}
    least = _least_exposure(survivors, price)
    dearest = max((gives[key] for key in held if key in gives), default=1.0)
    parts = cheapest_flows(
        flows,
        limits=limits,
        shed_price=price,
        give_way={
            key: (used, gives[key] / dearest * least) for key, used in held.items() if key in gives
        },
        wanted={c: survivors.wanted(c) for c in classes},
    )
    shares = {c: whole_shares(parts.get(c, {}), wanted=survivors.wanted(c)) for c in classes}
    return survivors.answer(left, shares, lost_site_id=lost_site_id)


def _least_exposure(survivors: Survivors, price: Mapping[str, float]) -> float:
    """A price of a busy replica well below what it spares any class from being exposed."""
    reach, spared = survivors.reach, []
    for class_id, per_bp in price.items():
        for group_id in survivors.options(reach, class_id)[:1]:
            busy = survivors.uses(reach, class_id, group_id)["throughput", group_id]
            spared.append(per_bp / busy)
    return _PUSHING_PART * min(spared, default=0.0)


def _concerned(survivors: Survivors, left: Reach, lost_site_id: str) -> list[str]:
    """Classes the loss touches and those that share groups with them, again and again."""
    users: dict[str, list[str]] = defaultdict(list)
    options = {c: survivors.options(left, c) for c in survivors.classes}
    for class_id, group_ids in options.items():
        for group_id in group_ids:
            users[group_id].append(class_id)
    found: set[str] = set()
    front = set(survivors.touched[lost_site_id])
    while front:
        found |= front
        groups = {g for one in sorted(front) for g in options[one]}
        front = {c for g in sorted(groups) for c in users[g]} - found
    return [c for c in sorted(found) if survivors.has_arc(left, c, lost_site_id)]
