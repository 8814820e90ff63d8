"""Watches the replicas' processes and servers and tells the executor what changed.

Decides when a loading server counts as ready and a draining one as idle; what follows is
`agents.executor`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from agents.effects import Effects
from agents.executor_messages import ExecutorEvent, ReplicaExited, ReplicaIdle, ReplicaReady
from agents.replica_set import Life, Replica
from agents.replicas import ReplicaKeeper
from sites.clock import Clock

_log = structlog.get_logger(__name__)

BLIND_DRAIN_MS = 10_000
"""How long a server that cannot be asked is given to end its requests."""


class Supervisor:
    """Owned by the core; `look` is called every few tens of ms."""

    def __init__(
        self,
        *,
        clock: Clock,
        keeper: ReplicaKeeper,
        effects: Effects,
        tell: Callable[[ExecutorEvent], None],
        start_timeout_ms: int,
        hang_ms: int,
        stop_grace_ms: int,
    ) -> None:
        self._clock = clock
        self._keeper = keeper
        self._effects = effects
        self._tell = tell
        self._start_timeout_ms = start_timeout_ms
        self._stop_grace_ms = stop_grace_ms
        self._hang_ms = hang_ms
        self._seen_idle: set[str] = set()
        self._answered_ms: dict[str, int] = {}
        self._ending: set[str] = set()

    async def look(self, replicas: Iterable[Replica]) -> None:
        """Tell of every replica that ended, became ready or became idle."""
        for replica in replicas:
            has_process = replica.life not in (Life.FAILED, Life.STOPPING)
            is_in_hand = replica.replica_id in self._ending
            if not has_process or is_in_hand or self._effects.is_starting(replica.replica_id):
                continue
            if not self._keeper.is_alive(replica.replica_id):
                self._bury(replica.replica_id)
            elif not replica.was_ready:
                await self._look_at_loading(replica)
            elif replica.replica_id in self._effects.watched:
                await self._look_at_draining(replica.replica_id)

    async def read_work(self, replicas: Iterable[Replica]) -> None:
        """Ask every server that was ready for its work; end one that has been silent too long."""
        asked = [r for r in replicas if r.was_ready and r.life is not Life.STOPPING]
        answers = await asyncio.gather(*(self._keeper.read_work(r.replica_id) for r in asked))
        now_ms = self._clock.monotonic_ms()
        before, self._answered_ms = self._answered_ms, {}
        for replica, has_answered in zip(asked, answers, strict=True):
            answered_ms = now_ms if has_answered else before.get(replica.replica_id, now_ms)
            self._answered_ms[replica.replica_id] = answered_ms
            if now_ms - answered_ms > self._hang_ms and self._keeper.is_alive(replica.replica_id):
                await self._end(replica, f"did not answer for {now_ms - answered_ms} ms")

    async def _end(self, replica: Replica, detail: str) -> None:
        """Kill a server that is of no use; it counts as ended by itself."""
        _log.warning("replica killed", replica=replica.replica_id, detail=detail)
        self._ending.add(replica.replica_id)
        try:
            await self._keeper.stop(replica.replica_id, grace_ms=self._stop_grace_ms)
        finally:
            self._ending.discard(replica.replica_id)
        self._effects.watched.pop(replica.replica_id, None)
        self._answered_ms.pop(replica.replica_id, None)
        self._tell(ReplicaExited(replica_id=replica.replica_id, detail=detail))

    def _bury(self, replica_id: str) -> None:
        detail = self._keeper.bury(replica_id)
        self._effects.watched.pop(replica_id, None)
        _log.warning("replica ended", replica=replica_id, detail=detail)
        self._tell(ReplicaExited(replica_id=replica_id, detail=detail))

    async def _look_at_loading(self, replica: Replica) -> None:
        if await self._keeper.is_ready(replica.replica_id):
            _log.info("replica ready", replica=replica.replica_id)
            self._tell(ReplicaReady(replica_id=replica.replica_id))
            return
        waited_ms = self._clock.monotonic_ms() - replica.since_ms
        if replica.life is Life.LOADING and waited_ms > self._start_timeout_ms:
            await self._end(replica, f"not ready after {waited_ms} ms")

    async def _look_at_draining(self, replica_id: str) -> None:
        """Idle twice in a row counts: a request may still be on its way from the gateway."""
        is_idle = await self._keeper.is_idle(replica_id)
        since_ms = self._effects.watched.get(replica_id)
        if since_ms is None:
            return  # it is being stopped since
        if is_idle is None:
            is_idle = self._clock.monotonic_ms() - since_ms >= BLIND_DRAIN_MS
        if is_idle and replica_id in self._seen_idle:
            self._seen_idle.discard(replica_id)
            del self._effects.watched[replica_id]
            self._tell(ReplicaIdle(replica_id=replica_id))
        elif is_idle:
            self._seen_idle.add(replica_id)
        else:
            self._seen_idle.discard(replica_id)
