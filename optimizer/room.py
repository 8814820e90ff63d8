"""How much more traffic replicas can take: what is left of every limit flow uses up.

Decides only what still fits (throughput, power of the site's supplies, link bandwidth). Who gets
the room is for the greedy baseline and the reroute. The one mutable thing in this ring: a tally
private to one call.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from optimizer.costs import draw_w
from optimizer.plan import PlannedGroup, ShedTraffic, TrafficShare
from optimizer.reach import Reach
from sites.assignment import ReplicaGroup
from sites.fleet import at_period
from sites.units import BITS_PER_BYTE, WHOLE_BP

_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class _Appetite:
    """What one basis point of a class at a group uses: busy replicas, W, bit/s on each link."""

    busy: float
    watts: float
    bits: float
    links: tuple[str, ...]


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
        for one in placed:
            self.place(one.group, one.replicas)

    def place(self, group: ReplicaGroup, more: int) -> None:
        """Add replicas to a group (negative: take away). Their idle draw counts at once."""
        group_id = group.group_id
        point, site = self.reach.point(group), self.reach.site(group.site_id)
        assert point is not None and site is not None, f"{group_id} has no serving point"
        self.groups[group_id] = group
        self.replicas[group_id] = self.replicas.get(group_id, 0) + more
        self._watts[group.site_id] += point.idle_w * site.pue * more

    def spare_w(self, site_id: str) -> float:
        """Power a site's supplies can still give (W)."""
        return self._supply[site_id] - self._watts[site_id]

    def fits(self, class_id: str, group_id: str) -> int:
        """Most basis points of the class that the group could still take.

        Rounded up: the checker forgives each share the rounding of one basis point, and no replica
        is worth opening for the thousandth part of a request.
        """
        need, group = self._appetite(class_id, group_id), self.groups[group_id]
        ceiling = self.reach.problem.plan_policy.utilisation_ceiling
        left = [(need.busy, self.replicas[group_id] * ceiling - self._busy[group_id])]
        left.append((need.watts, self.spare_w(group.site_id)))
        left += [(need.bits, self._links[k] - self._bits[k]) for k in need.links]
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
        self._watts[self.groups[group_id].site_id] += need.watts * basis_points
        for link_id in need.links:
            self._bits[link_id] += need.bits * basis_points
        shares = self.shares[class_id]
        shares[group_id] = shares.get(group_id, 0) + basis_points
        if shares[group_id] == 0:
            del shares[group_id]

    def busy(self, group_id: str) -> float:
        """Busy replicas of a group."""
        return self._busy[group_id]

    def served(self, class_id: str) -> int:
        """Basis points of the class that are routed anywhere."""
        return sum(self.shares[class_id].values())

    def at_site(self, class_id: str, site_id: str) -> int:
        """Basis points of the class served at a site."""
        return sum(
            bp for g, bp in self.shares[class_id].items() if self.groups[g].site_id == site_id
        )

    def planned(self) -> tuple[PlannedGroup, ...]:
        """The replicas as a plan has them."""
        return tuple(
            PlannedGroup(group=self.groups[g], replicas=n) for g, n in self.replicas.items() if n
        )

    def traffic(self) -> tuple[TrafficShare, ...]:
        """The shares as a plan has them, each with its ingress and the countries it crosses."""
        found: list[TrafficShare] = []
        for class_id in sorted(self.shares):
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
        """Take from a class's sites until none serves more than 1/k of what is served (spread).

        1/k is rounded up to a whole basis point.
        """
        wanted = self.reach.classes[class_id].spread_sites
        if wanted == 1 or not self.shares[class_id]:
            return
        sites = sorted({self.groups[g].site_id for g in self.shares[class_id]})
        held = [self.at_site(class_id, s) for s in sites]
        cap = _widest_cap(held, wanted)
        for site_id, has in zip(sites, held, strict=True):
            over = max(0, has - cap)
            for group_id in sorted(self.shares[class_id]):
                if self.groups[group_id].site_id == site_id and over > 0:
                    less = min(over, self.shares[class_id][group_id])
                    self.put(class_id, group_id, -less)
                    over -= less

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
        )


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
