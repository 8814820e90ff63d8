"""A real agent process with a real Envoy and a real model server, driven over real gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from agents.envelope import sign_assignment
from agents.frames import AssignmentFrame, RecordAck, RecordBatch
from agents.processes import MARKER, free_port
from agents.store import AgentStore
from scheduler.front_door import AgentMessage, FrontDoor, FrontDoorConfig
from scheduler.pki import Authority
from sites.assignment import SiteAssignment
from sites.clock import SystemClock
from sites.digest import digest
from sites.fleet import SiteGateway
from sites.steps import AssignmentVerdict, StepKind, StepResult
from sites.telemetry import Hello, SiteObservation
from tests.agents import site_facts as f

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 60


class Control:
    """A control plane of one site: the real front door, and a person at the levers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = SystemClock()
        self.authority = Authority(folder / "pki", clock=self.clock)
        self.inbox: asyncio.Queue[AgentMessage] = asyncio.Queue(10_000)
        self.door = FrontDoor(
            config=FrontDoorConfig(),
            identity=self.authority.control_identity(),
            knows_site={f.SITE}.__contains__,
            inbox=self.inbox,
            clock=self.clock,
        )
        self.records: dict[int, bytes] = {}
        self.agents: list[subprocess.Popen[bytes]] = []
        gateway = SiteGateway(
            client_address=f"127.0.0.1:{free_port()}", peer_address=f"127.0.0.1:{free_port()}"
        )
        self.gateway = gateway

    def assignment(self, *targets: object, **more: object) -> SiteAssignment:
        return f.assignment(
            *targets, gateway=self.gateway, jwks=self.authority.api_key_jwks, **more
        )

    def start_agent(self, *options: str) -> subprocess.Popen[bytes]:
        credentials = self.authority.site_credentials(f.SITE)
        argv = [sys.executable, "-m", "agents.main", "--site", f.SITE]
        argv += ["--state-dir", str(self.folder / "state"), "--pki-dir", str(credentials.folder)]
        argv += ["--control", f"127.0.0.1:{self.door.port}", *options]
        with (self.folder / "agent.log").open("ab") as log:
            agent = subprocess.Popen(argv, cwd=ROOT, stderr=log)
        self.agents.append(agent)
        return agent

    async def hear(self, kind: type, where: Callable[[object], bool] = lambda _: True) -> object:
        """The next frame of that kind that fits; records are kept and acknowledged on the way."""
        async with asyncio.timeout(WAIT_S):
            while True:
                body = (await self.inbox.get()).body
                if isinstance(body, RecordBatch):
                    self._keep(body)
                if isinstance(body, kind) and where(body):
                    return body

    def _keep(self, batch: RecordBatch) -> None:
        for number, content in enumerate(batch.records, start=batch.first_sequence):
            assert self.records.setdefault(number, content) == content
        self.door.send(f.SITE, RecordAck(site_id=f.SITE, sequence=max(self.records)))

    async def offer(
        self, wanted: SiteAssignment, *, validate_only: bool = False
    ) -> AssignmentVerdict:
        envelope = sign_assignment(wanted, key=self.authority.assignment_key)
        self.door.send(f.SITE, AssignmentFrame(envelope=envelope, validate_only=validate_only))
        verdict = await self.hear(AssignmentVerdict)
        assert isinstance(verdict, AssignmentVerdict)
        return verdict

    async def do(self, kind: StepKind, *step: object, **more: object) -> StepResult:
        asked = f.step(kind, *step, **more)
        self.door.send(f.SITE, f.LEASE)
        self.door.send(f.SITE, asked)
        result = await self.hear(
            StepResult, lambda r: isinstance(r, StepResult) and r.step_id == asked.step_id
        )
        assert isinstance(result, StepResult)
        return result

    async def observed(self, where: Callable[[SiteObservation], bool]) -> SiteObservation:
        seen = await self.hear(
            SiteObservation, lambda o: isinstance(o, SiteObservation) and where(o)
        )
        assert isinstance(seen, SiteObservation)
        return seen

    def client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            base_url=f"http://{self.gateway.client_address}/v1",
            api_key=self.authority.issue_api_key("acme"),
            max_retries=0,
            http_client=httpx.AsyncClient(trust_env=False, timeout=30),
        )

    async def chat(self, *, stream: bool = False) -> str:
        asked = [{"role": "user", "content": "Say hello."}]
        async with self.client() as client:
            if not stream:
                answer = await client.chat.completions.create(
                    model="chat", messages=asked, max_tokens=8, temperature=0
                )
                return answer.choices[0].message.content
            chunks = await client.chat.completions.create(
                model="chat", messages=asked, max_tokens=8, temperature=0, stream=True
            )
            return "".join([c.choices[0].delta.content or "" async for c in chunks if c.choices])


