"""The only loop: carries messages to hubs, hubs' effects to the control loop, and its effects out.

Decides nothing about the fleet: `sites.hub` and `scheduler.cycle` do. What it does decide is order
and survival: a wish reaches a hub before the next message does (an assignment once it is signed),
an entry's durability is reported only once the ledger says so, and when the hubs are lost it goes
on with hubs in this process until Ray is back, telling both the same story (the agents' hellos,
then what is wanted).
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any

from agents.frames import ControlFact, RecordAck, RecordBatch
from optimizer.problem import Problem
from scheduler.board import Board, Update
from scheduler.cycle import Cycle
from scheduler.entries import kind_of
from scheduler.events import (
    Alert,
    AppendLedger,
    CycleEffect,
    CycleEvent,
    FillDetours,
    HubsRestarted,
    LedgerAppended,
    LedgerFailed,
    PlanProposed,
    ReceiptChanged,
    Solve,
    Started,
)
from scheduler.front_door import AgentMessage
from scheduler.hub_keeper import HubKeeper
from scheduler.ledger import Ledger
from scheduler.receipt import Receipt
from scheduler.sealed import SealedAssignments
from scheduler.solver_pool import SolverPool
from scheduler.view import Drill, FleetView
from sites.assignment import SiteAssignment
from sites.clock import Clock
from sites.errors import InvalidFactError, RefusedError, RetryableError
from sites.hub_messages import (
    AssignmentWanted,
    HelloArrived,
    HubEffect,
    HubEvent,
    ObservationArrived,
    SendAssignment,
    SendLease,
    SendStep,
    StepResultArrived,
    StreamClosed,
    Ticked,
    VerdictArrived,
)
from sites.steps import AssignmentVerdict, StepResult
from sites.telemetry import Hello, SiteObservation


@dataclass(frozen=True, kw_only=True, slots=True)
class DriverConfig:
    """Pace and bounds. The control loop hears that time passes every `tick_ms`, each hub every
    `hub_tick_ms`. A turn takes at most `messages_per_turn` messages; a chain of wishes and
    answers within one turn is at most `rounds_per_turn` long (then the next turn goes on).
    """

    tick_ms: int = 100
    hub_tick_ms: int = 250
    messages_per_turn: int = 512
    rounds_per_turn: int = 64
    events: int = 1_000
    batches_per_site: int = 8


class Inbox(asyncio.Queue[AgentMessage]):
    """The front door's queue; wakes the driver when something arrives."""

    def __init__(self, maxsize: int = 4_096) -> None:
        super().__init__(maxsize)
        self.arrived = asyncio.Event()

    def _put(self, item: AgentMessage) -> None:
        super()._put(item)
        self.arrived.set()


