"""Judges whether a plan's protected traffic outlives the loss of any one site, from raw facts.

Decides what a lawful certificate is (`Plan.survival`, `Plan.exposed`) and replays it loss by loss;
how one is found is for `survive_plan` and `milp.survive`. After a loss the unprotected traffic
gives way: protected traffic may use whatever the replicas left can do. A class listed for a loss is
answered as listed, all of it; a class not listed keeps its shares as they are. A class that no
other site could lawfully answer, whatever ran there, is not asked to survive.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from optimizer.costs import usable_part
from optimizer.plan import Plan, PlannedGroup
from optimizer.reach import Reach
from optimizer.verify_limits import is_above
from sites.assignment import ReplicaGroup
from sites.errors import Violation
from sites.fleet import at_period
from sites.traffic import TrafficClass
from sites.units import BITS_PER_BYTE, WHOLE_BP

RowKey = tuple[str, str]
"""What a limit is of: (row family, subject), as in ``("throughput", "bruges/h100/m-70b/x4")``."""

UNLIMITED = float("inf")


class AfterLoss(Reach):
    """What classes can reach once one more site is lost, sharing what the reach before worked out.

    Only ingress depends on what is lost: a lost site still passes traffic on.
    """

    def __init__(self, before: Reach, site_id: str) -> None:
        self.__dict__.update(before.__dict__)
        self.lost = before.lost | {site_id}
        self._entries = {}


def is_asked(reach: Reach) -> bool:
    """Whether losses are looked at: they have a price and some class with demand is protected."""
    return reach.problem.plan_policy.exposure_part > 0 and any(
        one.protected and reach.rates[one.class_id] > 0 for one in reach.classes.values()
    )


def protected_classes(reach: Reach) -> dict[str, TrafficClass]:
    """Protected classes with demand, by id, sorted."""
    return {
        class_id: one
        for class_id, one in sorted(reach.classes.items())
        if one.protected and reach.rates[class_id] > 0
    }


def uses_per_bp(reach: Reach, one: TrafficClass, group: ReplicaGroup) -> dict[RowKey, float]:
    """What one basis point of a class at a group uses of each limit: busy replicas, W, bit/s."""
    point, site, way = reach.point(group), reach.site(group.site_id), reach.way(one, group.site_id)
    assert point is not None and site is not None, f"{group.group_id} has no serving point"
    rate = reach.rates[one.class_id] / WHOLE_BP
    busy = rate * reach.replica_seconds(one, group)
    uses = {("throughput", group.group_id): busy}
    watts = (point.full_w - point.idle_w) * site.pue * busy
    if watts > 0:
        uses["supply_limit", group.site_id] = watts
    bits = rate * one.bytes_per_request * BITS_PER_BYTE
    if bits > 0 and way is not None:
        uses |= {("link_bandwidth", link.link_id): bits for link in way.links}
    return uses


def limits_left(reach: Reach, groups: Iterable[PlannedGroup]) -> dict[RowKey, float]:
    """What idle replicas leave of every limit: busy replicas, W, bit/s.

    Replicas x ceiling x availability of each group; a site's supplies less the idle draw; each
    link's bandwidth. Where the replicas idle beyond the supplies already, power is not limited.
    """
    placed = tuple(groups)
    limits: dict[RowKey, float] = {}
    idle_w: dict[str, float] = defaultdict(float)
    for one in placed:
        group = one.group
        point, site = reach.point(group), reach.site(group.site_id)
        assert point is not None and site is not None, f"{group.group_id} has no serving point"
        idle_w[group.site_id] += point.idle_w * site.pue * one.replicas
        limits["throughput", group.group_id] = one.replicas * usable_part(reach, group)
    for site_id, idle in sorted(idle_w.items()):
        supplies = reach.problem.fleet.site(site_id).supplies
        left = sum(at_period(k.limit_w, reach.problem.period) for k in supplies) - idle
        limits["supply_limit", site_id] = left if left >= 0 else UNLIMITED
    for link in reach.problem.fleet.links:
        limits["link_bandwidth", link.link_id] = link.bandwidth_bps
    return limits


def could_be_answered(reach: Reach, one: TrafficClass) -> bool:
    """Whether any site may lawfully answer the class, if replicas were there."""
    return any(True for _ in answering_sites(reach, one))


def answering_sites(reach: Reach, one: TrafficClass) -> Iterator[str]:
    """Sites that may lawfully answer the class, if replicas were there, in order of id."""
    variants = reach.services[one.service_id].variant_ids
    points = [p for p in reach.problem.catalog.serving_points if p.variant_id in variants]
    for site in sorted(reach.problem.fleet.sites, key=lambda s: s.site_id):
        if reach.site_refusal(one, site.site_id) is not None:
            continue
        groups = (
            ReplicaGroup(
                site_id=site.site_id,
                pool_id=pool.pool_id,
                variant_id=point.variant_id,
                accelerators_per_replica=point.accelerators_per_replica,
            )
            for pool in site.pools
            for point in points
            if point.accelerator == pool.accelerator
            and point.accelerators_per_replica <= pool.count
        )
        if any(reach.refusal(one, group) is None for group in groups):
            yield site.site_id


def check_survival(reach: Reach, plan: Plan) -> Iterator[Violation]:
    """Every protected class outlives every single loss as the plan's certificate says it does.

    Judged as shares are: each may pass a flow limit by one basis point of its class.
    """
    if not is_asked(reach):
        return
    strangers = tuple(_strangers(reach, plan))
    if strangers:
        yield from strangers
        return
    yield from _Replay(reach, plan).violations()


def _strangers(reach: Reach, plan: Plan) -> Iterator[Violation]:
    """Entries about losses, classes or groups that are none, and entries given twice."""
    placed = {g.group.group_id: g.group for g in plan.groups if g.replicas > 0}
    protected = protected_classes(reach)
    seen: set[tuple[str, str, str]] = set()
    entries = [(s.lost_site_id, s.class_id, s.group_id) for s in plan.survival]
    entries += [(e.lost_site_id, e.class_id, "") for e in plan.exposed]
    for entry in entries:
        lost_site_id, class_id, group_id = entry
        known = lost_site_id not in reach.lost and reach.site(lost_site_id) is not None
        if not known:
            yield _broken(entry, limit="a site in service", actual=lost_site_id)
        if class_id not in protected:
            yield _broken(entry, limit="a protected class with demand", actual=class_id)
        if group_id and (group_id not in placed or placed[group_id].site_id == lost_site_id):
            yield _broken(entry, limit="a group with replicas elsewhere", actual=group_id)
        if entry in seen:
            yield _broken(entry, limit="one entry", actual="two")
        seen.add(entry)


def _broken(
    entry: tuple[str, str, str], *, limit: float | str, actual: float | str, unit: str = ""
) -> Violation:
    lost_site_id, class_id, group_id = entry
    where = f' at "{group_id}"' if group_id else ""
    return Violation(
        code="survive_one",
        subject=f'class "{class_id}"{where} if site "{lost_site_id}" is lost',
        limit=limit,
        actual=actual,
        unit=unit,
        remedy="plan again: the certificate of what survives the loss does not hold",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answer:
    """What a certificate says of one class after one loss, or what the plan says now, in bp."""

    shares: Mapping[str, int]
    exposed_bp: int = 0


class _Replay:
    """One plan's certificate, replayed loss by loss against what the other replicas can do."""

    def __init__(self, reach: Reach, plan: Plan) -> None:
        self.reach = reach
        self.protected = protected_classes(reach)
        self.groups = {g.group.group_id: g.group for g in plan.groups}
        self.limits = limits_left(reach, plan.groups)
        self.shed = {s.class_id: s.basis_points for s in plan.shed}
        self.held: dict[str, dict[str, int]] = {class_id: {} for class_id in self.protected}
        for share in plan.shares:
            if share.class_id in self.held:
                self.held[share.class_id][share.group_id] = share.basis_points
        self.listed: dict[str, dict[str, _Answer]] = _listed(plan)
        self.now: dict[RowKey, float] = defaultdict(float)
        self.slack: dict[RowKey, float] = defaultdict(float)
        self.used: dict[str, dict[RowKey, float]] = {}
        for class_id, shares in self.held.items():
            self.used[class_id], rounding = self._used(reach, class_id, shares)
            for key, used in self.used[class_id].items():
                self.now[key] += used
                self.slack[key] += rounding[key]

    def violations(self) -> Iterator[Violation]:
        """Loss by loss, in order of site."""
        touched: dict[str, set[str]] = defaultdict(set)
        for class_id, one in self.protected.items():
            entry = self.reach.entry(one)
            if entry is not None:
                touched[entry.site_id].add(class_id)
            for group_id in self.held[class_id]:
                touched[self.groups[group_id].site_id].add(class_id)
        for lost_site_id in sorted({*touched, *self.listed}):
            classes = sorted({*touched[lost_site_id], *self.listed.get(lost_site_id, ())})
            yield from self._loss(lost_site_id, classes)

    def _loss(self, lost_site_id: str, classes: list[str]) -> Iterator[Violation]:
        left = AfterLoss(self.reach, lost_site_id)
        more: dict[RowKey, float] = defaultdict(float)
        slack = defaultdict(float, self.slack)
        for class_id in classes:
            answer = self.listed.get(lost_site_id, {}).get(class_id)
            if answer is None:
                answer, faults = self._unlisted(left, lost_site_id, class_id)
            else:
                faults = tuple(self._listed_faults(left, lost_site_id, class_id, answer=answer))
            yield from faults
            if faults:
                continue
            for key, used in self.used[class_id].items():
                more[key] -= used
            uses, rounding = self._used(left, class_id, answer.shares)
            for key, used in uses.items():
                more[key] += used
                slack[key] += rounding[key]
        yield from self._overfull(lost_site_id, more, slack)

    def _unlisted(
        self, left: Reach, lost_site_id: str, class_id: str
    ) -> tuple[_Answer, tuple[Violation, ...]]:
        """A class keeps what it has, or, where nobody else could ever answer it, has nothing."""
        one, held = self.protected[class_id], self.held[class_id]
        if all(left.refusal(one, self.groups[g]) is None for g in held):
            return _Answer(shares=held), ()
        if not could_be_answered(left, one):
            return _Answer(shares={}), ()
        entry = (lost_site_id, class_id, "")
        return _Answer(shares={}), (_broken(entry, limit="an answer elsewhere", actual="none"),)

    def _listed_faults(
        self, left: Reach, lost_site_id: str, class_id: str, *, answer: _Answer
    ) -> Iterator[Violation]:
        for group_id in sorted(answer.shares):
            refusal = left.refusal(self.protected[class_id], self.groups[group_id])
            if refusal is not None:
                entry = (lost_site_id, class_id, group_id)
                limit, actual = refusal.limit, f"{refusal.actual} ({refusal.reason})"
                yield _broken(entry, limit=limit, actual=actual, unit=refusal.unit)
        total = sum(answer.shares.values()) + answer.exposed_bp + self.shed.get(class_id, 0)
        if total != WHOLE_BP:
            entry = (lost_site_id, class_id, "")
            yield _broken(entry, limit=WHOLE_BP, actual=total, unit="bp")

    def _overfull(
        self, lost_site_id: str, more: Mapping[RowKey, float], slack: Mapping[RowKey, float]
    ) -> Iterator[Violation]:
        for key in sorted(more):
            limit, actual = self.limits[key], self.now[key] + more[key]
            if more[key] > 0 and is_above(actual, limit, slack=slack[key]):
                family, subject = key
                yield Violation(
                    code="survive_one",
                    subject=f'{family} of "{subject}" if site "{lost_site_id}" is lost',
                    limit=limit,
                    actual=actual,
                    unit=_UNITS[family],
                    remedy="place replicas elsewhere or state more of it as exposed",
                )

    def _used(
        self, reach: Reach, class_id: str, shares: Mapping[str, int]
    ) -> tuple[dict[RowKey, float], dict[RowKey, float]]:
        """What so many basis points of a class at some groups use, and one more at each of them."""
        used: dict[RowKey, float] = defaultdict(float)
        one_more: dict[RowKey, float] = defaultdict(float)
        for group_id, basis_points in shares.items():
            each = uses_per_bp(reach, self.protected[class_id], self.groups[group_id])
            for key, part in each.items():
                used[key] += part * basis_points
                one_more[key] += part
        return used, one_more


_UNITS = {"throughput": "busy replicas", "supply_limit": "W", "link_bandwidth": "bit/s"}


def _listed(plan: Plan) -> dict[str, dict[str, _Answer]]:
    shares: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for one in plan.survival:
        shares[one.lost_site_id, one.class_id][one.group_id] = one.basis_points
    exposed = {(e.lost_site_id, e.class_id): e.basis_points for e in plan.exposed}
    listed: dict[str, dict[str, _Answer]] = defaultdict(dict)
    for pair in sorted({*shares, *exposed}):
        answer = _Answer(shares=shares.get(pair, {}), exposed_bp=exposed.get(pair, 0))
        listed[pair[0]][pair[1]] = answer
    return dict(listed)