def site_processes(folder: Path) -> list[psutil.Process]:
    """Session leaders that agents of this folder started and that still run."""
    found = []
    for process in psutil.process_iter():
        try:
            marker = process.environ().get(MARKER, "")
            is_leader = os.getsid(process.pid) == process.pid
        except (psutil.Error, ProcessLookupError):
            continue
        if marker.startswith(str(folder.resolve())) and is_leader:
            found.append(process)
    return found


@asynccontextmanager
async def control_at(folder: Path) -> AsyncIterator[Control]:
    control = Control(folder)
    await control.door.start()
    try:
        yield control
    finally:
        for agent in control.agents:
            if agent.poll() is None:
                agent.kill()
            agent.wait(10)
        await control.door.stop(grace_ms=100)
        for process in site_processes(folder):
            process.kill()
        psutil.wait_procs(site_processes(folder), timeout=10)


def test_an_agent_serves_a_model_and_outlives_its_own_death(tmp_path: Path) -> None:
    asyncio.run(serve_and_outlive(tmp_path))


async def serve_and_outlive(tmp_path: Path) -> None:
    async with control_at(tmp_path) as control:
        agent = control.start_agent("--runtime", "llama")
        hello = await control.hear(Hello)
        assert hello.epoch == 0
        assert hello.replicas == ()
        wanted = control.assignment(f.target())

        assert (await control.offer(wanted, validate_only=True)).accepted
        assert not (tmp_path / "state" / "assignment.json").exists()
        assert (await control.offer(wanted)).accepted
        assert (await control.do(StepKind.START_REPLICAS, f.GROUP, 1)).outcome == "done"
        assert (await control.do(StepKind.SET_ROUTES)).outcome == "done"
        seen = await control.observed(lambda o: o.gateway.live and o.version == 1)
        assert seen.possible_draw_w == pytest.approx(15.0 * 1.2)

        first = await control.chat()
        assert first
        assert await control.chat(stream=True) == first
        while len(control.records) < 2:
            await control.hear(RecordBatch)
        record = json.loads(control.records[0])
        assert record["serving_country"] == "BE"
        assert record["decision"] == "served"
        assert record["plan_digest"] == "sha256:plan1"
        assert record["tokens_out"] == 8

        before = {p.pid for p in site_processes(tmp_path)}
        assert len(before) == 2
        agent.kill()
        agent.wait(10)
        assert await control.chat() == first

        control.start_agent("--runtime", "llama")
        hello = await control.hear(Hello)
        assert (hello.epoch, hello.version) == (1, 1)
        assert [r.state for r in hello.replicas] == ["ready"]
        assert {p.pid for p in site_processes(tmp_path)} == before
        assert await control.chat() == first
        while len(control.records) < 4:
            await control.hear(RecordBatch)
        assert sorted(control.records) == [0, 1, 2, 3]

        await come_back_from_nothing(control, first)
        await stop_and_check(control)


async def come_back_from_nothing(control: Control, first: str) -> None:
    """Agent, gateway and model server killed at once: a new agent brings the site back."""
    control.agents[-1].kill()
    control.agents[-1].wait(10)
    for process in site_processes(control.folder):
        process.kill()
    control.start_agent("--runtime", "llama")
    await control.hear(Hello)
    await control.observed(lambda o: o.gateway.live and [r.state for r in o.replicas] == ["ready"])
    answered = ""
    async with asyncio.timeout(WAIT_S):
        while not answered:
            with contextlib.suppress(openai.APIStatusError):  # 503 until the routes know it
                answered = await control.chat()
    assert answered == first


