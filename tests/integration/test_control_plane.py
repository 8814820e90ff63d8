"""A whole control plane over real gRPC and real Ray, with agents that do as they are told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psutil
import structlog.testing

from agents.envelope import open_assignment, public_key_from_pem
from agents.frames import AssignmentFrame, RecordAck, RecordBatch
from agents.uplink import Uplink, UplinkConfig, new_instance_id
from optimizer.plan import Plan
from optimizer.solve import solve
from scheduler.config import ServerConfig
from scheduler.events import PlanProposed, ReplanRequested
from scheduler.fleet_problem import read_problem
from scheduler.ledger import LedgerReader
from scheduler.receipt import RolloutState, StepStatus
from scheduler.server import Server, server_of
from sites.assignment import Lease, ReplicaGroup, SiteAssignment
from sites.clock import SystemClock
from sites.digest import canonical_json, digest
from sites.execution import ExecutionDecision, ExecutionRecord
from sites.hub_messages import ConnectionState
from sites.steps import AssignmentVerdict, Step, StepKind, StepOutcome, StepResult
from sites.telemetry import (
    GatewayObservation,
    Hello,
    PeerHealth,
    ReplicaObservation,
    ReplicaState,
    SiteObservation,
)

ROOT = Path(__file__).resolve().parents[2]
FLEET = ROOT / "deploy" / "examples" / "demo"
WAIT_S = 90
CLOCK = SystemClock()


class ObedientAgent:
    """Accepts every assignment signed for it, does every step at once, reports often."""

    def __init__(self, site_id: str, server: Server, *, peers: tuple[str, ...]) -> None:
        self.site_id = site_id
        self.rank = (0, 0)
        self.accepted: SiteAssignment | None = None
        self.running: dict[str, int] = {}
        self.groups: dict[str, ReplicaGroup] = {}
        self.acked = -2
        self.heard: list[object] = []
        self._peers = peers
        self._instance = new_instance_id(CLOCK, pid=os.getpid())
        self._sequence = 0
        credentials = server.authority.site_credentials(site_id)
        self._key = public_key_from_pem(credentials.assignment_key.read_bytes())
        self.uplink = Uplink(
            UplinkConfig(
                control_address=f"127.0.0.1:{server.front_door.port}",
                credentials=credentials,
                backoff_first_ms=50,
                backoff_most_ms=200,
            ),
            clock=CLOCK,
            jitter=lambda: 0.5,
            hello=self._hello,
        )

    def _replicas(self) -> tuple[ReplicaObservation, ...]:
        return tuple(
            ReplicaObservation(
                replica_id=f"{group_id}#{i}",
                group=self.groups[group_id],
                state=ReplicaState.READY,
            )
            for group_id, count in sorted(self.running.items())
            for i in range(count)
        )

    def _hello(self) -> Hello:
        return Hello(
            site_id=self.site_id,
            instance_id=self._instance,
            agent_version="test",
            inventory=(),
            epoch=self.rank[0],
            version=self.rank[1],
            assignment_digest="",
            replicas=self._replicas(),
        )

    def _observation(self) -> SiteObservation:
        self._sequence += 1
        return SiteObservation(
            site_id=self.site_id,
            instance_id=self._instance,
            sequence=self._sequence,
            observed_at_ms=CLOCK.wall_ms(),
            epoch=self.rank[0],
            version=self.rank[1],
            assignment_digest="",
            replicas=self._replicas(),
            gateway=GatewayObservation(
                live=True, peers=tuple(PeerHealth(site_id=p, healthy=True) for p in self._peers)
            ),
            possible_draw_w=0.0,
            draw_w=0.0,
        )

    async def run(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.uplink.run(stop))
            tasks.create_task(self._obey(stop))
            while not stop.is_set():
                self.uplink.send(self._observation())
                await asyncio.sleep(0.1)

    async def _obey(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                async with asyncio.timeout(0.1):
                    fact = await self.uplink.inbound.get()
            except TimeoutError:
                continue
            self.heard.append(fact)
            match fact:
                case AssignmentFrame():
                    self._judge(fact)
                case Step():
                    self._do(fact)
                case RecordAck():
                    self.acked = fact.sequence

    def _judge(self, frame: AssignmentFrame) -> None:
        assignment = open_assignment(frame.envelope, key=self._key)
        assert assignment.site_id == self.site_id
        if not frame.validate_only:
            self.accepted = assignment
        self.uplink.send(
            AssignmentVerdict(
                site_id=self.site_id,
                epoch=assignment.epoch,
                version=assignment.version,
                assignment_digest=digest(assignment),
                violations=(),
                applied_epoch=self.rank[0],
                applied_version=self.rank[1],
                validate_only=frame.validate_only,
            )
        )

    def _do(self, step: Step) -> None:
        accepted = self.accepted
        assert accepted is not None
        assert accepted.rank >= (step.epoch, step.version)
        if step.kind is StepKind.SET_ROUTES:
            self.rank = (step.epoch, step.version)
        elif step.kind is StepKind.START_REPLICAS:
            self.groups |= {g.group.group_id: g.group for g in accepted.groups}
            self.running[step.group_id] = step.replicas
        elif step.kind is StepKind.STOP_REPLICAS:
            self.running[step.group_id] = step.replicas
        done = StepResult(
            step_id=step.step_id,
            site_id=self.site_id,
            outcome=StepOutcome.DONE,
            finished_at_ms=CLOCK.wall_ms(),
        )
        self.uplink.send(done)
        self.uplink.send(self._observation())


@asynccontextmanager
async def running(server: Server) -> AsyncIterator[dict[str, ObedientAgent]]:
    """The server and an agent per site, until the block ends; a fault of either fails the test."""
    stop_server, stop_agents = asyncio.Event(), asyncio.Event()
    site_ids = server.driver.site_ids
    task = asyncio.create_task(server.run(stop_server))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(finish, task, stop_server)
        await until(lambda: server.driver.running.is_set() or task.done())
        agents = {
            s: ObedientAgent(s, server, peers=tuple(p for p in site_ids if p != s))
            for s in site_ids
        }
        for agent in agents.values():
            work = asyncio.create_task(agent.run(stop_agents))
            stack.push_async_callback(finish, work, stop_agents)
        yield agents


async def finish(task: asyncio.Task[None], stop: asyncio.Event) -> None:
    stop.set()
    async with asyncio.timeout(WAIT_S):
        await task


async def until(holds: object) -> None:
    assert callable(holds)
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.02)


def all_connected(server: Server) -> bool:
    return all(s.state is ConnectionState.CONNECTED for s in server.driver.view().sites)


async def apply(server: Server, plan: Plan) -> str:
    view = server.driver.view()
    receipt_id = server.driver.new_receipt_id("apply")
    server.driver.submit(
        PlanProposed(
            receipt_id=receipt_id,
            problem=view.problem,
            plan=plan,
            state_serial=view.state_serial,
        )
    )
    receipt = await server.board.wait_for(receipt_id, timeout_ms=WAIT_S * 1_000)
    assert receipt.state is RolloutState.DONE, receipt
    assert receipt.steps
    assert all(s.status is StepStatus.DONE for s in receipt.steps)
    return receipt_id


def record(site_id: str, sequence: int) -> bytes:
    return canonical_json(
        ExecutionRecord(
            agent_site_id=site_id,
            agent_identity=f"spiffe://hinterland/site/{site_id}",
            sequence=sequence,
            hop="serving",
            request_id=f"r{sequence}",
            attempt=1,
            idempotency_key="",
            tenant_pseudonym="t",
            service_id="chat",
            variant_id="v",
            replica_group_id="g",
            residency_policy_id="eu",
            ingress_site_id=site_id,
            serving_site_id=site_id,
            serving_country="NO",
            legal_entity="",
            transit_countries=(),
            started_at_ms=1,
            ended_at_ms=2,
            tokens_in=1,
            tokens_out=1,
            energy_j_estimated=0.5,
            epoch=1,
            version=1,
            plan_digest="",
            policy_digest="",
            decision=ExecutionDecision.SERVED,
            http_status=200,
        )
    )


def config_of(tmp_path: Path) -> ServerConfig:
    return ServerConfig(state_dir=tmp_path / "state", fleet_paths=(FLEET,))


def test_apply_records_ray_killed_and_a_restart(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    problem = read_problem(config.fleet_paths)
    plan = solve(problem).plan
    assert plan is not None

    async def first_life() -> tuple[dict[str, tuple[int, int]], str]:
        async with server_of(config, clock=CLOCK) as server, running(server) as agents:
            await until(lambda: all_connected(server))
            await apply(server, plan)
            for agent in agents.values():
                assert any(isinstance(f, Lease) for f in agent.heard)
                assert agent.rank > (0, 0)
            await records_are_acknowledged_once(agents["osl-1"])
            await ray_dies_and_hubs_come_back(server, agents)
            newest = server.driver.view().plan
            assert newest is not None
            return {s: a.rank for s, a in agents.items()}, newest.plan_digest

    async def records_are_acknowledged_once(agent: ObedientAgent) -> None:
        await until(lambda: agent.acked == -1)
        batch = tuple(record(agent.site_id, n) for n in range(3))
        for records, newest in ((batch, 2), (batch, 2), ((record(agent.site_id, 3),), 3)):
            first = json.loads(records[0])["sequence"]
            sent = RecordBatch(site_id=agent.site_id, first_sequence=first, records=records)
            assert agent.uplink.send(sent)
            await until(lambda newest=newest: agent.acked == newest)
            agent.acked = -2 if newest == 2 else newest

    async def ray_dies_and_hubs_come_back(server: Server, agents: dict[str, ObedientAgent]) -> None:
        ray_pid = server.ray_hubs.pid
        assert ray_pid is not None
        for child in psutil.Process(ray_pid).children():
            if child.name() in ("gcs_server", "raylet"):
                os.kill(child.pid, signal.SIGKILL)
        await until(lambda: not server.driver.hubs_in_ray)
        assert all(a.uplink.connected for a in agents.values())
        await until(lambda: server.driver.hubs_in_ray)
        await until(lambda: all_connected(server))
        assert not any(s.lost for s in server.driver.view().sites)
        receipt_id = server.driver.new_receipt_id("replan")
        server.driver.submit(ReplanRequested(receipt_id=receipt_id))
        receipt = await server.board.wait_for(receipt_id, timeout_ms=WAIT_S * 1_000)
        assert receipt.state in (RolloutState.DONE, RolloutState.UNCHANGED), receipt

    async def second_life(ranks: dict[str, tuple[int, int]], plan_digest: str) -> None:
        async with server_of(config, clock=CLOCK) as server, running(server) as agents:
            for site_id, rank in ranks.items():
                agents[site_id].rank = rank
            view = server.driver.view()
            assert view.epoch == 2
            assert view.plan is not None
            assert view.plan.plan_digest == plan_digest
            await until(lambda: all_connected(server))
            await until(lambda: agents["osl-1"].acked == 3)

    with structlog.testing.capture_logs():
        ranks, plan_digest = asyncio.run(first_life())
        asyncio.run(second_life(ranks, plan_digest))
    with LedgerReader.open(config.ledger_dir) as reader:
        kinds = reader.kinds()
    assert kinds["ServerStarted"] == 2
    assert kinds["PlanAccepted"] >= 1
    assert not config.server_dir.joinpath("api.json").exists()


def server_process(
    *arguments: str, temp_dir: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scheduler.main", *arguments],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        cwd=ROOT,
        check=False,
        env=os.environ | ({"TMPDIR": str(temp_dir)} if temp_dir else {}),
    )


def test_start_errors_are_one_line_and_exit_code_one(tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    missing = server_process("--state-dir", state, "--fleet", str(tmp_path / "nowhere"))
    assert missing.returncode == 1
    assert missing.stderr.startswith("error: ")
    assert "Traceback" not in missing.stderr
    usage = server_process("--state-dir", state)
    assert usage.returncode == 64
    assert "--fleet" in usage.stderr


def test_a_taken_port_ends_the_start_with_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        ended = server_process(
            "--state-dir",
            str(tmp_path / "state"),
            "--fleet",
            str(FLEET),
            "--control-port",
            str(port),
        )
    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_ray_that_cannot_start_ends_the_start_with_one_line(tmp_path: Path) -> None:
    """Ray's Unix sockets do not fit into a folder of so long a name."""
    temp_dir = tmp_path / ("x" * 100)
    temp_dir.mkdir()
    ended = server_process(
        "--state-dir", str(tmp_path / "state"), "--fleet", str(FLEET), temp_dir=temp_dir
    )
    assert ended.returncode == 1
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Ray did not start in 2 attempts" in errors[0]
    assert str(tmp_path / "state" / "server" / "ray.log") in errors[0]
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "state" / "server" / "api.json").exists()


def test_a_stopped_or_killed_server_leaves_no_process(tmp_path: Path) -> None:
    state = tmp_path / "state"
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 0)):
        (state / "server" / "api.json").unlink(missing_ok=True)
        server = subprocess.Popen(
            [sys.executable, "-m", "scheduler.main", "--state-dir", state, "--fleet", FLEET],
            cwd=ROOT,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for_file(state / "server" / "api.json", server)
            children = psutil.Process(server.pid).children(recursive=True)
            assert len(children) > 3
            server.send_signal(number)
            assert server.wait(WAIT_S) == code
            _, alive = psutil.wait_procs(children, timeout=WAIT_S)
            assert not alive
        finally:
            server.kill()
            server.wait()


def wait_for_file(path: Path, server: subprocess.Popen[bytes]) -> None:
    for _ in range(WAIT_S * 20):
        if path.exists():
            return
        assert server.poll() is None, "the server ended before it was ready"
        CLOCK.block_ms(50)
    raise AssertionError(f"{path} never appeared")
