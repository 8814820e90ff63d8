"""Hubs in real Ray actors, and what happens when Ray's processes are killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from scheduler.hub_keeper import HubKeeper
from scheduler.hubs import HubsLostError, LocalHubs, grouped
from scheduler.ray_hubs import RayHubs, RayHubsConfig
from sites.clock import SystemClock
from sites.hub import HubConfig
from sites.hub_messages import (
    ConnectionChanged,
    ConnectionState,
    HelloArrived,
    HubEvent,
    SendLease,
    SiteSaidHello,
    Ticked,
)
from sites.telemetry import GatewayObservation, Hello, SiteObservation

CONFIG = HubConfig(epoch=1)
SITES = ("bruges", "ghent", "lyon")
TICK: tuple[tuple[str, HubEvent], ...] = tuple((site, Ticked()) for site in SITES)


def hello(site_id: str) -> Hello:
    return Hello(
        site_id=site_id,
        instance_id="1",
        agent_version="0",
        inventory=(),
        epoch=0,
        version=0,
        assignment_digest="",
        replicas=(),
    )


def observation(site_id: str) -> SiteObservation:
    return SiteObservation(
        site_id=site_id,
        instance_id="1",
        sequence=7,
        observed_at_ms=1,
        epoch=1,
        version=4,
        assignment_digest="sha256:00",
        replicas=(),
        gateway=GatewayObservation(live=True),
        possible_draw_w=0.0,
        draw_w=0.0,
    )


@asynccontextmanager
async def ray_hubs(tmp_path: Path, *, hubs_per_actor: int = 0) -> AsyncIterator[RayHubs]:
    config = RayHubsConfig(log_path=tmp_path / "ray.log", hubs_per_actor=hubs_per_actor)
    hubs = RayHubs(config, hubs=CONFIG)
    await hubs.start(SITES)
    try:
        yield hubs
    finally:
        await hubs.stop()


def processes_of(hubs: RayHubs) -> list[psutil.Process]:
    assert hubs.pid is not None
    driver = psutil.Process(hubs.pid)
    return [driver, *driver.children(recursive=True)]


async def kill(processes: list[psutil.Process], *names: str) -> None:
    """SIGKILL those of these names and wait until they are dead (or wait to be reaped)."""
    victims = [p for p in processes if p.name() in names]
    assert len(victims) == len(names)
    for one in victims:
        os.kill(one.pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        while any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in victims):
            await asyncio.sleep(0.01)


def test_hubs_in_actors_answer_like_hubs_here_and_leave_nothing(tmp_path: Path) -> None:
    async def story() -> list[psutil.Process]:
        here = LocalHubs(CONFIG)
        await here.start(SITES)
        async with ray_hubs(tmp_path, hubs_per_actor=2) as there:
            batch = tuple((site, HelloArrived(hello=hello(site))) for site in SITES)
            for events in (batch, TICK):
                for now_ms in (1_000, 3_500, 20_000):
                    assert await there.handle(events, now_ms) == await here.handle(events, now_ms)
            return processes_of(there)

    started = asyncio.run(story())
    assert len(started) > 3
    _, alive = psutil.wait_procs(started, timeout=20)
    assert not alive


@pytest.mark.parametrize("victim", ["gcs_server", "raylet"])
def test_a_killed_ray_head_loses_the_hubs_but_not_this_process(tmp_path: Path, victim: str) -> None:
    async def story() -> None:
        async with ray_hubs(tmp_path) as hubs:
            before = processes_of(hubs)
            await kill(before, victim)
            with pytest.raises(HubsLostError, match="head process is gone"):
                await hubs.handle(TICK, 1)
            _, alive = await asyncio.to_thread(psutil.wait_procs, before, timeout=20)
            assert not alive
            await hubs.start(SITES)
            assert await hubs.handle(TICK, 2) == ()

    asyncio.run(story())


def test_a_frozen_actor_is_noticed_by_the_timeout(tmp_path: Path) -> None:
    async def story() -> None:
        config = RayHubsConfig(log_path=tmp_path / "ray.log", call_timeout_ms=500)
        hubs = RayHubs(config, hubs=CONFIG)
        await hubs.start(SITES)
        try:
            actors = [p for p in processes_of(hubs) if p.name() == "ray::HubGroup"]
            assert len(actors) == len(SITES)
            os.kill(actors[0].pid, signal.SIGSTOP)
            with pytest.raises(HubsLostError, match="GetTimeoutError"):
                await hubs.handle(TICK, 1)
            os.kill(actors[0].pid, signal.SIGKILL)
        finally:
            await hubs.stop()

    asyncio.run(story())


def test_the_keeper_goes_on_here_and_moves_back_with_the_same_story(tmp_path: Path) -> None:
    told: list[str] = []

    async def story() -> None:
        async with ray_hubs(tmp_path) as there:
            keeper = HubKeeper(
                hubs=there,
                spare=LocalHubs(CONFIG),
                clock=SystemClock(),
                retry_ms=100,
                tell=told.append,
            )
            await keeper.start(SITES)
            keeper.note("bruges", hello("bruges"))
            keeper.note("bruges", observation("bruges"))
            await kill(processes_of(there), "gcs_server", "raylet")
            assert await keeper.handle(TICK, 1) is None
            assert not keeper.at_home
            rebuilt = await keeper.handle(keeper.story(), 2)
            assert rebuilt is not None
            assert_knows_bruges(rebuilt)
            assert [c.site_id for c in keeper.silent()] == ["ghent", "lyon"]
            async with asyncio.timeout(90):
                while not await keeper.come_home():
                    assert await keeper.handle(TICK, 3) == ()
                    await asyncio.sleep(0.05)
            assert keeper.at_home
            again = await keeper.handle(keeper.story(), 4)
            assert again is not None
            assert_knows_bruges(again)
            await keeper.stop()

    asyncio.run(story())
    assert "until Ray is back" in told[0]
    assert told[-1] == "Ray is back; hubs are its actors again"


def assert_knows_bruges(effects: tuple[object, ...]) -> None:
    """A fresh hub was told of the agent as it is now, its applied rank included."""
    changed, said, lease = effects[:3]
    assert isinstance(changed, ConnectionChanged)
    assert changed.state is ConnectionState.CONNECTED
    assert isinstance(said, SiteSaidHello)
    assert (said.hello.epoch, said.hello.version) == (1, 4)
    assert isinstance(lease, SendLease)


def test_which_sites_share_an_actor() -> None:
    small = tuple(f"s{i:03d}" for i in range(32))
    assert grouped(small) == tuple((s,) for s in small)
    large = tuple(f"s{i:03d}" for i in range(301))
    groups = grouped(large)
    assert len(groups) == 4
    assert tuple(s for g in groups for s in g) == large
    assert grouped(("b", "a", "c"), hubs_per_actor=2) == (("a", "b"), ("c",))
