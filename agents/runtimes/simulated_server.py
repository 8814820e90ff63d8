"""Program: an OpenAI-compatible server that computes nothing and keeps a serving point's pace.

Decides when a token is due: the first after TTFT, each next after TPOT or after the request's share
of the replica's decode rate, whichever is later; requests beyond the concurrency wait. Which pace
is the caller's choice. Tokens are words; the same prompt always gets the same answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import uvicorn

from sites.clock import Clock, SystemClock

WORDS = ("the", "river", "turns", "north", "past", "quiet", "mills", "and", "stone", "bridges")
TOKENS_DEFAULT = 16
TOKENS_MAX = 8_192
BODY_BYTES_MAX = 8 * 1024 * 1024
_CHUNK_MS = 5  # tokens due within it leave in one piece, as real servers' sockets do

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """Times in ms, `decode_tok_s` in tokens/s of the whole replica (see `ServingPoint`)."""

    variant_id: str
    ttft_ms: float
    tpot_ms: float
    decode_tok_s: float
    concurrency: int
    start_ms: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ask:
    tokens: int
    prompt_tokens: int
    is_stream: bool
    wants_usage: bool


class SimulatedServer:
    """The ASGI application. Ready `start_ms` after it was made."""

    def __init__(self, pace: Pace, *, clock: Clock) -> None:
        self._pace = pace
        self._clock = clock
        self._ready_at_ms = clock.monotonic_ms() + pace.start_ms
        self._slots = asyncio.Semaphore(pace.concurrency)
        self._running = 0
        self._queued = 0
        self._tokens_out_total = 0
        self._served = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        assert scope["type"] == "http"
        call = f"{scope['method']} {scope['path']}"
        if call == "GET /health":
            is_ready = self._clock.monotonic_ms() >= self._ready_at_ms
            await _reply(send, 200 if is_ready else 503, {"status": "ok" if is_ready else "wait"})
        elif call == "GET /metrics":
            await _reply_text(send, self._metrics())
        elif call == "GET /v1/models":
            await _reply(
                send,
                200,
                {"object": "list", "data": [{"id": self._pace.variant_id, "object": "model"}]},
            )
        elif call in ("POST /v1/chat/completions", "POST /v1/completions"):
            await self._complete(receive, send)
        else:
            await _refuse(send, 404, f"no {call} here")

    async def _complete(self, receive: Receive, send: Send) -> None:
        try:
            ask = _read_ask(await _body(receive))
        except ValueError as fault:
            await _refuse(send, 400, str(fault))
            return
        self._queued += 1
        try:
            await self._slots.acquire()
        finally:
            self._queued -= 1
        self._running += 1
        self._served += 1
        try:
            await self._answer(ask, f"chatcmpl-sim-{self._served}", send)
        finally:
            self._running -= 1
            self._slots.release()

    async def _answer(self, ask: _Ask, completion_id: str, send: Send) -> None:
        if not ask.is_stream:
            words = [w async for batch in self._tokens(ask) for w in batch]
            message = {"role": "assistant", "content": " ".join(words)}
            choice = {"index": 0, "message": message, "finish_reason": "length"}
            body = self._frame(completion_id, "chat.completion", [choice])
            await _reply(send, 200, body | {"usage": _usage(ask)})
            return
        await _start(send, 200, "text/event-stream")
        async for batch in self._tokens(ask):
            delta = {"role": "assistant", "content": " ".join(batch) + " "}
            choice = {"index": 0, "delta": delta, "finish_reason": None}
            await self._event(send, completion_id, [choice])
        last = {"index": 0, "delta": {}, "finish_reason": "length"}
        await self._event(send, completion_id, [last])
        if ask.wants_usage:
            await self._event(send, completion_id, [], usage=_usage(ask))
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})

    async def _event(self, send: Send, completion_id: str, choices: list[Any], **more: Any) -> None:
        body = self._frame(completion_id, "chat.completion.chunk", choices) | more
        data = b"data: " + json.dumps(body).encode() + b"\n\n"
        await send({"type": "http.response.body", "body": data, "more_body": True})

    def _frame(self, completion_id: str, kind: str, choices: list[Any]) -> dict[str, Any]:
        return {
            "id": completion_id,
            "object": kind,
            "created": self._clock.wall_ms() // 1_000,
            "model": self._pace.variant_id,
            "choices": choices,
        }

    async def _tokens(self, ask: _Ask) -> AsyncIterator[list[str]]:
        """Batches of words as they fall due."""
        due_ms = self._clock.monotonic_ms() + self._pace.ttft_ms
        batch: list[str] = []
        for index in range(ask.tokens):
            wait_ms = due_ms - self._clock.monotonic_ms()
            if wait_ms >= _CHUNK_MS:
                if batch:
                    yield batch
                    batch = []
                await self._clock.sleep_ms(round(wait_ms))
            batch.append(WORDS[index % len(WORDS)])
            self._tokens_out_total += 1
            due_ms += max(self._pace.tpot_ms, 1_000 * self._running / self._pace.decode_tok_s)
        if batch:
            yield batch

    def _metrics(self) -> str:
        return (
            f"vllm:num_requests_running {self._running}\n"
            f"vllm:num_requests_waiting {self._queued}\n"
            f"vllm:generation_tokens_total {self._tokens_out_total}\n"
        )


def _usage(ask: _Ask) -> dict[str, int]:
    return {
        "prompt_tokens": ask.prompt_tokens,
        "completion_tokens": ask.tokens,
        "total_tokens": ask.prompt_tokens + ask.tokens,
    }


def _read_ask(body: bytes) -> _Ask:
    """Raises ValueError saying what a real server would refuse."""
    value = json.loads(body)
    if not isinstance(value, dict):
        raise ValueError("the body must be a JSON object")
    tokens = value.get("max_completion_tokens") or value.get("max_tokens") or TOKENS_DEFAULT
    if not isinstance(tokens, int) or not 1 <= tokens <= TOKENS_MAX:
        raise ValueError(f"max_tokens must lie between 1 and {TOKENS_MAX}")
    options = value.get("stream_options")
    prompt = json.dumps(value.get("messages") or value.get("prompt") or "")
    return _Ask(
        tokens=tokens,
        prompt_tokens=len(prompt.split()),
        is_stream=value.get("stream") is True,
        wants_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while size <= BODY_BYTES_MAX:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ValueError("the client went away")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if not message.get("more_body"):
            return b"".join(parts)
    raise ValueError(f"the body exceeds {BODY_BYTES_MAX} bytes")


async def _start(send: Send, status: int, content_type: str) -> None:
    headers = [(b"content-type", content_type.encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _reply(send: Send, status: int, body: Any) -> None:
    await _start(send, status, "application/json")
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})


async def _reply_text(send: Send, text: str) -> None:
    await _start(send, 200, "text/plain; version=0.0.4")
    await send({"type": "http.response.body", "body": text.encode()})


async def _refuse(send: Send, status: int, message: str) -> None:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    await _reply(send, status, {"error": error})


def main() -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="simulated_server")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--variant", default="simulated")
    for name in ("--ttft-ms", "--tpot-ms", "--start-ms"):
        parser.add_argument(name, type=float, default=0.0)
    parser.add_argument("--decode-tok-s", type=float, default=10_000.0)
    parser.add_argument("--concurrency", type=int, default=64)
    options = parser.parse_args()
    pace = Pace(
        variant_id=options.variant,
        ttft_ms=options.ttft_ms,
        tpot_ms=options.tpot_ms,
        decode_tok_s=options.decode_tok_s,
        concurrency=options.concurrency,
        start_ms=options.start_ms,
    )
    uvicorn.run(
        SimulatedServer(pace, clock=SystemClock()),
        host=options.host,
        port=options.port,
        log_level="warning",
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=5,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
