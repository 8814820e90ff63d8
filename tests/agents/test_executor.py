"""The step machine: first what must never happen, then each kind of step."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.executor import FAILURES_LIMIT, Executor, Resumed
from agents.executor_messages import (
    ApplyRoutes,
    AssignmentAccepted,
    ExecutorEffect,
    ExecutorEvent,
    LeaseRenewed,
    MarkApplied,
    ReplicaExited,
    ReplicaIdle,
    ReplicaReady,
    ReplicaStopped,
    Report,
    RoutesApplied,
    RoutesRejected,
    SaveWanted,
    StartReplica,
    StepArrived,
    StopReplica,
    Ticked,
    WatchIdle,
)
from agents.replica_set import Life, Replica
from sites.assignment import Lease, SiteAssignment
from sites.fit import possible_draw_w
from sites.steps import Step, StepKind, StepOutcome
from tests.agents import site_facts as f

START, ROUTES = StepKind.START_REPLICAS, StepKind.SET_ROUTES
DRAIN, STOP = StepKind.DRAIN_REPLICAS, StepKind.STOP_REPLICAS


class Site:
    """An executor with a world that does exactly what it is asked, when the test says so."""

    def __init__(self, resumed: Resumed | None = None, *, lease: Lease | None = f.LEASE) -> None:
        self.executor = Executor(f.SITE, resumed or Resumed())
        self.now_ms = 1_000
        self.effects: list[ExecutorEffect] = []
        self.routed: frozenset[str] = frozenset()
        self.applied_ranks: list[tuple[int, int]] = []
        self.take(self.executor.start(now_ms=self.now_ms, wall_ms=self.now_ms))
        if lease is not None:
            self.tell(LeaseRenewed(lease=lease))

    def tell(self, event: ExecutorEvent) -> list[ExecutorEffect]:
        return self.take(self.executor.handle(event, now_ms=self.now_ms, wall_ms=self.now_ms))

    def take(self, effects: tuple[ExecutorEffect, ...]) -> list[ExecutorEffect]:
        self.effects += effects
        return list(effects)

    def accept(self, assignment: SiteAssignment) -> list[ExecutorEffect]:
        return self.tell(AssignmentAccepted(assignment=assignment))

    def step(self, kind: StepKind, *args: object, **more: object) -> list[ExecutorEffect]:
        return self.tell(StepArrived(step=f.step(kind, *args, **more)))

    def waiting(self, kind: type) -> list[ExecutorEffect]:
        return [e for e in self.effects if isinstance(e, kind)]

    def pass_ms(self, duration_ms: int) -> list[ExecutorEffect]:
        self.now_ms += duration_ms
        return self.tell(Ticked())

    def settle(self) -> None:
        """Let the world answer everything asked until nothing is left."""
        for _ in range(200):
            asked = [e for e in self.effects if not isinstance(e, Report | SaveWanted)]
            self.effects = [e for e in self.effects if isinstance(e, Report | SaveWanted)]
            if not asked:
                return
            for effect in asked:
                self.answer(effect)
        raise AssertionError("the executor never comes to rest")

    def answer(self, effect: ExecutorEffect) -> None:
        match effect:
            case StartReplica():
                self.tell(ReplicaReady(replica_id=effect.replica_id))
            case StopReplica():
                assert effect.replica_id not in self.routed, "stopped under traffic"
                self.tell(ReplicaStopped(replica_id=effect.replica_id))
            case WatchIdle():
                assert effect.replica_id not in self.routed
                self.tell(ReplicaIdle(replica_id=effect.replica_id))
            case ApplyRoutes():
                self.routed = frozenset(i for _, ids in effect.ready for i in ids)
                self.tell(RoutesApplied(token=effect.token))
            case MarkApplied():
                self.applied_ranks.append(effect.assignment.rank)

    def result(self) -> tuple[StepOutcome, str]:
        last = self.waiting(Report)[-1].result
        return last.outcome, last.detail

    def lives(self) -> dict[str, Life]:
        return {r.replica_id.removeprefix(f"{f.SITE}/cpu/"): r.life for r in
                self.executor.replicas()}  # fmt: skip


def serving(*targets: object, **more: object) -> Site:
    """A site that runs version 1 with all its replicas."""
    site = Site()
    assignment = f.assignment(*targets, **more)
    site.accept(assignment)
    for one in assignment.groups:
        site.step(START, one.group.group_id, one.replicas)
    site.settle()
    site.step(ROUTES)
    site.settle()
    assert site.result() == (StepOutcome.DONE, "")
    return site


# What must never happen


@st.composite
def stories(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    kinds = ("accept", "start", "routes", "drain", "stop", "answer", "crash", "tick", "reject")
    weights = st.sampled_from((*kinds, "answer", "answer", "answer"))
    return draw(st.lists(st.tuples(weights, st.integers(0, 3), st.integers(0, 3)), max_size=60))


@settings(max_examples=300, deadline=None)
@given(stories())
def test_no_story_breaks_the_site(story: list[tuple[str, int, int]]) -> None:
    """Power is never exceeded, nothing is stopped under traffic, applied ranks only rise."""
    budget_w, pue = 15.0 * 4 * 1.2, 1.2
    site, version, pending = Site(), 0, []
    for kind, which, number in story:
        group = (f.GROUP, f.OTHER)[which % 2]
        match kind:
            case "accept":
                version += 1
                targets = (f.target("smol", replicas=number), f.target("tiny", replicas=which))
                site.accept(f.assignment(*targets, version=version, power_budget_w=budget_w))
            case "start" | "drain" | "stop" | "routes":
                wanted = {"start": START, "drain": DRAIN, "stop": STOP, "routes": ROUTES}[kind]
                site.step(wanted, group, number, version=version, step_id=f"s{len(story)}-{which}")
            case "crash":
                for replica in site.executor.replicas()[which : which + 1]:
                    if replica.life not in (Life.FAILED, Life.STOPPING):
                        site.routed -= {replica.replica_id}
                        pending = [p for p in pending if replica.replica_id not in str(p)]
                        site.tell(ReplicaExited(replica_id=replica.replica_id, detail="crash"))
            case "tick":
                site.pass_ms(10_000 * number)
            case "answer" | "reject":
                pending += [e for e in site.effects if not isinstance(e, Report | SaveWanted)]
                site.effects.clear()
                if pending:
                    effect = pending.pop(which % len(pending))
                    if kind == "reject" and isinstance(effect, ApplyRoutes):
                        site.tell(RoutesRejected(token=effect.token, detail="no"))
                    else:
                        site.answer(effect)
        counts = site.executor.held()
        assert sum(t.replicas for t in counts) == len(site.executor.replicas())
        assert possible_draw_w(counts, pue=pue) <= budget_w + 1e-6
    assert site.applied_ranks == sorted(site.applied_ranks)


@settings(max_examples=100, deadline=None)
@given(stories())
def test_the_same_story_has_the_same_effects(story: list[tuple[str, int, int]]) -> None:
    def play() -> list[ExecutorEffect]:
        site = Site()
        for kind, which, number in story:
            if kind == "accept":
                site.accept(f.assignment(f.target(replicas=3), version=which + 1))
            elif kind in ("start", "stop"):
                wanted = START if kind == "start" else STOP
                site.step(wanted, f.GROUP, number, version=which + 1, step_id=f"{kind}{number}")
            else:
                site.pass_ms(number)
        return site.effects

    assert play() == play()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["start", "routes", "drain", "stop"]), min_size=1, max_size=6))
def test_repeating_any_step_changes_nothing_more(kinds: list[str]) -> None:
    site = serving(f.target(replicas=2))
    for kind in kinds:
        args = {"start": (START, f.GROUP, 2), "routes": (ROUTES,),
                "drain": (DRAIN, f.GROUP, 1), "stop": (STOP, f.GROUP, 1)}[kind]  # fmt: skip
        site.step(*args, step_id=f"first-{kind}")
        site.settle()
        before = site.lives()
        site.effects.clear()
        site.step(*args, step_id=f"first-{kind}")
        assert [type(e) for e in site.effects] == [Report]
        assert site.lives() == before


# Steps


def test_start_waits_until_the_replicas_are_ready() -> None:
    site = Site()
    site.accept(f.assignment(f.target(replicas=2)))
    effects = site.step(START, f.GROUP, 2)
    assert [type(e) for e in effects].count(StartReplica) == 2
    assert isinstance(effects[0], SaveWanted), "durable before anything starts"
    site.tell(ReplicaReady(replica_id=f"{f.GROUP}/r1"))
    assert not site.waiting(Report)
    site.tell(ReplicaReady(replica_id=f"{f.GROUP}/r2"))
    assert site.result() == (StepOutcome.DONE, "")


def test_routes_raise_the_applied_rank_before_they_are_reported() -> None:
    site = Site()
    site.accept(f.assignment())
    site.step(START, f.GROUP, 1)
    site.settle()
    site.effects.clear()
    (asked,) = site.step(ROUTES)
    assert isinstance(asked, ApplyRoutes)
    assert asked.ready == ((f.GROUP, (f"{f.GROUP}/r1",)),)
    done = site.tell(RoutesApplied(token=asked.token))
    assert [type(e) for e in done] == [MarkApplied, Report]
    assert site.executor.applied is not None


def test_drain_takes_the_replica_off_the_gateway_before_it_waits_for_its_requests() -> None:
    site = serving(f.target(replicas=2))
    site.effects.clear()
    (asked,) = [e for e in site.step(DRAIN, f.GROUP, 1) if isinstance(e, ApplyRoutes)]
    assert asked.ready == ((f.GROUP, (f"{f.GROUP}/r1",)),)
    assert not site.waiting(WatchIdle)
    site.tell(RoutesApplied(token=asked.token))
    assert [e.replica_id for e in site.waiting(WatchIdle)] == [f"{f.GROUP}/r2"]
    assert not site.waiting(Report)
    site.tell(ReplicaIdle(replica_id=f"{f.GROUP}/r2"))
    assert site.result() == (StepOutcome.DONE, "")
    assert not site.waiting(StopReplica)


def test_a_drain_ends_with_its_time_and_says_what_still_ran() -> None:
    site = serving(f.target(replicas=2))
    site.step(DRAIN, f.GROUP, 1, timeout_ms=5_000)
    for effect in site.waiting(ApplyRoutes):
        site.answer(effect)
    site.pass_ms(5_000)
    assert site.result() == (StepOutcome.DONE, "1 replicas still busy after 5000 ms")


def test_stop_drains_first_and_ends_the_busy_at_half_its_time() -> None:
    site = serving(f.target(replicas=2))
    site.step(STOP, f.GROUP, 1, timeout_ms=10_000)
    for effect in site.waiting(ApplyRoutes):
        site.answer(effect)
    assert not site.waiting(StopReplica)
    site.pass_ms(5_000)
    (stopped,) = site.waiting(StopReplica)
    assert stopped.replica_id == f"{f.GROUP}/r2"
    site.tell(ReplicaStopped(replica_id=stopped.replica_id))
    assert site.result() == (StepOutcome.DONE, "")
    assert site.lives() == {"smol/x1/r1": Life.READY}


def test_undo_turns_a_drained_replica_back_without_starting_another() -> None:
    site = serving(f.target(replicas=2))
    site.step(DRAIN, f.GROUP, 1)
    site.settle()
    assert site.lives()["smol/x1/r2"] is Life.DRAINED
    site.effects.clear()
    site.accept(f.assignment(f.target(replicas=2), version=2))
    effects = site.step(START, f.GROUP, 2, version=2)
    assert not [e for e in effects if isinstance(e, StartReplica)]
    assert site.result() == (StepOutcome.DONE, "")
    site.settle()
    assert f"{f.GROUP}/r2" in site.routed


def test_a_failed_start_leaves_nothing_loading_behind() -> None:
    site = serving(f.target(replicas=1))
    site.accept(f.assignment(f.target(replicas=3), version=2))
    site.effects.clear()
    site.step(START, f.GROUP, 3, version=2, timeout_ms=5_000)
    site.tell(ReplicaReady(replica_id=f"{f.GROUP}/r2"))
    site.pass_ms(5_000)
    outcome, detail = site.result()
    assert outcome is StepOutcome.FAILED
    assert detail == "2 of 3 replicas ready after 5000 ms"
    site.settle()
    assert site.lives() == {"smol/x1/r1": Life.READY, "smol/x1/r2": Life.READY}


def test_a_start_whose_server_keeps_failing_says_why() -> None:
    site = Site()
    site.accept(f.assignment())
    site.step(START, f.GROUP, 1)
    for _ in range(FAILURES_LIMIT):
        assert not site.waiting(Report)
        site.tell(ReplicaExited(replica_id=f"{f.GROUP}/r1", detail="model file is missing"))
        site.pass_ms(2_000)
    outcome, detail = site.result()
    assert outcome is StepOutcome.FAILED
    assert "model file is missing" in detail
    assert site.lives() == {}


def test_a_crashed_replica_leaves_the_routes_and_comes_back() -> None:
    site = serving(f.target(replicas=2))
    site.effects.clear()
    site.tell(ReplicaExited(replica_id=f"{f.GROUP}/r1", detail="process ended with status -9"))
    (asked,) = site.waiting(ApplyRoutes)
    assert asked.ready == ((f.GROUP, (f"{f.GROUP}/r2",)),)
    assert site.executor.faults() == (f"{f.GROUP}/r1: process ended with status -9",)
    assert not site.waiting(StartReplica)
    site.pass_ms(600)
    assert [e.replica_id for e in site.waiting(StartReplica)] == [f"{f.GROUP}/r1"]
    site.settle()
    assert site.routed == {f"{f.GROUP}/r1", f"{f.GROUP}/r2"}


def test_restarts_wait_longer_each_time_but_never_over_half_a_minute() -> None:
    site = serving()
    waits = []
    for _ in range(10):
        site.tell(ReplicaExited(replica_id=f"{f.GROUP}/r1", detail="x"))
        (replica,) = site.executor.replicas()
        waits.append(replica.restart_at_ms - site.now_ms)
        site.pass_ms(waits[-1])
    assert waits == [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000, 30_000]


def test_an_expired_lease_stops_nothing_and_still_restarts() -> None:
    site = serving()
    site.now_ms = f.FOREVER_MS + 1
    site.effects.clear()
    site.tell(ReplicaExited(replica_id=f"{f.GROUP}/r1", detail="x"))
    site.pass_ms(1_000)
    site.settle()
    assert site.lives() == {"smol/x1/r1": Life.READY}


def test_equal_routes_are_applied_at_acceptance() -> None:
    site = serving()
    site.accept(f.assignment(version=2, power_budget_w=900.0))
    site.settle()
    assert site.applied_ranks == [(1, 1), (1, 2)]


def test_rejected_routes_fail_the_step_and_the_old_ones_stay() -> None:
    site = serving(f.target(replicas=1))
    site.accept(f.assignment(f.target(), f.target("tiny"), version=2))
    site.step(START, f.OTHER, 1, version=2)
    site.settle()
    site.effects.clear()
    site.step(ROUTES, version=2)
    (asked,) = site.waiting(ApplyRoutes)
    site.tell(RoutesRejected(token=asked.token, detail="Envoy rejects the configuration"))
    assert site.result() == (StepOutcome.FAILED, "gateway: Envoy rejects the configuration")
    assert site.executor.applied is not None
    assert site.executor.applied.rank == (1, 1)
    site.effects.clear()
    site.pass_ms(1_000)
    assert [e.assignment.rank for e in site.waiting(ApplyRoutes)] == [(1, 1)]


# Refusals


def refusal(site: Site, step: Step) -> str:
    before = site.lives()
    site.effects.clear()
    site.tell(StepArrived(step=replace(step, step_id="asked")))
    (report,) = site.waiting(Report)
    assert report.result.outcome is StepOutcome.REFUSED
    assert [type(e) for e in site.effects] == [Report]
    assert site.lives() == before
    return report.result.violations[0].code


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (replace(f.step(START, f.GROUP, 1), site_id="ghent"), "wrong_site"),
        (f.step(START, f.GROUP, 1, version=2), "step_rank"),
        (f.step(START, f.GROUP, 1, version=0), "step_rank"),
        (f.step(START, f.GROUP, 1, epoch=0), "step_rank"),
        (f.step(START, f"{f.SITE}/cpu/huge/x1", 1), "unknown_group"),
        (f.step(START, f.GROUP, 2), "group_replicas"),
        (f.step(STOP, f.GROUP, 0), "make_before_break"),
        (f.step(DRAIN, f.GROUP, 0), "make_before_break"),
    ],
)
def test_a_step_that_may_not_be_done_is_refused(step: Step, code: str) -> None:
    assert refusal(serving(), step) == code


@pytest.mark.parametrize(
    "lease",
    [None, Lease(epoch=0, expires_at_ms=f.FOREVER_MS), Lease(epoch=1, expires_at_ms=1_000)],
)
def test_without_a_running_lease_nothing_new_begins(lease: Lease | None) -> None:
    site = Site(lease=lease)
    site.accept(f.assignment())
    assert refusal(site, f.step(START, f.GROUP, 1)) == "lease"


def test_a_start_beyond_power_or_accelerators_is_refused() -> None:
    budget_w = 15.0 * 1.2 * 2.5
    site = serving(f.target(replicas=2), power_budget_w=budget_w)
    wanted = (f.target(replicas=0), f.target("tiny"))
    site.accept(f.assignment(*wanted, version=2, power_budget_w=budget_w))
    assert refusal(site, f.step(START, f.OTHER, 1, version=2)) == "site_power"
    site.accept(f.assignment(*wanted, version=3, accelerators=2))
    assert refusal(site, f.step(START, f.OTHER, 1, version=3)) == "pool_accelerators"


def test_routes_to_a_group_nothing_was_started_for_are_refused() -> None:
    site = serving()
    site.accept(f.assignment(f.target(), f.target("tiny"), version=2))
    assert refusal(site, f.step(ROUTES, version=2)) == "absent_group"


def test_an_assignment_past_its_time_is_never_newly_applied() -> None:
    site = serving()
    site.accept(replace(f.assignment(version=2, routes=(f.route(f.GROUP),)), expires_at_ms=5,
                        services=(("chat", ("smol",)),)))  # fmt: skip
    assert refusal(site, f.step(ROUTES, version=2)) == "expired"


# Restarts of the agent


def resumed(*replicas: Replica, wanted: int, applied: SiteAssignment | None = None) -> Resumed:
    one = applied or f.assignment(f.target(replicas=2))
    return Resumed(
        accepted=one,
        applied=one,
        wanted={f.GROUP: wanted},
        next_replica=3,
        replicas=replicas,
    )


def adopted(number: int, life: Life = Life.READY) -> Replica:
    return Replica(
        replica_id=f"{f.GROUP}/r{number}",
        number=number,
        target=f.target(replicas=2),
        life=life,
        since_ms=0,
        was_ready=life is Life.READY,
    )


def test_a_new_agent_keeps_what_runs_and_brings_back_what_does_not() -> None:
    site = Site(resumed(adopted(1), wanted=2), lease=None)
    assert [e.replica_id for e in site.waiting(StartReplica)] == [f"{f.GROUP}/r3"]
    assert not site.waiting(StopReplica)
    (asked,) = site.waiting(ApplyRoutes)
    assert asked.ready == ((f.GROUP, (f"{f.GROUP}/r1",)),), "endpoints stay through the restart"


def test_a_new_agent_starts_a_whole_site_again_without_the_control_plane() -> None:
    site = Site(resumed(wanted=2), lease=None)
    site.settle()
    assert site.lives() == {"smol/x1/r3": Life.READY, "smol/x1/r4": Life.READY}
    assert len(site.routed) == 2


def test_a_new_agent_goes_on_draining_what_was_draining() -> None:
    site = Site(resumed(adopted(1), adopted(2), wanted=1), lease=None)
    site.settle()
    assert site.lives() == {"smol/x1/r1": Life.READY, "smol/x1/r2": Life.DRAINED}
