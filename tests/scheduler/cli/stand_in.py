"""A control loop in memory: it answers events with the receipts a test lays out.

Implements what the API asks of `scheduler.driver.Driver`, so that the API and the CLI are tested
over real HTTP without hubs, agents or Ray.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

from optimizer.plan import CostBreakdown, Plan, ShedTraffic, TrafficShare
from optimizer.problem import Problem
from scheduler.api.app import ApiParts, create_app
from scheduler.api.server import ApiAddress, new_token, serve_api
from scheduler.events import (
    Alert,
    CordonRequested,
    CycleEvent,
    PlanProposed,
    UncordonRequested,
)
from scheduler.pki import Authority
from scheduler.receipt import ChangeReason, Receipt, RolloutState, StepReceipt, StepStatus
from scheduler.view import Drill, FleetView, ShareMove, SiteView
from sites.assignment import ReplicaGroup
from sites.clock import SystemClock
from sites.digest import digest
from sites.errors import RefusedError, Violation
from sites.hub_messages import ConnectionState
from sites.steps import Step, StepKind
from sites.telemetry import GatewayObservation, SiteObservation

Answer = Callable[["MemoryControl", CycleEvent], list[Receipt]]


def receipt(receipt_id: str, state: RolloutState, *statuses: StepStatus, **more: object) -> Receipt:
    """A receipt with one SET_ROUTES step per status."""
    steps = tuple(
        StepReceipt(
            step=Step(
                step_id=f"1.2.{number}",
                site_id="rix-1",
                kind=StepKind.SET_ROUTES,
                epoch=1,
                version=2,
            ),
            phase="move",
            status=status,
            sent_at_ms=1_000,
            finished_at_ms=1_250 if status is not StepStatus.NOT_STARTED else 0,
            detail="port 1 is taken" if status is StepStatus.FAILED else "",
        )
        for number, status in enumerate(statuses)
    )
    base = Receipt(
        receipt_id=receipt_id,
        reason=ChangeReason.APPLY,
        state=state,
        plan_digest="sha256:plan",
        epoch=1,
        version=2,
        started_at_ms=1_000,
        finished_at_ms=2_000,
        steps=steps,
    )
    return replace(base, **more)  # type: ignore[arg-type]


def done(control: MemoryControl, event: CycleEvent) -> list[Receipt]:
    """Everything works: running first, then done."""
    name = event.receipt_id  # type: ignore[union-attr]
    return [
        receipt(name, RolloutState.RUNNING, StepStatus.SENT, finished_at_ms=0),
        receipt(name, RolloutState.DONE, StepStatus.DONE),
    ]


def stale(control: MemoryControl, event: CycleEvent) -> list[Receipt]:
    """What the gate says of a plan made at another state."""
    violation = Violation(
        code="stale_plan",
        subject="plan",
        limit=2,
        actual=1,
        unit="state serial",
        remedy="plan again",
    )
    name = event.receipt_id  # type: ignore[union-attr]
    return [receipt(name, RolloutState.REJECTED, violations=(violation,))]


def half(control: MemoryControl, event: CycleEvent) -> list[Receipt]:
    """The second step fails."""
    name = event.receipt_id  # type: ignore[union-attr]
    states = (StepStatus.DONE, StepStatus.FAILED, StepStatus.NOT_STARTED)
    return [receipt(name, RolloutState.STOPPED, *states)]


def silent(control: MemoryControl, event: CycleEvent) -> list[Receipt]:
    """A rollout that never ends."""
    name = event.receipt_id  # type: ignore[union-attr]
    return [receipt(name, RolloutState.RUNNING, StepStatus.SENT, finished_at_ms=0)]


@dataclass
class MemoryControl:
    """`answer` turns an event into the receipts that follow it, one after the other."""

    problem: Problem
    answer: Answer = done
    plan: Plan | None = None
    serial: int = 1
    events: list[CycleEvent] = field(default_factory=list)
    receipts: dict[str, Receipt] = field(default_factory=dict)
    watchers: list[asyncio.Queue[Receipt | Alert]] = field(default_factory=list)
    spooled: int = 0
    state: ConnectionState = ConnectionState.CONNECTED
    looks: int = 0

    def new_receipt_id(self, prefix: str) -> str:
        return f"{prefix}-1-{len(self.events) + 1}"

    def submit(self, event: CycleEvent) -> None:
        self.events.append(event)
        loop = asyncio.get_running_loop()
        for number, one in enumerate(self.answer(self, event)):
            loop.call_later(number * 0.01, self._publish, one)

    def _publish(self, one: Receipt) -> None:
        self.receipts[one.receipt_id] = one
        for watcher in self.watchers:
            watcher.put_nowait(one)

    def knows_site(self, site_id: str) -> bool:
        return site_id in {s.site_id for s in self.problem.fleet.sites}

    def receipt(self, receipt_id: str) -> Receipt | None:
        return self.receipts.get(receipt_id)

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[asyncio.Queue[Receipt | Alert]]:
        updates: asyncio.Queue[Receipt | Alert] = asyncio.Queue()
        self.watchers.append(updates)
        try:
            yield updates
        finally:
            self.watchers.remove(updates)

    def view(self) -> FleetView:
        self.looks += 1
        requests = [e for e in self.events if isinstance(e, CordonRequested | UncordonRequested)]
        cordoned = {e.site_id: isinstance(e, CordonRequested) for e in requests}
        return FleetView(
            epoch=1,
            version=self.serial,
            state_serial=self.serial,
            problem=self.problem,
            plan=self.plan,
            plan_reason="apply" if self.plan else "",
            sites=tuple(
                self._site(s.site_id, cordoned=cordoned.get(s.site_id, False))
                for s in self.problem.fleet.sites
            ),
            receipts=tuple(self.receipts.values()),
            rollout_receipt_id="",
            solving=False,
        )

    def _site(self, site_id: str, *, cordoned: bool) -> SiteView:
        seen = SiteObservation(
            site_id=site_id,
            instance_id="one",
            sequence=self.looks,
            observed_at_ms=1_000,
            epoch=1,
            version=1,
            assignment_digest="",
            replicas=(),
            gateway=GatewayObservation(live=True),
            possible_draw_w=0.0,
            draw_w=0.0,
            records_spooled=self.spooled,
        )
        return SiteView(
            site_id=site_id,
            state=self.state,
            lost=False,
            cordoned=cordoned,
            drained=False,
            reason="",
            heard_at_ms=1_000,
            applied_epoch=1,
            applied_version=1,
            assignment=None,
            observation=seen,
        )

    def drill(self, site_id: str) -> Drill:
        """The loss of a site sheds the first class, moves the second wholly to another site."""
        shed, moved = (c.class_id for c in self.problem.classes[:2])
        other = next(s.site_id for s in self.problem.fleet.sites if s.site_id != site_id)
        group = ReplicaGroup(
            site_id=other, pool_id="cpu", variant_id="v", accelerators_per_replica=1
        )
        share = TrafficShare(
            class_id=moved,
            group_id=group.group_id,
            site_id=other,
            ingress_site_id=other,
            basis_points=10_000,
        )
        plan = Plan(
            problem_digest=digest(self.problem),
            groups=(),
            shares=(share,),
            shed=(ShedTraffic(class_id=shed, basis_points=10_000),),
            supplies=(),
            cost=CostBreakdown(),
            bound_usd_per_h=0.0,
            gap=0.0,
            method="reroute",
        )
        moves = (
            ShareMove(class_id=shed, site_id=site_id, before_bp=10_000, after_bp=0),
            ShareMove(class_id=shed, site_id="", before_bp=0, after_bp=10_000),
            ShareMove(class_id=moved, site_id=site_id, before_bp=10_000, after_bp=0),
            ShareMove(class_id=moved, site_id=other, before_bp=0, after_bp=10_000),
        )
        return Drill(
            site_id=site_id,
            plan_before_digest="sha256:before",
            plan=plan,
            moves=moves,
            shed_before_bp=0,
            shed_after_bp=10_000,
            cost_before_usd_per_h=0.14,
            cost_after_usd_per_h=0.1,
        )

    def proposals(self) -> list[PlanProposed]:
        """Plans somebody asked to apply."""
        return [e for e in self.events if isinstance(e, PlanProposed)]


class ServerThread:
    """A real API server on a free port around a `MemoryControl`, in a thread of its own."""

    def __init__(self, control: MemoryControl, state_dir: Path, *, port: int = 0) -> None:
        self._control, self._state_dir, self._port = control, state_dir, port
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.fault: BaseException | None = None

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        clock, token = SystemClock(), new_token()
        parts = ApiParts(
            control=self._control,
            keys=Authority(self._state_dir / "pki", clock=clock),
            ledger_dir=self._state_dir / "ledger",
            pki_dir=self._state_dir / "pki",
            clock=clock,
            token=token,
        )
        address = ApiAddress(server_dir=self._state_dir / "server", port=self._port, token=token)
        try:
            await serve_api(create_app(parts), address, self._stop)
        except RefusedError as fault:
            self.fault = fault

    def __enter__(self) -> ServerThread:
        self._thread.start()
        path = self._state_dir / "server" / "api.json"
        for _ in range(1_000):
            if path.exists() or not self._thread.is_alive():
                break
            SystemClock().block_ms(10)
        assert path.exists(), "the API server did not start"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=20)
        assert not self._thread.is_alive(), "the API server did not stop"
