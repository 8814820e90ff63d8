"""For every single loss where all traffic goes, worked out ahead with a solver.

Keeps answers; `reroute_work` decides them. `filled` makes of them a value that any process may
answer from (`reroute_detours`).
"""

from __future__ import annotations

import pickle
from dataclasses import replace

from optimizer.milp.reroute_flows import RerouteFlows
from optimizer.plan import Plan
from optimizer.problem import Problem, RunningGroup
from optimizer.reach import Reach
from optimizer.reroute_detours import Detour, Detours, Known, repaired
from optimizer.reroute_standing import Standing
from optimizer.reroute_work import work_out


class RerouteTable:
    """The detours of one plan of one problem; each is worked out when first asked.

    They count on the replicas seen `running` (None: as planned); more than planned are not used.
    Holds for that problem and plan only: make a new one for a new plan. Lost sites of the problem
    are lost already: no share of the plan may stand or enter there. Raises FatalError if the solver
    errs.
    """

    def __init__(
        self, problem: Problem, plan: Plan, *, running: tuple[RunningGroup, ...] | None = None
    ) -> None:
        self._stand_on(Standing(problem, plan, running=running))

    @classmethod
    def on(cls, standing: Standing) -> RerouteTable:
        """The detours of a plan looked at before. Raises FatalError if the solver errs."""
        table = cls.__new__(cls)
        table._stand_on(standing)
        return table

    def _stand_on(self, standing: Standing) -> None:
        self.standing = standing
        self._flows = RerouteFlows(standing)
        self._known: dict[str, Known] = {}

    def filled(self) -> Detours:
        """Work out every loss."""
        s, changing = self.standing, frozenset(self.standing.losses())
        found: dict[str, Known] = {}
        still: Known | None = None  # what holds for every site where nothing is
        for site_id in sorted(s.site_at):
            if site_id in changing:
                found[site_id] = self._of(site_id)
                continue
            still = still or self._of(site_id)
            detour = replace(still.detour, lost_site_id=site_id)
            found[site_id] = replace(still, detour=detour)
        return Detours(standing=s, by_site={at: pickle.dumps(one) for at, one in found.items()})

    def detour(self, lost_site_id: str) -> Detour:
        """The answer to a loss with the replicas counted on. Raises KeyError for no site."""
        return self._of(lost_site_id).detour

    def answer(
        self, lost_site_id: str, *, running: tuple[RunningGroup, ...] | None = None
    ) -> Detour:
        """As `Detours.answer`, for one loss."""
        return repaired(self.standing, self._of(lost_site_id), lost_site_id, running=running)

    def _of(self, lost_site_id: str) -> Known:
        if lost_site_id not in self._known:
            s = self.standing
            flows = self._flows.after(lost_site_id)
            fill = work_out(s, lost_site_id, flows=flows)
            shares: dict[str, dict[str, int]] = s.idle_at((s.replicas == 0).nonzero()[0].tolist())
            shares |= {c: {} for c in s.idle_classes.get(lost_site_id, ())}
            shares |= fill.changed(fill.shares)
            self._known[lost_site_id] = Known(
                detour=Detour(lost_site_id=lost_site_id, shares=dict(sorted(shares.items()))),
                filled=fill.filled(),
                room=fill.room_usd_per_h(),
                worth=flows.worth_usd_per_h,
            )
        return self._known[lost_site_id]


def fill_detours(
    problem: Problem, plan: Plan, *, running: tuple[RunningGroup, ...] | None = None
) -> Detours | None:
    """Every loss worked out for the replicas seen `running`; None where the plan does not stand on
    the problem. Raises FatalError if the solver errs.
    """
    if not stands_on(problem, plan):
        return None
    return RerouteTable(problem, plan, running=running).filled()


def stands_on(problem: Problem, plan: Plan) -> bool:
    """Whether every share of a plan is lawful and enters where it says under a problem."""
    reach = Reach(problem)
    groups = {g.group.group_id: g.group for g in plan.groups}
    if any(reach.point(group) is None for group in groups.values()):
        return False
    for share in plan.shares:
        one = reach.classes.get(share.class_id)
        entry = None if one is None else reach.entry(one)
        if one is None or entry is None or entry.site_id != share.ingress_site_id:
            return False
        if reach.refusal(one, groups[share.group_id]) is not None:
            return False
    return all(one.class_id in reach.classes for one in plan.shed)
