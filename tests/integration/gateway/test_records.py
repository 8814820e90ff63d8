"""What a real gateway writes down: a record per attempt, counts per route, logs that rotate."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx

from sites.execution import ExecutionDecision

BODY = {"model": "chat", "messages": []}


def test_an_attempt_lost_with_its_site_leaves_a_record(own_fleet: Any) -> None:
    own_fleet.servers["rix-1"].delay_s = 5.0

    async def scene() -> httpx.Response:
        target = own_fleet.request("osl-1", "acme", **{"x-hinterland-residency": "eu"})
        async with httpx.AsyncClient(trust_env=False, timeout=20) as api:
            asking = asyncio.create_task(api.post(json=BODY, **target))
            while own_fleet.servers["rix-1"].requests == 0:
                await asyncio.sleep(0.02)
            own_fleet.kill("rix-1")
            answer = await asking
            await asyncio.sleep(0.2)  # the log is flushed every 50 ms
            return answer

    answer = asyncio.run(scene())
    assert (answer.status_code, answer.headers.get("x-hinterland-site")) == (200, "waw-1")
    records = own_fleet.records("osl-1")
    lost = [r for r in records if r.decision is ExecutionDecision.FAILED]
    assert [(r.hop, r.serving_site_id, r.serving_country, r.attempt) for r in lost] == [
        ("ingress", "rix-1", "LV", 1)
    ]
    assert lost[0].transit_countries == ("SE",), "what its data crossed on the way is known too"
    (served,) = own_fleet.records("waw-1")
    assert (served.attempt, served.request_id) == (2, lost[0].request_id)


def test_records_say_where_each_attempt_ran(own_fleet: Any) -> None:
    async def scene() -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=20) as api:
            eu = own_fleet.request("osl-1", "acme", **{"x-hinterland-residency": "eu"})
            await api.post(json=BODY, **eu)
            await api.post(json={**BODY, "stream": True}, **eu)
            await api.post(json=BODY, **own_fleet.request("osl-1", "initech"))
            await api.post(json={"model": "busy"}, **own_fleet.request("osl-1", "globex"))
            await api.post(json={"model": "nope"}, **own_fleet.request("osl-1", "globex"))
            await api.post(own_fleet.request("osl-1", "acme")["url"], json=BODY)
            await api.get(own_fleet.url("osl-1") + "/v1/models",
                          headers=own_fleet.request("osl-1", "acme")["headers"])  # fmt: skip
            await asyncio.sleep(0.2)

    asyncio.run(scene())
    served = own_fleet.records("rix-1")
    assert [(r.hop, r.decision.value, r.ingress_site_id, r.serving_country) for r in served] == [
        ("serving", "served", "osl-1", "LV")
    ] * 2
    assert {(r.tokens_in, r.tokens_out) for r in served} == {(7, 3)}
    assert {r.replica_group_id for r in served} == {"rix-1/cpu/small/x1"}
    assert all(r.energy_j_estimated > 0 and r.ended_at_ms >= r.started_at_ms for r in served)
    assert len({r.request_id for r in served}) == 2
    refused = own_fleet.records("osl-1")
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
            answer = await api.post(json=BODY, **own_fleet.request("osl-1", "globex"))
            await asyncio.sleep(0.2)
            return answer.headers["x-hinterland-site"]

    site = asyncio.run(scene())
    (record,) = own_fleet.records(site)
    assert record.transit_countries == ("SE",)
    assert record.attempt == 2


def test_counts_are_by_route_and_serving_site(own_fleet: Any) -> None:
    async def scene() -> Any:
        async with httpx.AsyncClient(trust_env=False, timeout=20) as api:
            for _ in range(100):
                await api.post(json=BODY, **own_fleet.request("osl-1", "acme"))
            await api.post(json={"model": "busy"}, **own_fleet.request("osl-1", "globex"))
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
            await api.post(json=BODY, **own_fleet.request("osl-1", "globex"))
            await asyncio.sleep(0.2)
            log.rename(log.with_name(log.name + ".1"))
            await own_fleet.gateways["osl-1"].reopen_access_log()
            await api.post(json=BODY, **own_fleet.request("osl-1", "globex"))
            await asyncio.sleep(0.2)

    asyncio.run(scene())
    for path in (log, log.with_name(log.name + ".1")):
        hops = sorted(json.loads(line)["hop"] for line in path.read_text().splitlines())
        assert hops == ["ingress", "serving"]
