"""The simulated server in memory: its protocol, and its pace on a clock that only waiting moves."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from agents.collectors import vllm
from agents.runtimes.simulated_server import Pace, SimulatedServer
from sites.clock import ManualClock

PACE = Pace(variant_id="m", ttft_ms=100.0, tpot_ms=10.0, decode_tok_s=200.0, concurrency=2)


class Caller:
    """Calls the ASGI application and keeps what it sends, with the time it was sent at."""

    def __init__(self, pace: Pace = PACE) -> None:
        self.clock = ManualClock()
        self.server = SimulatedServer(pace, clock=self.clock)

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, bytes, list[int]]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent: list[tuple[int, dict[str, Any]]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": data, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append((self.clock.monotonic_ms(), message))

        await self.server({"type": "http", "method": method, "path": path}, receive, send)
        text = b"".join(m.get("body", b"") for _, m in sent)
        return sent[0][1]["status"], text, [at for at, m in sent if m.get("body")]

    def chat(self, **more: Any) -> tuple[int, bytes, list[int]]:
        body = {"model": "x", "messages": [{"role": "user", "content": "a b c"}]} | more
        return asyncio.run(self.call("POST", "/v1/chat/completions", body))


def events(text: bytes) -> list[dict[str, Any]]:
    lines = [line[6:] for line in text.decode().split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_an_answer_has_as_many_tokens_as_asked_for() -> None:
    status, text, _ = Caller().chat(max_tokens=5)
    answer = json.loads(text)
    assert status == 200
    assert len(answer["choices"][0]["message"]["content"].split()) == 5
    assert answer["usage"]["completion_tokens"] == 5


def test_the_first_token_comes_after_ttft_and_each_next_after_tpot() -> None:
    _, text, times = Caller().chat(max_tokens=4, stream=True)
    assert times[:4] == [100, 110, 120, 130]
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in events(text)).split()


def test_a_stream_says_its_usage_only_when_asked() -> None:
    _, without, _ = Caller().chat(max_tokens=2, stream=True)
    assert not [e for e in events(without) if "usage" in e]
    _, with_, _ = Caller().chat(max_tokens=2, stream=True, stream_options={"include_usage": True})
    assert events(with_)[-1]["usage"]["completion_tokens"] == 2


def test_requests_beyond_the_concurrency_wait_and_are_counted() -> None:
    caller = Caller()

    async def three() -> list[Any]:
        ask = {"messages": [], "max_tokens": 3}
        calls = [
            asyncio.create_task(caller.call("POST", "/v1/chat/completions", ask)) for _ in range(3)
        ]
        await asyncio.sleep(0)
        _, page, _ = await caller.call("GET", "/metrics")
        seen = vllm.read(page.decode())
        assert seen is not None
        assert (seen.running, seen.queued) == (2, 1)
        return await asyncio.gather(*calls)

    assert [status for status, _, _ in asyncio.run(three())] == [200, 200, 200]


@pytest.mark.parametrize(
    "body", [b"{", b"[]", {"max_tokens": -1}, {"max_tokens": "many"}, {"max_tokens": 10**9}]
)
def test_what_a_real_server_refuses_is_refused(body: Any) -> None:
    status, text, _ = asyncio.run(Caller().call("POST", "/v1/chat/completions", body))
    assert status == 400
    assert json.loads(text)["error"]["type"] == "invalid_request_error"


def test_it_is_ready_only_after_its_start_time() -> None:
    caller = Caller(Pace(variant_id="m", ttft_ms=0, tpot_ms=0, decode_tok_s=1e6, concurrency=1,
                         start_ms=50))  # fmt: skip
    assert asyncio.run(caller.call("GET", "/health"))[0] == 503
    caller.clock.advance_ms(50)
    assert asyncio.run(caller.call("GET", "/health"))[0] == 200
    assert asyncio.run(caller.call("GET", "/nothing"))[0] == 404
    assert b'"m"' in asyncio.run(caller.call("GET", "/v1/models"))[1]
