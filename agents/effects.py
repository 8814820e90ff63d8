"""Carries the executor's effects out, in order: on disk first, then in the world.

Decides nothing but that order. An effect that cannot be made durable (disk full) holds back all
after it until there is room again. What came of an effect goes back to the executor as an event.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

import structlog

from agents.executor_messages import (
    ApplyRoutes,
    ExecutorEffect,
    ExecutorEvent,
    MarkApplied,
    ReplicaExited,
    ReplicaStopped,
    Report,
    RoutesApplied,
    RoutesRejected,
    SaveWanted,
    StartReplica,
    StopReplica,
    WatchIdle,
)
from agents.gateway.facts import ReplicaAddress
from agents.ports import GatewayPort, Ready
from agents.processes import ProcessTable
from agents.record_pump import RecordPump
from agents.replicas import ReplicaKeeper
from agents.store import AgentStore
from sites.assignment import SiteAssignment
from sites.assignment_json import assignment_digest
from sites.clock import Clock
from sites.errors import FatalError, HinterlandError, RetryableError
from sites.steps import StepResult

_log = structlog.get_logger(__name__)

ENVELOPES_KEPT = 8
STOP_ATTEMPTS = 10
_STOP_PAUSE_MS = 1_000


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """Everything effects act on."""

    clock: Clock
    store: AgentStore
    keeper: ReplicaKeeper
    gateway: GatewayPort
    pump: RecordPump
    processes: ProcessTable


class Effects:
    """Owned by the core. `tell` hands an event to the executor, `send` a result to control."""

    def __init__(
        self,
        world: World,
        *,
        tell: Callable[[ExecutorEvent], None],
        send: Callable[[StepResult], None],
        stop_grace_ms: int,
        gateway_restart_ms: int,
    ) -> None:
        self._world = world
        self._tell = tell
        self._send = send
        self._stop_grace_ms = stop_grace_ms
        self._gateway_restart_ms = gateway_restart_ms
        self._queue: deque[ExecutorEffect] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._envelopes: dict[tuple[int, int], bytes] = {}
        self._is_applying = False
        self._gateway_retry_at_ms = 0
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.faults: dict[str, str] = {}
        self._starting: set[str] = set()
        self.watched: dict[str, int] = {}
        self.routes_run: SiteAssignment | None = None
        self.applied_digest = ""

    def keep_envelope(self, rank: tuple[int, int], envelope: bytes) -> None:
        """Keep a signed assignment, to be written down when its routes are applied."""
        self._envelopes[rank] = envelope
        while len(self._envelopes) > ENVELOPES_KEPT:
            del self._envelopes[min(self._envelopes)]

    def is_starting(self, replica_id: str) -> bool:
        """Whether its process is being started, or waits to be."""
        return replica_id in self._starting or any(
            isinstance(e, StartReplica) and e.replica_id == replica_id for e in self._queue
        )

    def carry_out(self, effects: Iterable[ExecutorEffect]) -> None:
        """Do what is waiting, then these; what takes time goes on in the background."""
        self._queue += effects
        while self._queue:
            try:
                self._do(self._queue[0])
            except RetryableError as fault:
                self.faults["disk"] = str(fault)
                return
            self.faults.pop("disk", None)
            self._queue.popleft()

    def _do(self, effect: ExecutorEffect) -> None:
        match effect:
            case SaveWanted():
                wanted = dict(effect.replicas)
                self._world.store.save_wanted(wanted, next_replica=effect.next_replica)
            case MarkApplied():
                self._mark_applied(effect.assignment)
            case StartReplica():
                self._starting.add(effect.replica_id)
                self._background(self._start(effect))
            case StopReplica():
                self.watched.pop(effect.replica_id, None)
                self._background(self._stop(effect.replica_id))
            case WatchIdle():
                self.watched[effect.replica_id] = self._world.clock.monotonic_ms()
            case ApplyRoutes():
                self._is_applying = True
                self._background(self._apply(effect))
            case Report():
                result = effect.result
                _log.info(
                    "step ended",
                    step=result.step_id,
                    outcome=result.outcome.value,
                    detail=result.detail,
                )
                self._send(result)

    def _mark_applied(self, assignment: SiteAssignment) -> None:
        own = assignment_digest(assignment)
        envelope = self._envelopes[assignment.rank]
        self._world.store.save_applied(
            rank=assignment.rank, assignment_digest=own, envelope=envelope
        )
        self.applied_digest = own
        self._world.pump.use(assignment)
        _log.info("routes applied", epoch=assignment.epoch, version=assignment.version)

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        fault = None if task.cancelled() else task.exception()
        if fault is not None and not self.failed.done():
            self.failed.set_exception(fault)

    async def _start(self, effect: StartReplica) -> None:
        try:
            await self._world.keeper.start(effect.replica_id, effect.target)
        except HinterlandError as fault:
            self._starting.discard(effect.replica_id)
            self._tell(ReplicaExited(replica_id=effect.replica_id, detail=str(fault)))
            return
        self._starting.discard(effect.replica_id)
        _log.info("replica started", replica=effect.replica_id)

    async def _stop(self, replica_id: str) -> None:
        for _ in range(STOP_ATTEMPTS):
            try:
                await self._world.keeper.stop(replica_id, grace_ms=self._stop_grace_ms)
            except RetryableError as fault:
                self.faults[replica_id] = str(fault)
                await self._world.clock.sleep_ms(_STOP_PAUSE_MS)
                continue
            self.faults.pop(replica_id, None)
            _log.info("replica stopped", replica=replica_id)
            self._tell(ReplicaStopped(replica_id=replica_id))
            return
        raise FatalError(f"replica {replica_id}: cannot be ended: {self.faults[replica_id]}")

    async def _apply(self, effect: ApplyRoutes) -> None:
        try:
            await self._apply_to_gateway(effect.assignment, effect.ready)
        except HinterlandError as fault:
            _log.warning("routes rejected", reason=str(fault))
            self._tell(RoutesRejected(token=effect.token, detail=str(fault)))
            return
        self._tell(RoutesApplied(token=effect.token))

    async def apply_first(self, effect: ApplyRoutes) -> None:
        """Routes at an agent's start. Raises FatalError if the gateway cannot be started."""
        try:
            await self._apply_to_gateway(effect.assignment, effect.ready)
        except FatalError:
            raise
        except HinterlandError as fault:
            self._tell(RoutesRejected(token=effect.token, detail=str(fault)))
            return
        self._tell(RoutesApplied(token=effect.token))

    async def _apply_to_gateway(
        self, assignment: SiteAssignment, ready: tuple[tuple[str, tuple[str, ...]], ...]
    ) -> None:
        self._is_applying = True
        try:
            await self._world.gateway.apply(assignment, ready=self._addresses(ready))
            self.routes_run = assignment
        finally:
            self._is_applying = False

    def _addresses(self, ready: tuple[tuple[str, tuple[str, ...]], ...]) -> Ready:
        addresses: dict[str, tuple[ReplicaAddress, ...]] = {}
        for group_id, replica_ids in ready:
            known = [(i, self._world.keeper.address(i)) for i in replica_ids]
            addresses[group_id] = tuple(ReplicaAddress(i, a[0], a[1]) for i, a in known if a)
        return addresses

    async def revive_gateway(self, ready: tuple[tuple[str, tuple[str, ...]], ...]) -> None:
        """Start a gateway that ended again, with the routes it last ran."""
        now_ms = self._world.clock.monotonic_ms()
        is_well = self.routes_run is None or self._world.gateway.is_running()
        if is_well or self._is_applying or now_ms < self._gateway_retry_at_ms:
            return
        assert self.routes_run is not None
        self._gateway_retry_at_ms = now_ms + self._gateway_restart_ms
        _log.warning("gateway ended; starting it again")
        try:
            await self._apply_to_gateway(self.routes_run, ready)
        except HinterlandError as fault:
            self.faults["gateway"] = str(fault)
            return
        self.faults.pop("gateway", None)

    async def close(self) -> None:
        """Drop what goes on in the background."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
