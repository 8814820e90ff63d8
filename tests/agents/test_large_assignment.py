"""An assignment as large as that of a fleet of hundreds of sites, from signing to its verdict."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from agents import envelope as envelopes
from agents.codec import decode_agent, decode_control, encode_agent, encode_control
from agents.envelope import open_assignment, sign_assignment
from agents.frames import MAX_MESSAGE_BYTES, AssignmentFrame
from agents.store import AgentStore
from agents.trusted_plan import VIOLATIONS_MAX, Standing, judge
from sites.assignment import GroupShare, Route, RouteDecision, RouteKey, SiteAssignment, SiteShare
from sites.assignment_json import assignment_digest, assignment_json
from sites.errors import InvalidFactError
from tests.agents import site_facts as f
from tests.agents.test_core import KEY, Agent, play, running

ROUTES = 20_000


def large(version: int = 1, *, routes: int = ROUTES) -> SiteAssignment:
    """Every tenth route is served here, the others are unlawful."""
    here = SiteShare(site_id=f.SITE, basis_points=10_000)
    group = GroupShare(group_id=f.GROUP, basis_points=10_000)
    made = []
    for number in range(routes):
        key = RouteKey(
            service_id=f"service-{number // 500:03d}",
            tenant_id=f"tenant-{number % 500:03d}",
            residency_policy_id="eu",
        )
        if number % 10:
            reason = "no lawful site in reach answers this service"
            made.append(Route(key=key, decision=RouteDecision.UNLAWFUL, reason=reason))
        else:
            made.append(
                Route(key=key, decision=RouteDecision.SERVE, shares=(here,), groups=(group,))
            )
    small = f.assignment(version=version, routes=tuple(made))
    return replace(
        small,
        services=tuple((s, ("smol",)) for s in sorted({r.key.service_id for r in made})),
        tenants=tuple(
            replace(small.tenants[0], tenant_id=t) for t in sorted({r.key.tenant_id for r in made})
        ),
    )


def test_it_goes_through_one_frame_and_is_accepted(tmp_path: Path) -> None:
    """Judged, then meant, then remembered across a restart; heartbeats go on meanwhile."""
    assignment = large()
    envelope = sign_assignment(assignment, key=KEY)
    assert len(assignment_json(assignment)) > MAX_MESSAGE_BYTES
    frame = decode_control(encode_control(AssignmentFrame(envelope=envelope)))
    assert isinstance(frame, AssignmentFrame)
    assert open_assignment(frame.envelope, key=KEY.public_key()) == assignment

    async def story(folder: Path) -> None:
        async with running(Agent(folder)) as agent:
            verdict = await agent.offer(envelope, validate_only=True)
            assert verdict.accepted, verdict
            assert verdict.assignment_digest == assignment_digest(assignment)
            assert AgentStore(folder).accepted() is None
            assert (await agent.offer(envelope)).accepted
            assert AgentStore(folder).accepted() == envelope
            assert not (await agent.offer(sign_assignment(f.assignment(), key=KEY))).accepted
        async with running(Agent(folder)) as agent:
            assert (await agent.offer(envelope)).accepted  # known again from the disk

    play(tmp_path, story)


def test_a_refusal_for_every_route_fits_into_a_message() -> None:
    assignment = replace(large(), services=())
    verdict = judge(assignment, Standing(site_id=f.SITE), wall_ms=1)
    assert len(verdict.violations) == VIOLATIONS_MAX + 1
    assert verdict.violations[-1].message().startswith('site "bruges": assignment')
    assert verdict.violations[-1].actual == ROUTES
    assert decode_agent(encode_agent(verdict)) == verdict


def test_heartbeats_go_on_while_one_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening waits, in its thread, for a heartbeat that was made after it began."""
    envelope = sign_assignment(f.assignment(), key=KEY)

    async def story(folder: Path) -> None:
        loop = asyncio.get_running_loop()
        async with running(Agent(folder)) as agent:

            def slow(data: bytes, **more: object) -> SiteAssignment:
                async def beats() -> None:
                    for _ in range(3):
                        await agent.observed(lambda _: True)

                asyncio.run_coroutine_threadsafe(beats(), loop).result(30)
                return open_assignment(data, **more)  # type: ignore[arg-type]

            monkeypatch.setattr("agents.core.open_assignment", slow)
            assert (await agent.offer(envelope)).accepted

    play(tmp_path, story)


def test_its_limits_are_named_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    assignment = large(routes=100)
    plain_bytes = len(assignment_json(assignment))
    monkeypatch.setattr(envelopes, "MAX_ASSIGNMENT_BYTES", plain_bytes - 1)
    with pytest.raises(
        InvalidFactError,
        match=rf"^assignment of bruges: {plain_bytes} bytes unpacked exceeds limit "
        rf"{plain_bytes - 1} bytes; use fewer routes",
    ):
        sign_assignment(assignment, key=KEY)
    monkeypatch.setattr(envelopes, "MAX_ASSIGNMENT_BYTES", plain_bytes)
    envelope = sign_assignment(assignment, key=KEY)
    monkeypatch.setattr(envelopes, "MAX_ASSIGNMENT_BYTES", plain_bytes - 1)
    with pytest.raises(InvalidFactError, match="bytes unpacked exceeds limit"):
        open_assignment(envelope, key=KEY.public_key())
    monkeypatch.setattr(envelopes, "MAX_MESSAGE_BYTES", len(envelope) - 1)
    with pytest.raises(InvalidFactError, match=r"assignment of bruges: \d+ bytes exceeds limit"):
        monkeypatch.setattr(envelopes, "MAX_ASSIGNMENT_BYTES", plain_bytes)
        sign_assignment(assignment, key=KEY)


def test_it_is_kept_as_it_came(tmp_path: Path) -> None:
    """Both files of the agent's memory hold the packed envelope."""
    assignment = large()
    envelope = sign_assignment(assignment, key=KEY)
    store = AgentStore(tmp_path)
    store.save_accepted(envelope)
    store.save_applied(rank=(1, 1), assignment_digest="sha256:1", envelope=envelope)
    assert (tmp_path / "assignment.json").stat().st_size == len(envelope)
    assert len(json.loads((tmp_path / "applied.json").read_bytes())["envelope"]) == len(envelope)
    applied = store.applied()
    assert applied is not None
    assert open_assignment(applied.envelope.encode(), key=KEY.public_key()) == assignment
