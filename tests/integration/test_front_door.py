"""Agents and front door over real gRPC and real mTLS on loopback."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
import structlog.testing
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from agents.codec import SERVICE_NAME, encode_agent
from agents.credentials import CONTROL_SERVER_NAME, SiteCredentials
from agents.envelope import open_assignment, sign_assignment
from agents.frames import AssignmentFrame, RecordAck, RecordBatch
from agents.uplink import Uplink, UplinkConfig
from scheduler.front_door import AgentMessage, FrontDoor, FrontDoorConfig
from scheduler.pki import Authority
from sites.assignment import Lease, SiteAssignment
from sites.clock import ManualClock, SystemClock
from sites.errors import FatalError
from sites.fleet import SiteGateway
from sites.hub_messages import StreamClosed
from sites.steps import Step, StepKind, StepOutcome, StepResult
from sites.telemetry import GatewayObservation, Hello, SiteObservation

WAIT_S = 20


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki", clock=SystemClock())


class Door:
    """A front door, its inbox, and agents that dial it."""

    def __init__(self, authority: Authority, *, sites: tuple[str, ...]) -> None:
        self.authority = authority
        self.clock = SystemClock()
        self.inbox: asyncio.Queue[AgentMessage] = asyncio.Queue(1_000)
        self.door = FrontDoor(
            config=FrontDoorConfig(),
            identity=authority.control_identity(),
            knows_site=sites.__contains__,
            inbox=self.inbox,
            clock=self.clock,
        )

    async def hear(self) -> AgentMessage:
        async with asyncio.timeout(WAIT_S):
            return await self.inbox.get()

    def uplink(self, site_id: str, *, instance: str = "1", keys: str = "") -> Uplink:
        return Uplink(
            UplinkConfig(
                control_address=f"127.0.0.1:{self.door.port}",
                credentials=self.authority.site_credentials(keys or site_id),
                backoff_first_ms=20,
                backoff_most_ms=50,
            ),
            clock=self.clock,
            jitter=lambda: 0.5,
            hello=lambda: hello(site_id, instance),
        )


@asynccontextmanager
async def door_of(authority: Authority, *sites: str) -> AsyncIterator[Door]:
    door = Door(authority, sites=sites)
    await door.door.start()
    try:
        yield door
    finally:
        await door.door.stop(grace_ms=100)


@asynccontextmanager
async def running(uplink: Uplink) -> AsyncIterator[Uplink]:
    stop = asyncio.Event()
    task = asyncio.create_task(uplink.run(stop))
    try:
        yield uplink
    finally:
        stop.set()
        async with asyncio.timeout(WAIT_S):
            await task


def hello(site_id: str, instance: str) -> Hello:
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


def observation(site_id: str, *, sequence: int = 0) -> SiteObservation:
    return SiteObservation(
        site_id=site_id,
        instance_id="1",
        sequence=sequence,
        observed_at_ms=1,
        epoch=0,
        version=0,
        assignment_digest="",
        replicas=(),
        gateway=GatewayObservation(live=True),
        possible_draw_w=0.0,
        draw_w=0.0,
    )


def assignment(site_id: str) -> SiteAssignment:
    return SiteAssignment(
        site_id=site_id,
        country="BE",
        residency_tags=(),
        legal_entity="",
        gateway=SiteGateway(client_address="127.0.0.1:1", peer_address="127.0.0.1:2"),
        epoch=1,
        version=1,
        plan_digest="",
        policy_digest="",
        issued_at_ms=0,
        expires_at_ms=1,
        parent_digest="",
        power_budget_w=1.5,
        pue=1.25,
        pools=(),
        groups=(),
        routes=(),
        services=(),
        tenants=(),
        policies=(),
        peers=(),
        api_key_jwks="",
    )


async def received(uplink: Uplink) -> object:
    async with asyncio.timeout(WAIT_S):
        return await uplink.inbound.get()


async def refusal(uplink: Uplink) -> str:
    async with asyncio.timeout(WAIT_S):
        while not uplink.last_error:
            await asyncio.sleep(0.01)
    return uplink.last_error


def test_hello_assignment_step_result_records_and_ack(authority: Authority) -> None:
    step = Step(step_id="s1", site_id="bruges", kind=StepKind.SET_ROUTES, epoch=1, version=1)
    result = StepResult(step_id="s1", site_id="bruges", outcome=StepOutcome.DONE, finished_at_ms=5)
    batch = RecordBatch(site_id="bruges", first_sequence=0, records=(b'{"a":1}', b'{"b":2}'))

    async def story() -> None:
        async with door_of(authority, "bruges") as d, running(d.uplink("bruges")) as uplink:
            assert (await d.hear()).body == hello("bruges", "1")
            lease = Lease(epoch=1, expires_at_ms=9)
            signed = sign_assignment(assignment("bruges"), key=authority.assignment_key)
            frame = AssignmentFrame(envelope=signed, validate_only=True)
            for fact in (lease, frame, step, RecordAck(site_id="bruges", sequence=-1)):
                assert d.door.send("bruges", fact)
                assert await received(uplink) == fact
            public = authority.assignment_key.public_key()
            assert open_assignment(signed, key=public) == assignment("bruges")
            for fact in (result, batch, observation("bruges")):
                assert uplink.send(fact)
                assert (await d.hear()) == AgentMessage(site_id="bruges", body=fact)

    asyncio.run(story())


def test_an_agent_of_an_unknown_site_is_told_so(authority: Authority) -> None:
    async def story() -> None:
        async with door_of(authority, "bruges") as d, running(d.uplink("ghent")) as uplink:
            said = await refusal(uplink)
            assert said.startswith("PERMISSION_DENIED: site ghent: not in this fleet")
            assert d.inbox.empty()

    asyncio.run(story())


def test_another_sites_certificate_is_refused(authority: Authority) -> None:
    async def story() -> None:
        uplink_keys = {"site_id": "bruges", "keys": "ghent"}
        async with (
            door_of(authority, "bruges", "ghent") as d,
            running(d.uplink(**uplink_keys)) as uplink,
        ):
            said = await refusal(uplink)
            assert "came with the certificate of site ghent" in said
            assert said.startswith("PERMISSION_DENIED")
            assert d.inbox.empty()

    asyncio.run(story())


def test_an_agent_speaks_for_its_own_site_alone(authority: Authority) -> None:
    async def story() -> None:
        async with (
            door_of(authority, "bruges", "ghent") as d,
            running(d.uplink("bruges")) as uplink,
        ):
            assert isinstance((await d.hear()).body, Hello)
            uplink.send(observation("ghent"))
            closed = (await d.hear()).body
            assert isinstance(closed, StreamClosed)
            assert "an agent speaks for its own site" in closed.reason

    asyncio.run(story())


def test_a_newer_instance_takes_over_and_an_older_one_is_refused(authority: Authority) -> None:
    async def story() -> None:
        async with (
            door_of(authority, "bruges") as d,
            running(d.uplink("bruges", instance="2")) as first,
        ):
            assert (await d.hear()).body == hello("bruges", "2")
            async with running(d.uplink("bruges", instance="1")) as older:
                assert "a newer agent (2) is connected" in await refusal(older)
            async with running(d.uplink("bruges", instance="3")):
                assert (await d.hear()).body == hello("bruges", "3")
                assert "agent 3 took over" in await refusal(first)

    asyncio.run(story())


def test_results_outlive_a_restart_of_the_front_door(authority: Authority) -> None:
    result = StepResult(step_id="s", site_id="bruges", outcome=StepOutcome.DONE, finished_at_ms=5)

    async def story() -> None:
        d = Door(authority, sites=("bruges",))
        await d.door.start()
        port = d.door.port
        async with running(d.uplink("bruges")) as uplink:
            assert isinstance((await d.hear()).body, Hello)
            await d.door.stop(grace_ms=1_000)
            async with asyncio.timeout(WAIT_S):
                while uplink.connected:
                    await asyncio.sleep(0.01)
            assert uplink.send(result)
            assert not uplink.send(RecordBatch(site_id="bruges", first_sequence=0, records=(b"",)))
            again = FrontDoor(
                config=FrontDoorConfig(port=port),
                identity=authority.control_identity(),
                knows_site=("bruges",).__contains__,
                inbox=d.inbox,
                clock=d.clock,
            )
            await again.start()
            try:
                assert isinstance((await d.hear()).body, Hello)
                assert (await d.hear()).body == result
            finally:
                await again.stop(grace_ms=100)

    asyncio.run(story())


def test_keys_lost_while_running_do_not_end_the_agent(authority: Authority) -> None:
    async def story() -> None:
        async with door_of(authority, "bruges") as d, running(d.uplink("bruges")) as uplink:
            assert isinstance((await d.hear()).body, Hello)
            key = authority.site_credentials("bruges").agent_key
            saved = key.read_bytes()
            key.unlink()
            d.door.close_site("bruges", "cut")
            assert isinstance((await d.hear()).body, StreamClosed)
            async with asyncio.timeout(WAIT_S):
                while "agent.key" not in uplink.last_error:
                    await asyncio.sleep(0.01)
            key.write_bytes(saved)
            assert isinstance((await d.hear()).body, Hello)

    asyncio.run(story())


def test_a_taken_port_is_one_clear_error(authority: Authority) -> None:
    async def story() -> None:
        async with door_of(authority, "bruges") as d:
            second = FrontDoor(
                config=FrontDoorConfig(port=d.door.port),
                identity=authority.control_identity(),
                knows_site=("bruges",).__contains__,
                inbox=d.inbox,
                clock=d.clock,
            )
            with pytest.raises(FatalError, match=f"cannot listen on 127.0.0.1:{d.door.port}"):
                await second.start()

    asyncio.run(story())


def test_a_stranger_without_a_certificate_gets_nowhere(authority: Authority) -> None:
    async def story() -> None:
        async with door_of(authority, "bruges") as d:
            keys = authority.site_credentials("bruges")
            credentials = grpc.ssl_channel_credentials(keys.ca_cert.read_bytes())
            async with channel_to(d, credentials) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await health_pb2_grpc.HealthStub(channel).Check(
                        health_pb2.HealthCheckRequest(service=SERVICE_NAME), timeout=WAIT_S
                    )
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE

    asyncio.run(story())


def test_health_is_served_and_garbage_is_refused(authority: Authority) -> None:
    async def story() -> None:
        async with door_of(authority, "bruges") as d:
            credentials = client_credentials(authority.site_credentials("bruges"))
            async with channel_to(d, credentials) as channel:
                answer = await health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(service=SERVICE_NAME), timeout=WAIT_S
                )
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
                assert SERVICE_NAME in await listed_services(channel)
                code, _ = await say(channel, b"\xff\x00garbage")
                assert code is grpc.StatusCode.INVALID_ARGUMENT
                code, said = await say(channel, encode_agent(observation("bruges")))
                assert code is grpc.StatusCode.INVALID_ARGUMENT
                assert "the first frame must be a hello" in said
                code, _ = await say(channel, bytes(5 * 1024 * 1024))
                assert code is grpc.StatusCode.RESOURCE_EXHAUSTED

    asyncio.run(story())


def test_a_certificate_that_ends_while_connected_ends_the_stream(tmp_path: Path) -> None:
    async def story() -> None:
        authority = Authority(tmp_path / "pki", clock=SystemClock())
        door = Door(authority, sites=("bruges",))
        late = ManualClock(start_ms=SystemClock().wall_ms())
        door.door._clock = late  # the front door's own clock alone moves past the certificate
        await door.door.start()
        try:
            async with running(door.uplink("bruges")) as uplink:
                assert isinstance((await door.hear()).body, Hello)
                late.advance_ms(25 * 3_600_000)
                uplink.send(observation("bruges"))
                closed = (await door.hear()).body
                assert isinstance(closed, StreamClosed)
                assert "certificate has expired" in closed.reason
        finally:
            await door.door.stop(grace_ms=100)

    asyncio.run(story())


def test_a_renewed_server_certificate_is_used_without_a_restart(authority: Authority) -> None:
    async def story() -> None:
        async with door_of(authority, "bruges") as d:
            for path in (authority.folder / "control.crt", authority.folder / "control.key"):
                path.unlink()
            d.door.rotate(authority.control_identity())
            async with running(d.uplink("bruges")):
                assert isinstance((await d.hear()).body, Hello)

    asyncio.run(story())


def client_credentials(keys: SiteCredentials) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        keys.ca_cert.read_bytes(), keys.agent_key.read_bytes(), keys.agent_cert.read_bytes()
    )


@asynccontextmanager
async def channel_to(
    door: Door, credentials: grpc.ChannelCredentials
) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.secure_channel(
        f"127.0.0.1:{door.door.port}",
        credentials,
        options=[
            ("grpc.ssl_target_name_override", CONTROL_SERVER_NAME),
            ("grpc.max_send_message_length", -1),
        ],
    ) as channel:
        yield channel


async def listed_services(channel: grpc.aio.Channel) -> list[str]:
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(timeout=WAIT_S)
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    answer = await call.read()
    await call.done_writing()
    call.cancel()
    return [s.name for s in answer.list_services_response.service]


async def say(channel: grpc.aio.Channel, data: bytes) -> tuple[grpc.StatusCode, str]:
    call = channel.stream_stream(f"/{SERVICE_NAME}/Connect")(timeout=WAIT_S)
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await call.write(data)
    return await call.code(), await call.details()


@pytest.fixture(autouse=True)
def _quiet_logs() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield
