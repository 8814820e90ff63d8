"""Finds, without a solver, where protected traffic goes when any one site is lost.

Decides the certificate of a plan: loss by loss, who keeps what, who moves where (spread over the
nearest sites with room), and what nobody could take. Unprotected traffic gives way. It may leave
something exposed that a solver would place (`milp.survive`); `survive` judges the result.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from math import ceil

from optimizer.costs import exposure_usd_per_h, relative_gap
from optimizer.plan import ExposedTraffic, Plan, PlannedGroup, SurvivalShare
from optimizer.reach import Reach
from optimizer.survive import (
    AfterLoss,
    RowKey,
    answering_sites,
    is_asked,
    limits_left,
    protected_classes,
    uses_per_bp,
)
from sites.traffic import TrafficClass
from sites.units import WHOLE_BP

FEWEST_NEIGHBOURS = 3
"""Traffic that moves is spread over at least so many sites, where so many have room."""

HEADROOM_WANTED = 2
"""Nearest sites are taken in until they have so many times the room that is needed."""

_ROUNDING = 1e-9
_DUST_BP = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class LossAnswer:
    """What one loss leads to: the shares of classes that change, what of them is exposed, and
    whether other traffic has to give way.
    """

    survival: tuple[SurvivalShare, ...] = ()
    exposed: tuple[ExposedTraffic, ...] = ()
    pushes: bool = False


def certified(reach: Reach, plan: Plan) -> Plan:
    """The plan with its certificate and the price of what is exposed; unchanged if none is asked.

    Its bound stays, and the gap follows the cost.
    """
    if not is_asked(reach):
        return plan
    survivors = Survivors(reach, plan)
    return with_certificate(
        reach, plan, answers=[survivors.nearest(site_id) for site_id in survivors.losses()]
    )


def with_certificate(reach: Reach, plan: Plan, *, answers: Iterable[LossAnswer]) -> Plan:
    """The plan with the answers to its losses as certificate, priced."""
    told = tuple(answers)
    survival = sorted(
        (s for answer in told for s in answer.survival),
        key=lambda s: (s.lost_site_id, s.class_id, s.group_id),
    )
    exposed = tuple(
        sorted(
            (e for answer in told for e in answer.exposed),
            key=lambda e: (e.lost_site_id, e.class_id),
        )
    )
    before, after = (exposure_usd_per_h(reach, e) for e in (plan.exposed, exposed))
    risk = plan.cost.risk_usd_per_h - before + after
    cost = replace(plan.cost, risk_usd_per_h=risk)
    bound = min(plan.bound_usd_per_h, cost.total_usd_per_h)
    return replace(
        plan,
        survival=tuple(survival),
        exposed=exposed,
        cost=cost,
        bound_usd_per_h=bound,
        gap=relative_gap(cost.total_usd_per_h, bound),
    )


@dataclass(kw_only=True, slots=True)
class Tally:
    """What is used of each limit beyond or below what the plan's traffic uses, for one loss."""

    now: Mapping[RowKey, float]
    limits: dict[RowKey, float]
    others: Mapping[RowKey, float] = field(default_factory=dict)
    more: dict[RowKey, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, uses: Mapping[RowKey, float], basis_points: int) -> None:
        """Use so many basis points' worth more (negative: less)."""
        for key, each in uses.items():
            self.more[key] += each * basis_points

    def left(self, key: RowKey) -> float:
        """What is left of a limit, below 0 where more is used."""
        return self.limits[key] - self.now.get(key, 0.0) - self.more.get(key, 0.0)

    def fits(self, uses: Mapping[RowKey, float], *, gently: bool = False) -> int:
        """Most basis points that still fit, rounded up: the checker forgives each share one.

        `gently`: beside what others use; else they give way.
        """
        most = float(WHOLE_BP)
        for key, each in uses.items():
            if each == 0:
                continue
            left = self.limits[key] - self.now.get(key, 0.0) - self.more.get(key, 0.0)
            if gently:
                left -= self.others.get(key, 0.0)
            if left <= 0:
                return 0
            most = min(most, left / each - _ROUNDING)
        return max(0, ceil(most))


