"""The agent as a running thing: frames in, executor, effects, timers, telemetry out.

Decides nothing about the site (`agents.executor` and `agents.trusted_plan` do). The site keeps
serving whatever happens here: an agent that ends leaves its gateway and model servers running.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agents import site_view
from agents.effects import Effects, World
from agents.envelope import open_assignment
from agents.executor import Executor, Resumed
from agents.executor_messages import (
    ApplyRoutes,
    AssignmentAccepted,
    ExecutorEvent,
    LeaseRenewed,
    StepArrived,
    Ticked,
)
from agents.frames import AssignmentFrame, RecordAck
from agents.ports import UplinkPort
from agents.replica_set import Life, Replica
from agents.replicas import Found
from agents.site_view import Identity
from agents.store import Applied
from agents.supervisor import Supervisor
from agents.trusted_plan import Standing, judge, refuse_undurable, refuse_unreadable
from sites.assignment import Lease, SiteAssignment
from sites.errors import FatalError, InvalidFactError, RetryableError
from sites.steps import AssignmentVerdict, Step, StepResult
from sites.telemetry import GatewayObservation, Hello, ReplicaObservation

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class CoreConfig:
    """Paces and patience in ms; whether the site's servers end with the agent."""

    heartbeat_ms: int = 200
    supervise_ms: int = 50
    work_ms: int = 1_000
    stop_grace_ms: int = 5_000
    start_timeout_ms: int = 600_000
    hang_ms: int = 30_000
    gateway_restart_ms: int = 1_000
    stop_on_exit: bool = False


