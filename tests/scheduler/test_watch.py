"""Who is lost and who is back: two witnesses, and none of them alone."""

from __future__ import annotations

import pytest

from scheduler.state import CycleState
from scheduler.watch import losses, returns
from sites.hub_messages import ConnectionState
from sites.telemetry import GatewayObservation, PeerHealth, SiteObservation
from tests.optimizer import builders as b
from tests.scheduler.states import bare_state, state_in_force

NOW = 100_000


def fleet() -> CycleState:
    """Sites a, b, c with a plan in force; the agent of a fell silent 200 ms ago."""
    problem = b.problem(
        sites=[b.site("a"), b.site("b"), b.site("c")], links=[b.link("a", "b"), b.link("b", "c")]
    )
    plan = b.plan(problem, groups={"a/p/v/x1": 1}, shares={("c", "a/p/v/x1"): 10_000})
    state = state_in_force(problem, plan)
    state.site("a").connection = ConnectionState.UNREACHABLE
    state.site("a").connection_reason = "stream broken"
    state.site("a").changed_at_ms = NOW - 200
    return state


def opinion(state: CycleState, peer: str, *, healthy: bool | None, age_ms: int = 0) -> None:
    site = state.site(peer)
    site.heard_at_ms = NOW - age_ms
    health = () if healthy is None else (PeerHealth(site_id="a", healthy=healthy),)
    site.observation = observation(peer, peers=health)


def observation(
    site_id: str, *, peers: tuple[PeerHealth, ...] = (), live: bool = True
) -> SiteObservation:
    return SiteObservation(
        site_id=site_id,
        instance_id="i",
        sequence=1,
        observed_at_ms=0,
        epoch=1,
        version=1,
        assignment_digest="",
        replicas=(),
        gateway=GatewayObservation(live=live, peers=peers),
        possible_draw_w=0.0,
        draw_w=0.0,
    )


def lost(state: CycleState, now_ms: int = NOW) -> list[str]:
    return [loss.site_id for loss in losses(state, now_ms)]


@pytest.mark.parametrize("silence", [ConnectionState.STALE, ConnectionState.UNREACHABLE])
def test_silent_and_unhealthy_to_all_peers_is_lost_at_once(silence: ConnectionState) -> None:
    state = fleet()
    state.site("a").connection = silence
    opinion(state, "b", healthy=False)
    opinion(state, "c", healthy=False)
    (loss,) = losses(state, NOW)
    assert loss.evidence == (f"agent {silence} (stream broken); unhealthy to the gateways of b, c")


def test_a_site_not_heard_of_since_the_start_gets_time_to_come() -> None:
    state = fleet()
    state.started_at_ms = NOW
    state.site("a").heard_at_ms = state.site("a").changed_at_ms = 0
    for age_ms, expected in ((state.config.first_contact_ms - 1, []), (20_000, ["a"])):
        now_ms = NOW + age_ms
        for peer in ("b", "c"):
            opinion(state, peer, healthy=False, age_ms=-age_ms)
        assert lost(state, now_ms) == expected


def test_one_healthy_opinion_keeps_a_silent_site_however_long() -> None:
    state = fleet()
    opinion(state, "b", healthy=False)
    opinion(state, "c", healthy=True)
    state.site("a").changed_at_ms = 1
    assert lost(state) == []


def test_without_an_opinion_a_site_is_lost_after_a_while() -> None:
    state = fleet()
    limit_ms = state.config.lost_after_ms
    for peer in ("b", "c"):
        opinion(state, peer, healthy=None)
    assert lost(state, NOW - 200 + limit_ms - 1) == []
    assert lost(state, NOW - 200 + limit_ms) == ["a"]


def test_an_old_opinion_counts_for_nothing() -> None:
    state = fleet()
    opinion(state, "b", healthy=False, age_ms=state.config.peer_fresh_ms + 1)
    assert lost(state) == []
    opinion(state, "b", healthy=False, age_ms=state.config.peer_fresh_ms)
    assert lost(state) == ["a"]


def test_a_connected_agent_is_never_lost() -> None:
    state = fleet()
    state.site("a").connection = ConnectionState.CONNECTED
    opinion(state, "b", healthy=False)
    assert lost(state) == []


def test_nobody_is_lost_while_nobody_is_reachable_or_nothing_is_in_force() -> None:
    state = fleet()
    for peer in ("b", "c"):
        state.site(peer).connection = ConnectionState.UNREACHABLE
    assert lost(state, NOW * 10) == []
    empty = bare_state(b.two_sites())
    empty.site("a").connection = ConnectionState.UNREACHABLE
    assert lost(empty, NOW * 10) == []


def test_a_lost_site_is_back_once_it_serves_and_has_stayed_a_while() -> None:
    state = fleet()
    state.lost["a"] = "killed"
    site = state.site("a")
    assert returns(state, NOW) == ()
    site.connection, site.changed_at_ms = ConnectionState.CONNECTED, NOW
    site.observation = observation("a")
    assert returns(state, NOW + state.config.back_after_ms - 1) == ()
    assert returns(state, NOW + state.config.back_after_ms) == ("a",)
    site.observation = observation("a", live=False)
    assert returns(state, NOW + state.config.back_after_ms) == ()
    site.rank = (0, 0)
    assert returns(state, NOW + state.config.back_after_ms) == ("a",)
