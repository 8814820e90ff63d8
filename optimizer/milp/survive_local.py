"""A plan's certificate, the classes a loss leaves short placed again with those beside them.

Decides the certificate where moving traffic to the nearest sites (`survive_plan`) leaves something
exposed: the protected classes that share replica groups with the short ones, and they alone, are
served as well as the replicas left allow, moving as little as that takes. Cuts are `survive`'s.
"""

from __future__ import annotations

from collections import defaultdict

from optimizer.costs import exposure_usd_per_h, shed_price_usd_per_h
from optimizer.milp.flows import Flow, cheapest_flows
from optimizer.plan import Plan
from optimizer.reach import Reach
from optimizer.survive import AfterLoss, is_asked
from optimizer.survive_plan import LossAnswer, Survivors, Tally, whole_shares, with_certificate
from sites.units import WHOLE_BP

_MOVING_PART = 1e-5
"""What moving traffic that could stay costs, as part of leaving it exposed: it breaks ties only."""


def certify(reach: Reach, plan: Plan) -> Plan:
    """The plan with its certificate and the price of what is exposed; unchanged if none is asked.

    As `survive_plan.certified`, with a linear problem for each loss that this leaves exposed.
    """
    if not is_asked(reach):
        return plan
    survivors = Survivors(reach, plan)
    answers = [best_answer(survivors, site_id) for site_id in survivors.losses()]
    return with_certificate(reach, plan, answers=answers)


def best_answer(survivors: Survivors, lost_site_id: str) -> LossAnswer:
    """The nearest sites' answer to a loss, or the linear problem's if that exposes less."""
    nearest = survivors.nearest(lost_site_id)
    if not nearest.exposed:
        return nearest
    again = _placed_again(survivors, lost_site_id)
    return min((nearest, again), key=lambda a: exposure_usd_per_h(survivors.reach, a.exposed))


def _placed_again(survivors: Survivors, lost_site_id: str) -> LossAnswer:
    reach, left = survivors.reach, AfterLoss(survivors.reach, lost_site_id)
    classes = _concerned(survivors, left, lost_site_id)
    tally = Tally(now=survivors.now, limits=survivors.limits)
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
    parts = cheapest_flows(
        flows,
        limits={key: tally.left(key) for flow in flows for key in flow.uses},
        shed_price=price,
        wanted={c: survivors.wanted(c) for c in classes},
    )
    shares = {c: whole_shares(parts.get(c, {}), wanted=survivors.wanted(c)) for c in classes}
    return survivors.answer(left, shares, lost_site_id=lost_site_id)


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
