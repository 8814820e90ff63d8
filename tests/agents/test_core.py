"""The running agent over in-memory ports and real (simulated) model servers."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agents.core import AgentCore, CoreConfig
from agents.effects import World
from agents.envelope import sign_assignment
from agents.frames import AssignmentFrame
from agents.log_tail import LogTail
from agents.memory_ports import MemoryGateway, MemoryUplink
from agents.processes import ProcessTable
from agents.record_pump import PumpConfig, RecordPump
from agents.replicas import ReplicaKeeper
from agents.runtimes.simulated import SimulatedRuntime
from agents.site_view import Identity
from agents.spool import Spool
from agents.store import AgentStore
from sites.assignment import SiteAssignment
from sites.clock import SystemClock
from sites.errors import FatalError, RefusedError
from sites.steps import AssignmentVerdict, StepKind, StepOutcome, StepResult
from sites.telemetry import GatewayObservation, ReplicaState, SiteObservation
from tests.agents import site_facts as f

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
WAIT_S = 30


class FillableStore(AgentStore):
    """A store some of whose files lie on a disk that can be full."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder
        self.full: set[str] = set()

    def save_wanted(self, replicas: Mapping[str, int], *, next_replica: int) -> None:
        if "wanted.json" in self.full:
            (self.folder / ".wanted.json.new").symlink_to("/dev/full")
        super().save_wanted(replicas, next_replica=next_replica)


class SlowGateway(MemoryGateway):
    """A gateway that says what it sees only while `answers` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = asyncio.Event()
        self.answers.set()
        self.requests_total = 1

    async def observe(self) -> GatewayObservation:
        await self.answers.wait()
        return GatewayObservation(live=True, requests_total=self.requests_total)


class Agent:
    """One agent core with its world in `folder`."""

    def __init__(
        self, folder: Path, *, stop_on_exit: bool = False, gateway: MemoryGateway | None = None
    ) -> None:
        self.folder = folder
        self.uplink, self.gateway = MemoryUplink(), gateway or MemoryGateway()
        clock = SystemClock()
        self.store = FillableStore(folder)
        self.processes = ProcessTable(folder / "run", clock=clock)
        self.processes.adopt()
        world = World(
            clock=clock,
            store=self.store,
            keeper=ReplicaKeeper(
                SimulatedRuntime(speed=100),
                processes=self.processes,
                logs=folder / "logs",
                clock=clock,
            ),
            gateway=self.gateway,
            pump=RecordPump(
                PumpConfig(),
                site_id=f.SITE,
                agent_identity="",
                spool=Spool(folder / "spool.sqlite"),
                tail=LogTail(folder / "access.jsonl"),
                clock=clock,
            ),
            processes=self.processes,
        )
        self.core = AgentCore(
            CoreConfig(heartbeat_ms=50, supervise_ms=20, stop_on_exit=stop_on_exit,
                       gateway_restart_ms=50, work_ms=100, hang_ms=2_000, stop_grace_ms=500),
            identity=Identity(site_id=f.SITE, instance_id="1"),
            world=world,
            assignment_key=KEY.public_key(),
        )  # fmt: skip

    async def hear(self, kind: type, where: Callable[[object], bool] = lambda _: True) -> object:
        async with asyncio.timeout(WAIT_S):
            while True:
                fact = await self.uplink.sent.get()
                if isinstance(fact, kind) and where(fact):
                    return fact

    async def offer(self, envelope: bytes, *, validate_only: bool = False) -> AssignmentVerdict:
        frame = AssignmentFrame(envelope=envelope, validate_only=validate_only)
        self.uplink.inbound.put_nowait(frame)
        verdict = await self.hear(AssignmentVerdict)
        assert isinstance(verdict, AssignmentVerdict)
        return verdict

    async def do(self, kind: StepKind, *args: object, **more: object) -> StepResult:
        self.uplink.inbound.put_nowait(f.LEASE)
        self.uplink.inbound.put_nowait(f.step(kind, *args, **more))
        result = await self.hear(StepResult)
        assert isinstance(result, StepResult)
        return result

    async def observed(self, where: Callable[[SiteObservation], bool]) -> SiteObservation:
        seen = await self.hear(SiteObservation, where)
        assert isinstance(seen, SiteObservation)
        return seen

    async def serve(self, assignment: SiteAssignment) -> None:
        assert (await self.offer(signed(assignment))).accepted
        for target in assignment.groups:
            result = await self.do(
                StepKind.START_REPLICAS, target.group.group_id, target.replicas,
                version=assignment.version,
            )  # fmt: skip
            assert result.outcome is StepOutcome.DONE, result.detail
        result = await self.do(StepKind.SET_ROUTES, version=assignment.version)
        assert result.outcome is StepOutcome.DONE, result.detail

    def fill_disk_under(self, name: str) -> None:
        """Every write of that file finds no space."""
        self.store.full.add(name)

    def free_disk_under(self, name: str) -> None:
        self.store.full.discard(name)

    def pids(self) -> set[int]:
        return {r.pid for r in self.processes.records()}


def signed(assignment: SiteAssignment, *, key: Ed25519PrivateKey = KEY) -> bytes:
    return sign_assignment(assignment, key=key)


@asynccontextmanager
async def running(agent: Agent) -> AsyncIterator[Agent]:
    await agent.core.resume()
    stop = asyncio.Event()
    task = asyncio.create_task(agent.core.run(agent.uplink, stop))
    try:
        yield agent
    finally:
        stop.set()
        async with asyncio.timeout(WAIT_S):
            await task


def play(folder: Path, story: Callable[[Path], object]) -> None:
    """Run a story; whatever it left running is ended."""
    try:
        asyncio.run(story(folder))
    finally:
        table = ProcessTable(folder / "run", clock=SystemClock())
        for record in table.adopt():
            asyncio.run(table.stop(record.name, grace_ms=500))


def state_of(folder: Path) -> dict[str, str]:
    """Digest of every file that is the agent's memory."""
    names = ("assignment.json", "applied.json", "wanted.json")
    kept = [folder / n for n in names if (folder / n).exists()] + sorted(folder.glob("run/*"))
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in kept}


