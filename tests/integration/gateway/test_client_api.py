"""What clients of a real gateway get: answers, refusals, exact shares, nothing they may spoof."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import ssl
from collections import Counter
from typing import Any

import httpx
import openai
import pytest

from scheduler.pki import Authority
from sites.clock import ManualClock, SystemClock

MESSAGES: Any = [{"role": "user", "content": "hello"}]


def client(fleet: Any, tenant: str, site: str = "osl-1", **headers: str) -> openai.OpenAI:
    key = fleet.key(tenant) if tenant else "none"
    return openai.OpenAI(
        base_url=fleet.url(site) + "/v1", api_key=key, max_retries=0, default_headers=headers
    )


def ask(api: openai.OpenAI, model: str = "chat") -> str:
    with api:
        answer = api.chat.completions.create(model=model, messages=MESSAGES)
    return str(answer.choices[0].message.content)


def refused(api: openai.OpenAI, model: str = "chat") -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as caught:
        ask(api, model)
    return caught.value


def test_an_openai_client_is_answered_here_and_abroad(fleet: Any) -> None:
    assert ask(client(fleet, "globex")) == "osl-1"
    assert ask(client(fleet, "acme", **{"x-hinterland-residency": "eu"})) == "rix-1"


def test_a_stream_arrives_whole(fleet: Any) -> None:
    with client(fleet, "globex") as api:
        stream = api.chat.completions.create(model="chat", messages=MESSAGES, stream=True)
        words = [c.choices[0].delta.content for c in stream]
    assert words == ["osl-1"] * 3


def test_models_are_the_tenants_own(fleet: Any) -> None:
    with client(fleet, "globex") as api:
        assert [m.id for m in api.models.list()] == ["busy", "chat", "half"]
        assert api.models.retrieve("chat").id == "chat"
        with pytest.raises(openai.NotFoundError):
            api.models.retrieve("secret")
    with client(fleet, "initech") as api:
        assert [m.id for m in api.models.list()] == ["chat"]


def test_401_without_a_key(fleet: Any) -> None:
    error = refused(client(fleet, ""))
    assert isinstance(error, openai.AuthenticationError)
    assert error.code == "invalid_api_key"


def symmetric_key(fleet: Any) -> str:
    """A token signed with HS256, the published key taken as the secret."""
    head, claims, _ = fleet.key("acme").split(".")
    fields = json.loads(base64.urlsafe_b64decode(head + "=="))
    head = encoded(json.dumps({**fields, "alg": "HS256"}).encode())
    secret = fleet.authority.api_key_jwks.encode()
    signature = hmac.new(secret, f"{head}.{claims}".encode(), hashlib.sha256).digest()
    return f"{head}.{claims}.{encoded(signature)}"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def test_401_for_keys_nobody_here_issued(fleet: Any, tmp_path: Any) -> None:
    stranger = Authority(tmp_path / "other", clock=SystemClock())
    late = Authority(fleet.folder / "pki", clock=ManualClock(start_ms=1_000))
    unsigned = "eyJhbGciOiJub25lIn0." + fleet.key("acme").split(".")[1] + "."
    public_as_secret = symmetric_key(fleet)
    expired = late.issue_api_key("acme")
    for key in (stranger.issue_api_key("acme"), expired, unsigned, public_as_secret):
        api = openai.OpenAI(base_url=fleet.url("osl-1") + "/v1", api_key=key, max_retries=0)
        assert refused(api).status_code == 401
    unknown = refused(client(fleet, "nobody"))
    assert (unknown.status_code, unknown.code) == (401, "unknown_tenant")


def test_a_key_in_the_url_is_no_key(fleet: Any) -> None:
    where = f"{fleet.url('osl-1')}/v1/models?access_token={fleet.key('acme')}"
    assert httpx.get(where, trust_env=False).status_code == 401


def test_403_for_a_laxer_residency(fleet: Any) -> None:
    for wish in ("any", "ch", "nonsense", "eu,any", ""):
        error = refused(client(fleet, "acme", **{"x-hinterland-residency": wish}))
        assert (error.status_code, error.code) == (403, "residency_not_allowed"), wish


def test_404_for_an_unknown_model(fleet: Any) -> None:
    error = refused(client(fleet, "acme"), model="gpt-0")
    assert (error.status_code, error.code, error.param) == (404, "model_not_found", "model")
    other_tenants = refused(client(fleet, "acme"), model="half")
    assert other_tenants.status_code == 404


def test_451_where_nothing_is_lawful(fleet: Any) -> None:
    for api in (
        client(fleet, "initech"),
        client(fleet, "globex", **{"x-hinterland-residency": "ch"}),
    ):
        error = refused(api)
        assert (error.status_code, error.code) == (451, "no_lawful_site")


def test_503_with_retry_after_when_shed(fleet: Any) -> None:
    error = refused(client(fleet, "globex"), model="busy")
    assert (error.status_code, error.code) == (503, "shed")
    assert error.response.headers["retry-after"] == "2"


def test_400_for_what_is_no_request(fleet: Any) -> None:
    headers = {"authorization": f"Bearer {fleet.key('acme')}", "content-type": "application/json"}
    url = fleet.url("osl-1") + "/v1/chat/completions"
    for body, code in (
        (b"{broken", "invalid_json"),
        (b"{}", "missing_model"),
        (b"[1]", "missing_model"),
        (b"", "missing_model"),
    ):
        answer = httpx.post(url, content=body, headers=headers, trust_env=False)
        assert answer.status_code == 400, body
        assert answer.json()["error"]["code"] == code, body
    form = httpx.post(
        url, content=b"model=chat", headers={**headers, "content-type": "text/plain"},
        trust_env=False,
    )  # fmt: skip
    assert form.json()["error"]["code"] == "invalid_json"


def test_json_may_name_its_charset(fleet: Any) -> None:
    headers = {
        "authorization": f"Bearer {fleet.key('globex')}",
        "content-type": "Application/JSON; charset=utf-8",
    }
    url = fleet.url("osl-1") + "/v1/chat/completions"
    body = b'{"model":"chat","messages":[]}'
    assert httpx.post(url, content=body, headers=headers, trust_env=False).status_code == 200


def test_413_for_a_body_beyond_the_limit(fleet: Any) -> None:
    body = b'{"model":"chat","x":"' + b"a" * fleet.tuning.request_bytes_max + b'"}'
    answer = httpx.post(
        fleet.url("osl-1") + "/v1/chat/completions",
        content=body,
        headers={
            "authorization": f"Bearer {fleet.key('acme')}",
            "content-type": "application/json",
        },
        trust_env=False,
    )
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"


def test_model_servers_own_paths_are_not_reachable(fleet: Any) -> None:
    headers = {"authorization": f"Bearer {fleet.key('acme')}"}
    for path in ("/slots", "/v1/../slots", "/metrics", "/v1/chat/completions/../../slots"):
        answer = httpx.get(fleet.url("osl-1") + path, headers=headers, trust_env=False)
        assert answer.status_code == 404, path
        assert answer.json()["error"]["code"] == "unknown_url"


def test_clients_cannot_play_gateway(fleet: Any) -> None:
    forged = {
        "x-hinterland-tenant": "globex",
        "x-hinterland-policy": "any",
        "x-hinterland-service": "busy",
        "x-hinterland-ingress": "waw-1",
        "x-request-id": "mine",
        "x-envoy-max-retries": "50",
        "x-envoy-upstream-rq-timeout-ms": "1",
    }
    with client(fleet, "acme", **forged) as api:
        raw = api.chat.completions.with_raw_response.create(model="chat", messages=MESSAGES)
    assert raw.headers["x-hinterland-site"] in ("rix-1", "waw-1")
    assert raw.headers["x-request-id"] != "mine"
    error = refused(client(fleet, "initech", **forged))
    assert error.status_code == 451


def test_model_servers_learn_neither_tenant_nor_key(fleet: Any) -> None:
    assert ask(client(fleet, "globex", **{"idempotency-key": "k1"})) == "osl-1"
    seen = fleet.servers["osl-1"].last_headers
    assert "authorization" not in seen
    assert not [h for h in seen if h.startswith("x-hinterland")]
    assert "idempotency-key" not in seen


def test_the_peer_listener_lets_only_gateways_in(fleet: Any) -> None:
    address = fleet.assignments["osl-1"].gateway.peer_address
    held = fleet.authority.site_credentials("rix-1")
    trusted = {
        "x-hinterland-service": "chat",
        "x-hinterland-tenant": "globex",
        "x-hinterland-policy": "any",
    }
    body = {"model": "chat", "messages": MESSAGES}

    def enter(cert: tuple[str, str] | None, headers: dict[str, str]) -> int:
        context = ssl.create_default_context(cafile=str(held.ca_cert))
        context.check_hostname = False
        if cert:
            context.load_cert_chain(*cert)
        with httpx.Client(verify=context, trust_env=False) as peer:
            url = f"https://{address}/v1/chat/completions"
            return peer.post(url, json=body, headers=headers).status_code

    gateway = (str(held.gateway_cert), str(held.gateway_key))
    agent = (str(held.agent_cert), str(held.agent_key))
    assert enter(gateway, trusted) == 200
    assert enter(gateway, {}) == 451
    assert enter(gateway, {**trusted, "x-hinterland-policy": "ch"}) == 451
    assert enter(gateway, {**trusted, "x-hinterland-policy": "eu"}) == 451
    for cert in (None, agent):
        with pytest.raises(httpx.TransportError):
            enter(cert, trusted)
    with pytest.raises(httpx.TransportError):
        httpx.post(f"http://{address}/v1/chat/completions", json=body, headers=trusted)


def test_shares_are_the_plans_streaming_included(fleet: Any) -> None:
    headers = {"authorization": f"Bearer {fleet.key('acme')}"}
    url = fleet.url("osl-1") + "/v1/chat/completions"
    sites: Counter[str] = Counter()

    async def some(api: httpx.AsyncClient, count: int, *, stream: bool) -> None:
        body = {"model": "chat", "messages": MESSAGES, "stream": stream}
        for _ in range(count):
            answer = await api.post(url, json=body, headers=headers)
            assert answer.status_code == 200
            assert not stream or answer.text.endswith("data: [DONE]\n\n")
            sites[answer.headers["x-hinterland-site"]] += 1

    async def all_of_them() -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=30) as api:
            await asyncio.gather(*(some(api, 125, stream=i % 4 == 0) for i in range(16)))

    asyncio.run(all_of_them())
    assert sum(sites.values()) == 2_000
    assert abs(sites["rix-1"] - 1_400) <= 14  # 7 000 bp, within 1 %
    assert abs(sites["waw-1"] - 600) <= 6


def test_a_part_is_shed_at_random(fleet: Any) -> None:
    headers = {"authorization": f"Bearer {fleet.key('globex')}"}
    url = fleet.url("osl-1") + "/v1/chat/completions"
    with httpx.Client(trust_env=False, headers=headers) as api:
        body = {"model": "half", "messages": MESSAGES}
        statuses = Counter(api.post(url, json=body).status_code for _ in range(400))
    assert set(statuses) == {200, 503}
    assert 120 < statuses[503] < 280  # 200 expected; 8 standard deviations
