"""The agent core's gateway port on the real Envoy. Decides nothing: render, then apply."""

from __future__ import annotations

import asyncio

from agents.gateway.config import render
from agents.gateway.facts import GatewayPaths, GatewayTuning
from agents.gateway.process import Gateway
from agents.ports import Ready
from sites.assignment import SiteAssignment
from sites.telemetry import GatewayObservation


class SiteGateway:
    """One site's Envoy."""

    def __init__(self, envoy: Gateway, *, paths: GatewayPaths, tuning: GatewayTuning) -> None:
        self._envoy = envoy
        self._paths = paths
        self._tuning = tuning

    def is_running(self) -> bool:
        """See `GatewayPort`."""
        return self._envoy.is_running()

    async def apply(self, assignment: SiteAssignment, *, ready: Ready) -> None:
        """See `GatewayPort`."""
        # seconds of work where there are thousands of routes; heartbeats must go on
        files = await asyncio.to_thread(
            render, assignment, ready=ready, paths=self._paths, tuning=self._tuning
        )
        await self._envoy.apply(files)

    async def observe(self) -> GatewayObservation:
        """See `GatewayPort`."""
        return await self._envoy.observe()

    def failed_log_writes(self) -> int:
        """See `GatewayPort`."""
        return self._envoy.failed_log_writes

    async def reopen_access_log(self) -> None:
        """See `GatewayPort`."""
        await self._envoy.reopen_access_log()

    async def stop(self) -> None:
        """See `GatewayPort`."""
        await self._envoy.stop()

    async def close(self) -> None:
        """See `GatewayPort`."""
        await self._envoy.close()