class Driver:
    """Runs the control loop. All methods belong to the event loop `run` runs on."""

    def __init__(
        self,
        *,
        cycle: Cycle,
        hubs: HubKeeper,
        board: Board,
        ledger: Ledger,
        solver: SolverPool,
        inbox: Inbox,
        send: Callable[[str, ControlFact], bool],
        close_site: Callable[[str, str], None],
        sign: Callable[[SiteAssignment], bytes],
        admit: Callable[[Problem], None],
        clock: Clock,
        config: DriverConfig,
    ) -> None:
        """`send` and `close_site` are the front door's; `sign` makes an assignment's envelope;
        `admit` issues keys for the sites and tenants of a problem before it is proposed.
        """
        self._cycle = cycle
        self._hubs = hubs
        self.board = board
        self._ledger = ledger
        self._solver = solver
        self._inbox = inbox
        self._send = send
        self._close_site = close_site
        self._sealed = SealedAssignments(sign)
        self._admit = admit
        self._clock = clock
        self._config = config
        self._now_ms = 0
        self._next_tick_ms = 0
        self._next_hub_tick_ms = 0
        self._site_ids = cycle.site_ids()
        self._events: deque[CycleEvent] = deque()
        self._wishes: deque[tuple[str, HubEvent]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ledger_lock = asyncio.Lock()
        self._recording: Counter[str] = Counter()
        self._numbers = itertools.count(1)
        self._fault: BaseException | None = None
        self.running = asyncio.Event()

    # What people and programs ask for.

    def knows_site(self, site_id: str) -> bool:
        """Whether the fleet has that site."""
        return site_id in self._site_ids

    @property
    def site_ids(self) -> tuple[str, ...]:
        """The fleet's sites, sorted."""
        return self._site_ids

    @property
    def hubs_in_ray(self) -> bool:
        """Whether hubs run where they belong."""
        return self._hubs.at_home

    def new_receipt_id(self, prefix: str) -> str:
        """A name for a change, unique in this ledger."""
        return f"{prefix}-{self._cycle.view().epoch}-{next(self._numbers)}"

    def submit(self, event: CycleEvent) -> None:
        """Hand an operator's event to the control loop. Raises RetryableError if it is flooded."""
        if len(self._events) >= self._config.events:
            raise RetryableError(
                f"control loop: {len(self._events)} events wait already; try again later"
            )
        if isinstance(event, PlanProposed):
            self._admit(event.problem)
        self._events.append(event)
        self._inbox.arrived.set()

    def view(self) -> FleetView:
        """The fleet as the control loop knows it now."""
        return replace(self._cycle.view(), hubs_in_ray=self.hubs_in_ray)

    def drill(self, site_id: str) -> Drill:
        """What losing that site now would do; changes nothing."""
        return self._cycle.predict_failover(site_id)

    def receipt(self, receipt_id: str) -> Receipt | None:
        """The newest form of a receipt."""
        return self.board.receipt(receipt_id)

    def subscribe(self) -> AbstractAsyncContextManager[asyncio.Queue[Update]]:
        """Receipts and alerts as they change (`scheduler.board`)."""
        return self.board.subscribe()

    # The loop.

    async def run(self, started: Started, stop: asyncio.Event) -> None:
        """Run until `stop`. Raises what cannot be survived: FatalError, HubsLostError at start."""
        for receipt in started.snapshot.receipts:
            self.board.post_receipt(receipt)
        self._events.append(started)
        await self._hubs.start(self._site_ids)
        self.running.set()
        try:
            while not stop.is_set():
                await self._turn()
                if self._fault is not None:
                    raise self._fault
                await self._wait()
        finally:
            await self._close()

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._hubs.stop()

    async def _wait(self) -> None:
        """Until something arrives or the next tick is due."""
        if self._events or self._wishes or not self._inbox.empty():
            return
        left_ms = self._next_tick_ms - self._clock.monotonic_ms()
        if left_ms <= 0:
            return
        try:
            async with asyncio.timeout(left_ms / 1_000):
                await self._inbox.arrived.wait()
        except TimeoutError:
            return

    async def _turn(self) -> None:
        self._inbox.arrived.clear()
        self._now_ms = max(self._now_ms, self._clock.wall_ms())
        if await self._hubs.come_home():
            self._retell()
        batch = self._take_messages()
        if self._clock.monotonic_ms() >= self._next_tick_ms:
            self._next_tick_ms = self._clock.monotonic_ms() + self._config.tick_ms
            self._events.append(Ticked())
        if self._clock.monotonic_ms() >= self._next_hub_tick_ms:
            # Seldom: in a fleet of one actor per site every tick is a call to each of them.
            self._next_hub_tick_ms = self._clock.monotonic_ms() + self._config.hub_tick_ms
            batch += [(site_id, Ticked()) for site_id in self._site_ids]
        self._wishes.extend(batch)
        for _ in range(self._config.rounds_per_turn):
            await self._ask_hubs()
            if not self._events:
                return
            while self._events:
                await self._tell_cycle(self._events.popleft())

    def _take_messages(self) -> list[tuple[str, HubEvent]]:
        batch = []
        for _ in range(self._config.messages_per_turn):
            if self._inbox.empty():
                break
            message = self._inbox.get_nowait()
            if not self.knows_site(message.site_id):
                continue  # left the fleet while its message waited
            event = self._hub_event(message)
            if event is not None:
                batch.append((message.site_id, event))
        return batch

    def _hub_event(self, message: AgentMessage) -> HubEvent | None:
        site_id, body = message.site_id, message.body
        self._hubs.note(site_id, body)
        match body:
            case Hello():
                self._start(self._acknowledge_held(site_id))
                return HelloArrived(hello=body)
            case SiteObservation():
                return ObservationArrived(observation=body)
            case AssignmentVerdict():
                return VerdictArrived(verdict=body)
            case StepResult():
                return StepResultArrived(result=body)
            case StreamClosed():
                return body
            case RecordBatch():
                if self._recording[site_id] < self._config.batches_per_site:
                    self._recording[site_id] += 1
                    self._start(self._record(body))
                return None  # a batch left out is unacknowledged, so its spool sends it again

    async def _ask_hubs(self) -> None:
        if not self._wishes:
            return
        batch = tuple(self._wishes)
        self._wishes.clear()
        effects = await self._hubs.handle(batch, self._now_ms)
        if effects is None:
            self._retell()
            return
        for effect in effects:
            self._carry_out_hub(effect)

    def _carry_out_hub(self, effect: HubEffect) -> None:
        match effect:
            case SendAssignment():
                frame = self._sealed.frame(effect)
                if frame is not None:
                    self._send(effect.site_id, frame)
            case SendStep():
                self._send(effect.site_id, effect.step)
            case SendLease():
                self._send(effect.site_id, effect.lease)
            case _:
                self._events.append(effect)

    async def _tell_cycle(self, event: CycleEvent) -> None:
        for effect in self._cycle.handle(event, self._now_ms):
            self._carry_out(effect)
        site_ids = self._cycle.site_ids()
        if site_ids != self._site_ids:
            await self._change_sites(site_ids)

    def _carry_out(self, effect: CycleEffect) -> None:
        match effect:
            case AssignmentWanted():
                self._start(self._seal(effect))
            case AppendLedger():
                self._start(self._append(effect))
            case Solve() | FillDetours():
                self._start(self._work_out(effect))
            case ReceiptChanged():
                self.board.post_receipt(effect.receipt)
            case Alert():
                self.board.post_alert(effect)
            case _:
                self._wishes.append((effect.site_id, effect))

    async def _change_sites(self, site_ids: tuple[str, ...]) -> None:
        for gone in sorted(set(self._site_ids) - set(site_ids)):
            self._close_site(gone, f"site {gone}: no longer in this fleet")
            self._sealed.forget((gone,))
        self._site_ids = site_ids
        await self._hubs.change_sites(site_ids)
        self._retell()

    def _retell(self) -> None:
        """Tell fresh hubs who is connected, and the control loop that they know no wishes."""
        self._wishes.clear()
        self._wishes.extend(self._hubs.story())
        self._events.extend(self._hubs.silent())
        self._events.append(HubsRestarted(site_ids=self._site_ids))

    # Work beside the loop. Each ends by telling the loop.

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._fault = task.exception()
        self._inbox.arrived.set()

    async def _seal(self, wish: AssignmentWanted) -> None:
        try:
            named = await self._sealed.seal(wish)
        except InvalidFactError as fault:  # too large: unanswered, so the change stops and says so
            self.board.post_alert(Alert(text=str(fault), site_id=wish.site_id))
            return
        if named is not None and self.knows_site(wish.site_id):
            self._wishes.append((wish.site_id, named))

    async def _append(self, effect: AppendLedger) -> None:
        kind = kind_of(effect.entry)
        try:
            async with self._ledger_lock:  # first asked, first written
                ref = await asyncio.to_thread(self._ledger.append, kind, effect.entry)
        except (RetryableError, RefusedError) as fault:
            self.board.post_alert(Alert(text=str(fault)))
            self._events.append(LedgerFailed(token=effect.token, reason=str(fault)))
            return
        self._events.append(LedgerAppended(token=effect.token, index=ref.index))

    async def _record(self, batch: RecordBatch) -> None:
        try:
            async with self._ledger_lock:
                sequence = await asyncio.to_thread(
                    self._ledger.append_records, batch.site_id, batch.records
                )
        except RetryableError as fault:
            self.board.post_alert(Alert(text=str(fault), site_id=batch.site_id))
            return  # unacknowledged: the spool keeps the records and sends them again
        except RefusedError as fault:
            self.board.post_alert(Alert(text=str(fault), site_id=batch.site_id))
            self._close_site(batch.site_id, str(fault))
            return
        finally:
            self._recording[batch.site_id] -= 1
        self._send(batch.site_id, RecordAck(site_id=batch.site_id, sequence=sequence))

    async def _acknowledge_held(self, site_id: str) -> None:
        async with self._ledger_lock:
            sequence = await asyncio.to_thread(self._ledger.acked, site_id)
        self._send(site_id, RecordAck(site_id=site_id, sequence=sequence))

    async def _work_out(self, effect: Solve | FillDetours) -> None:
        self._events.append(await self._solver.carry_out(effect))
