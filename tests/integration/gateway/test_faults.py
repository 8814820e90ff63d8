"""A real gateway when things break: peers killed, replicas dead, configurations refused."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections import Counter
from dataclasses import replace
from typing import Any

import httpx
import pytest

from agents.credentials import site_identity
from agents.gateway.access_log import LogContext, parse_lines
from agents.gateway.config import render
from agents.gateway.process import PROCESS_NAME, Gateway
from agents.processes import ProcessTable
from sites.clock import SystemClock
from sites.errors import FatalError, RefusedError
from sites.execution import ExecutionDecision

BODY = {"model": "chat", "messages": []}


def request(fleet: Any, site: str, tenant: str, **headers: str) -> dict[str, Any]:
    return {
        "url": fleet.url(site) + "/v1/chat/completions",
        "headers": {"authorization": f"Bearer {fleet.key(tenant)}", **headers},
    }


def pid_of(fleet: Any, site: str) -> int:
    record = fleet.gateways[site]._processes.get(PROCESS_NAME)
    assert record is not None
    return int(record.pid)


def kill(fleet: Any, site: str) -> None:
    """SIGKILL the site's Envoy and reap it; its sockets are closed when this returns."""
    os.kill(pid_of(fleet, site), signal.SIGKILL)
    for _ in range(500):
        if not fleet.gateways[site].is_running():
            return
        SystemClock().block_ms(5)
    raise AssertionError(f"the Envoy of {site} does not die")


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
        traffic = Traffic(own_fleet, **request(own_fleet, "osl-1", "acme"))
        running = asyncio.create_task(traffic.run(6))
        await asyncio.sleep(1)
        kill(own_fleet, "rix-1")
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
        target = request(own_fleet, "osl-1", "acme", **{"x-hinterland-residency": "eu"})
        traffic = Traffic(own_fleet, **target)
        running = asyncio.create_task(traffic.run(4))
        await asyncio.sleep(0.5)
        kill(own_fleet, "rix-1")
        await asyncio.sleep(1.5)
        kill(own_fleet, "waw-1")
        await asyncio.sleep(1)
        traffic.stop()
        await running
        return traffic

    traffic = asyncio.run(scene())
    assert set(traffic.sites) == {"rix-1", "waw-1"}  # never Norway, even with nothing else left
    assert traffic.failed
    assert all(f.startswith("503") and "not_ready" in f for f in traffic.failed)
    assert own_fleet.servers["osl-1"].requests == 0


def test_an_attempt_lost_with_its_site_leaves_a_record(own_fleet: Any) -> None:
    own_fleet.servers["rix-1"].delay_s = 5.0

    async def scene() -> httpx.Response:
        target = request(own_fleet, "osl-1", "acme", **{"x-hinterland-residency": "eu"})
        async with httpx.AsyncClient(trust_env=False, timeout=20) as api:
            asking = asyncio.create_task(api.post(json=BODY, **target))
            while own_fleet.servers["rix-1"].requests == 0:
                await asyncio.sleep(0.02)
            kill(own_fleet, "rix-1")
            answer = await asking
            await asyncio.sleep(0.2)  # the log is flushed every 50 ms
            return answer

    answer = asyncio.run(scene())
    assert (answer.status_code, answer.headers.get("x-hinterland-site")) == (200, "waw-1")
    records = own_fleet_records(own_fleet, "osl-1")
    lost = [r for r in records if r.decision is ExecutionDecision.FAILED]
    assert [(r.hop, r.serving_site_id, r.serving_country, r.attempt) for r in lost] == [
        ("ingress", "rix-1", "LV", 1)
    ]
    (served,) = own_fleet_records(own_fleet, "waw-1")
    assert (served.attempt, served.request_id) == (2, lost[0].request_id)


def own_fleet_records(fleet: Any, site: str) -> tuple[Any, ...]:
    context = LogContext(
        assignment=fleet.assignments[site], agent_identity=site_identity(site), clock_error_ms=3
    )
    lines = fleet.paths(site).access_log.read_bytes().splitlines()
    parsed = parse_lines(lines, context=context)
    assert parsed.faults == ()
    return parsed.records


def test_a_dead_replica_sends_requests_to_a_backup(own_fleet: Any) -> None:
    own_fleet.servers["osl-1"].stop()

    async def scene() -> tuple[httpx.Response, httpx.Response]:
        async with httpx.AsyncClient(trust_env=False, timeout=20) as api:
            backed = await api.post(json=BODY, **request(own_fleet, "osl-1", "globex"))
            strict = request(own_fleet, "osl-1", "globex", **{"x-hinterland-residency": "eea"})
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
        target = request(own_fleet, site, "acme")
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
                answer = await api.post(json=BODY, **request(own_fleet, "osl-1", "acme"))
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
            first = await api.post(json=BODY, **request(own_fleet, "osl-1", "globex"))
            await gateway.apply(good)
            return first.status_code

    assert asyncio.run(scene()) == 200


def test_a_later_agent_adopts_the_running_gateway(own_fleet: Any) -> None:
    clock = SystemClock()
    pid = pid_of(own_fleet, "osl-1")
    table = ProcessTable(own_fleet.folder / "osl-1" / "run", clock=clock)
    table.adopt()
    heir = Gateway(own_fleet.paths("osl-1"), site_id="osl-1", processes=table, clock=clock)
    assert heir.is_running()
    parent, own_fleet.gateways["osl-1"] = own_fleet.gateways["osl-1"], heir
    asyncio.run(own_fleet.apply("osl-1"))
    assert pid_of(own_fleet, "osl-1") == pid
    assert asyncio.run(heir.observe()).live
    asyncio.run(heir.stop(grace_ms=0))
    assert not parent.is_running()


