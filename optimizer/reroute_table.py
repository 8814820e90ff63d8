"""For every single loss where all traffic goes, worked out ahead, and repaired when it happens.

Keeps and hands out answers; `reroute_work` decides them. An answer is a `Detour`, the classes that
change; `optimizer.reroute` puts it into a whole plan, and answers for several losses at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from optimizer.plan import Plan
from optimizer.problem import Problem, RunningGroup
from optimizer.reroute_standing import Standing
from optimizer.reroute_work import Repair, Work
from optimizer.survive import RowKey
from sites.units import WHOLE_BP


@dataclass(frozen=True, kw_only=True, slots=True)
class Detour:
    """What changes when `lost_site_id` is lost: all of what each class listed then has, in basis
    points by group; what is missing of 10 000 is shed. Classes not listed keep their shares.
    """

    lost_site_id: str
    shares: Mapping[str, Mapping[str, int]]

    def shed_bp(self, class_id: str) -> int:
        """Basis points of a listed class that are shed."""
        return WHOLE_BP - sum(self.shares[class_id].values())


@dataclass(frozen=True, kw_only=True, slots=True)
class _Known:
    """A detour with what it uses of each limit beyond the plan, so that a repair starts there."""

    detour: Detour
    more: Mapping[RowKey, float]


class RerouteTable:
    """The detours of one plan of one problem; each is worked out when first asked, or by `fill`.

    Holds for that problem and plan only: make a new one for a new plan. Lost sites of the problem
    are lost already: no share of the plan may stand or enter there.
    """

    def __init__(self, problem: Problem, plan: Plan) -> None:
        self.standing = Standing(problem, plan)
        self._running = tuple(RunningGroup(group=g.group, replicas=g.replicas) for g in plan.groups)
        self._known: dict[str, _Known] = {}

    def fill(self) -> None:
        """Work out every loss that changes anything, and what a repair will want to know."""
        standing = self.standing
        for class_id in standing.all.classes:
            standing.offers(standing.reach, class_id)
        for site_id in standing.all.losses():
            self.detour(site_id)

    def detour(self, lost_site_id: str) -> Detour:
        """The answer to a loss with the replicas as planned. Raises KeyError for no site."""
        return self._of(lost_site_id).detour

    def answer(
        self, lost_site_id: str, *, running: tuple[RunningGroup, ...] | None = None
    ) -> Detour:
        """The answer to a loss with the replicas seen `running` (None: as planned).

        Where fewer run than planned, what no longer fits there moves on; more are not used. Raises
        KeyError for no site.
        """
        known = self._of(lost_site_id)
        if running is None or running == self._running:
            return known.detour
        seen = {r.group.group_id: r.replicas for r in running}
        placed = self.standing.all.groups
        fewer = {
            g: seen.get(g, 0)
            for g, planned in self.standing.replicas.items()
            if seen.get(g, 0) < planned and placed[g].group.site_id != lost_site_id
        }
        if not fewer:
            return known.detour
        repair = Repair(
            self.standing,
            lost_site_id,
            shares=known.detour.shares,
            more=known.more,
            fewer=fewer,
        )
        return Detour(lost_site_id=lost_site_id, shares=repair.changed())

    def _of(self, lost_site_id: str) -> _Known:
        if lost_site_id not in self._known:
            self.standing.reach.problem.fleet.site(lost_site_id)
            work = Work(self.standing, lost_site_id)
            work.answer()
            self._known[lost_site_id] = _Known(
                detour=Detour(lost_site_id=lost_site_id, shares=work.changed()),
                more=dict(work.tally.more),
            )
        return self._known[lost_site_id]
