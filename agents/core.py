"""The agent as a running thing: carries the executor's effects out and tells it what came of them.

Decides nothing about the site (`agents.executor`, `agents.trusted_plan` do); it owns the order of
effects on disk and in the world, and the timers. The site keeps serving whatever happens here: an
agent that ends leaves its gateway and model servers running.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agents import site_view
from agents.envelope import open_assignment
from agents.executor import Executor, Resumed
from agents.executor_messages import (
    ApplyRoutes,
    AssignmentAccepted,
    ExecutorEffect,
    ExecutorEvent,
    LeaseRenewed,
    MarkApplied,
    ReplicaExited,
    ReplicaIdle,
    ReplicaReady,
    ReplicaStopped,
    Report,
    RoutesApplied,
    RoutesRejected,
    SaveWanted,
    StartReplica,
    StepArrived,
    StopReplica,
    Ticked,
    WatchIdle,
)
from agents.frames import AssignmentFrame, ControlFact, RecordAck
from agents.gateway.facts import ReplicaAddress
from agents.record_pump import RecordPump
from agents.replica_set import Life, Replica
from agents.replicas import ReplicaKeeper
from agents.site_view import Identity
from agents.store import AgentStore
from agents.trusted_plan import Standing, judge, refuse_unreadable
from agents.uplink import Outgoing
from sites.assignment import Lease, SiteAssignment
from sites.clock import Clock
from sites.digest import digest
from sites.errors import FatalError, HinterlandError, InvalidFactError, RetryableError, Violation
from sites.steps import AssignmentVerdict, Step
from sites.telemetry import GatewayObservation, Hello, SiteObservation

_log = structlog.get_logger(__name__)

BLIND_DRAIN_MS = 10_000
"""How long a server that cannot be asked is given to end its requests."""

ENVELOPES_KEPT = 8


class GatewayPort(Protocol):
    """The site's gateway; `agents.site_gateway` drives Envoy, tests have one in memory."""

    def is_running(self) -> bool:
        """Whether it serves."""
        ...

    async def apply(
        self,
        assignment: SiteAssignment,
        *,
        ready: dict[str, tuple[ReplicaAddress, ...]],
    ) -> None:
        """Run the assignment's routes over these replicas; raises HinterlandError if it does not."""
        ...

    async def observe(self) -> GatewayObservation:
        """What it counts and thinks of its peers."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class CoreConfig:
    """Paces and patience in ms."""

    heartbeat_ms: int = 200
    supervise_ms: int = 50
    load_ms: int = 1_000
    stop_grace_ms: int = 5_000
    start_timeout_ms: int = 600_000
    gateway_restart_ms: int = 1_000
    stop_on_exit: bool = False


class AgentCore:
    """One site's agent, wired. Used from one event loop."""

    def __init__(
        self,
        config: CoreConfig,
        *,
        identity: Identity,
        clock: Clock,
        store: AgentStore,
        keeper: ReplicaKeeper,
        gateway: GatewayPort,
        pump: RecordPump,
        assignment_key: Ed25519PublicKey,
    ) -> None:
        self._config = config
        self._identity = identity
        self._clock = clock
        self._store = store
        self._keeper = keeper
        self._gateway = gateway
        self._pump = pump
        self._key = assignment_key
        self._uplink: UplinkPort | None = None
        self._executor = Executor(identity.site_id, Resumed())
        self._envelopes: dict[tuple[int, int], bytes] = {}
        self._applied_digest = ""
        self._queue: deque[ExecutorEffect] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None] | None = None
        self._watched: dict[str, tuple[int, int]] = {}
        self._starting: set[str] = set()
        self._last_routes: ApplyRoutes | None = None
        self._is_applying = False
        self._gateway_retry_at_ms = 0
        self._sequence = 0
        self._faults: dict[str, str] = {}

    # Life

    async def resume(self) -> None:
        """Take up what an earlier agent left: memory from disk, processes from the system.

        Brings wanted replicas and the gateway back. Raises FatalError if the memory is damaged or
        the gateway cannot be brought back.
        """
        accepted, applied, wanted = self._recall()
        found = await self._keeper.adopt()
        now_ms = self._clock.monotonic_ms()
        replicas = tuple(
            Replica(
                replica_id=f.replica_id,
                number=int(f.replica_id.rpartition("/r")[2]),
                target=f.target,
                life=Life.READY if f.is_ready else Life.LOADING,
                since_ms=now_ms,
                was_ready=f.is_ready,
            )
            for f in found
        )
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
        self._applied_digest = digest(applied) if applied else ""
        _log.info("resumed", replicas=len(replicas), rank=applied.rank if applied else None)
        effects = self._executor.start(now_ms=now_ms, wall_ms=self._clock.wall_ms())
        for effect in effects:
            if isinstance(effect, ApplyRoutes):
                await self._apply_first(effect)
            else:
                self._queue.append(effect)
        self._carry_out()

    def _recall(self) -> tuple[SiteAssignment | None, SiteAssignment | None, Any]:
        accepted_bytes = self._store.accepted()
        applied = self._store.applied()
        try:
            accepted = (
                open_assignment(accepted_bytes, key=self._key) if accepted_bytes else None
            )
            running = (
                open_assignment(applied.envelope.encode(), key=self._key) if applied else None
            )
        except InvalidFactError as fault:
            raise FatalError(
                f'site "{self._identity.site_id}": the assignment on disk is damaged or not of '
                f"this control plane ({fault}); remove the site's state folder to start it anew"
            ) from fault
        for assignment, envelope in ((accepted, accepted_bytes), (running, None)):
            if assignment is not None and envelope is not None:
                self._envelopes[assignment.rank] = envelope
        if running is not None and applied is not None:
            self._envelopes[running.rank] = applied.envelope.encode()
        return accepted, running, self._store.wanted()

    async def _apply_first(self, effect: ApplyRoutes) -> None:
        """Routes at start: a gateway that cannot start at all ends the agent with its reason."""
        try:
            await self._gateway.apply(effect.assignment, ready=self._addresses(effect))
        except FatalError:
            raise
        except HinterlandError as fault:
            self._dispatch(RoutesRejected(token=effect.token, detail=str(fault)))
            return
        self._last_routes = effect
        self._dispatch(RoutesApplied(token=effect.token))

    async def run(self, uplink: UplinkPort, stop: asyncio.Event) -> None:
        """Serve the control plane until `stop`; raises the first fatal fault."""
        self._uplink = uplink
        self._failed = asyncio.get_running_loop().create_future()
        loops = [
            asyncio.create_task(one)
            for one in (
                uplink.run(stop),
                self._take_frames(uplink),
                self._every(self._config.heartbeat_ms, self._beat),
                self._every(self._config.supervise_ms, self._supervise),
                self._every(self._config.load_ms, self._read_loads),
                self._pump.run(uplink),
            )
        ]
        stopped = asyncio.create_task(stop.wait())
        watched: list[asyncio.Future[Any]] = [*loops, stopped, self._failed]
        try:
            done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
        finally:
            stop.set()
            for one in watched:
                one.cancel()
            await asyncio.gather(*watched, return_exceptions=True)
            await self._leave()

    async def _leave(self) -> None:
        """End everything with `stop_on_exit`, else let go of it and leave it serving."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._config.stop_on_exit:
            await self._gateway.stop()
            grace_ms = self._config.stop_grace_ms
            ids = [r.replica_id for r in self._executor.replicas()]
            await asyncio.gather(*(self._keeper.stop(i, grace_ms=grace_ms) for i in ids))
        await self._gateway.close()
        await self._keeper.close()
        self._pump.close()

    async def _every(self, pause_ms: int, act: Any) -> None:
        while True:
            await act()
            await self._clock.sleep_ms(pause_ms)

    # Control frames

    async def _take_frames(self, uplink: UplinkPort) -> None:
        while True:
            fact = await uplink.inbound.get()
            match fact:
                case AssignmentFrame():
                    uplink.send(self._judge(fact))
                case Step():
                    self._dispatch(StepArrived(step=fact))
                case Lease():
                    self._dispatch(LeaseRenewed(lease=fact))
                case RecordAck():
                    await self._pump.acknowledge(fact.sequence)
                case _:
                    _log.warning("frame ignored", kind=type(fact).__name__)

    def _judge(self, frame: AssignmentFrame) -> AssignmentVerdict:
        standing = Standing(
            site_id=self._identity.site_id,
            accepted=self._executor.accepted,
            applied=self._executor.applied,
            inventory=self._identity.inventory,
        )
        try:
            assignment = open_assignment(frame.envelope, key=self._key)
        except InvalidFactError as fault:
            _log.warning("assignment refused", reason=str(fault))
            return refuse_unreadable(str(fault), standing, validate_only=frame.validate_only)
        verdict = judge(
            assignment,
            standing,
            wall_ms=self._clock.wall_ms(),
            validate_only=frame.validate_only,
        )
        is_new = standing.accepted is None or assignment.rank > standing.accepted.rank
        if verdict.violations:
            _log.warning("assignment refused", reason=verdict.violations[0].message())
        if verdict.violations or frame.validate_only or not is_new:
            return verdict
        return self._accept(assignment, frame.envelope, verdict)

    def _accept(
        self, assignment: SiteAssignment, envelope: bytes, verdict: AssignmentVerdict
    ) -> AssignmentVerdict:
        try:
            self._store.save_accepted(envelope)
        except RetryableError as fault:
            return AssignmentVerdict(
                site_id=verdict.site_id,
                epoch=verdict.epoch,
                version=verdict.version,
                assignment_digest=verdict.assignment_digest,
                violations=(
                    Violation(
                        code="disk",
                        subject=f'site "{verdict.site_id}": assignment',
                        limit="a durable copy",
                        actual=str(fault),
                    ),
                ),
                applied_epoch=verdict.applied_epoch,
                applied_version=verdict.applied_version,
            )
        self._envelopes[assignment.rank] = envelope
        while len(self._envelopes) > ENVELOPES_KEPT:
            del self._envelopes[min(self._envelopes)]
        _log.info("assignment accepted", epoch=assignment.epoch, version=assignment.version)
        self._dispatch(AssignmentAccepted(assignment=assignment))
        return verdict

    # Effects

    def _dispatch(self, event: ExecutorEvent) -> None:
        self._queue += self._executor.handle(
            event, now_ms=self._clock.monotonic_ms(), wall_ms=self._clock.wall_ms()
        )
        self._carry_out()

    def _carry_out(self) -> None:
        """Do the waiting effects in order. One that cannot be made durable holds back those after
        it until the disk has room again.
        """
        while self._queue:
            try:
                self._do(self._queue[0])
            except RetryableError as fault:
                self._faults["disk"] = str(fault)
                return
            self._faults.pop("disk", None)
            self._queue.popleft()

    def _do(self, effect: ExecutorEffect) -> None:
        match effect:
            case SaveWanted():
                self._store.save_wanted(
                    dict(effect.replicas), next_replica=effect.next_replica
                )
            case MarkApplied():
                self._mark_applied(effect.assignment)
            case StartReplica():
                self._starting.add(effect.replica_id)
                self._background(self._start(effect))
            case StopReplica():
                self._watched.pop(effect.replica_id, None)
                self._background(self._stop(effect.replica_id))
            case WatchIdle():
                self._watched[effect.replica_id] = (self._clock.monotonic_ms(), 0)
            case ApplyRoutes():
                self._is_applying = True
                self._background(self._apply(effect))
            case Report():
                _log.info(
                    "step ended",
                    step=effect.result.step_id,
                    outcome=str(effect.result.outcome),
                    detail=effect.result.detail,
                )
                if self._uplink is not None:
                    self._uplink.send(effect.result)

    def _mark_applied(self, assignment: SiteAssignment) -> None:
        own = digest(assignment)
        self._store.save_applied(
            rank=assignment.rank,
            assignment_digest=own,
            envelope=self._envelopes[assignment.rank],
        )
        self._applied_digest = own
        self._pump.use(assignment)
        _log.info("routes applied", epoch=assignment.epoch, version=assignment.version)

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        fault = task.exception()
        if fault is not None and self._failed is not None and not self._failed.done():
            self._failed.set_exception(fault)

    async def _start(self, effect: StartReplica) -> None:
        try:
            await self._keeper.start(effect.replica_id, effect.target)
        except HinterlandError as fault:
            self._starting.discard(effect.replica_id)
            self._dispatch(ReplicaExited(replica_id=effect.replica_id, detail=str(fault)))
            return
        self._starting.discard(effect.replica_id)
        _log.info("replica started", replica=effect.replica_id)

    async def _stop(self, replica_id: str) -> None:
        while True:
            try:
                await self._keeper.stop(replica_id, grace_ms=self._config.stop_grace_ms)
                break
            except RetryableError as fault:
                self._faults[replica_id] = str(fault)
        self._faults.pop(replica_id, None)
        _log.info("replica stopped", replica=replica_id)
        self._dispatch(ReplicaStopped(replica_id=replica_id))

    async def _apply(self, effect: ApplyRoutes) -> None:
        try:
            await self._gateway.apply(effect.assignment, ready=self._addresses(effect))
        except HinterlandError as fault:
            self._is_applying = False
            _log.warning("routes rejected", reason=str(fault))
            self._dispatch(RoutesRejected(token=effect.token, detail=str(fault)))
            return
        self._is_applying = False
        self._last_routes = effect
        self._dispatch(RoutesApplied(token=effect.token))

    def _addresses(self, effect: ApplyRoutes) -> dict[str, tuple[ReplicaAddress, ...]]:
        ready: dict[str, tuple[ReplicaAddress, ...]] = {}
        for group_id, replica_ids in effect.ready:
            known = [(i, self._keeper.address(i)) for i in replica_ids]
            ready[group_id] = tuple(ReplicaAddress(i, a[0], a[1]) for i, a in known if a)
        return ready

    # Timers

    async def _supervise(self) -> None:
        """Notice ended, ready and idle replicas and a dead gateway; let the executor see time."""
        for replica in self._executor.replicas():
            await self._look_at(replica)
        await self._revive_gateway()
        self._dispatch(Ticked())

    async def _look_at(self, replica: Replica) -> None:
        replica_id = replica.replica_id
        is_ours_to_watch = replica.life not in (Life.FAILED, Life.STOPPING)
        if not is_ours_to_watch or replica_id in self._starting:
            return
        if not self._keeper.is_alive(replica_id):
            detail = self._keeper.bury(replica_id)
            self._watched.pop(replica_id, None)
            _log.warning("replica ended", replica=replica_id, detail=detail)
            self._dispatch(ReplicaExited(replica_id=replica_id, detail=detail))
        elif not replica.was_ready:
            await self._look_at_loading(replica)
        elif replica_id in self._watched:
            await self._look_at_draining(replica_id)

    async def _look_at_loading(self, replica: Replica) -> None:
        if await self._keeper.is_ready(replica.replica_id):
            self._dispatch(ReplicaReady(replica_id=replica.replica_id))
            return
        waited_ms = self._clock.monotonic_ms() - replica.since_ms
        if replica.life is Life.LOADING and waited_ms > self._config.start_timeout_ms:
            await self._keeper.stop(replica.replica_id, grace_ms=self._config.stop_grace_ms)
            detail = f"not ready after {waited_ms} ms"
            self._dispatch(ReplicaExited(replica_id=replica.replica_id, detail=detail))

    async def _look_at_draining(self, replica_id: str) -> None:
        """Idle twice in a row: a request may still be on its way from the gateway."""
        since_ms, idle_looks = self._watched[replica_id]
        is_idle = await self._keeper.is_idle(replica_id)
        if is_idle is None:
            is_idle = self._clock.monotonic_ms() - since_ms >= BLIND_DRAIN_MS
        if not is_idle or idle_looks == 0:
            self._watched[replica_id] = (since_ms, 1 if is_idle else 0)
            return
        del self._watched[replica_id]
        self._dispatch(ReplicaIdle(replica_id=replica_id))

    async def _revive_gateway(self) -> None:
        """A gateway that ended is started again with the routes it last ran."""
        now_ms = self._clock.monotonic_ms()
        last = self._last_routes
        if last is None or self._is_applying or self._gateway.is_running():
            return
        if now_ms < self._gateway_retry_at_ms:
            return
        self._gateway_retry_at_ms = now_ms + self._config.gateway_restart_ms
        _log.warning("gateway ended; starting it again")
        self._is_applying = True
        try:
            ready = self._executor.ready_by_group()
            await self._gateway.apply(
                last.assignment,
                ready=self._addresses(
                    ApplyRoutes(token=0, assignment=last.assignment, ready=ready)
                ),
            )
            self._faults.pop("gateway", None)
        except HinterlandError as fault:
            self._faults["gateway"] = str(fault)
        finally:
            self._is_applying = False

    async def _read_loads(self) -> None:
        ready = [r.replica_id for r in self._executor.replicas() if r.was_ready]
        await asyncio.gather(*(self._keeper.read_load(i) for i in ready))

    # Telemetry

    def hello(self) -> Hello:
        """Who is here and what runs, at this moment."""
        return site_view.hello(
            self._identity,
            applied=self._executor.applied,
            applied_digest=self._applied_digest,
            replicas=site_view.observe_replicas(
                self._executor.replicas(), load_of=self._keeper.load
            ),
            last_record_sequence=self._pump.last_sequence,
        )

    async def _beat(self) -> None:
        assert self._uplink is not None, "beats begin with run"
        self._uplink.send(await self._observe())

    async def _observe(self) -> SiteObservation:
        replicas = self._executor.replicas()
        newest = self._executor.accepted or self._executor.applied
        is_up = self._last_routes is not None
        gateway = await self._gateway.observe() if is_up else GatewayObservation(live=False)
        self._sequence += 1
        return site_view.observation(
            self._identity,
            sequence=self._sequence,
            observed_at_ms=self._clock.wall_ms(),
            applied=self._executor.applied,
            applied_digest=self._applied_digest,
            replicas=site_view.observe_replicas(replicas, load_of=self._keeper.load),
            gateway=gateway,
            possible_draw_w=self._executor.possible_draw_w(),
            draw_w=site_view.estimated_draw_w(
                replicas, load_of=self._keeper.load, pue=newest.pue if newest else 1.0
            ),
            records_spooled=self._pump.pending,
            faults=(
                *self._executor.faults(),
                *(self._faults[k] for k in sorted(self._faults)),
                *self._pump.faults(),
            ),
        )