def test_a_taken_port_is_one_clear_error(own_fleet: Any) -> None:
    kill(own_fleet, "osl-1")
    host, _, port = own_fleet.assignments["osl-1"].gateway.peer_address.partition(":")
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind((host, int(port)))
        squatter.listen()
        with pytest.raises(FatalError, match=f"cannot listen on {host}:{port}.*another address"):
            asyncio.run(own_fleet.apply("osl-1"))


def test_an_envoy_that_does_not_start_is_one_clear_error(own_fleet: Any) -> None:
    kill(own_fleet, "osl-1")
    for program, message in (("/nonexistent/envoy", "cannot start"), ("/bin/false", "not start")):
        own_fleet.gateways["osl-1"]._program = program
        with pytest.raises(FatalError, match=message):
            asyncio.run(own_fleet.apply("osl-1"))


def test_records_say_where_each_attempt_ran(own_fleet: Any) -> None:
    async def scene() -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=20) as api:
            eu = request(own_fleet, "osl-1", "acme", **{"x-hinterland-residency": "eu"})
            await api.post(json=BODY, **eu)
            await api.post(json={**BODY, "stream": True}, **eu)
            await api.post(json=BODY, **request(own_fleet, "osl-1", "initech"))
            await api.post(json={"model": "busy"}, **request(own_fleet, "osl-1", "globex"))
            await api.post(json={"model": "nope"}, **request(own_fleet, "osl-1", "globex"))
            await api.post(request(own_fleet, "osl-1", "acme")["url"], json=BODY)
            await api.get(own_fleet.url("osl-1") + "/v1/models",
                          headers=request(own_fleet, "osl-1", "acme")["headers"])  # fmt: skip
            await asyncio.sleep(0.2)

    asyncio.run(scene())
    served = own_fleet_records(own_fleet, "rix-1")
    assert [(r.hop, r.decision.value, r.ingress_site_id, r.serving_country) for r in served] == [
        ("serving", "served", "osl-1", "LV")
    ] * 2
    assert {(r.tokens_in, r.tokens_out) for r in served} == {(7, 3)}
    assert {r.replica_group_id for r in served} == {"rix-1/cpu/small/x1"}
    assert all(r.energy_j_estimated > 0 and r.ended_at_ms >= r.started_at_ms for r in served)
    assert len({r.request_id for r in served}) == 2
    refused = own_fleet_records(own_fleet, "osl-1")
    assert [(r.decision.value, r.http_status, r.serving_site_id) for r in refused] == [
        ("refused_residency", 451, ""),
        ("shed", 503, ""),
        ("refused_unknown_model", 404, ""),
        ("refused_unauthenticated", 401, ""),
    ]
    log = own_fleet.paths("osl-1").access_log.read_text()
    assert own_fleet.key("acme").split(".")[1][:20] not in log


def test_transit_countries_reach_the_serving_sites_record(own_fleet: Any) -> None:
    own_fleet.servers["osl-1"].stop()

    async def scene() -> str:
        async with httpx.AsyncClient(trust_env=False, timeout=20) as api:
            answer = await api.post(json=BODY, **request(own_fleet, "osl-1", "globex"))
            await asyncio.sleep(0.2)
            return answer.headers["x-hinterland-site"]

    site = asyncio.run(scene())
    (record,) = own_fleet_records(own_fleet, site)
    assert record.transit_countries == ("SE",)
    assert record.attempt == 2


def test_counts_are_by_route_and_serving_site(own_fleet: Any) -> None:
    async def scene() -> Any:
        async with httpx.AsyncClient(trust_env=False, timeout=20) as api:
            for _ in range(100):
                await api.post(json=BODY, **request(own_fleet, "osl-1", "acme"))
            await api.post(json={"model": "busy"}, **request(own_fleet, "osl-1", "globex"))
        await asyncio.sleep(0.1)
        return await own_fleet.gateways["osl-1"].observe()

    seen = asyncio.run(scene())
    counts = {(c.route_id, c.serving_site_id): c.requests_total for c in seen.routes}
    assert abs(counts[("chat|acme|eea", "rix-1")] - 70) <= 1
    assert abs(counts[("chat|acme|eea", "waw-1")] - 30) <= 1
    assert counts[("busy|globex|any", "")] == 1
    assert (seen.requests_total, seen.errors_total) == (101, 0)


def test_the_log_can_be_rotated(own_fleet: Any) -> None:
    log = own_fleet.paths("osl-1").access_log

    async def scene() -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=20) as api:
            await api.post(json=BODY, **request(own_fleet, "osl-1", "globex"))
            await asyncio.sleep(0.2)
            log.rename(log.with_name(log.name + ".1"))
            await own_fleet.gateways["osl-1"].reopen_access_log()
            await api.post(json=BODY, **request(own_fleet, "osl-1", "globex"))
            await asyncio.sleep(0.2)

    asyncio.run(scene())
    for path in (log, log.with_name(log.name + ".1")):
        hops = sorted(json.loads(line)["hop"] for line in path.read_text().splitlines())
        assert hops == ["ingress", "serving"]
