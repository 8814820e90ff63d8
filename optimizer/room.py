"""How much more traffic replicas can take: what is left of every limit flow uses up.

Decides only what still fits (throughput, power of the site's supplies, link bandwidth, budgets, the
carbon cap, the means a class asks for). Who gets the room is for the greedy baseline and the
reroute. The one mutable thing in this ring: a tally
private to one call.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import ceil, inf

from optimizer.costs import budget_request_usd, draw_w, usable_part
from optimizer.plan import PlannedGroup, ShedTraffic, TrafficShare
from optimizer.reach import Reach, zone_of
from optimizer.supplies import clean_room_w, cleanest_g_per_h
from sites.assignment import ReplicaGroup
from sites.fleet import at_period
from sites.units import BITS_PER_BYTE, S_PER_H, WHOLE_BP

_ROUNDING = 1e-9
_MOST_ROUNDS = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class _Appetite:
    """What one basis point of a class at a group uses: busy replicas, W, bit/s on each link, USD/h
    of its tenant's budget; and what it adds to the means the class asks for (none may end above 0).
    """

    busy: float
    watts: float
    bits: float
    links: tuple[str, ...]
    usd_per_h: float
    means: tuple[float, ...]


class Room:
    """A tally of replicas and shares, and of what they leave free.

    Where the groups it starts with idle beyond a site's supplies, that draw is the limit there:
    mend it, never worsen it.
    """

    def __init__(self, reach: Reach, groups: Iterable[PlannedGroup]) -> None:
        self.reach = reach
        self.groups: dict[str, ReplicaGroup] = {}
        self.replicas: dict[str, int] = {}
        self.shares: dict[str, dict[str, int]] = defaultdict(dict)
        self._busy: dict[str, float] = defaultdict(float)
        self._watts: dict[str, float] = defaultdict(float)
        self._bits: dict[str, float] = defaultdict(float)
        self._appetites: dict[tuple[str, str], _Appetite] = {}
        self._usable: dict[str, float] = {}
        self._budgets = {t.tenant_id: t.budget_usd_per_h for t in reach.problem.tenants}
        self._spent: dict[str, float] = defaultdict(float)
        self._links = {k.link_id: k.bandwidth_bps for k in reach.problem.fleet.links}
        placed = tuple(groups)
        idle = draw_w(reach, placed, ())
        self._supply = {
            s.site_id: max(
                sum(at_period(k.limit_w, reach.problem.period) for k in s.supplies),
                idle.get(s.site_id, 0.0),
            )
            for s in reach.problem.fleet.sites
        }
        self._emitted = {
            site_id: self._least_emission(site_id, watts) for site_id, watts in sorted(idle.items())
        }
        cap = reach.problem.plan_policy.carbon_cap_g_per_h
        self._cap = None if cap is None else max(cap, sum(self._emitted.values()))
        self._emitted.clear()
        self._emission = 0.0
        for one in placed:
            self.place(one.group, one.replicas)

    def place(self, group: ReplicaGroup, more: int) -> None:
        """Add replicas to a group (negative: take away). Their idle draw counts at once."""
        group_id = group.group_id
        point, site = self.reach.point(group), self.reach.site(group.site_id)
        assert point is not None and site is not None, f"{group_id} has no serving point"
        self.groups[group_id] = group
        self.replicas[group_id] = self.replicas.get(group_id, 0) + more
        self._usable[group_id] = usable_part(self.reach, group)
        self._draw(group.site_id, point.idle_w * site.pue * more)

    def _draw(self, site_id: str, more_w: float) -> None:
        self._watts[site_id] += more_w
        if self._cap is not None:
            now = self._least_emission(site_id, self._watts[site_id])
            self._emission += now - self._emitted.get(site_id, 0.0)
            self._emitted[site_id] = now

    def _least_emission(self, site_id: str, watts: float) -> float:
        problem = self.reach.problem
        return cleanest_g_per_h(problem, problem.fleet.site(site_id), watts=watts)

    def spare_w(self, site_id: str) -> float:
        """Power a site's supplies can still give within the carbon cap (W)."""
        drawn = self._watts[site_id]
        spare = self._supply[site_id] - drawn
        if self._cap is None:
            return spare
        problem = self.reach.problem
        room = self._cap - self._emission
        site = problem.fleet.site(site_id)
        return min(spare, clean_room_w(problem, site, watts=drawn, spare_g_per_h=room))

    def fits(self, class_id: str, group_id: str) -> int:
        """Most basis points of the class that the group could still take.

        Rounded up: the checker forgives each share the rounding of one basis point, and no replica
        is worth opening for the thousandth part of a request.
        """
        need, group = self._appetite(class_id, group_id), self.groups[group_id]
        left = [(need.busy, self.usable(group_id) - self._busy[group_id])]
        left.append((need.watts, self.spare_w(group.site_id)))
        left += [(need.bits, self._links[k] - self._bits[k]) for k in need.links]
        left += [
            (more, -mean) for more, mean in zip(need.means, self._means(class_id), strict=True)
        ]
        tenant_id = self.reach.classes[class_id].tenant_id
        budget = self._budgets[tenant_id]
        if budget is not None:
            left.append((need.usd_per_h, budget - self._spent[tenant_id]))
        most = float(WHOLE_BP)
        for each, free in left:
            if each > 0:
                most = min(most, free / each - _ROUNDING)
        return max(0, ceil(most))

    def put(self, class_id: str, group_id: str, basis_points: int) -> None:
        """Route so much more of the class to the group (negative: less), fitting or not."""
        if basis_points == 0:
            return
        need = self._appetite(class_id, group_id)
        self._busy[group_id] += need.busy * basis_points
        self._draw(self.groups[group_id].site_id, need.watts * basis_points)
        self._spent[self.reach.classes[class_id].tenant_id] += need.usd_per_h * basis_points
        for link_id in need.links:
            self._bits[link_id] += need.bits * basis_points
        shares = self.shares[class_id]
        shares[group_id] = shares.get(group_id, 0) + basis_points
        if shares[group_id] == 0:
            del shares[group_id]

    def busy(self, group_id: str) -> float:
        """Busy replicas of a group."""
        return self._busy[group_id]

    def usable(self, group_id: str) -> float:
        """Busy replicas that a group's replicas may carry."""
        return self.replicas[group_id] * self._usable[group_id]

    def asks_means(self, class_id: str) -> bool:
        """Whether the class asks for a mean (TTFT, quality) of what is served of it."""
        return _means_asked(self.reach, class_id) > 0

    def _means(self, class_id: str) -> list[float]:
        """What the class's shares add up to in each mean it asks for; above 0 breaks it."""
        totals = [0.0] * _means_asked(self.reach, class_id)
        for group_id, basis_points in self.shares[class_id].items():
            for at, more in enumerate(self._appetite(class_id, group_id).means):
                totals[at] += more * basis_points
        return totals

    def served(self, class_id: str) -> int:
        """Basis points of the class that are routed anywhere."""
        return sum(self.shares[class_id].values())

    def at_site(self, class_id: str, site_id: str) -> int:
        """Basis points of the class served at a site."""
        return sum(
            bp for g, bp in self.shares[class_id].items() if self.groups[g].site_id == site_id
        )

    def in_zone(self, class_id: str, zone: str) -> int:
        """Basis points of the class served in a zone."""
        return sum(bp for g, bp in self.shares[class_id].items() if self._zone(g) == zone)

    def _zone(self, group_id: str) -> str:
        return zone_of(self.reach.problem.fleet.site(self.groups[group_id].site_id))

    def place_left(self, class_id: str, group_id: str) -> int:
        """What the group's site and zone may still take of a class that is to be spread."""
        one = self.reach.classes[class_id]
        here = self.at_site(class_id, self.groups[group_id].site_id)
        near = self.in_zone(class_id, self._zone(group_id))
        return min(-(-WHOLE_BP // one.spread_sites) - here, -(-WHOLE_BP // one.spread_zones) - near)

    def keeps_mix(self, class_id: str) -> bool:
        """Whether the class's shares are spread and its means hold, but for 1 bp of each share."""
        one, served = self.reach.classes[class_id], self.served(class_id)
        held = self.shares[class_id]
        sites = {self.groups[g].site_id for g in held}
        zones = {self._zone(g) for g in held}
        rounding = [
            sum(abs(self._appetite(class_id, g).means[at]) for g in held)
            for at in range(_means_asked(self.reach, class_id))
        ]
        return (
            all(self.at_site(class_id, s) <= -(-served // one.spread_sites) for s in sites)
            and all(self.in_zone(class_id, z) <= -(-served // one.spread_zones) for z in zones)
            and all(m <= r for m, r in zip(self._means(class_id), rounding, strict=True))
        )

    def planned(self) -> tuple[PlannedGroup, ...]:
        """The replicas as a plan has them."""
        return tuple(
            PlannedGroup(group=self.groups[g], replicas=n) for g, n in self.replicas.items() if n
        )

    def traffic(self, class_ids: Iterable[str] | None = None) -> tuple[TrafficShare, ...]:
        """The shares as a plan has them, each with its ingress and the countries it crosses; of
        those classes, None: of all.
        """
        found: list[TrafficShare] = []
        for class_id in sorted(self.shares if class_ids is None else class_ids):
            one = self.reach.classes[class_id]
            entry = self.reach.entry(one)
            for group_id, basis_points in sorted(self.shares[class_id].items()):
                way = self.reach.way(one, self.groups[group_id].site_id)
                assert entry is not None and way is not None, f"{class_id} has no way there"
                found.append(
                    TrafficShare(
                        class_id=class_id,
                        group_id=group_id,
                        site_id=self.groups[group_id].site_id,
                        ingress_site_id=entry.site_id,
                        basis_points=basis_points,
                        transit_countries=way.transit_countries,
                    )
                )
        return tuple(found)

    def shed(self, class_ids: Iterable[str]) -> tuple[ShedTraffic, ...]:
        """What is left over of those classes."""
        left = {c: WHOLE_BP - self.served(c) for c in class_ids}
        return tuple(ShedTraffic(class_id=c, basis_points=bp) for c, bp in left.items() if bp > 0)

    def even_out(self, class_id: str) -> None:
        """Take from a class's shares until what is left is spread and every mean holds.

        No site (zone) serves more than 1/k of what is served, rounded up to a whole basis point.
        What has not settled after many rounds is taken away whole.
        """
        one = self.reach.classes[class_id]
        for _ in range(_MOST_ROUNDS):
            before = self.served(class_id)
            self._even_places(
                class_id, wanted=one.spread_sites, place=lambda g: self.groups[g].site_id
            )
            self._even_places(class_id, wanted=one.spread_zones, place=self._zone)
            self._mend_means(class_id)
            if self.served(class_id) == before:
                return
        for group_id, held in sorted(self.shares[class_id].items()):
            self.put(class_id, group_id, -held)

    def _even_places(self, class_id: str, *, wanted: int, place: Callable[[str], str]) -> None:
        if wanted == 1 or not self.shares[class_id]:
            return
        held: dict[str, int] = {}
        for group_id, basis_points in sorted(self.shares[class_id].items()):
            held[place(group_id)] = held.get(place(group_id), 0) + basis_points
        cap = _widest_cap(list(held.values()), wanted)
        for group_id in sorted(self.shares[class_id]):
            less = min(max(0, held[place(group_id)] - cap), self.shares[class_id][group_id])
            self.put(class_id, group_id, -less)
            held[place(group_id)] -= less

    def _mend_means(self, class_id: str) -> None:
        """Take away what is worst for a mean until it holds."""
        for at in range(_means_asked(self.reach, class_id)):
            adds = {g: self._appetite(class_id, g).means[at] for g in self.shares[class_id]}
            for group_id in sorted(adds, key=lambda g: (-adds[g], g)):
                over = self._means(class_id)[at]
                if over <= _ROUNDING or adds[group_id] <= 0:
                    break
                held = self.shares[class_id][group_id]
                self.put(class_id, group_id, -min(held, ceil(over / adds[group_id] - _ROUNDING)))

    def _appetite(self, class_id: str, group_id: str) -> _Appetite:
        key = (class_id, group_id)
        if key not in self._appetites:
            self._appetites[key] = self._measure(class_id, self.groups[group_id])
        return self._appetites[key]

    def _measure(self, class_id: str, group: ReplicaGroup) -> _Appetite:
        one = self.reach.classes[class_id]
        point, site = self.reach.point(group), self.reach.site(group.site_id)
        way = self.reach.way(one, group.site_id)
        assert point is not None and site is not None
        rate = self.reach.rates[class_id] / WHOLE_BP
        busy = rate * self.reach.replica_seconds(one, group)
        return _Appetite(
            busy=busy,
            watts=(point.full_w - point.idle_w) * site.pue * busy,
            bits=rate * one.bytes_per_request * BITS_PER_BYTE,
            links=tuple(k.link_id for k in way.links) if way else (),
            usd_per_h=self._charged_usd_per_h(class_id, group, rate_rps=rate),
            means=_means_of(self.reach, class_id, group),
        )

    def _charged_usd_per_h(self, class_id: str, group: ReplicaGroup, *, rate_rps: float) -> float:
        tenant_id = self.reach.classes[class_id].tenant_id
        if self._budgets[tenant_id] is None or rate_rps == 0:
            return 0.0
        return rate_rps * S_PER_H * budget_request_usd(self.reach, class_id, group=group)


def _means_asked(reach: Reach, class_id: str) -> int:
    one = reach.classes[class_id]
    return one.slo.over_mix + (one.mean_quality_floor > 0)


def _means_of(reach: Reach, class_id: str, group: ReplicaGroup) -> tuple[float, ...]:
    """What an answer by the group adds to the class's mean TTFT (beyond the SLO, as a part of it)
    and mean quality (what is missing), whichever the class asks for.
    """
    one, means = reach.classes[class_id], []
    if one.slo.over_mix:
        ttft_ms = reach.ttft_ms(one, group)
        means.append(inf if ttft_ms is None else ttft_ms / one.slo.ttft_ms - 1.0)
    if one.mean_quality_floor > 0:
        quality = reach.problem.catalog.variant(group.variant_id).quality
        means.append(one.mean_quality_floor - quality)
    return tuple(means)


def _widest_cap(held: list[int], wanted: int) -> int:
    """Largest c that is at most 1/wanted, rounded up, of the sum of min(h, c)."""
    low, high = 0, max(held)
    while low < high:
        middle = (low + high + 1) // 2
        if sum(min(h, middle) for h in held) > wanted * (middle - 1):
            low = middle
        else:
            high = middle - 1
    return low
