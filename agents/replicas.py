"""Replicas as processes: started through a runtime, found again, asked how they are, ended.

Decides nothing about which replicas there should be (`agents.executor`); it knows where each one
listens and whether it is alive, ready and idle.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

import httpx

from agents.collectors.prometheus import ServerMetrics
from agents.processes import ProcessRecord, ProcessTable, free_port, package_env
from agents.runtimes.base import Launch, Runtime
from agents.site_view import Work
from sites.assignment import GroupTarget
from sites.clock import Clock
from sites.digest import canonical_json
from sites.errors import FatalError, InvalidFactError
from sites.plain import from_plain

HOST = "127.0.0.1"
NAME_PREFIX = "replica/"
_PROBE_TIMEOUT_S = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A replica an earlier agent left running."""

    replica_id: str
    target: GroupTarget
    is_ready: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reading:
    work: Work
    read_at_ms: int


class ReplicaKeeper:
    """The replicas of one agent. `processes` may hold other processes too; they are left alone."""

    def __init__(
        self, runtime: Runtime, *, processes: ProcessTable, logs: Path, clock: Clock
    ) -> None:
        self._runtime = runtime
        self._processes = processes
        self._logs = logs
        self._clock = clock
        self._launches: dict[str, Launch] = {}
        self._readings: dict[str, _Reading] = {}
        self._http = httpx.AsyncClient(
            timeout=_PROBE_TIMEOUT_S,
            trust_env=False,
            verify=False,
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def adopt(self) -> tuple[Found, ...]:
        """Replicas among the processes already adopted, with whether they answer.

        Raises FatalError if a record of one cannot be understood.
        """
        found = []
        for record in self._processes.records():
            if not record.name.startswith(NAME_PREFIX):
                continue
            replica_id = record.name.removeprefix(NAME_PREFIX)
            target, self._launches[replica_id] = _details(record)
            is_ready = await self.is_ready(replica_id)
            found.append(Found(replica_id=replica_id, target=target, is_ready=is_ready))
        return tuple(found)

    async def start(self, replica_id: str, target: GroupTarget) -> None:
        """Start its server on a free port.

        Raises RefusedError if the runtime cannot serve that variant here, FatalError if the program
        does not start, RetryableError if the disk is full.
        """
        port = free_port(HOST)
        launch = await asyncio.to_thread(self._runtime.launch, target, host=HOST, port=port)
        name = NAME_PREFIX + replica_id
        self._processes.spawn(
            name,
            argv=launch.argv,
            log_path=self._logs / f"{replica_id.replace('/', '~')}.log",
            port=port,
            env=package_env(),
            details={
                "target": canonical_json(target).decode(),
                "launch": canonical_json(launch).decode(),
            },
        )
        self._launches[replica_id] = launch

    async def stop(self, replica_id: str, *, grace_ms: int) -> None:
        """End its process. Raises RetryableError if it cannot be ended."""
        self._launches.pop(replica_id, None)
        self._readings.pop(replica_id, None)
        await self._processes.stop(NAME_PREFIX + replica_id, grace_ms=grace_ms)

    async def stop_all(self, *, grace_ms: int) -> None:
        """End every replica's process."""
        names = [r.name for r in self._processes.records() if r.name.startswith(NAME_PREFIX)]
        ids = [n.removeprefix(NAME_PREFIX) for n in names]
        await asyncio.gather(*(self.stop(i, grace_ms=grace_ms) for i in ids))

    def address(self, replica_id: str) -> tuple[str, int] | None:
        """Where it listens; None if it has no process."""
        record = self._processes.get(NAME_PREFIX + replica_id)
        return (HOST, record.port) if record else None

    def is_alive(self, replica_id: str) -> bool:
        """Whether its process runs."""
        return self._processes.is_alive(NAME_PREFIX + replica_id)

    def bury(self, replica_id: str) -> str:
        """Forget a replica whose process has ended; returns what is known of its end."""
        name = NAME_PREFIX + replica_id
        code = self._processes.exit_code(name)
        said = self._processes.log_tail(name)
        self._processes.forget(name)
        self._readings.pop(replica_id, None)
        how = "process ended" if code is None else f"process ended with status {code}"
        return f"{how}: {said}" if said else how

    async def is_ready(self, replica_id: str) -> bool:
        """Whether its health page answers 200."""
        launch = self._launches.get(replica_id)
        if launch is None:
            return False
        status, _ = await self._get(replica_id, launch.health_path)
        return status == 200

    async def is_idle(self, replica_id: str) -> bool | None:
        """Whether no request is left on it; None if it cannot be asked."""
        launch = self._launches.get(replica_id)
        metrics = await self._metrics(replica_id)
        if metrics is None or launch is None:
            return None
        if metrics.running or metrics.queued:
            return False
        if not launch.slots_path:
            return True
        _, text = await self._get(replica_id, launch.slots_path)
        busy = self._runtime.read_busy_slots(text)
        return busy in (0, None)

    async def read_work(self, replica_id: str) -> bool:
        """Ask its metrics, `work` tells them; whether it answered at all.

        A server that does not answer keeps its last ones.
        """
        metrics = await self._metrics(replica_id)
        if metrics is None:
            return await self.is_ready(replica_id)
        now_ms = self._clock.monotonic_ms()
        before = self._readings.get(replica_id)
        decode_tok_s = 0.0
        if before is not None and now_ms > before.read_at_ms:
            new_tokens = max(0, metrics.tokens_out_total - before.work.tokens_out_total)
            decode_tok_s = 1_000.0 * new_tokens / (now_ms - before.read_at_ms)
        work = Work(
            running=metrics.running,
            queued=metrics.queued,
            tokens_out_total=metrics.tokens_out_total,
            decode_tok_s=decode_tok_s,
        )
        self._readings[replica_id] = _Reading(work=work, read_at_ms=now_ms)
        return True

    def work(self, replica_id: str) -> Work:
        """The last reading."""
        reading = self._readings.get(replica_id)
        return reading.work if reading else Work()

    async def close(self) -> None:
        """Let go of all of them; they keep running."""
        await self._http.aclose()

    async def _metrics(self, replica_id: str) -> ServerMetrics | None:
        launch = self._launches.get(replica_id)
        if launch is None or not launch.metrics_path:
            return None
        status, text = await self._get(replica_id, launch.metrics_path)
        return self._runtime.read_metrics(text) if status == 200 else None

    async def _get(self, replica_id: str, path: str) -> tuple[int, str]:
        """(status, body); status 0 if there was no answer in time."""
        address = self.address(replica_id)
        if address is None:
            return 0, ""
        try:
            response = await self._http.get(f"http://{address[0]}:{address[1]}{path}")
        except httpx.HTTPError:
            return 0, ""  # not up yet, busy or gone: the callers tell these apart by the process
        return response.status_code, response.text


def _details(record: ProcessRecord) -> tuple[GroupTarget, Launch]:
    try:
        target = from_plain(GroupTarget, json.loads(record.detail("target")))
        launch = from_plain(Launch, json.loads(record.detail("launch")))
    except (ValueError, InvalidFactError) as fault:
        raise FatalError(
            f"process record {record.name}: unreadable details ({fault}); end process "
            f"{record.pid} and remove its record"
        ) from fault
    return target, launch
