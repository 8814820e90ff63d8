"""Finds, without a solver, where protected traffic goes when any one site is lost.

Decides the certificate of a plan: loss by loss, who keeps what, who moves where (spread over the
nearest sites with room), and what nobody could take. Unprotected traffic gives way. It may leave
something exposed that a solver would place (`milp.survive`); `survive` judges the result.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from math import ceil, inf
from typing import TypeVar

from optimizer.costs import exposure_usd_per_h, relative_gap
from optimizer.plan import ExposedTraffic, Plan, SurvivalShare
from optimizer.reach import Reach
from optimizer.survive import AfterLoss, answering_sites, is_asked, protected_classes
from optimizer.survive_placed import Options, Placed, Uses
from sites.units import WHOLE_BP

FEWEST_NEIGHBOURS = 3
"""Traffic that moves is spread over at least so many sites, where so many have room."""

HEADROOM_WANTED = 2
"""Nearest sites are taken in until they have so many times the room that is needed."""

Key = TypeVar("Key", str, int)

_WIDE = 2.0
"""A link that leaves so many times what may move cannot fill, whatever sums of floats add to it."""

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


class Survivors:
    """The protected traffic of one plan and where it could go, worked out once.

    Groups and limits go by their positions in `placed`. Of each limit `spare` is what protected
    traffic leaves, `others` what the rest uses.
    """

    def __init__(self, reach: Reach, plan: Plan) -> None:
        self.reach = reach
        self.classes = protected_classes(reach)
        self.placed = Placed(reach, (g for g in plan.groups if g.replicas > 0))
        self.shed = {s.class_id: s.basis_points for s in plan.shed}
        self.held: dict[str, dict[int, int]] = {class_id: {} for class_id in self.classes}
        for share in plan.shares:
            if share.class_id in self.held:
                at = self.placed.group_at[share.group_id]
                self.held[share.class_id][at] = share.basis_points
        self._options: dict[tuple[str, str], Options] = {}
        self._answering: dict[tuple[str, str], tuple[str, ...]] = {}
        self._standing: dict[tuple[str, int], Uses] = {}
        now = [0.0] * len(self.placed.limits)
        for class_id, shares in self.held.items():
            for at, basis_points in shares.items():
                for key, each in self.uses(reach, class_id, at):
                    now[key] += each * basis_points
        self.others = [0.0] * len(self.placed.limits)
        for share in plan.shares:
            if share.class_id not in self.classes:
                one, at = reach.classes[share.class_id], self.placed.group_at[share.group_id]
                uses = self.placed.standing(one, at) + self.placed.crossing(reach, one, at)
                for key, each in uses:
                    self.others[key] += each * share.basis_points
        limits = zip(self.placed.limits, now, strict=True)
        self.spare = [limit - used for limit, used in limits]
        self._link_spare_bps = min(
            (self.spare[at] - self.others[at] for at in self.placed.link_keys), default=inf
        )
        self.touched = self._touched()

    def losses(self) -> tuple[str, ...]:
        """Sites whose loss changes anything for a protected class, sorted."""
        return tuple(sorted(self.touched))

    def nearest(self, lost_site_id: str) -> LossAnswer:
        """The answer that keeps what can stay and moves the rest to the nearest sites with room:
        first to room nobody uses, then to what other traffic can give up.
        """
        return _Nearest(self, lost_site_id).answer()

    def answer(
        self, left: Reach, shares: Mapping[str, Mapping[int, int]], *, lost_site_id: str
    ) -> LossAnswer:
        """The certificate's entries for what classes have after a loss; without what is as before
        and without classes nobody may answer any more.
        """
        survival: list[SurvivalShare] = []
        exposed: list[ExposedTraffic] = []
        for class_id in sorted(shares):
            has = {at: bp for at, bp in sorted(shares[class_id].items()) if bp}
            if has == self.held[class_id] or not self.has_arc(left, class_id, lost_site_id):
                continue
            survival += [
                SurvivalShare(
                    lost_site_id=lost_site_id,
                    class_id=class_id,
                    group_id=self.placed.group_ids[at],
                    basis_points=bp,
                )
                for at, bp in has.items()
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

    def options(self, left: Reach, class_id: str) -> Options:
        """Placed groups that may answer a class entering where it then enters, nearest first.

        Those at the lost site are among them where the class enters as before.
        """
        one = self.classes[class_id]
        entry = left.entry(one)
        key = (class_id, entry.site_id if entry else "")
        if key not in self._options:
            self._options[key] = self.placed.options(self._entering(left, class_id), one)
        return self._options[key]

    def has_arc(self, left: Reach, class_id: str, lost_site_id: str) -> bool:
        """Whether any site left could lawfully answer the class if replicas were there."""
        one = self.classes[class_id]
        entry = left.entry(one)
        if entry is None:
            return False
        sites = self.placed.site_ids
        if any(sites[at] != lost_site_id for at in self.options(left, class_id).at):
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

    def standing(self, class_id: str, at: int) -> Uses:
        """What a basis point of a class uses of a group's replicas and its site's power."""
        key = (class_id, at)
        if key not in self._standing:
            self._standing[key] = self.placed.standing(self.classes[class_id], at)
        return self._standing[key]

    def crossing(self, left: Reach, class_id: str, at: int) -> Uses:
        """What it uses of the links to the group's site from where the class then enters."""
        return self.placed.crossing(left, self.classes[class_id], at)

    def uses(self, left: Reach, class_id: str, at: int) -> Uses:
        """What a basis point of a class uses in all, entering where it then enters."""
        return self.standing(class_id, at) + self.crossing(left, class_id, at)

    def may_fill_links(self, class_ids: Iterable[str]) -> bool:
        """Whether any link may fill when all of some classes moves: only then is it worth while to
        look up which links they cross.
        """
        bits = (self.placed.bits_per_bp(self.classes[c]) for c in class_ids)
        return _WIDE * WHOLE_BP * sum(bits) >= self._link_spare_bps

    def _touched(self) -> dict[str, set[str]]:
        touched: dict[str, set[str]] = defaultdict(set)
        for class_id, one in self.classes.items():
            entry = self.reach.entry(one)
            if entry is not None:
                touched[entry.site_id].add(class_id)
            for at in self.held[class_id]:
                touched[self.placed.site_ids[at]].add(class_id)
        return dict(touched)


