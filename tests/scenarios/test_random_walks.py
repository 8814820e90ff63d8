"""Random fleets, random events: nothing that must never happen happens, and it settles."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optimizer.arcs import find_arcs
from optimizer.greedy import greedy_plan
from optimizer.outcome import Outcome, SolveStatus
from optimizer.problem import Problem
from scheduler.events import (
    CordonRequested,
    PlanProposed,
    ReplanRequested,
    UncordonRequested,
)
from scheduler.simulation.world import World
from tests.optimizer import builders as b

EVENTS = ("replan", "scale", "kill", "kill agent", "back", "drain", "free", "hubs forget")
PAUSES_MS = (50, 200, 450, 1_500, 6_000)


def quick(problem: Problem) -> Outcome:
    """The greedy plan as an outcome: the walk is about carrying plans out."""
    candidates = find_arcs(problem)
    return Outcome(
        status=SolveStatus.LIMIT,
        plan=greedy_plan(problem, candidates.arcs),
        arcs=(),
        pruned=(),
        bound_usd_per_h=0.0,
    )


class Walk:
    """One world and the next receipt's number."""

    def __init__(self, problem: Problem) -> None:
        self.world = World(problem, solver=quick)
        self.problem = problem
        self.number = 0

    def act(self, event: str, site_id: str, rate_rps: float) -> None:
        self.number += 1
        world, receipt_id = self.world, f"r{self.number}"
        site = world.sites[site_id]
        alive = sum(1 for s in world.sites.values() if s.gateway_up)
        match event:
            case "replan":
                world.tell(ReplanRequested(receipt_id=receipt_id))
            case "scale":
                self.scale(receipt_id, rate_rps)
            case "kill" if site.gateway_up and alive > 1:
                world.kill_site(site_id)
            case "kill agent" if site.agent_up:
                world.kill_agent(site_id)
            case "back" if not site.agent_up:
                world.bring_back(site_id)
            case "drain":
                world.tell(CordonRequested(receipt_id=receipt_id, site_id=site_id, drain=True))
            case "free":
                world.tell(UncordonRequested(receipt_id=receipt_id, site_id=site_id))
            case "hubs forget":
                world.restart_hubs()

    def scale(self, receipt_id: str, rate_rps: float) -> None:
        view = self.world.cycle.view()
        classes = tuple(replace(c, rate_rps=(rate_rps,)) for c in self.problem.classes)
        problem = replace(view.problem, classes=classes)
        plan = quick(problem).plan
        assert plan is not None
        self.world.tell(
            PlanProposed(
                receipt_id=receipt_id,
                problem=problem,
                plan=plan,
                state_serial=view.state_serial,
                allow_empty=True,
            )
        )


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(b.small_problems(max_sites=4), st.data())
def test_a_random_walk_is_safe_at_every_step_and_settles(
    problem: Problem, data: st.DataObject
) -> None:
    walk = Walk(replace(problem, running=()))
    world = walk.world
    world.run(300)
    walk.act("replan", min(world.sites), 0.0)
    for _ in range(data.draw(st.integers(1, 5))):
        world.run(data.draw(st.sampled_from(PAUSES_MS)))
        walk.act(
            data.draw(st.sampled_from(EVENTS)),
            data.draw(st.sampled_from(sorted(world.sites))),
            data.draw(st.sampled_from([1.0, 4.0, 9.0, 25.0])),
        )
    for site_id, site in sorted(world.sites.items()):
        if not site.agent_up:
            world.bring_back(site_id)
    world.run(30_000)
    assert world.faults == [], "\n".join(world.script)
    view = world.cycle.view()
    assert view.rollout_receipt_id == "", "\n".join(world.script)
    if view.plan is not None:
        applied = {(s.applied_epoch, s.applied_version) for s in view.sites}
        assert len(applied) == 1, "\n".join(world.script)
    for site in world.sites.values():
        assert site.applied_ranks == sorted(site.applied_ranks)
