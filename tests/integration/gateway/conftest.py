"""Three real Envoys on loopback, each with a tiny model server of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from agents.credentials import site_identity
from agents.gateway.access_log import LogContext, parse_lines
from agents.gateway.config import render
from agents.gateway.facts import GatewayPaths, GatewayTuning, ReplicaAddress
from agents.gateway.process import PROCESS_NAME, Gateway
from agents.processes import ProcessTable, free_port
from scheduler.pki import Authority
from sites.assignment import (
    GroupShare,
    GroupTarget,
    Peer,
    ReplicaGroup,
    Route,
    RouteDecision,
    RouteKey,
    SiteAssignment,
    SiteShare,
    TenantBinding,
)
from sites.catalog import ServingPoint, Variant
from sites.clock import SystemClock
from sites.execution import ExecutionRecord
from sites.fleet import HardwarePool, SiteGateway
from sites.residency import ResidencyPolicy

COUNTRIES = {"osl-1": "NO", "rix-1": "LV", "waw-1": "PL"}
SITES = tuple(COUNTRIES)
EU = ResidencyPolicy(
    policy_id="eu", processing_countries=("LV", "PL"), transit_countries=("LV", "NO", "PL", "SE")
)
EEA = ResidencyPolicy(
    policy_id="eea",
    processing_countries=("LV", "NO", "PL"),
    transit_countries=("LV", "NO", "PL", "SE"),
)
CH = ResidencyPolicy(policy_id="ch", processing_countries=("CH",), transit_countries=("CH",))
ANY = ResidencyPolicy(policy_id="any", processing_countries=None, transit_countries=None)
POLICIES = (ANY, CH, EEA, EU)
TENANTS = {"acme": "eea", "globex": "any", "initech": "ch"}


class ModelServer:
    """An OpenAI-style server in a thread: answers with its name, streaming if asked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.requests = 0
        self.last_headers: dict[str, str] = {}
        self.status = 200
        self.delay_s = 0.0
        self.chunk_delay_s = 0.0
        self.port = free_port()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def stop(self) -> None:
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stopped = asyncio.Event()
        server = await asyncio.start_server(self._handle, "127.0.0.1", self.port, backlog=1000)
        self._ready.set()
        await self._stopped.wait()
        server.close()
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.sleep(0.01)  # closed transports let go of their sockets

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._exchange(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # the gateway was killed
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")
        headers = {k.lower(): v for k, _, v in (x.partition(": ") for x in lines[1:]) if k}
        if "content-length" in headers:
            body = json.loads(await reader.readexactly(int(headers["content-length"])))
        else:
            body = json.loads(await self._chunked(reader))
        self.requests += 1
        self.last_headers = headers
        await asyncio.sleep(self.delay_s)
        await self._answer(writer, body)

    async def _chunked(self, reader: asyncio.StreamReader) -> bytes:
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
        return body

    async def _answer(self, writer: asyncio.StreamWriter, body: dict[str, object]) -> None:
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        base = {"id": "x", "created": 1, "model": body["model"]}
        if body.get("stream"):
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
            )
            for i in range(3):
                delta = {"index": 0, "delta": {"content": f"{self.name}"}, "finish_reason": None}
                event = {**base, "object": "chat.completion.chunk", "choices": [delta]}
                if i == 2:
                    event["usage"] = usage
                writer.write(f"data: {json.dumps(event)}\n\n".encode())
                await writer.drain()
                await asyncio.sleep(self.chunk_delay_s)
            writer.write(b"data: [DONE]\n\n")
        else:
            message = {"role": "assistant", "content": self.name}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            answer = {**base, "object": "chat.completion", "choices": [choice], "usage": usage}
            text = json.dumps(answer).encode()
            writer.write(
                f"HTTP/1.1 {self.status} OK\r\ncontent-type: application/json; charset=utf-8\r\n"
                f"content-length: {len(text)}\r\n\r\n".encode()
                + text
            )
        await writer.drain()