async def stop_and_check(control: Control) -> None:
    """SIGTERM leaves everything serving; with --stop-on-exit nothing is left."""
    before = {p.pid for p in site_processes(control.folder)}
    agent = control.agents[-1]
    agent.terminate()
    assert await asyncio.to_thread(agent.wait, 20) == 0
    assert await control.chat()
    last = control.start_agent("--runtime", "llama", "--stop-on-exit")
    await control.hear(Hello)
    assert {p.pid for p in site_processes(control.folder)} == before
    last.terminate()
    assert await asyncio.to_thread(last.wait, 30) == 0
    assert site_processes(control.folder) == []


# What a person reads when an agent cannot run


def agent(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agents.main", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Lines on stderr that are no log lines."""
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return [line for line in done.stderr.splitlines() if not line.startswith("{")]


def options_for(folder: Path, authority: Authority) -> list[str]:
    pki = authority.site_credentials(f.SITE).folder
    return ["--site", f.SITE, "--state-dir", str(folder / "state"), "--pki-dir", str(pki),
            "--control", f"127.0.0.1:{free_port()}", "--runtime", "simulated"]  # fmt: skip


def test_a_wrong_command_line_is_exit_64() -> None:
    for options in ([], ["--site", "x"], ["--frobnicate"]):
        done = agent(*options)
        assert done.returncode == 64
        assert said(done)[-1].startswith("agents.main: ")


def test_unreadable_keys_are_one_line_and_exit_1(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki", clock=SystemClock())
    options = options_for(tmp_path, authority)
    authority.site_credentials(f.SITE).agent_key.unlink()
    done = agent(*options)
    assert done.returncode == 1
    (line,) = said(done)
    assert line.startswith('agent of site "bruges": credential ')
    assert "agent.key: No such file or directory; start the control plane once" in line


def resumable(folder: Path, authority: Authority, gateway: SiteGateway) -> None:
    """A state folder as an agent leaves it that has applied an assignment."""
    wanted = f.assignment(f.target(replicas=0), gateway=gateway, jwks=authority.api_key_jwks)
    envelope = sign_assignment(wanted, key=authority.assignment_key)
    store = AgentStore(folder / "state")
    store.save_accepted(envelope)
    store.save_applied(rank=(1, 1), assignment_digest=digest(wanted), envelope=envelope)


def test_a_port_already_taken_is_one_line_and_exit_1(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki", clock=SystemClock())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        gateway = SiteGateway(
            client_address=f"127.0.0.1:{port}", peer_address=f"127.0.0.1:{free_port()}"
        )
        resumable(tmp_path, authority, gateway)
        done = agent(*options_for(tmp_path, authority))
    assert done.returncode == 1
    (line,) = said(done)
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in line
    assert site_processes(tmp_path) == []


def test_an_envoy_that_does_not_start_is_one_line_and_exit_1(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki", clock=SystemClock())
    gateway = SiteGateway(
        client_address=f"127.0.0.1:{free_port()}", peer_address=f"127.0.0.1:{free_port()}"
    )
    resumable(tmp_path, authority, gateway)
    for program, reason in (("/no/such/envoy", "cannot start"), ("/bin/false", "does not start")):
        done = agent(*options_for(tmp_path, authority), "--envoy", program)
        assert done.returncode == 1
        (line,) = said(done)
        assert reason in line
    assert site_processes(tmp_path) == []


def test_an_assignment_of_another_control_plane_on_disk_is_not_run(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki", clock=SystemClock())
    other = Authority(tmp_path / "other-pki", clock=SystemClock())
    gateway = SiteGateway(client_address="127.0.0.1:1", peer_address="127.0.0.1:2")
    resumable(tmp_path, other, gateway)
    done = agent(*options_for(tmp_path, authority))
    assert done.returncode == 1
    (line,) = said(done)
    assert "damaged or not of this control plane" in line
