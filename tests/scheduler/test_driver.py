"""The loop's own duties: order, durability before action, survival. Hubs here, no Ray, no gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from agents.frames import AssignmentFrame, ControlFact, RecordAck, RecordBatch
from optimizer.problem import Problem
from optimizer.solve import solve
from scheduler.board import Board
from scheduler.cycle import Cycle
from scheduler.driver import Driver, DriverConfig, Inbox
from scheduler.entries import ServerStarted
from scheduler.events import Alert, CordonRequested, PlanProposed, Started
from scheduler.fleet_problem import read_problem
from scheduler.front_door import AgentMessage
from scheduler.hub_keeper import HubKeeper
from scheduler.hubs import HubsLostError, LocalHubs
from scheduler.ledger import Ledger
from scheduler.receipt import RolloutState
from scheduler.recovery import recover
from scheduler.solver_pool import SolverPool, SolverPoolConfig
from scheduler.state import CycleConfig, Keys
from sites.assignment import Lease, SiteAssignment
from sites.clock import SystemClock
from sites.errors import InvalidFactError, RetryableError
from sites.hub import HubConfig
from sites.hub_messages import ConnectionState, HubEffect, HubEvent, StreamClosed
from sites.steps import AssignmentVerdict, Step
from sites.telemetry import Hello

FLEET = Path(__file__).resolve().parents[2] / "deploy" / "examples" / "demo"
CLOCK = SystemClock()
HUBS = HubConfig(epoch=1)
WAIT_S = 30


class FragileHubs(LocalHubs):
    """Hubs that are lost on demand and cannot be started while `broken`."""

    def __init__(self) -> None:
        super().__init__(HUBS)
        self.broken = False
        self.starts = 0

    async def start(self, site_ids: tuple[str, ...]) -> None:
        if self.broken:
            raise HubsLostError("hubs: away")
        self.starts += 1
        await super().start(site_ids)

    async def handle(
        self, batch: tuple[tuple[str, HubEvent], ...], now_ms: int
    ) -> tuple[HubEffect, ...]:
        if self.broken:
            raise HubsLostError("hubs: away")
        return await super().handle(batch, now_ms)


class FullLedger(Ledger):
    """A ledger whose disk is full while `full`."""

    full = False

    def append(self, kind: str, payload: Any) -> Any:
        if self.full:
            raise RetryableError("ledger: the disk is full")
        return super().append(kind, payload)

    def append_records(self, site_id: str, payloads: Any) -> int:
        if self.full:
            raise RetryableError("ledger: the disk is full")
        return super().append_records(site_id, payloads)


def rank_alone(assignment: SiteAssignment) -> bytes:
    return b"%d %d" % assignment.rank


class Plant:
    """A driver with everything around it in memory but the ledger."""

    def __init__(
        self, folder: Path, *, sign: Callable[[SiteAssignment], bytes] = rank_alone
    ) -> None:
        problem = read_problem((FLEET,))
        self.ledger = FullLedger(folder / "ledger", clock=CLOCK)
        epoch, snapshot = recover(self.ledger.read)
        self.started = Started(epoch=epoch, problem=problem, snapshot=snapshot)
        self.hubs = FragileHubs()
        self.board = Board()
        self.inbox = Inbox()
        self.sent: list[tuple[str, ControlFact]] = []
        self.closed: list[tuple[str, str]] = []
        self.admitted: list[Problem] = []
        self.driver = Driver(
            cycle=Cycle(self.started, config=CycleConfig(), keys=Keys()),
            hubs=HubKeeper(
                hubs=self.hubs,
                spare=LocalHubs(HUBS),
                clock=CLOCK,
                retry_ms=20,
                tell=lambda text: self.board.post_alert(Alert(text=text)),
            ),
            board=self.board,
            ledger=self.ledger,
            solver=SolverPool(SolverPoolConfig(log_path=folder / "solver.log")),
            inbox=self.inbox,
            send=self._send,
            close_site=lambda site_id, reason: self.closed.append((site_id, reason)),
            sign=sign,
            admit=self.admitted.append,
            clock=CLOCK,
            config=DriverConfig(tick_ms=20),
        )

    def _send(self, site_id: str, fact: ControlFact) -> bool:
        self.sent.append((site_id, fact))
        if isinstance(fact, AssignmentFrame) and fact.validate_only:
            epoch, version = map(int, fact.envelope.split())
            verdict = AssignmentVerdict(
                site_id=site_id,
                epoch=epoch,
                version=version,
                assignment_digest="",
                violations=(),
                applied_epoch=0,
                applied_version=0,
                validate_only=True,
            )
            self.inbox.put_nowait(AgentMessage(site_id=site_id, body=verdict))
        return True

    async def tell(self, site_id: str, body: Any) -> None:
        await self.inbox.put(AgentMessage(site_id=site_id, body=body))

    def state_of(self, site_id: str) -> ConnectionState:
        return next(s.state for s in self.driver.view().sites if s.site_id == site_id)

    def count(self, kind: type) -> int:
        return sum(1 for _, fact in self.sent if isinstance(fact, kind))


@asynccontextmanager
async def running(plant: Plant) -> AsyncIterator[Plant]:
    stop = asyncio.Event()
    task = asyncio.create_task(plant.driver.run(plant.started, stop))
    try:
        yield plant
    finally:
        stop.set()
        async with asyncio.timeout(WAIT_S):
            await task
        plant.ledger.close()


async def until(holds: Any) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.005)


def hello(site_id: str, instance: str = "1") -> Hello:
    return Hello(
        site_id=site_id,
        instance_id=instance,
        agent_version="0",
        inventory=(),
        epoch=0,
        version=0,
        assignment_digest="",
        replicas=(),
    )


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with structlog.testing.capture_logs():
        yield


def test_a_hello_is_answered_and_a_closed_stream_is_seen(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(Plant(tmp_path)) as plant:
            await plant.tell("osl-1", hello("osl-1"))
            await until(lambda: plant.state_of("osl-1") is ConnectionState.CONNECTED)
            await until(lambda: ("osl-1", RecordAck(site_id="osl-1", sequence=-1)) in plant.sent)
            assert plant.count(Lease) == 1
            await plant.tell("osl-1", StreamClosed(instance_id="1", reason="gone"))
            await until(lambda: plant.state_of("osl-1") is ConnectionState.UNREACHABLE)

    asyncio.run(story())


def test_a_start_is_in_the_ledger_and_the_next_epoch_is_higher(tmp_path: Path) -> None:
    async def story() -> None:
        for epoch in (1, 2, 3):
            plant = Plant(tmp_path)
            async with running(plant):
                assert plant.driver.view().epoch == epoch
                await until(
                    lambda plant=plant, epoch=epoch: (
                        plant.ledger.read.kinds().get(ServerStarted.__name__) == epoch
                    )
                )

    asyncio.run(story())


def test_lost_hubs_change_nothing_for_the_fleet(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(Plant(tmp_path)) as plant:
            await plant.tell("osl-1", hello("osl-1"))
            await until(lambda: plant.state_of("osl-1") is ConnectionState.CONNECTED)
            plant.hubs.broken = True
            await until(lambda: not plant.driver.hubs_in_ray)
            assert plant.state_of("osl-1") is ConnectionState.CONNECTED
            assert plant.state_of("rix-1") is ConnectionState.UNREACHABLE
            await plant.tell("rix-1", hello("rix-1"))
            await until(lambda: plant.state_of("rix-1") is ConnectionState.CONNECTED)
            plant.hubs.broken = False
            await until(lambda: plant.driver.hubs_in_ray)
            assert plant.hubs.starts == 2
            assert plant.state_of("osl-1") is ConnectionState.CONNECTED
            assert plant.state_of("rix-1") is ConnectionState.CONNECTED
            texts = [a.text for a in plant.board.alerts]
            assert texts[0].startswith("hubs: away; hubs run in the control plane")
            assert texts[-1] == "Ray is back; hubs are its actors again"

    asyncio.run(story())


def test_records_are_not_acknowledged_while_the_disk_is_full(tmp_path: Path) -> None:
    batch = RecordBatch(site_id="osl-1", first_sequence=0, records=(b"{}",))

    async def story() -> None:
        async with running(Plant(tmp_path)) as plant:
            await plant.tell("osl-1", hello("osl-1"))
            await until(lambda: plant.count(RecordAck) == 1)
            plant.ledger.full = True
            await plant.tell("osl-1", batch)
            await until(lambda: any("disk is full" in a.text for a in plant.board.alerts))
            assert plant.count(RecordAck) == 1
            assert plant.state_of("osl-1") is ConnectionState.CONNECTED
            assert not plant.closed

    asyncio.run(story())


def test_a_record_that_is_none_ends_its_stream(tmp_path: Path) -> None:
    batch = RecordBatch(site_id="osl-1", first_sequence=0, records=(b"nonsense",))

    async def story() -> None:
        async with running(Plant(tmp_path)) as plant:
            await plant.tell("osl-1", hello("osl-1"))
            await plant.tell("osl-1", batch)
            await until(lambda: plant.closed)
            assert plant.closed[0][0] == "osl-1"

    asyncio.run(story())


def test_no_assignment_leaves_before_its_plan_is_durable(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(Plant(tmp_path)) as plant:
            for site_id in plant.driver.site_ids:
                await plant.tell(site_id, hello(site_id))
            await until(lambda: plant.count(Lease) == len(plant.driver.site_ids))
            view = plant.driver.view()
            plan = solve(view.problem).plan
            assert plan is not None
            plant.ledger.full = True
            event = PlanProposed(
                receipt_id="apply-1",
                problem=view.problem,
                plan=plan,
                state_serial=view.state_serial,
            )
            plant.driver.submit(event)
            assert plant.admitted == [view.problem]
            await until(lambda: any("disk is full" in a.text for a in plant.board.alerts))
            receipt = await plant.board.wait_for("apply-1", timeout_ms=WAIT_S * 1_000)
            assert receipt.state is RolloutState.REJECTED
            assert "disk is full" in receipt.message
            frames = [f for _, f in plant.sent if isinstance(f, AssignmentFrame)]
            assert frames
            assert all(f.validate_only for f in frames)
            assert plant.count(Step) == 0
            assert "PlanAccepted" not in plant.ledger.read.kinds()

    asyncio.run(story())


def test_a_site_is_cordoned_only_once_the_ledger_holds_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(Plant(tmp_path)) as plant:
            await until(lambda: "ServerStarted" in plant.ledger.read.kinds())
            for number, full in enumerate((True, False)):
                plant.ledger.full = full
                receipt_id = f"cordon-{number}"
                asked = CordonRequested(receipt_id=receipt_id, site_id="osl-1", reason="works")
                plant.driver.submit(asked)
                ended = await plant.board.wait_for(receipt_id, timeout_ms=WAIT_S * 1_000)
                is_cordoned = any(s.cordoned for s in plant.driver.view().sites)
                if full:
                    assert ended.state is RolloutState.REJECTED
                    assert "osl-1 was not cordoned" in ended.message
                    assert "disk is full" in ended.message
                else:
                    assert ended.state is RolloutState.DONE
                assert is_cordoned is not full
                assert ("CordonChanged" in plant.ledger.read.kinds()) is not full

    asyncio.run(story())


def test_an_assignment_too_large_to_send_is_an_alert_not_an_end(tmp_path: Path) -> None:
    def refuse(assignment: SiteAssignment) -> bytes:
        raise InvalidFactError(f"assignment of {assignment.site_id}: too large")

    async def story() -> None:
        plant = Plant(tmp_path, sign=refuse)
        async with running(plant):
            for site_id in plant.driver.site_ids:
                await plant.tell(site_id, hello(site_id))
            await until(lambda: plant.count(Lease) == len(plant.driver.site_ids))
            view = plant.driver.view()
            plan = solve(view.problem).plan
            assert plan is not None
            plant.driver.submit(
                PlanProposed(
                    receipt_id="apply-1",
                    problem=view.problem,
                    plan=plan,
                    state_serial=view.state_serial,
                )
            )
            await until(lambda: any("too large" in a.text for a in plant.board.alerts))
            assert plant.state_of("osl-1") is ConnectionState.CONNECTED

    asyncio.run(story())