@dataclass
class Fleet:
    """Gateways, model servers and assignments of the three sites, and how to change them."""

    folder: Path
    authority: Authority
    tuning: GatewayTuning
    servers: dict[str, ModelServer] = field(default_factory=dict)
    gateways: dict[str, Gateway] = field(default_factory=dict)
    assignments: dict[str, SiteAssignment] = field(default_factory=dict)
    ready: dict[str, dict[str, tuple[ReplicaAddress, ...]]] = field(default_factory=dict)

    def url(self, site_id: str) -> str:
        return f"http://{self.assignments[site_id].gateway.client_address}"

    def key(self, tenant_id: str) -> str:
        return self.authority.issue_api_key(tenant_id)

    def paths(self, site_id: str) -> GatewayPaths:
        return GatewayPaths(
            folder=self.folder / site_id, credentials=self.authority.site_credentials(site_id)
        )

    async def apply(self, site_id: str) -> None:
        files = render(
            self.assignments[site_id],
            ready=self.ready[site_id],
            paths=self.paths(site_id),
            tuning=self.tuning,
        )
        await self.gateways[site_id].apply(files)

    def change(self, site_id: str, routes: tuple[Route, ...]) -> None:
        old = self.assignments[site_id]
        self.assignments[site_id] = replace(old, routes=routes, version=old.version + 1)

    def request(self, site_id: str, tenant_id: str, **headers: str) -> dict[str, Any]:
        """Where and with which headers to ask as a tenant."""
        return {
            "url": self.url(site_id) + "/v1/chat/completions",
            "headers": {"authorization": f"Bearer {self.key(tenant_id)}", **headers},
        }

    def pid(self, site_id: str) -> int:
        record = self.gateways[site_id]._processes.get(PROCESS_NAME)
        assert record is not None
        return record.pid

    def kill(self, site_id: str) -> None:
        """SIGKILL the site's Envoy and reap it; its sockets are closed when this returns."""
        os.kill(self.pid(site_id), signal.SIGKILL)
        for _ in range(500):
            if not self.gateways[site_id].is_running():
                return
            SystemClock().block_ms(5)
        raise AssertionError(f"the Envoy of {site_id} does not die")

    def records(self, site_id: str) -> tuple[ExecutionRecord, ...]:
        """What the site's access log proves so far; every line must parse."""
        context = LogContext(
            assignment=self.assignments[site_id], agent_identity=site_identity(site_id)
        )
        lines = self.paths(site_id).access_log.read_bytes().splitlines()
        parsed = parse_lines(lines, context=context)
        assert parsed.faults == ()
        return parsed.records


def route(
    service: str,
    tenant: str,
    policy: str,
    *,
    at: str,
    shares: dict[str, int] | None = None,
    backups: dict[str, int] | None = None,
    groups: dict[str, int] | None = None,
    shed: int = 0,
    decision: RouteDecision = RouteDecision.SERVE,
) -> Route:
    def of(sites: dict[str, int] | None) -> tuple[SiteShare, ...]:
        crossed = ("SE",) if policy in ("any", "eu") and at == "osl-1" else ()
        return tuple(
            SiteShare(site_id=s, basis_points=b, transit_countries=crossed if s != at else ())
            for s, b in (sites or {}).items()
        )

    return Route(
        key=RouteKey(service_id=service, tenant_id=tenant, residency_policy_id=policy),
        decision=decision,
        shares=of(shares),
        backups=of(backups),
        shed_basis_points=shed,
        groups=tuple(GroupShare(group_id=g, basis_points=b) for g, b in (groups or {}).items()),
    )


def group_id(site_id: str, variant: str = "small") -> str:
    return f"{site_id}/cpu/{variant}/x1"


def default_routes(at: str) -> tuple[Route, ...]:
    """acme is split over the EU sites and backed up at home; globex stays, backed up abroad."""
    here = {group_id(at): 10_000}
    eu = COUNTRIES[at] in ("LV", "PL")
    refused = RouteDecision.UNLAWFUL
    others = [s for s in SITES if s != at]
    return (
        route("chat", "acme", "eea", at=at, shares={"rix-1": 7_000, "waw-1": 3_000},
              backups={"osl-1": 1}, groups=here),
        route("chat", "acme", "eu", at=at, shares={"rix-1": 10_000}, backups={"waw-1": 1},
              groups=here if eu else None),
        route("chat", "acme", "ch", at=at, decision=refused),
        route("chat", "globex", "any", at=at, shares={at: 10_000},
              backups=dict.fromkeys(others, 1), groups=here),
        route("chat", "globex", "eea", at=at, shares={at: 10_000}, groups=here),
        route("chat", "globex", "eu", at=at, shares={"waw-1": 10_000},
              groups=here if eu else None),
        route("chat", "globex", "ch", at=at, decision=refused),
        route("busy", "globex", "any", at=at, decision=RouteDecision.SHED),
        route("half", "globex", "any", at=at, shares={at: 10_000}, groups=here, shed=5_000),
        route("chat", "initech", "ch", at=at, decision=refused),
    )  # fmt: skip