def test_a_gateway_that_does_not_answer_holds_no_heartbeat_up(tmp_path: Path) -> None:
    async def story(folder: Path) -> None:
        gateway = SlowGateway()
        async with running(Agent(folder, gateway=gateway)) as agent:
            await agent.serve(f.assignment())
            last = await agent.observed(lambda o: o.gateway.requests_total == 1)
            gateway.answers.clear()
            later = await agent.observed(lambda o: o.sequence > last.sequence + 3)
            assert later.gateway.live
            gateway.requests_total = 2
            gateway.answers.set()
            await agent.observed(lambda o: o.gateway.requests_total == 2)
            gateway.answers.clear()  # and none is left waiting when the agent ends

    play(tmp_path, story)


def test_a_refused_assignment_leaves_the_state_byte_for_byte(tmp_path: Path) -> None:
    async def story(folder: Path) -> None:
        async with running(Agent(folder)) as agent:
            await agent.serve(f.assignment(version=3))
            before, applies = state_of(folder), agent.gateway.applies
            good = signed(f.assignment(version=4))
            stranger = Ed25519PrivateKey.generate()
            for envelope, code in [
                (signed(f.assignment(version=4), key=stranger), "envelope"),
                (good[:-10], "envelope"),
                (good.replace(b"A", b"B", 1), "envelope"),
                (b"\x00" * 100, "envelope"),
                (b"[" * 100_000, "envelope"),
                (signed(f.assignment(version=2)), "stale_version"),
                (signed(f.assignment(version=9, epoch=0)), "stale_epoch"),
                (signed(f.assignment(f.target(replicas=8), version=4, power_budget_w=99.0)),
                 "site_power"),
            ]:  # fmt: skip
                verdict = await agent.offer(envelope)
                assert [v.code for v in verdict.violations][:1] == [code]
                assert (verdict.applied_epoch, verdict.applied_version) == (1, 3)
            assert (await agent.offer(good, validate_only=True)).accepted
            assert state_of(folder) == before
            assert agent.gateway.applies == applies
            assert (await agent.offer(signed(f.assignment(version=3)))).accepted, "sent again"
            assert state_of(folder) == before

    play(tmp_path, story)