class AgentCore:
    """One site's agent, wired. Made and used inside one event loop."""

    def __init__(
        self,
        config: CoreConfig,
        *,
        identity: Identity,
        world: World,
        assignment_key: Ed25519PublicKey,
    ) -> None:
        self._config = config
        self._identity = identity
        self._world = world
        self._clock = world.clock
        self._key = assignment_key
        self._uplink: UplinkPort | None = None
        self._executor = Executor(identity.site_id, Resumed())
        self._effects = Effects(
            world,
            tell=self._tell,
            send=self._send_result,
            stop_grace_ms=config.stop_grace_ms,
            gateway_restart_ms=config.gateway_restart_ms,
        )
        self._supervisor = Supervisor(
            clock=world.clock,
            keeper=world.keeper,
            effects=self._effects,
            tell=self._tell,
            start_timeout_ms=config.start_timeout_ms,
            hang_ms=config.hang_ms,
            stop_grace_ms=config.stop_grace_ms,
        )
        self._sequence = 0
        self._opened: tuple[bytes, SiteAssignment] | None = None
        self._asked: asyncio.Task[GatewayObservation] | None = None
        self._seen = GatewayObservation(live=False)

    async def resume(self) -> None:
        """Take up what an earlier agent left: memory from disk, processes from the system.

        Brings wanted replicas and the gateway back. Raises FatalError if the memory is damaged or
        the gateway cannot be started.
        """
        store = self._world.store
        applied_entry, wanted = store.applied(), store.wanted()
        accepted = self._reopen(store.accepted())
        applied = self._reopen(applied_entry.envelope.encode() if applied_entry else None)
        now_ms = self._clock.monotonic_ms()
        found = await self._world.keeper.adopt()
        replicas = tuple(_adopted(one, now_ms=now_ms) for one in found)
        numbers = [r.number + 1 for r in replicas]
        self._executor = Executor(
            self._identity.site_id,
            Resumed(
                accepted=accepted,
                applied=applied,
                wanted=dict(wanted.replicas) if wanted else {},
                next_replica=max([wanted.next_replica if wanted else 1, *numbers]),
                replicas=replicas,
            ),
        )
        _log.info("resumed", site=self._identity.site_id, replicas=len(replicas))
        await self._start_again(applied, applied_entry)

    async def _start_again(
        self, applied: SiteAssignment | None, applied_entry: Applied | None
    ) -> None:
        if applied is not None and applied_entry is not None:
            self._effects.applied_digest = applied_entry.assignment_digest
            self._world.pump.use(applied)
        effects = self._executor.start(
            now_ms=self._clock.monotonic_ms(), wall_ms=self._clock.wall_ms()
        )
        self._effects.carry_out(e for e in effects if not isinstance(e, ApplyRoutes))
        for effect in effects:
            if isinstance(effect, ApplyRoutes):
                await self._effects.apply_first(effect)

    def _reopen(self, envelope: bytes | None) -> SiteAssignment | None:
        if envelope is None:
            return None
        try:
            assignment = self._open(envelope)
        except InvalidFactError as fault:
            raise FatalError(
                f'site "{self._identity.site_id}": the assignment on disk is damaged or not of '
                f"this control plane ({fault}); remove the site's state folder to start it anew"
            ) from fault
        self._effects.keep_envelope(assignment.rank, envelope)
        return assignment

    async def run(self, uplink: UplinkPort, stop: asyncio.Event) -> None:
        """Serve the control plane until `stop`; raises the first fatal fault."""
        self._uplink = uplink
        loops = (
            uplink.run(stop),
            self._take_frames(uplink),
            self._every(self._config.heartbeat_ms, self._beat),
            self._every(self._config.supervise_ms, self._supervise),
            self._every(self._config.work_ms, self._read_work),
            self._world.pump.run(uplink, self._world.gateway),
        )
        watched: list[asyncio.Future[Any]] = [asyncio.create_task(one) for one in loops]
        watched += [asyncio.create_task(stop.wait()), self._effects.failed]
        try:
            done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
        finally:
            stop.set()
            watched += [self._asked] if self._asked is not None else []
            for one in watched:
                one.cancel()
            await asyncio.gather(*watched, return_exceptions=True)
            await self.leave()

    async def leave(self) -> None:
        """End the site's servers with `stop_on_exit`; else leave them serving."""
        await self._effects.close()
        if self._config.stop_on_exit:
            await self._world.gateway.stop()
            await self._world.keeper.stop_all(grace_ms=self._config.stop_grace_ms)
        await self._world.gateway.close()
        await self._world.keeper.close()
        self._world.processes.release()
        self._world.pump.close()

    async def _every(self, pause_ms: int, act: Callable[[], Awaitable[None]]) -> None:
        while True:
            await act()
            await self._clock.sleep_ms(pause_ms)

    # Control frames

    async def _take_frames(self, uplink: UplinkPort) -> None:
        while True:
            fact = await uplink.inbound.get()
            match fact:
                case AssignmentFrame():
                    uplink.send(await self._judge(fact))
                case Step():
                    self._tell(StepArrived(step=fact))
                case Lease():
                    self._tell(LeaseRenewed(lease=fact))
                case RecordAck():
                    await self._world.pump.acknowledge(fact.sequence)
                case _:
                    _log.warning("frame ignored", kind=type(fact).__name__)

    async def _judge(self, frame: AssignmentFrame) -> AssignmentVerdict:
        """ACK or NACK. Thousands of routes take seconds to open and judge: in a thread, so that
        heartbeats go on. No other frame is taken meanwhile, so what is accepted stays.
        """
        standing = Standing(
            site_id=self._identity.site_id,
            accepted=self._executor.accepted,
            applied=self._executor.applied,
            inventory=self._identity.inventory,
        )
        try:
            assignment = await asyncio.to_thread(self._open, frame.envelope)
        except InvalidFactError as fault:
            _log.warning("assignment refused", reason=str(fault))
            return refuse_unreadable(str(fault), standing, validate_only=frame.validate_only)
        verdict = await asyncio.to_thread(
            judge,
            assignment,
            standing,
            wall_ms=self._clock.wall_ms(),
            validate_only=frame.validate_only,
        )
        if verdict.violations:
            _log.warning("assignment refused", reason=verdict.violations[0].message())
        is_new = standing.accepted is None or assignment.rank > standing.accepted.rank
        if verdict.violations or frame.validate_only or not is_new:
            return verdict
        return self._accept(assignment, frame.envelope, verdict)

    def _open(self, envelope: bytes) -> SiteAssignment:
        """Open an envelope; the last one again (judged, then meant; accepted, then applied) costs
        nothing.
        """
        if self._opened is None or self._opened[0] != envelope:
            self._opened = (envelope, open_assignment(envelope, key=self._key))
        return self._opened[1]

    def _accept(
        self, assignment: SiteAssignment, envelope: bytes, verdict: AssignmentVerdict
    ) -> AssignmentVerdict:
        try:
            self._world.store.save_accepted(envelope)
        except RetryableError as fault:
            return refuse_undurable(str(fault), verdict)
        self._effects.keep_envelope(assignment.rank, envelope)
        _log.info("assignment accepted", epoch=assignment.epoch, version=assignment.version)
        self._tell(AssignmentAccepted(assignment=assignment))
        return verdict

    def _tell(self, event: ExecutorEvent) -> None:
        effects = self._executor.handle(
            event, now_ms=self._clock.monotonic_ms(), wall_ms=self._clock.wall_ms()
        )
        self._effects.carry_out(effects)

    def _send_result(self, result: StepResult) -> None:
        if self._uplink is not None:
            self._uplink.send(result)

    # Timers and telemetry

    async def _supervise(self) -> None:
        await self._supervisor.look(self._executor.replicas())
        await self._effects.revive_gateway(self._executor.ready_by_group())
        self._tell(Ticked())

    async def _read_work(self) -> None:
        await self._supervisor.read_work(self._executor.replicas())
        self._world.processes.trim_logs()

    def _replicas_seen(self) -> tuple[ReplicaObservation, ...]:
        return site_view.observe_replicas(
            self._executor.replicas(), work_of=self._world.keeper.work
        )

    def hello(self) -> Hello:
        """Who is here and what runs, at this moment."""
        return site_view.hello(
            self._identity,
            applied=self._executor.applied,
            applied_digest=self._effects.applied_digest,
            replicas=self._replicas_seen(),
            last_record_sequence=self._world.pump.last_sequence,
        )

    async def _see_gateway(self) -> GatewayObservation:
        """What the gateway says, or said last: one that reads thousands of new routes answers
        seconds late, which must hold no heartbeat up.
        """
        if self._effects.routes_run is None:
            return GatewayObservation(live=False)
        if self._asked is None:
            self._asked = asyncio.create_task(self._world.gateway.observe())
        await asyncio.wait({self._asked}, timeout=self._config.heartbeat_ms / 1_000)
        if self._asked.done():
            self._seen, self._asked = self._asked.result(), None
        return self._seen

    async def _beat(self) -> None:
        assert self._uplink is not None, "beats begin with run"
        replicas, work_of = self._executor.replicas(), self._world.keeper.work
        newest = self._executor.accepted or self._executor.applied
        gateway = await self._see_gateway()
        self._sequence += 1
        observation = site_view.observation(
            self._identity,
            sequence=self._sequence,
            observed_at_ms=self._clock.wall_ms(),
            applied=self._executor.applied,
            applied_digest=self._effects.applied_digest,
            replicas=self._replicas_seen(),
            gateway=gateway,
            possible_draw_w=self._executor.possible_draw_w(),
            draw_w=site_view.estimated_draw_w(
                replicas, work_of=work_of, pue=newest.pue if newest else 1.0
            ),
            records_spooled=self._world.pump.pending,
            faults=(
                *self._executor.faults(),
                *(self._effects.faults[k] for k in sorted(self._effects.faults)),
                *self._world.pump.faults(),
            ),
        )
        self._uplink.send(observation)


def _adopted(found: Found, *, now_ms: int) -> Replica:
    return Replica(
        replica_id=found.replica_id,
        number=int(found.replica_id.rpartition("/r")[2]),
        target=found.target,
        life=Life.READY if found.is_ready else Life.LOADING,
        since_ms=now_ms,
        was_ready=found.is_ready,
    )
