"""Which replicas of one plan may answer a class, and what a basis point of it uses there.

Says of all placed groups at once what `Reach.refusal` and `survive.uses_per_bp` say of one; a test
asks that they agree. Groups and limits are named by their positions among the sorted ids. Who then
gets what is for `survive_plan` and `milp.survive_local`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from optimizer.plan import PlannedGroup
from optimizer.reach import TOLERANCE_MS, Reach, latest_ttft_ms
from optimizer.survive import limits_left
from sites.assignment import ReplicaGroup
from sites.traffic import TrafficClass
from sites.units import BITS_PER_BYTE, WHOLE_BP

Floats = NDArray[np.float64]
Positions = NDArray[np.intp]

Uses = tuple[tuple[int, float], ...]
"""What a basis point uses: (position of a limit, so much of it: busy replicas, W, bit/s)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Placed groups that may answer a class, nearest first: their positions (`at` is `group` as a
    list) and the replicas that a basis point of the class keeps busy there.
    """

    at: list[int]
    group: Positions
    busy: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class _Serving:
    """Groups of a service's variants, ascending, and what they have in common by kind: those of one
    kind are the same serving point on the same hardware. `sample[kind[i]]` is like `group[i]`.
    """

    group: Positions
    kind: Positions
    sample: tuple[int, ...]


class Placed:
    """The replica groups of a plan and what idle replicas leave of every limit (`limits`)."""

    def __init__(self, reach: Reach, groups: Iterable[PlannedGroup]) -> None:
        self.reach = reach
        placed = tuple(groups)
        limits = limits_left(reach, placed)
        self.keys = tuple(sorted(limits))
        self.key_at = {key: at for at, key in enumerate(self.keys)}
        self.limits = [limits[key] for key in self.keys]
        self.groups = tuple(sorted((g.group for g in placed), key=lambda g: g.group_id))
        self.group_ids = tuple(g.group_id for g in self.groups)
        self.group_at = {group_id: at for at, group_id in enumerate(self.group_ids)}
        self.site_ids = tuple(g.site_id for g in self.groups)
        self.busy_key = [self.key_at["throughput", g] for g in self.group_ids]
        self.link_keys = [at for at, key in enumerate(self.keys) if key[0] == "link_bandwidth"]
        self.supply_key = [self.key_at["supply_limit", s] for s in self.site_ids]
        self.busy_w = [self._busy_w(group) for group in self.groups]
        self._ttft_ms = np.array([self._point_ttft_ms(group) for group in self.groups])
        self._sites = tuple(sorted(set(self.site_ids)))
        self._site = np.searchsorted(self._sites, self.site_ids) if self.groups else _NONE
        self._kind = self._kinds()
        self._serving: dict[str, _Serving] = {}
        self._lawful: dict[str, list[int]] = {}
        self._busy: dict[str, dict[int, float]] = {}
        self._ways: dict[tuple[str, str], Floats] = {}
        self._links: dict[tuple[str, str, str], tuple[int, ...]] = {}

    def options(self, left: Reach, one: TrafficClass) -> Options:
        """Groups that may answer a class, nearest first, ties by id; none at sites `left` lost."""
        entry, serving = left.entry(one), self._serving_groups(one.service_id)
        if entry is None or not len(serving.group):
            return Options(at=[], group=_NONE, busy=np.zeros(0))
        site = self._site[serving.group]
        way_ms = self._ways_ms(left, one, source=entry.site_id)[site]
        waiting_ms = self.reach.problem.plan_policy.queueing_ms_at_ceiling
        ttft_ms = entry.rtt_ms + way_ms + waiting_ms + self._ttft_ms[serving.group]
        lawful = np.isfinite(way_ms) & (ttft_ms <= latest_ttft_ms(one) + TOLERANCE_MS)
        for site_id in left.lost.intersection(self._sites):
            lawful &= site != self._sites.index(site_id)
        busy, known = np.full(len(serving.sample), inf), self._busy.setdefault(one.class_id, {})
        for kind in np.flatnonzero(np.bincount(serving.kind[lawful])).tolist():
            if kind not in known:
                known[kind] = self._busy_if_suited(one, serving.sample[kind])
            busy[kind] = known[kind]
        found = np.flatnonzero(lawful & np.isfinite(busy)[serving.kind])
        found = found[np.argsort(way_ms[found], kind="stable")]
        group = serving.group[found]
        return Options(at=group.tolist(), group=group, busy=busy[serving.kind[found]])

    def standing(self, one: TrafficClass, at: int) -> Uses:
        """What a basis point of a class uses of a group's replicas and its site's power."""
        busy = self.reach.rates[one.class_id] / WHOLE_BP
        busy *= self.reach.replica_seconds(one, self.groups[at])
        watts = self.busy_w[at] * busy
        on_replicas = (self.busy_key[at], busy)
        return (on_replicas, (self.supply_key[at], watts)) if watts > 0 else (on_replicas,)

    def crossing(self, left: Reach, one: TrafficClass, at: int) -> Uses:
        """What a basis point of a class uses of the links to a group's site."""
        bits = self.bits_per_bp(one)
        entry, site_id = left.entry(one), self.site_ids[at]
        if entry is None or bits <= 0:
            return ()
        key = (one.residency_policy_id, entry.site_id, site_id)
        if key not in self._links:
            way = left.way(one, site_id)
            links = way.links if way is not None else ()
            self._links[key] = tuple(self.key_at["link_bandwidth", k.link_id] for k in links)
        return tuple((link, bits) for link in self._links[key])

    def bits_per_bp(self, one: TrafficClass) -> float:
        """What a basis point of a class sends over each link of its way (bit/s)."""
        return self.reach.rates[one.class_id] / WHOLE_BP * one.bytes_per_request * BITS_PER_BYTE

    def _busy_w(self, group: ReplicaGroup) -> float:
        """What a busy replica of a group draws beyond an idle one at the site's meter (W)."""
        point, site = self.reach.point(group), self.reach.site(group.site_id)
        assert point is not None and site is not None, f"{group.group_id} has no serving point"
        return (point.full_w - point.idle_w) * site.pue

    def _point_ttft_ms(self, group: ReplicaGroup) -> float:
        point = self.reach.point(group)
        assert point is not None, f"{group.group_id} has no serving point"
        return point.ttft_ms

    def _kinds(self) -> Positions:
        """A number for each group, the same for those a class can only tell apart by their site."""
        known: dict[tuple[str, str, int, float, float], int] = {}
        kinds = []
        for group in self.groups:
            pool = self.reach.pool(group)
            assert pool is not None, f"{group.group_id} stands on no pool"
            point = (group.variant_id, pool.accelerator, group.accelerators_per_replica)
            key = (*point, pool.memory_mib_per_accelerator, pool.interruption_per_h)
            kinds.append(known.setdefault(key, len(known)))
        return np.array(kinds, dtype=np.intp)

    def _serving_groups(self, service_id: str) -> _Serving:
        if service_id not in self._serving:
            variants = self.reach.services[service_id].variant_ids
            found = [at for at, group in enumerate(self.groups) if group.variant_id in variants]
            group = np.array(found, dtype=np.intp)
            _, first, kind = np.unique(self._kind[group], return_index=True, return_inverse=True)
            self._serving[service_id] = _Serving(
                group=group, kind=kind, sample=tuple(group[first].tolist())
            )
        return self._serving[service_id]

    def _busy_if_suited(self, one: TrafficClass, at: int) -> float:
        """Busy replicas of a basis point; inf where such replicas may not answer the class."""
        group = self.groups[at]
        if not self.reach.suits(one, group):
            return inf
        return self.reach.rates[one.class_id] / WHOLE_BP * self.reach.replica_seconds(one, group)

    def _ways_ms(self, left: Reach, one: TrafficClass, *, source: str) -> Floats:
        """RTT to each site with groups (ms), inf where law or links do not lead there."""
        key = (one.residency_policy_id, source)
        if key not in self._ways:
            policy = self.reach.policies[one.residency_policy_id]
            if policy.policy_id not in self._lawful:
                sites = (self.reach.problem.fleet.site(s) for s in self._sites)
                may = [at for at, s in enumerate(sites) if self.reach.may_process(policy, s)]
                self._lawful[policy.policy_id] = may
            lawful = self._lawful[policy.policy_id]
            self._ways[key] = np.full(len(self._sites), inf)
            self._ways[key][lawful] = left.ways_ms(one, [self._sites[at] for at in lawful])
        return self._ways[key]


_NONE = np.zeros(0, dtype=np.intp)
