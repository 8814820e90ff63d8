"""The hub: who is connected, what is sent (again), what is given up."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sites.errors import InvalidFactError, Violation
from sites.hub import MOST_OPEN_STEPS, EdgeHub, HubConfig
from sites.hub_messages import (
    AssignmentJudged,
    AssignmentNamed,
    ConnectionChanged,
    ConnectionState,
    CordonWanted,
    HelloArrived,
    HubEffect,
    HubEvent,
    ObservationArrived,
    SendAssignment,
    SendLease,
    SendStep,
    SiteCordoned,
    SiteObserved,
    StepFinished,
    StepResultArrived,
    StepsForgotten,
    StepWanted,
    StreamClosed,
    Ticked,
    UncordonWanted,
    VerdictArrived,
)
from sites.steps import AssignmentVerdict, Step, StepKind, StepOutcome, StepResult
from sites.telemetry import GatewayObservation, Hello, SiteObservation

CONFIG = HubConfig(epoch=1)


def hub() -> EdgeHub:
    return EdgeHub.start("a", CONFIG)


def connected(now_ms: int = 0) -> EdgeHub:
    one = hub()
    one.handle(hello(), now_ms)
    return one


def hello(instance: str = "i1", *, version: int = 0) -> HelloArrived:
    return HelloArrived(
        hello=Hello(
            site_id="a",
            instance_id=instance,
            agent_version="test",
            inventory=(),
            epoch=1 if version else 0,
            version=version,
            assignment_digest="",
            replicas=(),
        )
    )


def heartbeat(sequence: int, instance: str = "i1") -> ObservationArrived:
    return ObservationArrived(
        observation=SiteObservation(
            site_id="a",
            instance_id=instance,
            sequence=sequence,
            observed_at_ms=0,
            epoch=0,
            version=0,
            assignment_digest="",
            replicas=(),
            gateway=GatewayObservation(live=True),
            possible_draw_w=0.0,
            draw_w=0.0,
        )
    )


def named(version: int = 1, *, validate_only: bool = False) -> AssignmentNamed:
    return AssignmentNamed(site_id="a", rank=(1, version), validate_only=validate_only)


def verdict(version: int = 1, *, ok: bool = True, validate_only: bool = False) -> VerdictArrived:
    no = Violation(code="site_power", subject='site "a"', limit=1.0, actual=2.0, unit="W")
    return VerdictArrived(
        verdict=AssignmentVerdict(
            site_id="a",
            epoch=1,
            version=version,
            assignment_digest="",
            violations=() if ok else (no,),
            applied_epoch=0,
            applied_version=0,
            validate_only=validate_only,
        )
    )


def step(step_id: str = "s1", *, timeout_ms: int = 1_000) -> Step:
    return Step(
        step_id=step_id,
        site_id="a",
        kind=StepKind.SET_ROUTES,
        epoch=1,
        version=1,
        timeout_ms=timeout_ms,
    )


def result(step_id: str = "s1") -> StepResultArrived:
    return StepResultArrived(
        result=StepResult(step_id=step_id, site_id="a", outcome=StepOutcome.DONE, finished_at_ms=0)
    )


def states(effects: tuple[HubEffect, ...]) -> list[ConnectionState]:
    return [e.state for e in effects if isinstance(e, ConnectionChanged)]


def of(kind: type, effects: tuple[HubEffect, ...]) -> list[HubEffect]:
    return [e for e in effects if isinstance(e, kind)]


def test_a_hello_connects_and_brings_a_lease_that_outlives_its_renewal() -> None:
    one = hub()
    effects = one.handle(hello(), 100)
    assert states(effects) == [ConnectionState.CONNECTED]
    (lease,) = of(SendLease, effects)
    assert isinstance(lease, SendLease)
    assert lease.lease.expires_at_ms == 100 + CONFIG.lease_ms
    one.handle(heartbeat(1), 9_999)
    assert of(SendLease, one.handle(Ticked(), 10_000)) == []
    assert of(SendLease, one.handle(Ticked(), 10_100)) != []


def test_silence_makes_stale_then_unreachable_and_a_heartbeat_connects_again() -> None:
    one = connected()
    assert states(one.handle(Ticked(), 999)) == []
    assert states(one.handle(Ticked(), 1_000)) == [ConnectionState.STALE]
    assert states(one.handle(Ticked(), 2_999)) == []
    assert states(one.handle(Ticked(), 3_000)) == [ConnectionState.UNREACHABLE]
    assert states(one.handle(heartbeat(1), 3_100)) == [ConnectionState.CONNECTED]


def test_a_closed_stream_is_unreachable_at_once_but_not_an_old_instances_stream() -> None:
    one = connected()
    one.handle(hello("i2"), 10)
    assert states(one.handle(StreamClosed(instance_id="i1"), 20)) == []
    assert states(one.handle(StreamClosed(instance_id="i2"), 30)) == [ConnectionState.UNREACHABLE]


def test_late_and_repeated_observations_are_dropped() -> None:
    one = connected()
    assert len(of(SiteObserved, one.handle(heartbeat(2), 1))) == 1
    assert of(SiteObserved, one.handle(heartbeat(2), 2)) == []
    assert of(SiteObserved, one.handle(heartbeat(1), 3)) == []
    one.handle(hello("i2"), 4)
    assert one.handle(heartbeat(9, "i1"), 5) == ()
    assert len(of(SiteObserved, one.handle(heartbeat(1, "i2"), 6))) == 1


def test_what_is_wanted_while_away_is_sent_on_hello_assignment_before_step() -> None:
    one = hub()
    assert one.handle(StepWanted(step=step()), 0) == ()
    assert one.handle(named(), 0) == ()
    effects = one.handle(hello(), 10)
    kinds = [type(e) for e in effects if isinstance(e, SendAssignment | SendStep)]
    assert kinds == [SendAssignment, SendStep]


def test_what_is_not_answered_is_sent_again_and_at_most_so_often() -> None:
    one = connected()
    sent = len(of(SendAssignment, one.handle(named(), 0)))
    for second in range(1, 60):
        one.handle(heartbeat(second), second * 1_000)
        sent += len(of(SendAssignment, one.handle(Ticked(), second * 1_000)))
    assert sent == CONFIG.attempts_limit
    assert len(of(SendAssignment, one.handle(hello(), 60_000))) == 1


def test_an_answered_assignment_is_not_sent_again() -> None:
    one = connected()
    one.handle(named(), 0)
    assert len(of(AssignmentJudged, one.handle(verdict(), 10))) == 1
    one.handle(heartbeat(1), 4_999)
    assert of(SendAssignment, one.handle(Ticked(), 5_000)) == []
    assert of(SendAssignment, one.handle(hello("i2", version=1), 6_000)) == []


def test_an_agent_that_comes_back_with_an_older_rank_is_told_the_newest_again() -> None:
    one = EdgeHub.start("a", CONFIG, newest=(1, 3))
    (sent,) = of(SendAssignment, one.handle(hello(version=2), 0))
    assert isinstance(sent, SendAssignment)
    assert sent.rank == (1, 3)
    assert not sent.validate_only
    rebuilt = EdgeHub.start("a", CONFIG, newest=(1, 3))
    assert of(SendAssignment, rebuilt.handle(hello(version=3), 0)) == []


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=12))
def test_what_is_sent_never_goes_back_behind_what_was_wanted(
    wishes: list[tuple[int, bool]],
) -> None:
    one = connected()
    newest = 0
    for version, validate_only in wishes:
        wanted = named(version, validate_only=validate_only)
        for effect in one.handle(wanted, 0):
            assert isinstance(effect, SendAssignment)
            assert effect.rank[1] >= newest
        if not validate_only:
            newest = max(newest, version)
        for effect in of(SendAssignment, one.handle(hello(version=0), 0)):
            assert isinstance(effect, SendAssignment)
            assert effect.validate_only or effect.rank[1] == newest


def test_a_step_ends_once() -> None:
    one = connected()
    assert len(of(SendStep, one.handle(StepWanted(step=step()), 0))) == 1
    assert one.handle(StepWanted(step=step()), 1) == ()
    assert len(of(StepFinished, one.handle(result(), 2))) == 1
    assert of(StepFinished, one.handle(result(), 3)) == []


def test_a_step_never_answered_fails_even_while_the_agent_is_away() -> None:
    one = hub()
    one.handle(StepWanted(step=step()), 0)
    assert of(StepFinished, one.handle(Ticked(), 2_999)) == []
    (ended,) = of(StepFinished, one.handle(Ticked(), 3_000))
    assert isinstance(ended, StepFinished)
    assert ended.result.outcome is StepOutcome.FAILED
    assert ended.result.detail == "no answer within 3000 ms (0 times sent)"


def test_a_forgotten_step_is_neither_sent_nor_failed() -> None:
    one = hub()
    one.handle(StepWanted(step=step()), 0)
    one.handle(StepsForgotten(site_id="a", step_ids=("s1", "unknown")), 1)
    assert of(StepFinished, one.handle(Ticked(), 9_000)) == []
    assert of(SendStep, one.handle(hello(), 9_001)) == []


def test_open_steps_are_bounded() -> None:
    one = hub()
    for number in range(MOST_OPEN_STEPS):
        assert one.handle(StepWanted(step=step(f"s{number}")), 0) == ()
    (ended,) = one.handle(StepWanted(step=step("one-more")), 0)
    assert isinstance(ended, StepFinished)
    assert ended.result.outcome is StepOutcome.FAILED


def test_repeated_refusals_cordon_once_and_an_acceptance_forgives() -> None:
    one = connected()
    for _ in range(CONFIG.nack_limit - 1):
        assert of(SiteCordoned, one.handle(verdict(ok=False), 0)) == []
    one.handle(verdict(), 0)
    for _ in range(CONFIG.nack_limit - 1):
        assert of(SiteCordoned, one.handle(verdict(ok=False), 0)) == []
    (cordoned,) = of(SiteCordoned, one.handle(verdict(ok=False), 0))
    assert isinstance(cordoned, SiteCordoned)
    assert "site power is 2 W, limit 1 W" in cordoned.reason
    assert of(SiteCordoned, one.handle(verdict(ok=False), 0)) == []
    one.handle(UncordonWanted(site_id="a"), 0)
    assert one.cordoned_because == ""
    one.handle(CordonWanted(site_id="a", reason="maintenance"), 0)
    assert one.cordoned_because == "maintenance"


def test_a_verdict_on_another_kind_or_rank_leaves_the_wish_open() -> None:
    one = connected()
    one.handle(named(2), 0)
    one.handle(verdict(1), 10)
    one.handle(verdict(2, validate_only=True), 10)
    assert len(of(SendAssignment, one.handle(Ticked(), 2_000))) == 0  # stale: nothing is sent
    one.handle(heartbeat(1), 2_100)
    assert len(of(SendAssignment, one.handle(Ticked(), 2_100))) == 1


@given(st.lists(st.integers(0, 5), max_size=40), st.integers(0, 3))
def test_two_hubs_told_the_same_do_the_same(choices: list[int], seed: int) -> None:
    events: list[HubEvent] = [
        hello(f"i{seed}"),
        heartbeat(seed + 1, f"i{seed}"),
        named(seed + 1),
        StepWanted(step=step(f"s{seed}")),
        verdict(seed + 1, ok=bool(seed % 2)),
        Ticked(),
    ]
    one, other = hub(), hub()
    for number, choice in enumerate(choices):
        now_ms = number * 400
        assert one.handle(events[choice], now_ms) == other.handle(events[choice], now_ms)


def test_a_hub_config_without_time_is_refused() -> None:
    with pytest.raises(InvalidFactError, match="hub: lease_ms"):
        replace(CONFIG, lease_ms=0)
