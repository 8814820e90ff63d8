"""Detours worked out ahead: when they are asked for, that losses are answered from them, and what
happens where they are late, stale or never come.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable
from dataclasses import replace

from optimizer.plan import Plan
from optimizer.problem import Problem, RunningGroup
from optimizer.reroute_detours import Detour, Detours, Known
from optimizer.reroute_table import fill_detours
from optimizer.solve import solve
from scheduler.events import CordonRequested, LedgerSnapshot, ReplanRequested
from scheduler.simulation.world import World
from scheduler.state import CycleConfig
from sites.errors import RetryableError
from sites.units import WHOLE_BP
from tests.scenarios.fleets import three_sites
from tests.scenarios.test_story import plans, propose, settled

Seen = tuple[RunningGroup, ...]
Change = Callable[[Detours], Detours]

NO_MENDING = CycleConfig(retry_limit=0)
"""What runs stays as it is seen."""


class Filling:
    """Works detours out as production does and keeps what it was asked; `change` alters some."""

    def __init__(self, *, broken: bool = False, change: dict[int, Change] | None = None) -> None:
        self.asked: list[tuple[Plan, Seen]] = []
        self.broken = broken
        self.change = change or {}

    def __call__(self, problem: Problem, plan: Plan, running: Seen) -> Detours | None:
        self.asked.append((plan, running))
        if self.broken:
            raise RetryableError("detours: its process ended")
        detours = fill_detours(problem, plan, running=running)
        assert detours is not None
        return self.change.get(len(self.asked), lambda same: same)(detours)


def all_shed(detours: Detours) -> Detours:
    """The same, but every answer sheds everything: nobody else would come to that."""
    nothing = {class_id: dict[str, int]() for class_id in detours.standing.class_ids}
    changed = {}
    for site_id, known in detours.by_site.items():
        one: Known = pickle.loads(known)
        detour = Detour(lost_site_id=site_id, shares=nothing)
        changed[site_id] = pickle.dumps(replace(one, detour=detour))
    return replace(detours, by_site=changed)


def opened(filling: Filling, *, config: CycleConfig | None = None, fill_ms: int = 100) -> World:
    """A plan is in force; nothing is worked out yet."""
    world = World(three_sites(), solver=solve, filler=filling, config=config, fill_ms=fill_ms)
    world.run(1_000)
    propose(world)
    assert filling.asked == []
    return world


def counts(running: Seen) -> dict[str, int]:
    return {one.group.site_id: one.replicas for one in running}


def lines(world: World, what: str) -> list[int]:
    """When (ms) something happened."""
    return [int(line.split()[0]) for line in world.script if what in line]


def sheds_all(world: World, site_id: str) -> bool:
    drill = world.cycle.predict_failover(site_id)
    return drill.shed_after_bp == len(three_sites().classes) * WHOLE_BP


def test_once_a_plan_is_in_force_its_losses_are_worked_out_and_answered_from_that() -> None:
    filling = Filling(change={1: all_shed})
    world = opened(filling)
    assert not sheds_all(world, "lyo"), "worked out when asked"
    world.run(20_000)
    assert len(filling.asked) == 1
    assert filling.asked[0][0] == plans(world)[-1].plan
    assert counts(filling.asked[0][1]) == {"bru": 3, "lyo": 2}
    assert sheds_all(world, "lyo"), "looked up"

    world.kill_site("lyo")
    world.run_until(lambda: len(plans(world)) == 2)
    assert sum(s.basis_points for s in plans(world)[1].plan.shed) == 4 * WHOLE_BP


def test_looked_up_is_what_would_be_worked_out() -> None:
    world = opened(Filling())
    before = [world.cycle.predict_failover(s) for s in ("bru", "lyo", "zur")]
    world.run(5_000)
    assert lines(world, "detours ended: filled")
    assert [world.cycle.predict_failover(s) for s in ("bru", "lyo", "zur")] == before


def test_each_plan_gets_its_own() -> None:
    filling = Filling()
    world = opened(filling)
    world.run(3_000)
    world.kill_site("bru")
    world.run(20_000)
    world.bring_back("bru")
    world.run(20_000)
    assert filling.asked[-1][0] == plans(world)[-1].plan
    assert len({plan.plan_digest for plan, _ in filling.asked}) == 3  # the last is the first
    assert len(filling.asked) == 3


def test_fewer_replicas_that_stay_fewer_are_worked_out_anew() -> None:
    filling = Filling(change={2: all_shed})
    world = opened(filling, config=NO_MENDING)
    world.run(10_000)
    gone = world.sites["lyo"].replicas.pop()
    world.run(900)
    world.sites["lyo"].replicas.append(gone)
    world.run(10_000)
    assert len(filling.asked) == 1, "gone and back at once"

    world.sites["lyo"].replicas.pop()
    world.run(300)
    assert not sheds_all(world, "bru"), "mended at once"
    world.run(3_000)
    assert [counts(running)["lyo"] for _, running in filling.asked] == [2, 1]
    assert sheds_all(world, "bru"), "as worked out for what runs"
    world.run(20_000)
    assert len(filling.asked) == 2


def test_a_replica_that_comes_and_goes_is_not_followed_at_every_turn() -> None:
    filling = Filling()
    world = opened(filling, config=NO_MENDING)
    world.run(10_000)
    replicas = world.sites["lyo"].replicas
    for _ in range(10):
        gone = replicas.pop()
        world.run(2_500)
        replicas.append(gone)
        world.run(2_500)
    asked = lines(world, "detours asked for")
    assert 4 <= len(asked) <= 12
    spacing_ms = CycleConfig().detours_spacing_ms
    assert all(after - at >= spacing_ms for at, after in itertools.pairwise(asked))


def test_a_solve_comes_first_and_what_was_asked_before_it_is_dropped() -> None:
    filling = Filling(change={1: all_shed})
    world = opened(filling, fill_ms=3_000)
    world.run_until(lambda: bool(lines(world, "detours asked for")))
    world.tell(ReplanRequested(receipt_id="again"))
    assert lines(world, "solve asked for"), "at once, though a table is under way"
    settled(world, "again")
    world.run(2_900)  # the first table comes
    assert len(filling.asked) == 1
    assert not sheds_all(world, "lyo"), "and is not held"
    world.run(10_000)
    assert len(filling.asked) == 2
    assert world.cycle.predict_failover("lyo").shed_after_bp < 4 * WHOLE_BP
    assert world.alerts == []


def test_nothing_is_worked_out_while_a_plan_is_awaited() -> None:
    filling = Filling()
    world = World(three_sites(), solver=solve, filler=filling, solve_ms=8_000)
    world.run(1_000)
    propose(world)
    world.tell(ReplanRequested(receipt_id="again"))
    world.run(20_000)
    (ended,) = lines(world, "solve ended")
    (asked,) = lines(world, "detours asked for")
    assert asked > ended


def test_a_failure_is_told_once_and_losses_are_answered_all_the_same() -> None:
    filling = Filling(broken=True)
    world = opened(filling)
    drill = world.cycle.predict_failover("bru")
    world.run(120_000)
    assert len(filling.asked) == CycleConfig().retry_limit + 1, "then only for something else"
    (alert,) = world.alerts
    assert "its process ended; losses are answered when they happen" in alert
    assert world.cycle.predict_failover("bru") == drill
    world.kill_site("bru")
    world.run_until(lambda: len(plans(world)) == 2)
    assert plans(world)[1].plan == drill.plan

    filling.broken = False
    world.run(20_000)
    assert lines(world, "detours ended: filled")


def test_a_plan_that_stands_on_another_question_is_not_asked_about_again() -> None:
    filling = Filling()
    world = opened(filling)
    filler = fill_detours
    world._filler = lambda problem, plan, running: filler(
        replace(problem, lost_sites=("lyo",)), plan, running=running
    )
    world.run(20_000)
    assert len(lines(world, "detours asked for")) == len(lines(world, "detours ended: none")) == 1
    assert world.alerts == []


def test_a_cordon_changes_the_question() -> None:
    filling = Filling(change={1: all_shed})
    world = opened(filling)
    world.run(6_000)
    assert sheds_all(world, "lyo")
    world.tell(CordonRequested(receipt_id="cordon", site_id="zur", reason="works"))
    settled(world, "cordon")
    assert not sheds_all(world, "lyo"), "what is held answers another question"
    world.run(6_000)
    assert len(filling.asked) == 2


def test_after_a_restart_it_waits_for_sites_that_may_only_be_starting() -> None:
    filling = Filling()
    world = opened(filling)
    world.run(5_000)
    newest = plans(world)[-1]
    world.kill_agent("lyo")
    world.start_server(LedgerSnapshot(accepted=newest, last_version=newest.version))
    world.run(5_000)
    assert len(filling.asked) == 1
    world.bring_back("lyo")
    world.run(5_000)
    assert [counts(running) for _, running in filling.asked] == [{"bru": 3, "lyo": 2}] * 2
    assert world.faults == []
