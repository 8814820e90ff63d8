"""What a plan stands on when a site is lost: who is where, who could go where, at what price.

Facts worked out once per plan, for `reroute_work` to decide with. Prices are those of one basis
point more: transfer, and power from the site's cheapest supply that is not used up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from optimizer.costs import network_usd_per_request, shed_price_usd_per_h
from optimizer.milp.survive_pairs import Ground
from optimizer.plan import Plan, SurvivalShare
from optimizer.problem import Problem
from optimizer.reach import Reach
from optimizer.supplies import by_price, supply_price_usd_per_w_h
from optimizer.survive import RowKey
from optimizer.survive_plan import Survivors
from sites.fleet import at_period
from sites.units import S_PER_H, WHOLE_BP


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """A placed group a class may go to, per basis point: USD/h, busy replicas, all it uses."""

    group_id: str
    site_id: str
    price: float
    busy: float
    uses: Mapping[RowKey, float]


class Standing:
    """One plan of one problem, its traffic and what it leaves free."""

    def __init__(self, problem: Problem, plan: Plan) -> None:
        self.plan = plan
        self.reach = Reach(problem)
        self.all = Survivors(self.reach, plan, classes=dict(sorted(self.reach.classes.items())))
        self.protected = Survivors(self.reach, plan)
        self.holders: dict[str, set[str]] = defaultdict(set)
        for class_id, shares in self.all.held.items():
            for group_id in shares:
                self.holders[group_id].add(class_id)
        self.replicas = {g: one.replicas for g, one in sorted(self.all.groups.items())}
        self.certificate: dict[str, list[SurvivalShare]] = defaultdict(list)
        for entry in plan.survival:
            self.certificate[entry.lost_site_id].append(entry)
        self.exposed = {(e.lost_site_id, e.class_id) for e in plan.exposed}
        self._power = _marginal_usd_per_w_h(problem, plan)
        self.link_keys = [key for key in self.all.limits if key[0] == "link_bandwidth"]
        self.tight_supplies = self._tight_supplies()
        self._offers: dict[tuple[str, str], tuple[Offer, ...]] = {}

    @cached_property
    def ground(self) -> Ground:
        """What losses have in common for protected traffic; asked for without a certificate."""
        return Ground(self.protected, self.plan)

    def offers(self, left: Reach, class_id: str) -> tuple[Offer, ...]:
        """Where a class may go from where it then enters, cheapest first. The lost site's groups
        may be among them.
        """
        entry = left.entry(self.all.classes[class_id])
        key = (class_id, entry.site_id if entry else "")
        if key not in self._offers:
            options = self.all.options(left, class_id, lost_too=True)
            offers = (self._offer(left, class_id, group_id) for group_id in options)
            self._offers[key] = tuple(sorted(offers, key=lambda o: (o.price, o.group_id)))
        return self._offers[key]

    def _offer(self, left: Reach, class_id: str, group_id: str) -> Offer:
        """Power at the site's marginal price and transfer, per basis point of the class."""
        site_id = self.all.groups[group_id].group.site_id
        uses = self.all.uses(left, class_id, group_id)
        power = uses.get(("supply_limit", site_id), 0.0) * self._power[site_id]
        per_request = network_usd_per_request(left, class_id, site_id=site_id)
        network = per_request * self.reach.rates[class_id] / WHOLE_BP * S_PER_H
        return Offer(
            group_id=group_id,
            site_id=site_id,
            price=power + network,
            busy=uses["throughput", group_id],
            uses=uses,
        )

    def shed_price(self, class_id: str) -> float:
        """Shedding one basis point of a class (USD/h)."""
        return shed_price_usd_per_h(self.reach, class_id) / WHOLE_BP

    def _tight_supplies(self) -> set[RowKey]:
        """Sites whose supplies could not bear all their replicas at the ceiling."""
        full_w: dict[RowKey, float] = defaultdict(float)
        for group_id, placed in self.all.groups.items():
            group = placed.group
            point, site = self.reach.point(group), self.reach.site(group.site_id)
            assert point is not None and site is not None, f"{group_id} has no serving point"
            each = (point.full_w - point.idle_w) * site.pue
            full_w["supply_limit", group.site_id] += each * self.all.limits["throughput", group_id]
        return {key for key, watts in full_w.items() if self.all.limits[key] < watts}


def _marginal_usd_per_w_h(problem: Problem, plan: Plan) -> dict[str, float]:
    """What one W more costs at each site of the plan (USD/h): its cheapest supply not used up."""
    used = {(u.site_id, u.supply_id): u.power_w for u in plan.supplies}
    prices: dict[str, float] = {}
    for site_id in sorted({g.group.site_id for g in plan.groups}):
        ranked = by_price(problem, problem.fleet.site(site_id))
        free = (
            k
            for k in ranked
            if used.get((site_id, k.supply_id), 0.0) < at_period(k.limit_w, problem.period)
        )
        prices[site_id] = sum(supply_price_usd_per_w_h(problem, next(free, ranked[-1])))
    return prices
