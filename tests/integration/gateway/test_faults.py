"""A real gateway when things break: peers killed, replicas dead, configurations refused."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
from collections import Counter
from dataclasses import replace
from typing import Any

import httpx
import pytest

from agents.gateway.config import render
from agents.gateway.process import Gateway
from agents.processes import ProcessTable
from sites.clock import SystemClock
from sites.errors import FatalError, RefusedError

BODY = {"model": "chat", "messages": []}


class Traffic:
    """Requests from several clients until told to stop; what each got."""

    def __init__(self, fleet: Any, *, stream: bool = False, **target: Any) -> None:
        self._target = target
        self._body = {**BODY, "stream": stream}
        self.sites: Counter[str] = Counter()
        self.failed: list[str] = []
        self._stopped = asyncio.Event()

    async def run(self, clients: int) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=20) as api:
            await asyncio.gather(*(self._one(api) for _ in range(clients)))

    def stop(self) -> None:
        self._stopped.set()

    async def _one(self, api: httpx.AsyncClient) -> None:
        while not self._stopped.is_set():
            try:
                answer = await api.post(json=self._body, **self._target)
                whole = not self._body["stream"] or answer.text.endswith("data: [DONE]\n\n")
                if answer.status_code == 200 and whole:
                    self.sites[answer.headers["x-hinterland-site"]] += 1
                else:
                    self.failed.append(f"{answer.status_code} {answer.text[-200:]}")
            except httpx.HTTPError as fault:
                self.failed.append(repr(fault))
            await asyncio.sleep(0.02)


def test_a_killed_peer_costs_no_request(own_fleet: Any) -> None:
    async def scene() -> Traffic:
        traffic = Traffic(own_fleet, **own_fleet.request("osl-1", "acme"))
        running = asyncio.create_task(traffic.run(6))
        await asyncio.sleep(1)
        own_fleet.kill("rix-1")
        await asyncio.sleep(2)
        before = dict(traffic.sites)
        await asyncio.sleep(1)
        traffic.stop()
        await running
        assert traffic.sites["rix-1"] == before["rix-1"]
        return traffic

    traffic = asyncio.run(scene())
    assert traffic.failed == []
    assert traffic.sites["rix-1"] > 0
    assert traffic.sites["waw-1"] > traffic.sites["rix-1"] / 10
    seen = asyncio.run(own_fleet.gateways["osl-1"].observe())
    assert {p.site_id: p.healthy for p in seen.peers} == {"rix-1": False, "waw-1": True}
    assert seen.retries_total > 0


def test_after_a_loss_traffic_stays_lawful(own_fleet: Any) -> None:
    async def scene() -> Traffic:
        target = own_fleet.request("osl-1", "acme", **{"x-hinterland-residency": "eu"})
        traffic = Traffic(own_fleet, **target)
        running = asyncio.create_task(traffic.run(4))
        await asyncio.sleep(0.5)
        own_fleet.kill("rix-1")
        await asyncio.sleep(1.5)
        own_fleet.kill("waw-1")
        await asyncio.sleep(1)
        traffic.stop()
        await running
        return traffic

    traffic = asyncio.run(scene())
    assert set(traffic.sites) == {"rix-1", "waw-1"}  # never Norway, even with nothing else left
    assert traffic.failed
    assert all(f.startswith("503") and "not_ready" in f for f in traffic.failed)
    assert own_fleet.servers["osl-1"].requests == 0


def test_a_dead_replica_sends_requests_to_a_backup(own_fleet: Any) -> None:
    own_fleet.servers["osl-1"].stop()

    async def scene() -> tuple[httpx.Response, httpx.Response]:
        async with httpx.AsyncClient(trust_env=False, timeout=20) as api:
            backed = await api.post(json=BODY, **own_fleet.request("osl-1", "globex"))
            strict = own_fleet.request("osl-1", "globex", **{"x-hinterland-residency": "eea"})
            return backed, await api.post(json=BODY, **strict)

    backed, alone = asyncio.run(scene())
    assert backed.headers["x-hinterland-site"] in ("rix-1", "waw-1")
    assert alone.status_code == 503
    assert alone.json()["error"]["code"] == "not_ready"
    assert alone.headers["retry-after"] == "2"


def test_switching_drops_nothing_not_even_streams(own_fleet: Any) -> None:
    for server in own_fleet.servers.values():
        server.chunk_delay_s = 0.05
    site = "osl-1"

    async def scene() -> tuple[Traffic, Traffic]:
        target = own_fleet.request(site, "acme")
        streams = Traffic(own_fleet, stream=True, **target)
        plain = Traffic(own_fleet, **target)
        running = asyncio.gather(streams.run(6), plain.run(3))
        for i in range(8):
            share = {"rix-1": 10_000} if i % 2 else {"waw-1": 10_000}
            routes = tuple(
                replace(r, shares=tuple(replace(s, basis_points=share.get(s.site_id, 0))
                                        for s in r.shares))
                if r.key.route_id == "chat|acme|eea" else r
                for r in own_fleet.assignments[site].routes
            )  # fmt: skip
            own_fleet.change(site, routes)
            await own_fleet.apply(site)
            await asyncio.sleep(0.2)
        streams.stop()
        plain.stop()
        await running
        return streams, plain

    for traffic in asyncio.run(scene()):
        assert traffic.failed == []
        assert traffic.sites["rix-1"] > 0
        assert traffic.sites["waw-1"] > 0


def test_a_switch_is_in_force_when_apply_returns(own_fleet: Any) -> None:
    async def scene() -> list[str]:
        answers = []
        async with httpx.AsyncClient(trust_env=False, timeout=20) as api:
            for wanted in ("waw-1", "rix-1", "osl-1", "waw-1"):
                routes = tuple(
                    replace(r, shares=(replace(r.shares[0], site_id=wanted, basis_points=10_000),),
                            backups=())
                    if r.key.route_id == "chat|acme|eea" else r
                    for r in own_fleet.assignments["osl-1"].routes
                )  # fmt: skip
                own_fleet.change("osl-1", routes)
                await own_fleet.apply("osl-1")
                answer = await api.post(json=BODY, **own_fleet.request("osl-1", "acme"))
                answers.append(answer.headers["x-hinterland-site"])
        return answers

    assert asyncio.run(scene()) == ["waw-1", "rix-1", "osl-1", "waw-1"]


def test_a_refused_configuration_leaves_the_old_one(own_fleet: Any) -> None:
    gateway = own_fleet.gateways["osl-1"]
    good = render(
        own_fleet.assignments["osl-1"],
        ready=own_fleet.ready["osl-1"],
        paths=own_fleet.paths("osl-1"),
    )
    before = gateway._paths.resource("clusters").read_bytes()
    broken = ({**good.clusters[0], "connect_timeout": "-5s"}, *good.clusters[1:])

    async def scene() -> int:
        with pytest.raises(RefusedError, match="rejects the configuration"):
            await gateway.apply(replace(good, clusters=broken))
        assert gateway._paths.resource("clusters").read_bytes() == before
        async with httpx.AsyncClient(trust_env=False) as api:
            first = await api.post(json=BODY, **own_fleet.request("osl-1", "globex"))
            await gateway.apply(good)
            return first.status_code

    assert asyncio.run(scene()) == 200


def test_a_later_agent_adopts_the_running_gateway(own_fleet: Any) -> None:
    clock = SystemClock()
    pid = own_fleet.pid("osl-1")
    table = ProcessTable(own_fleet.folder / "osl-1" / "run", clock=clock)
    table.adopt()
    heir = Gateway(own_fleet.paths("osl-1"), site_id="osl-1", processes=table, clock=clock)
    assert heir.is_running()
    parent, own_fleet.gateways["osl-1"] = own_fleet.gateways["osl-1"], heir
    asyncio.run(own_fleet.apply("osl-1"))
    assert own_fleet.pid("osl-1") == pid
    assert asyncio.run(heir.observe()).live
    asyncio.run(heir.stop(grace_ms=0))
    assert not parent.is_running()


def test_a_taken_port_is_one_clear_error(own_fleet: Any) -> None:
    own_fleet.kill("osl-1")
    host, _, port = own_fleet.assignments["osl-1"].gateway.peer_address.partition(":")
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind((host, int(port)))
        squatter.listen()
        with pytest.raises(FatalError, match=f"cannot listen on {host}:{port}.*another address"):
            asyncio.run(own_fleet.apply("osl-1"))


def test_an_unreadable_certificate_is_one_clear_error(own_fleet: Any) -> None:
    own_fleet.kill("osl-1")
    files = render(
        own_fleet.assignments["osl-1"],
        ready=own_fleet.ready["osl-1"],
        paths=own_fleet.paths("osl-1"),
    )
    own_fleet.authority.site_credentials("osl-1").gateway_key.unlink()
    with pytest.raises(FatalError, match=r"gateway\.key: No such file"):
        asyncio.run(own_fleet.gateways["osl-1"].apply(files))


def test_an_envoy_that_does_not_start_is_one_clear_error(own_fleet: Any) -> None:
    own_fleet.kill("osl-1")
    for program, message in (("/nonexistent/envoy", "cannot start"), ("/bin/false", "not start")):
        own_fleet.gateways["osl-1"]._program = program
        with pytest.raises(FatalError, match=message):
            asyncio.run(own_fleet.apply("osl-1"))


def test_a_frozen_peer_costs_no_request(own_fleet: Any) -> None:
    """SIGSTOP: its sockets stay open and say nothing; probes and pings find it out."""
    frozen = own_fleet.pid("rix-1")

    async def scene() -> Traffic:
        traffic = Traffic(own_fleet, **own_fleet.request("osl-1", "acme"))
        running = asyncio.create_task(traffic.run(6))
        await asyncio.sleep(0.5)
        os.kill(frozen, signal.SIGSTOP)
        try:
            await asyncio.sleep(4)
            traffic.stop()
            await running
        finally:
            os.kill(frozen, signal.SIGCONT)
        return traffic

    traffic = asyncio.run(scene())
    assert traffic.failed == []
    assert traffic.sites["waw-1"] > traffic.sites["rix-1"]


def test_a_site_that_comes_back_gets_its_share_again(own_fleet: Any) -> None:
    async def scene() -> tuple[Traffic, Traffic]:
        target = own_fleet.request("osl-1", "acme", **{"x-hinterland-residency": "eu"})
        lost, back = Traffic(own_fleet, **target), Traffic(own_fleet, **target)
        running = asyncio.create_task(lost.run(3))
        own_fleet.kill("rix-1")
        await asyncio.sleep(1)
        lost.stop()
        await running
        await own_fleet.apply("rix-1")
        await until_whole(own_fleet)
        running = asyncio.create_task(back.run(3))
        await asyncio.sleep(0.5)
        back.stop()
        await running
        return lost, back

    lost, back = asyncio.run(scene())
    assert lost.failed == back.failed == []
    assert set(lost.sites) == {"waw-1"}
    assert set(back.sites) == {"rix-1"}


async def until_whole(fleet: Any) -> None:
    """Until no host of any cluster of the Oslo gateway is ejected or found dead."""
    for _ in range(600):
        text = await fleet.gateways["osl-1"]._ask("GET", "/clusters?format=json")
        hosts = [h for c in json.loads(text)["cluster_statuses"] for h in c["host_statuses"]]
        states = [set(h["health_status"]) for h in hosts]
        if not any(s & {"failed_active_health_check", "failed_outlier_check"} for s in states):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the site does not come back")


def test_a_renewed_certificate_is_taken_up_without_a_restart(own_fleet: Any) -> None:
    held = own_fleet.authority.site_credentials("rix-1")
    host, _, port = own_fleet.assignments["rix-1"].gateway.peer_address.partition(":")
    own = own_fleet.authority.site_credentials("osl-1")

    def served() -> str:
        context = ssl.create_default_context(cafile=str(own.ca_cert))
        context.check_hostname = False
        context.load_cert_chain(str(own.gateway_cert), str(own.gateway_key))
        with (
            socket.create_connection((host, int(port)), timeout=5) as raw,
            context.wrap_socket(raw) as tls,
        ):
            return ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True) or b"")

    before = served()
    assert before.split() == held.gateway_cert.read_text().split()
    held.gateway_cert.unlink()
    own_fleet.authority.site_credentials("rix-1")
    for _ in range(100):
        if served() != before:
            break
        SystemClock().block_ms(20)
    assert served().split() == held.gateway_cert.read_text().split()

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, timeout=20) as api:
            eu = own_fleet.request("osl-1", "acme", **{"x-hinterland-residency": "eu"})
            return await api.post(json=BODY, **eu)

    assert asyncio.run(ask()).headers["x-hinterland-site"] == "rix-1"