class Survivors:
    """The traffic of some classes of one plan and where it could go, worked out once.

    The protected classes unless others are named.
    """

    def __init__(
        self, reach: Reach, plan: Plan, *, classes: Mapping[str, TrafficClass] | None = None
    ) -> None:
        self.reach = reach
        self.classes = protected_classes(reach) if classes is None else classes
        self.groups = {g.group.group_id: g for g in plan.groups if g.replicas > 0}
        self.limits = limits_left(reach, self.groups.values())
        self.shed = {s.class_id: s.basis_points for s in plan.shed}
        self.held: dict[str, dict[str, int]] = {class_id: {} for class_id in self.classes}
        for share in plan.shares:
            if share.class_id in self.held:
                self.held[share.class_id][share.group_id] = share.basis_points
        self._of_variant: dict[str, list[PlannedGroup]] = defaultdict(list)
        for one in self.groups.values():
            self._of_variant[one.group.variant_id].append(one)
        self._options: dict[tuple[str, str], tuple[str, ...]] = {}
        self._answering: dict[tuple[str, str], tuple[str, ...]] = {}
        self._uses: dict[tuple[str, str, str], dict[RowKey, float]] = {}
        self.now: dict[RowKey, float] = defaultdict(float)
        for class_id, shares in self.held.items():
            for group_id, basis_points in shares.items():
                for key, each in self.uses(reach, class_id, group_id).items():
                    self.now[key] += each * basis_points
        self.others: dict[RowKey, float] = defaultdict(float)
        for share in plan.shares:
            if share.class_id not in self.classes:
                group = self.groups[share.group_id].group
                uses = uses_per_bp(reach, reach.classes[share.class_id], group)
                for key, each in uses.items():
                    self.others[key] += each * share.basis_points
        self.touched = self._touched()

    def losses(self) -> tuple[str, ...]:
        """Sites whose loss changes anything for a protected class, sorted."""
        return tuple(sorted(self.touched))

    def nearest(self, lost_site_id: str) -> LossAnswer:
        """The answer that keeps what can stay and moves the rest to the nearest sites with room:
        first to room nobody uses, then to what other traffic can give up.
        """
        left = AfterLoss(self.reach, lost_site_id)
        tally = Tally(now=self.now, limits=self.limits, others=self.others)
        classes = self.in_order(self.touched[lost_site_id])
        for class_id in classes:
            for group_id, basis_points in self.held[class_id].items():
                tally.add(self.uses(self.reach, class_id, group_id), -basis_points)
        stays = {c: self._keep(left, c, tally=tally, lost_site_id=lost_site_id) for c in classes}
        for class_id in classes:
            self._place(left, class_id, tally=tally, shares=stays[class_id], gently=True)
        pushed = [
            self._place(left, class_id, tally=tally, shares=stays[class_id], gently=False)
            for class_id in classes
        ]
        answer = self.answer(left, {c: stays[c] for c in classes}, lost_site_id=lost_site_id)
        return replace(answer, pushes=any(pushed))

    def answer(
        self, left: Reach, shares: Mapping[str, Mapping[str, int]], *, lost_site_id: str
    ) -> LossAnswer:
        """The certificate's entries for what classes have after a loss; without what is as before
        and without classes nobody may answer any more.
        """
        survival: list[SurvivalShare] = []
        exposed: list[ExposedTraffic] = []
        for class_id in sorted(shares):
            has = {g: bp for g, bp in sorted(shares[class_id].items()) if bp}
            if has == self.held[class_id] or not self.has_arc(left, class_id, lost_site_id):
                continue
            survival += [
                SurvivalShare(
                    lost_site_id=lost_site_id, class_id=class_id, group_id=g, basis_points=bp
                )
                for g, bp in has.items()
            ]
            missing = self.wanted(class_id) - sum(has.values())
            if missing > 0:
                exposed.append(
                    ExposedTraffic(
                        lost_site_id=lost_site_id, class_id=class_id, basis_points=missing
                    )
                )
        return LossAnswer(survival=tuple(survival), exposed=tuple(exposed))

    def wanted(self, class_id: str) -> int:
        """Basis points of a class that the plan serves and a loss must not shed."""
        return WHOLE_BP - self.shed.get(class_id, 0)

    def in_order(self, class_ids: Iterable[str]) -> list[str]:
        """Classes as they are served when room is short: low priority numbers first, then id."""
        return sorted(class_ids, key=lambda c: (self.classes[c].priority, c))

    def options(self, left: Reach, class_id: str, *, lost_too: bool = False) -> tuple[str, ...]:
        """Placed groups that may answer a class entering where it then enters, nearest first.

        With `lost_too`, those at the lost site are among them where the class enters as before.
        """
        one = self.classes[class_id]
        entry = left.entry(one)
        if entry is None:
            return ()
        key = (class_id, entry.site_id)
        if key not in self._options:
            reach = self._entering(left, class_id)
            found = []
            for variant_id in self.reach.services[one.service_id].variant_ids:
                for placed in self._of_variant.get(variant_id, ()):
                    if reach.refusal(one, placed.group) is not None:
                        continue
                    way_ms = reach.way_ms(one, placed.group.site_id)
                    assert way_ms is not None, "refused where there is no way"
                    found.append((way_ms, placed.group.group_id))
            self._options[key] = tuple(group_id for _, group_id in sorted(found))
        if lost_too:
            return self._options[key]
        lost = left.lost - self.reach.lost
        return tuple(g for g in self._options[key] if self.groups[g].group.site_id not in lost)

    def has_arc(self, left: Reach, class_id: str, lost_site_id: str) -> bool:
        """Whether any site left could lawfully answer the class if replicas were there."""
        one = self.classes[class_id]
        entry = left.entry(one)
        if entry is None:
            return False
        if any(True for _ in self.options(left, class_id)):
            return True
        key = (class_id, entry.site_id)
        if key not in self._answering:
            answering = answering_sites(self._entering(left, class_id), one)
            self._answering[key] = tuple(islice(answering, 2))  # one of two is not the lost one
        return any(site_id != lost_site_id for site_id in self._answering[key])

    def _entering(self, left: Reach, class_id: str) -> Reach:
        """The reach that says what a class may use, the same for every loss that lets it enter at
        the same site: only where its own ingress is lost does it hang on which site that is.
        """
        one = self.classes[class_id]
        return self.reach if left.entry(one) == self.reach.entry(one) else left

    def uses(self, left: Reach, class_id: str, group_id: str) -> dict[RowKey, float]:
        """What a basis point of a class at a group uses, entering where it then enters."""
        entry = left.entry(self.classes[class_id])
        key = (class_id, group_id, entry.site_id if entry else "")
        if key not in self._uses:
            one, group = self.classes[class_id], self.groups[group_id].group
            self._uses[key] = uses_per_bp(left, one, group)
        return self._uses[key]

    def busy(self, class_id: str, group_id: str) -> float:
        """Replicas of a group that a basis point of a class keeps busy."""
        group = self.groups[group_id].group
        seconds = self.reach.replica_seconds(self.classes[class_id], group)
        return self.reach.rates[class_id] / WHOLE_BP * seconds

    def _touched(self) -> dict[str, set[str]]:
        touched: dict[str, set[str]] = defaultdict(set)
        for class_id, one in self.classes.items():
            entry = self.reach.entry(one)
            if entry is not None:
                touched[entry.site_id].add(class_id)
            for group_id in self.held[class_id]:
                touched[self.groups[group_id].group.site_id].add(class_id)
        return dict(touched)

    def _keep(
        self, left: Reach, class_id: str, *, tally: Tally, lost_site_id: str
    ) -> dict[str, int]:
        """What stays of a class: whole where it enters as before, else as far as it is lawful and
        fits.
        """
        one, shares = self.classes[class_id], self.held[class_id]
        before, after = self.reach.entry(one), left.entry(one)
        moved = before is not None and before.site_id == lost_site_id
        kept: dict[str, int] = {}
        for group_id, basis_points in sorted(shares.items()):
            group = self.groups[group_id].group
            if after is None or group.site_id == lost_site_id:
                continue
            if moved and left.refusal(one, group) is not None:
                continue
            uses = self.uses(left, class_id, group_id)
            stays = min(basis_points, tally.fits(uses)) if moved else basis_points
            if stays:
                tally.add(uses, stays)
                kept[group_id] = stays
        return kept

    def _place(
        self, left: Reach, class_id: str, *, tally: Tally, shares: dict[str, int], gently: bool
    ) -> int:
        """Spread what is missing over the nearest sites with room, by how much room each has.

        Answers how many basis points that placed.
        """
        missing = self.wanted(class_id) - sum(shares.values())
        if missing <= 0:
            return 0
        options = self.options(left, class_id)
        free = (
            (group_id, tally.fits(self.uses(left, class_id, group_id), gently=gently))
            for group_id in options
        )
        near = self._neighbours(free, missing=missing)
        total = sum(room for _, room in near)
        parts = [(group_id, missing * room // total) for group_id, room in near]
        parts += [(group_id, missing) for group_id, _ in near]
        parts += [(group_id, missing) for group_id in options]
        open_bp = missing
        for group_id, part in parts:
            if open_bp <= 0:
                break
            uses = self.uses(left, class_id, group_id)
            gained = min(part, open_bp, tally.fits(uses, gently=gently))
            if gained > 0:
                tally.add(uses, gained)
                shares[group_id] = shares.get(group_id, 0) + gained
                open_bp -= gained
        return missing - open_bp

    def _neighbours(
        self, free: Iterable[tuple[str, int]], *, missing: int
    ) -> list[tuple[str, int]]:
        """(group, room) at the nearest sites: at least three, with twice the room needed."""
        near: list[tuple[str, int]] = []
        sites: set[str] = set()
        for group_id, room in free:
            site_id = self.groups[group_id].group.site_id
            enough = sum(r for _, r in near) >= HEADROOM_WANTED * missing
            if enough and len(sites) >= FEWEST_NEIGHBOURS and site_id not in sites:
                break
            if room > 0:
                near.append((group_id, room))
                sites.add(site_id)
        return near


def whole_shares(parts: Mapping[str, float], *, wanted: int) -> dict[str, int]:
    """Whole basis points of parts given in basis points, at most `wanted` in all.

    Rounded down, then the largest remainders up, as far as the sum of the parts goes.
    """
    kept = {g: part for g, part in sorted(parts.items()) if part > _DUST_BP}
    shares = {g: int(part + _DUST_BP) for g, part in kept.items()}
    total = min(wanted, round(sum(kept.values())))
    over = sum(shares.values()) - total
    by_remainder = sorted(kept, key=lambda g: (shares[g] - kept[g], g))
    for group_id in by_remainder[: max(0, -over)]:
        shares[group_id] += 1
    for group_id in by_remainder[::-1][: max(0, over)]:
        shares[group_id] -= 1
    return {g: bp for g, bp in shares.items() if bp > 0}
