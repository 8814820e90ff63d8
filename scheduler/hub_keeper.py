"""Keeps the fleet's hubs answering: in Ray, and in this process while Ray is being started again.

Decides when to change over and what fresh hubs have to be told of the agents (each one's hello and
newest observation). What is wanted at the sites, the control loop tells them again itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from agents.frames import AgentFact
from scheduler.hubs import HubHost, HubsLostError, LocalHubs
from sites.clock import Clock
from sites.hub_messages import (
    ConnectionChanged,
    ConnectionState,
    HelloArrived,
    HubEffect,
    HubEvent,
    ObservationArrived,
    StreamClosed,
)
from sites.telemetry import Hello, SiteObservation


@dataclass(kw_only=True, slots=True)
class _Heard:
    """The newest hello and observation of a site whose stream is open."""

    hello: Hello
    observation: SiteObservation | None = None

    def current_hello(self) -> Hello:
        """The hello as the agent would say it now."""
        seen = self.observation
        if seen is None:
            return self.hello
        return replace(
            self.hello,
            epoch=seen.epoch,
            version=seen.version,
            assignment_digest=seen.assignment_digest,
            replicas=seen.replicas,
        )


class HubKeeper:
    """Owns both hosts. `handle` never fails: hubs that were lost come back fresh."""

    def __init__(
        self,
        *,
        hubs: HubHost,
        spare: LocalHubs,
        clock: Clock,
        retry_ms: int,
        tell: Callable[[str], None],
    ) -> None:
        """`tell` takes one line for people when hubs move."""
        self._home = hubs
        self._spare = spare
        self._now_in: HubHost = hubs
        self._clock = clock
        self._retry_ms = retry_ms
        self._tell = tell
        self._site_ids: tuple[str, ...] = ()
        self._heard: dict[str, _Heard] = {}
        self._reviving: asyncio.Task[None] | None = None

    @property
    def at_home(self) -> bool:
        """Whether the hubs run where they belong."""
        return self._now_in is self._home

    async def start(self, site_ids: tuple[str, ...]) -> None:
        """First start. Raises HubsLostError if the hubs cannot run where they belong."""
        self._site_ids = site_ids
        await self._home.start(site_ids)

    async def stop(self) -> None:
        """Let go of everything."""
        await self._stop_reviving()
        await self._home.stop()
        await self._spare.stop()

    def note(self, site_id: str, body: AgentFact | StreamClosed) -> None:
        """Remember what fresh hubs would have to be told."""
        if isinstance(body, Hello):
            self._heard[site_id] = _Heard(hello=body)
        elif isinstance(body, SiteObservation) and site_id in self._heard:
            self._heard[site_id].observation = body
        elif isinstance(body, StreamClosed):
            self._heard.pop(site_id, None)

    async def handle(
        self, batch: tuple[tuple[str, HubEvent], ...], now_ms: int
    ) -> tuple[HubEffect, ...] | None:
        """The hubs' effects; None if they were lost with the batch, and are fresh now."""
        try:
            return await self._now_in.handle(batch, now_ms)
        except HubsLostError as lost:
            await self._fall_back(str(lost))
            return None

    async def change_sites(self, site_ids: tuple[str, ...]) -> None:
        """Start over with fresh hubs of another set of sites."""
        for gone in sorted(set(self._site_ids) - set(site_ids)):
            self._heard.pop(gone, None)
        self._site_ids = site_ids
        if self._reviving is not None:
            await self._stop_reviving()
            self._reviving = asyncio.create_task(self._revive())
        try:
            await self._now_in.start(site_ids)
        except HubsLostError as lost:
            await self._fall_back(str(lost))

    async def come_home(self) -> bool:
        """Move back once Ray is there again; True if fresh hubs took over just now."""
        if self._reviving is None or not self._reviving.done():
            return False
        self._reviving.result()
        self._reviving = None
        self._now_in = self._home
        await self._spare.stop()
        self._tell("Ray is back; hubs are its actors again")
        return True

    def story(self) -> tuple[tuple[str, HubEvent], ...]:
        """What fresh hubs are to be told of the agents."""
        told: list[tuple[str, HubEvent]] = []
        for site_id, heard in sorted(self._heard.items()):
            told.append((site_id, HelloArrived(hello=heard.current_hello())))
            if heard.observation is not None:
                told.append((site_id, ObservationArrived(observation=heard.observation)))
        return tuple(told)

    def silent(self) -> tuple[ConnectionChanged, ...]:
        """What fresh hubs will not say: sites without a stream (that is how a hub begins)."""
        return tuple(
            ConnectionChanged(
                site_id=site_id,
                state=ConnectionState.UNREACHABLE,
                reason="no stream when its hub was rebuilt",
            )
            for site_id in self._site_ids
            if site_id not in self._heard
        )

    async def _fall_back(self, reason: str) -> None:
        self._tell(f"{reason}; hubs run in the control plane until Ray is back")
        self._now_in = self._spare
        await self._spare.start(self._site_ids)
        if self._reviving is None:
            self._reviving = asyncio.create_task(self._revive())

    async def _revive(self) -> None:
        while True:
            try:
                await self._home.start(self._site_ids)
                return
            except HubsLostError as lost:
                self._tell(f"Ray is still away: {lost}")
                await self._clock.sleep_ms(self._retry_ms)

    async def _stop_reviving(self) -> None:
        task, self._reviving = self._reviving, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