def test_on_a_full_disk_nothing_is_accepted_or_begun_that_is_not_durable(tmp_path: Path) -> None:
    async def story(folder: Path) -> None:
        async with running(Agent(folder)) as agent:
            (folder / ".assignment.json.new").symlink_to("/dev/full")
            verdict = await agent.offer(signed(f.assignment()))
            assert [v.code for v in verdict.violations] == ["disk"]
            assert state_of(folder) == {}
            assert (await agent.offer(signed(f.assignment()))).accepted

            agent.fill_disk_under("wanted.json")
            agent.uplink.inbound.put_nowait(f.LEASE)
            agent.uplink.inbound.put_nowait(f.step(StepKind.START_REPLICAS, f.GROUP, 1))
            seen = await agent.observed(lambda o: any("disk is full" in x for x in o.faults))
            assert [r.state for r in seen.replicas] == [ReplicaState.LOADING]
            assert agent.pids() == set(), "nothing runs that would be forgotten"
            agent.free_disk_under("wanted.json")
            result = await agent.hear(StepResult)
            assert isinstance(result, StepResult)
            assert result.outcome is StepOutcome.DONE
            await agent.observed(lambda o: not o.faults)

    play(tmp_path, story)


def test_a_killed_model_server_leaves_the_routes_and_comes_back(tmp_path: Path) -> None:
    async def story(folder: Path) -> None:
        async with running(Agent(folder)) as agent:
            await agent.serve(f.assignment(f.target(replicas=2)))
            first = agent.gateway.ready[f.GROUP]
            assert len(first) == 2
            record = agent.processes.get(f"replica/{f.GROUP}/r1")
            assert record is not None
            psutil.Process(record.pid).kill()
            seen = await agent.observed(lambda o: bool(o.faults))
            assert "status -9" in seen.faults[0]
            await agent.observed(
                lambda o: [r.state for r in o.replicas] == [ReplicaState.READY] * 2
            )
            async with asyncio.timeout(WAIT_S):
                while len(agent.gateway.ready[f.GROUP]) < 2:
                    await asyncio.sleep(0.01)
            ports = {a.port for a in agent.gateway.ready[f.GROUP]}
            async with httpx.AsyncClient(trust_env=False) as client:
                for port in ports:
                    answer = await client.post(
                        f"http://127.0.0.1:{port}/v1/chat/completions", json={"messages": []}
                    )
                    assert answer.status_code == 200

    play(tmp_path, story)


def test_a_model_server_that_hangs_is_replaced(tmp_path: Path) -> None:
    async def story(folder: Path) -> None:
        async with running(Agent(folder)) as agent:
            await agent.serve(f.assignment())
            record = agent.processes.get(f"replica/{f.GROUP}/r1")
            assert record is not None
            psutil.Process(record.pid).suspend()
            await agent.observed(lambda o: any("did not answer for" in x for x in o.faults))
            await agent.observed(
                lambda o: [r.state for r in o.replicas] == [ReplicaState.READY] and not o.faults
            )
            assert agent.pids() != {record.pid}

    play(tmp_path, story)


def test_a_dead_gateway_is_started_again_with_its_routes(tmp_path: Path) -> None:
    async def story(folder: Path) -> None:
        async with running(Agent(folder)) as agent:
            await agent.serve(f.assignment())
            before = agent.gateway.ready
            agent.gateway.fault = RefusedError("once more in vain")
            agent.gateway.crash()
            await agent.observed(lambda o: "once more in vain" in o.faults)
            await agent.observed(lambda o: o.gateway.live and not o.faults)
            assert agent.gateway.ready == before

    play(tmp_path, story)


