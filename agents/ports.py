"""What the agent core needs of the world outside it: a gateway and a way to the control plane.

Production (`agents.site_gateway`, `agents.uplink`) and simulation implement both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from agents.frames import ControlFact
from agents.gateway.facts import ReplicaAddress
from agents.uplink import Outgoing
from sites.assignment import SiteAssignment
from sites.telemetry import GatewayObservation

Ready = Mapping[str, tuple[ReplicaAddress, ...]]
"""Ready replicas by group id."""


class GatewayPort(Protocol):
    """The site's gateway; `agents.site_gateway` drives Envoy, tests have one in memory."""

    def is_running(self) -> bool:
        """Whether it serves."""
        ...

    async def apply(self, assignment: SiteAssignment, *, ready: Ready) -> None:
        """Run the assignment's routes over these replicas.

        Raises FatalError if it cannot start, RefusedError if it rejects them (the old ones stay),
        RetryableError if they are not live in time.
        """
        ...

    async def observe(self) -> GatewayObservation:
        """What it counts and thinks of its peers."""
        ...

    def failed_log_writes(self) -> int:
        """Writes of its access log that had failed by the last look, since it started; -1 before
        the first.
        """
        ...

    async def reopen_access_log(self) -> None:
        """Write to a new access log after the old one was moved aside.

        Raises RetryableError if it cannot be asked.
        """
        ...

    async def stop(self) -> None:
        """Drain and end it."""
        ...

    async def close(self) -> None:
        """Leave it running and let go."""
        ...


class UplinkPort(Protocol):
    """The way to the control plane; `agents.uplink` dials it, tests have one in memory."""

    inbound: asyncio.Queue[ControlFact]
    connected: bool

    def send(self, fact: Outgoing) -> bool:
        """Hand over a frame; False if it will not be sent."""
        ...

    async def run(self, stop: asyncio.Event) -> None:
        """Keep a stream open until `stop`."""
        ...