def _assignment(at: str, gateways: dict[str, SiteGateway], authority: Authority) -> SiteAssignment:
    point = ServingPoint(
        variant_id="small", accelerator="cpu-thread", accelerators_per_replica=1,
        decode_tok_s=100.0, prefill_tok_s=None, ttft_ms=50.0, tpot_ms=10.0, concurrency=4,
        idle_w=5.0, full_w=15.0, memory_mib=300.0,
    )  # fmt: skip
    variant = Variant(
        variant_id="small", model_id="m", precision="q8", weights_mib=150.0,
        kv_bytes_per_token=1_000.0, quality=0.5,
    )  # fmt: skip
    group = ReplicaGroup(site_id=at, pool_id="cpu", variant_id="small", accelerators_per_replica=1)
    pool = HardwarePool(
        pool_id="cpu", accelerator="cpu-thread", count=4, memory_mib_per_accelerator=4_000.0,
        price_usd_per_accelerator_h=0.01,
    )  # fmt: skip
    return SiteAssignment(
        site_id=at, country=COUNTRIES[at], residency_tags=(), legal_entity=f"{at} AS",
        gateway=gateways[at], epoch=1, version=1, plan_digest="sha256:plan",
        policy_digest="sha256:policy", issued_at_ms=0, expires_at_ms=10**15, parent_digest="",
        power_budget_w=1_000.0, pue=1.2, pools=(pool,),
        groups=(GroupTarget(group=group, replicas=1, point=point, variant=variant),),
        routes=default_routes(at),
        services=(("busy", ("small",)), ("chat", ("small",)), ("half", ("small",))),
        tenants=tuple(
            TenantBinding(tenant_id=t, residency_policy_id=p, pseudonym_key="ab" * 32,
                          purpose="support")
            for t, p in TENANTS.items()
        ),
        policies=POLICIES,
        peers=tuple(
            Peer(site_id=s, country=COUNTRIES[s], residency_tags=(),
                 peer_address=gateways[s].peer_address)
            for s in SITES if s != at
        ),
        api_key_jwks=authority.api_key_jwks,
    )  # fmt: skip


def new_fleet(folder: Path, *, tuning: GatewayTuning) -> Fleet:
    clock = SystemClock()
    authority = Authority(folder / "pki", clock=clock)
    fleet = Fleet(folder=folder, authority=authority, tuning=tuning)
    gateways = {
        s: SiteGateway(
            client_address=f"127.0.0.1:{free_port()}", peer_address=f"127.0.0.1:{free_port()}"
        )
        for s in SITES
    }
    for site_id in SITES:
        fleet.servers[site_id] = ModelServer(site_id)
        fleet.assignments[site_id] = _assignment(site_id, gateways, authority)
        address = ReplicaAddress(f"{site_id}-r0", "127.0.0.1", fleet.servers[site_id].port)
        fleet.ready[site_id] = {group_id(site_id): (address,)}
        fleet.gateways[site_id] = Gateway(
            fleet.paths(site_id),
            site_id=site_id,
            processes=ProcessTable(folder / site_id / "run", clock=clock),
            clock=clock,
        )
    return fleet


async def start_fleet(fleet: Fleet) -> None:
    for site_id in SITES:
        await fleet.apply(site_id)


def stop_fleet(fleet: Fleet) -> None:
    async def stop() -> None:
        for gateway in fleet.gateways.values():
            await gateway.stop(grace_ms=0)

    asyncio.run(stop())
    for server in fleet.servers.values():
        server.stop()


async def until_peers_healthy(fleet: Fleet) -> None:
    """Wait until every gateway finds every host it may send to alive, on every route."""
    for _ in range(200):
        texts = [await fleet.gateways[s]._ask("GET", "/clusters?format=json") for s in SITES]
        clusters = [c for text in texts for c in json.loads(text)["cluster_statuses"]]
        hosts = [h["health_status"] for c in clusters for h in c["host_statuses"]]
        if hosts and not any(h.get("failed_active_health_check") for h in hosts):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the gateways do not see each other")


async def start_whole(fleet: Fleet) -> None:
    await start_fleet(fleet)
    await until_peers_healthy(fleet)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A running fleet for tests that only ask."""
    made = new_fleet(tmp_path_factory.mktemp("fleet"), tuning=GatewayTuning())
    try:
        asyncio.run(start_whole(made))
        yield made
    finally:
        stop_fleet(made)


@pytest.fixture
def own_fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A running fleet for tests that change or break it."""
    made = new_fleet(tmp_path, tuning=GatewayTuning())
    try:
        asyncio.run(start_whole(made))
        yield made
    finally:
        stop_fleet(made)