def test_rejected_routes_are_reported_with_the_gateways_reason(tmp_path: Path) -> None:
    async def story(folder: Path) -> None:
        async with running(Agent(folder)) as agent:
            await agent.serve(f.assignment())
            agent.gateway.fault = RefusedError("Envoy rejects the configuration")
            unlawful = f.assignment(version=2, routes=(f.route(f.GROUP),), jwks='{"keys":[1]}')
            assert (await agent.offer(signed(unlawful))).accepted
            result = await agent.do(StepKind.SET_ROUTES, version=2)
            assert result.outcome is StepOutcome.FAILED
            assert "Envoy rejects" in result.detail
            seen = await agent.observed(lambda o: o.version == 1)
            assert seen.gateway.live

    play(tmp_path, story)


def test_a_new_agent_adopts_the_servers_and_serves_on_without_control(tmp_path: Path) -> None:
    async def story(folder: Path) -> None:
        first = Agent(folder)
        async with running(first):
            await first.serve(f.assignment(f.target(replicas=2)))
            pids, ready = first.pids(), first.gateway.ready
        second = Agent(folder, stop_on_exit=True)
        second.uplink.connected = False
        async with running(second):
            assert second.pids() == pids
            assert second.gateway.ready == ready
            assert second.core.hello().version == 1
            assert [r.state for r in second.core.hello().replicas] == [ReplicaState.READY] * 2
        left = [psutil.Process(p) for p in pids if psutil.pid_exists(p)]
        assert all(p.status() == psutil.STATUS_ZOMBIE for p in left)

    play(tmp_path, story)


def test_routes_move_and_the_old_group_stops_without_a_gap(tmp_path: Path) -> None:
    async def story(folder: Path) -> None:
        async with running(Agent(folder)) as agent:
            await agent.serve(f.assignment())
            moved = f.assignment(f.target(replicas=0), f.target("tiny"), version=2)
            assert (await agent.offer(signed(moved))).accepted
            for kind, group, count in (
                (StepKind.START_REPLICAS, f.OTHER, 1),
                (StepKind.SET_ROUTES, "", 0),
                (StepKind.DRAIN_REPLICAS, f.GROUP, 0),
                (StepKind.STOP_REPLICAS, f.GROUP, 0),
            ):
                result = await agent.do(kind, group, count, version=2)
                assert result.outcome is StepOutcome.DONE, result.detail
            assert set(agent.gateway.ready) == {f.OTHER}
            seen = await agent.observed(lambda o: o.version == 2)
            assert [r.group.variant_id for r in seen.replicas] == ["tiny"]
            assert len(agent.pids()) == 1

    play(tmp_path, story)


@pytest.mark.parametrize("name", ["assignment.json", "applied.json", "wanted.json"])
def test_damaged_memory_stops_the_agent_with_one_clear_line(tmp_path: Path, name: str) -> None:
    async def story(folder: Path) -> None:
        async with running(Agent(folder)) as agent:
            await agent.serve(f.assignment())
        (folder / name).write_bytes((folder / name).read_bytes()[:-20])
        damaged = (folder / name).read_bytes()
        broken = Agent(folder)
        with pytest.raises(FatalError, match="damaged"):
            await broken.core.resume()
        await broken.core.leave()
        assert (folder / name).read_bytes() == damaged

    play(tmp_path, story)


def test_a_gateway_that_cannot_start_at_the_agents_start_ends_it(tmp_path: Path) -> None:
    async def story(folder: Path) -> None:
        async with running(Agent(folder)) as agent:
            await agent.serve(f.assignment())
        unlucky = Agent(folder)
        unlucky.gateway.fault = FatalError("cannot listen on 127.0.0.1:1: Address in use")
        with pytest.raises(FatalError, match="Address in use"):
            await unlucky.core.resume()
        await unlucky.core.leave()

    play(tmp_path, story)
