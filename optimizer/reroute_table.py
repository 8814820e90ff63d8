"""For every single loss where all traffic goes, worked out ahead, and repaired when it happens.

Keeps and hands out answers; `reroute_work` decides them. An answer is a `Detour`, the classes that
change; `optimizer.reroute` puts it into a whole plan, and answers for several losses at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from optimizer.milp.reroute_flows import RerouteFlows
from optimizer.plan import Plan
from optimizer.problem import Problem, RunningGroup
from optimizer.reroute_fill import Fill, Filled
from optimizer.reroute_repair import Repair
from optimizer.reroute_standing import Standing
from optimizer.reroute_work import work_out
from optimizer.tables import Floats
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
    """A detour with what a repair goes on from: how full it leaves limits, what room costs."""

    detour: Detour
    filled: Filled
    room: Floats


class RerouteTable:
    """The detours of one plan of one problem; each is worked out when first asked, or by `fill`.

    Holds for that problem and plan only: make a new one for a new plan. Lost sites of the problem
    are lost already: no share of the plan may stand or enter there. Raises FatalError if the solver
    errs.
    """

    def __init__(self, problem: Problem, plan: Plan) -> None:
        self.standing = Standing(problem, plan)
        self._flows = RerouteFlows(self.standing)
        groups = {g.group.group_id: g.group for g in plan.groups}
        self._groups = tuple(groups[group_id] for group_id in self.standing.group_ids)
        self._known: dict[str, _Known] = {}

    def fill(self) -> None:
        """Work out every loss that changes anything, and what a repair will want to know."""
        for row in range(len(self.standing.class_ids)):
            self.standing.choices(row, elsewhere=False)
            for group in self.standing.held_at[row]:
                self.standing.each_bp(row, group, elsewhere=False)
        for group in range(self.standing.groups):
            self.standing.tenants(group)
        for site_id in self.standing.losses():
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
        if running is None:
            return known.detour
        s, lost = self.standing, self.standing.site_at[lost_site_id]
        fewer = {
            at: float(seen)
            for at, (seen, planned) in enumerate(zip(self._seen(running), s.replicas, strict=True))
            if seen < planned and s.site_at_group[at] != lost
        }
        if not fewer:
            return known.detour
        mended = Fill(s, lost_site_id, known=known.filled)
        moved = Repair(mended, room=known.room).mend(fewer)
        shares = dict(known.detour.shares)
        for row in moved:
            shares.pop(s.class_ids[row], None)
        shares |= mended.changed(moved)
        return Detour(lost_site_id=lost_site_id, shares=dict(sorted(shares.items())))

    def _seen(self, running: tuple[RunningGroup, ...]) -> list[int]:
        """Replicas seen of each placed group."""
        groups = self._groups
        if len(running) == len(groups) and all(
            one.group is group for one, group in zip(running, groups, strict=True)
        ):
            return [one.replicas for one in running]
        seen = {one.group: one.replicas for one in running}
        return [seen.get(group, 0) for group in groups]

    def _of(self, lost_site_id: str) -> _Known:
        if lost_site_id not in self._known:
            self.standing.problem.fleet.site(lost_site_id)
            flows = self._flows.after(lost_site_id)
            fill = work_out(self.standing, lost_site_id, flows=flows)
            nothing: dict[str, dict[str, int]] = {
                c: {} for c in self.standing.idle_classes.get(lost_site_id, ())
            }
            shares = nothing | fill.changed(fill.shares)
            self._known[lost_site_id] = _Known(
                detour=Detour(lost_site_id=lost_site_id, shares=dict(sorted(shares.items()))),
                filled=fill.filled(),
                room=fill.room_usd_per_h(),
            )
        return self._known[lost_site_id]
