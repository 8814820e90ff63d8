"""Gateway and uplink in memory: what simulation and tests wire an agent core to.

They do what they are asked and remember it; faults are switched on by whoever holds them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from agents.frames import ControlFact, RecordBatch
from agents.gateway.facts import ReplicaAddress
from agents.ports import Ready
from agents.uplink import Outgoing
from sites.assignment import SiteAssignment
from sites.errors import HinterlandError, RetryableError
from sites.telemetry import GatewayObservation

FRAMES_MAX = 10_000


class MemoryGateway:
    """A gateway that serves nothing. `fault` is raised by the next `apply`, then forgotten."""

    def __init__(self) -> None:
        self.assignment: SiteAssignment | None = None
        self.ready: Mapping[str, tuple[ReplicaAddress, ...]] = {}
        self.fault: HinterlandError | None = None
        self.log_fault: RetryableError | None = None
        self.failed_writes = 0
        self.applies = 0
        self._is_running = False

    def is_running(self) -> bool:
        """See `GatewayPort`."""
        return self._is_running

    def crash(self) -> None:
        """End as if killed."""
        self._is_running = False

    async def apply(self, assignment: SiteAssignment, *, ready: Ready) -> None:
        """See `GatewayPort`."""
        fault, self.fault = self.fault, None
        if fault is not None:
            raise fault
        self.assignment, self.ready = assignment, ready
        self.applies += 1
        self._is_running = True

    async def observe(self) -> GatewayObservation:
        """See `GatewayPort`."""
        return GatewayObservation(live=self._is_running)

    def failed_log_writes(self) -> int:
        """See `GatewayPort`."""
        return self.failed_writes

    async def reopen_access_log(self) -> None:
        """See `GatewayPort`."""
        if self.log_fault is not None:
            raise self.log_fault

    async def stop(self) -> None:
        """See `GatewayPort`."""
        self._is_running = False

    async def close(self) -> None:
        """See `GatewayPort`."""


class MemoryUplink:
    """A stream to nobody: put control frames into `inbound`, read the agent's from `sent`."""

    def __init__(self) -> None:
        self.inbound: asyncio.Queue[ControlFact] = asyncio.Queue(FRAMES_MAX)
        self.sent: asyncio.Queue[Outgoing] = asyncio.Queue(FRAMES_MAX)
        self.connected = True

    def send(self, fact: Outgoing) -> bool:
        """See `UplinkPort`."""
        if isinstance(fact, RecordBatch) and not self.connected:
            return False
        self.sent.put_nowait(fact)
        return True

    async def run(self, stop: asyncio.Event) -> None:
        """See `UplinkPort`."""
        await stop.wait()