class _Nearest:
    """One loss, answered with the nearest sites; `more` is what is used of each limit beyond or
    below what the plan's protected traffic uses.
    """

    def __init__(self, survivors: Survivors, lost_site_id: str) -> None:
        self.survivors, self.lost_site_id = survivors, lost_site_id
        self.left = AfterLoss(survivors.reach, lost_site_id)
        self.more = [0.0] * len(survivors.spare)
        self.follows_links = survivors.may_fill_links(survivors.touched[lost_site_id])

    def answer(self) -> LossAnswer:
        """What stays stays; the rest is placed class by class, gently first."""
        survivors = self.survivors
        classes = survivors.in_order(survivors.touched[self.lost_site_id])
        for class_id in classes:
            for at, basis_points in survivors.held[class_id].items():
                self._add(survivors.reach, class_id, at, -basis_points)
        shares = {class_id: self._keep(class_id) for class_id in classes}
        for class_id in classes:
            self._place(class_id, shares[class_id], gently=True)
        pushed = [self._place(class_id, shares[class_id], gently=False) for class_id in classes]
        answer = survivors.answer(self.left, shares, lost_site_id=self.lost_site_id)
        return replace(answer, pushes=any(pushed))

    def _keep(self, class_id: str) -> dict[int, int]:
        """What stays of a class: whole where it enters as before, else as far as it is lawful and
        fits.
        """
        survivors, placed = self.survivors, self.survivors.placed
        one = survivors.classes[class_id]
        before, after = survivors.reach.entry(one), self.left.entry(one)
        moved = before is not None and before.site_id == self.lost_site_id
        kept: dict[int, int] = {}
        for at, basis_points in sorted(survivors.held[class_id].items()):
            if after is None or placed.site_ids[at] == self.lost_site_id:
                continue
            if moved and self.left.refusal(one, placed.groups[at]) is not None:
                continue
            stays = min(basis_points, self._room(class_id, at)) if moved else basis_points
            if stays:
                self._add(self.left, class_id, at, stays)
                kept[at] = stays
        return kept

    def _place(self, class_id: str, shares: dict[int, int], *, gently: bool) -> int:
        """Spread what is missing over the nearest sites with room, by how much room each has.

        Answers how many basis points that placed.
        """
        survivors, site_ids = self.survivors, self.survivors.placed.site_ids
        missing = survivors.wanted(class_id) - sum(shares.values())
        if missing <= 0:
            return 0
        options = survivors.options(self.left, class_id).at
        options = [at for at in options if site_ids[at] != self.lost_site_id]
        near, full = self._neighbours(class_id, options, missing=missing, gently=gently)
        total = sum(room for _, room in near)
        parts = [(at, missing * room // total) for at, room in near]
        parts += [(at, missing) for at, _ in near]
        parts += [(at, missing) for at in options if at not in full]
        open_bp = missing
        for at, part in parts:
            if open_bp <= 0:
                break
            gained = min(part, open_bp, self._room(class_id, at, gently=gently))
            if gained > 0:
                self._add(self.left, class_id, at, gained)
                shares[at] = shares.get(at, 0) + gained
                open_bp -= gained
        return missing - open_bp

    def _neighbours(
        self, class_id: str, options: Iterable[int], *, missing: int, gently: bool
    ) -> tuple[list[tuple[int, int]], set[int]]:
        """(group, room) at the nearest sites: at least three, with twice the room needed. And the
        groups on the way there that have none.
        """
        near: list[tuple[int, int]] = []
        full: set[int] = set()
        sites: set[str] = set()
        found = 0
        for at in options:
            site_id = self.survivors.placed.site_ids[at]
            enough = found >= HEADROOM_WANTED * missing
            if enough and len(sites) >= FEWEST_NEIGHBOURS and site_id not in sites:
                break
            room = self._room(class_id, at, gently=gently)
            if room > 0:
                near.append((at, room))
                sites.add(site_id)
                found += room
            else:
                full.add(at)
        return near, full

    def _room(self, class_id: str, at: int, *, gently: bool = False) -> int:
        """Most basis points of a class that still fit at a group, rounded up: the checker forgives
        each share one. Links, which take a while to look up, only where its site has room.

        `gently`: beside what others use; else they give way.
        """
        room = self._fits(self.survivors.standing(class_id, at), gently=gently)
        if room > 0 and self.follows_links:
            links = self.survivors.crossing(self.left, class_id, at)
            room = min(room, self._fits(links, gently=gently))
        return room

    def _fits(self, uses: Uses, *, gently: bool) -> int:
        most = float(WHOLE_BP)
        for key, each in uses:
            if each == 0:
                continue
            left = self.survivors.spare[key] - self.more[key]
            if gently:
                left -= self.survivors.others[key]
            if left <= 0:
                return 0
            most = min(most, left / each - _ROUNDING)
        return max(0, ceil(most))

    def _add(self, left: Reach, class_id: str, at: int, basis_points: int) -> None:
        """So many basis points more of a class at a group (negative: less)."""
        uses = self.survivors.standing(class_id, at)
        if self.follows_links:
            uses += self.survivors.crossing(left, class_id, at)
        for key, each in uses:
            self.more[key] += each * basis_points


def whole_shares(parts: Mapping[Key, float], *, wanted: int) -> dict[Key, int]:
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
