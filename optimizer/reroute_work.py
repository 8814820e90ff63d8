"""One loss worked out, or mended: who goes where with the replicas that are left.

Decides shares only. Protected traffic goes where the plan's certificate says. What else the loss
touches, or has to give way, goes where it costs least (`milp.flows`), spread over several sites;
what nobody can take is shed, at the least price. Nobody else moves. Figures come from
`reroute_standing`; answers are kept by `reroute_table`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from optimizer.milp.flows import Flow, cheapest_flows
from optimizer.milp.survive_local import best_answer
from optimizer.plan import SurvivalShare
from optimizer.reroute_standing import Standing
from optimizer.survive import AfterLoss, RowKey
from optimizer.survive_plan import Tally, whole_shares
from sites.units import BITS_PER_BYTE, WHOLE_BP

MOST_AT_ONE_SITE_BP = 5_000
"""Of what moves of a class no site takes more than this part of the class, where others have room
at little more."""

SPREAD_PRICE_PART = 0.01
"""What spreading may cost, as part of the price of shedding."""

MOVING_PRICE_PART = 0.001
"""What moving a share that could stay costs, as part of the price of shedding it."""

MOST_OFFERS = 32
"""So many of the cheapest groups with room are looked at for a class, beside those it has."""

_ROUNDS = 4


class Work:
    """One loss being worked out: what each class that changes has, and what that uses."""

    def __init__(self, standing: Standing, lost_site_id: str) -> None:
        self.standing, self.lost_site_id = standing, lost_site_id
        self.left = AfterLoss(standing.reach, lost_site_id)
        self.tally = Tally(now=standing.all.now, limits=dict(standing.all.limits))
        self.shares: dict[str, dict[str, int]] = {}

    def has(self, class_id: str) -> Mapping[str, int]:
        """What a class has at present: as worked out, else as planned."""
        return self.shares.get(class_id, self.standing.all.held.get(class_id, {}))

    def put(self, class_id: str, shares: Mapping[str, int]) -> None:
        """Let a class have these shares instead of what it has."""
        before = self.left if class_id in self.shares else self.standing.reach
        for group_id, basis_points in self.has(class_id).items():
            uses = self.standing.all.uses(before, class_id, group_id)
            self.tally.add(uses, -basis_points)
        self.shares[class_id] = {g: bp for g, bp in sorted(shares.items()) if bp > 0}
        for group_id, basis_points in self.shares[class_id].items():
            uses = self.standing.all.uses(self.left, class_id, group_id)
            self.tally.add(uses, basis_points)

    def answer(self) -> None:
        """Work the loss out."""
        standing = self.standing
        self.protect(standing.certificate.get(self.lost_site_id), standing.exposed)
        self.move_on()

    def protect(
        self, certificate: Sequence[SurvivalShare] | None, exposed: Collection[tuple[str, str]]
    ) -> None:
        """Protected classes go where the certificate says; without one, to the nearest sites."""
        standing, survivors = self.standing, self.standing.protected
        touched = survivors.touched.get(self.lost_site_id, set())
        if certificate is None and touched:
            certificate = best_answer(standing.ground, self.lost_site_id).survival
        listed: dict[str, dict[str, int]] = defaultdict(dict)
        for entry in certificate or ():
            listed[entry.class_id][entry.group_id] = entry.basis_points
        for class_id in sorted({*touched, *listed}):
            if class_id in listed or (self.lost_site_id, class_id) in exposed:
                self.put(class_id, listed.get(class_id, {}))
            else:
                self.put(class_id, self._lawful(class_id, standing.all.held[class_id]))

    def move_on(self) -> None:
        """What else the loss touches or the protected classes push out goes where it is cheapest;
        if some of it finds no room, those beside it may give way as well.
        """
        standing = self.standing
        free = {
            c
            for c in standing.all.touched.get(self.lost_site_id, ())
            if not standing.all.classes[c].protected
        }
        for class_id in sorted(free):
            self.put(class_id, self._lawful(class_id, standing.all.held[class_id]))
        free |= self._pushed_out()
        for _ in range(_ROUNDS):
            if not free:
                return
            self.settle(free)
            short = [c for c in sorted(free) if self._shed_bp(c) > self._planned_shed_bp(c) + 1]
            beside = self._beside(short)
            if beside <= free:
                return
            free |= beside

    def settle(self, free: Collection[str]) -> None:
        """Give these classes the cheapest shares that fit beside everybody else's."""
        standing, classes = self.standing, sorted(free)
        was = {class_id: dict(self.has(class_id)) for class_id in classes}
        for class_id in classes:
            self.put(class_id, {})
        flows = self._flows(classes, was)
        parts = cheapest_flows(
            flows,
            limits={key: self.tally.left(key) for flow in flows for key in flow.uses},
            shed_price={c: standing.shed_price(c) for c in classes},
        )
        for class_id in classes:
            self.put(class_id, whole_shares(parts.get(class_id, {}), wanted=WHOLE_BP))
        for class_id in classes:
            self._spread(class_id, before=was[class_id])

    def _flows(self, classes: Sequence[str], was: Mapping[str, Mapping[str, int]]) -> list[Flow]:
        """Where these classes may go and there is room; moving what could stay costs a little."""
        standing, tight = self.standing, self._tight(classes)
        flows = []
        for class_id in classes:
            moving = MOVING_PRICE_PART * standing.shed_price(class_id)
            looked_at = 0
            for offer in standing.offers(self.left, class_id):
                key = ("throughput", offer.group_id)
                stays = offer.group_id in was[class_id]
                if looked_at >= MOST_OFFERS and not stays:
                    continue
                if offer.site_id == self.lost_site_id or self.tally.left(key) < offer.busy:
                    continue
                looked_at += 1
                uses: Mapping[RowKey, float] = {key: offer.busy}
                if tight:
                    uses = {k: v for k, v in offer.uses.items() if k == key or k in tight}
                price = offer.price + (0.0 if stays else moving)
                flows.append(
                    Flow(class_id=class_id, group_id=offer.group_id, price=price, uses=uses)
                )
        return flows

    def _tight(self, classes: Sequence[str]) -> set[RowKey]:
        """Links and supplies that these classes could fill, whatever way they went."""
        reach = self.standing.reach
        bits = sum(
            reach.rates[c] * reach.classes[c].bytes_per_request * BITS_PER_BYTE for c in classes
        )
        links = {key for key in self.standing.link_keys if self.tally.left(key) < bits}
        return links | self.standing.tight_supplies

    def changed(self) -> dict[str, dict[str, int]]:
        """Classes whose shares or ingress are not as planned."""
        standing = self.standing
        return {
            class_id: dict(sorted(shares.items()))
            for class_id, shares in sorted(self.shares.items())
            if shares != standing.all.held[class_id] or self._moved_in(class_id)
        }

    def _moved_in(self, class_id: str) -> bool:
        before = self.standing.reach.entry(self.standing.all.classes[class_id])
        return before is not None and before.site_id == self.lost_site_id

    def _lawful(self, class_id: str, shares: Mapping[str, int]) -> dict[str, int]:
        """The shares that stay lawful: at sites left, and from where the class then enters."""
        if not self._moved_in(class_id):
            groups = self.standing.all.groups
            return {
                g: bp for g, bp in shares.items() if groups[g].group.site_id != self.lost_site_id
            }
        options = set(self.standing.all.options(self.left, class_id))
        return {g: bp for g, bp in shares.items() if g in options}

    def _pushed_out(self) -> set[str]:
        """Unprotected classes on groups that now hold more than they can."""
        standing, out = self.standing, set[str]()
        for key, more in sorted(self.tally.more.items()):
            if more > 0 and key[0] == "throughput" and self.tally.left(key) < 0:
                out |= self._unprotected(standing.holders[key[1]])
        return out

    def _beside(self, short: Sequence[str]) -> set[str]:
        """Unprotected classes that hold traffic where these could go, at a lower shed price."""
        groups = {g for c in short for g in self.standing.all.options(self.left, c)}
        return set(short) | self._unprotected(
            {c for g in sorted(groups) for c in self.standing.holders.get(g, ())}
        )

    def _unprotected(self, class_ids: Collection[str]) -> set[str]:
        return {c for c in class_ids if not self.standing.all.classes[c].protected}

    def _shed_bp(self, class_id: str) -> int:
        return WHOLE_BP - sum(self.has(class_id).values())

    def _planned_shed_bp(self, class_id: str) -> int:
        return self.standing.all.shed.get(class_id, 0)

    def _spread(self, class_id: str, *, before: Mapping[str, int]) -> None:
        """Move part of what one site gained to other sites with room, if that costs little."""
        standing = self.standing
        gained = {
            g: bp - before.get(g, 0)
            for g, bp in self.shares[class_id].items()
            if bp > before.get(g, 0)
        }
        most = max(gained, key=lambda g: (gained[g], g), default="")
        over = gained.get(most, 0) - max(MOST_AT_ONE_SITE_BP, sum(gained.values()) // 2)
        if over <= 0:
            return
        offers = {o.group_id: o for o in standing.offers(self.left, class_id)}
        allowed = offers[most].price + SPREAD_PRICE_PART * standing.shed_price(class_id)
        for group_id, offer in offers.items():
            if over <= 0:
                return
            if offer.site_id in (offers[most].site_id, self.lost_site_id) or offer.price > allowed:
                continue
            part = min(over, self.tally.fits(offer.uses) - 1)
            if part > 0:
                shares = self.shares[class_id]
                self.tally.add(offers[most].uses, -part)
                self.tally.add(offer.uses, part)
                shares[group_id] = shares.get(group_id, 0) + part
                shares[most] -= part
                over -= part


class Repair:
    """A known answer, mended where fewer replicas run than it counts on."""

    def __init__(
        self,
        standing: Standing,
        lost_site_id: str,
        *,
        shares: Mapping[str, Mapping[str, int]],
        more: Mapping[RowKey, float],
        fewer: Mapping[str, int],
    ) -> None:
        self.standing, self.fewer = standing, fewer
        self.work = Work(standing, lost_site_id)
        self.work.shares = {c: dict(one) for c, one in shares.items()}
        self.work.tally.more.update(more)
        for group_id, replicas in fewer.items():
            key = ("throughput", group_id)
            whole = standing.all.limits[key] / standing.replicas[group_id]
            self.work.tally.limits[key] = whole * replicas

    def changed(self) -> dict[str, dict[str, int]]:
        """The answer with what no longer fits moved on, the least important first."""
        work, standing = self.work, self.standing
        moved: set[str] = set()
        for group_id in sorted(self.fewer):
            key = ("throughput", group_id)
            holders = {c for c, shares in work.shares.items() if group_id in shares}
            holders |= {c for c in standing.holders.get(group_id, ()) if c not in work.shares}
            order = sorted(holders, key=lambda c: _rank(standing, c), reverse=True)
            for class_id in order:
                over = -work.tally.left(key)
                if over <= 0:
                    break
                each = standing.all.uses(work.left, class_id, group_id)[key]
                shares = dict(work.has(class_id))
                shares[group_id] -= min(shares[group_id], int(over / each) + 1)
                work.put(class_id, shares)
                moved.add(class_id)
        if moved:
            work.settle(moved)
        return work.changed()


def _rank(standing: Standing, class_id: str) -> tuple[bool, int, str]:
    """What is served first when room is short: protected classes, then low priority numbers."""
    one = standing.all.classes[class_id]
    return (not one.protected, one.priority, class_id)
