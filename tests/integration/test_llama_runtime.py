"""A real llama.cpp server with real weights, started, asked, watched and ended by the keeper."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import openai

from agents.processes import ProcessTable
from agents.replicas import ReplicaKeeper
from agents.runtimes.base import Runtime
from agents.runtimes.command import CommandRuntime
from agents.runtimes.llama import LlamaRuntime
from sites.clock import SystemClock
from tests.agents import site_facts as f

CLOCK = SystemClock()
REPLICA = f"{f.GROUP}/r1"
ASKED = [{"role": "user", "content": "Name one river."}]


@asynccontextmanager
async def keeper_of(runtime: Runtime, folder: Path) -> AsyncIterator[ReplicaKeeper]:
    processes = ProcessTable(folder / "run", clock=CLOCK)
    keeper = ReplicaKeeper(runtime, processes=processes, logs=folder / "logs", clock=CLOCK)
    try:
        yield keeper
    finally:
        for record in processes.records():
            await processes.stop(record.name, grace_ms=2_000)
        await keeper.close()


async def ready(keeper: ReplicaKeeper) -> openai.AsyncOpenAI:
    async with asyncio.timeout(60):
        while not await keeper.is_ready(REPLICA):
            assert keeper.is_alive(REPLICA), keeper.bury(REPLICA)
            await asyncio.sleep(0.05)
    address = keeper.address(REPLICA)
    assert address is not None
    return openai.AsyncOpenAI(
        base_url=f"http://{address[0]}:{address[1]}/v1",
        api_key="none",
        max_retries=0,
        http_client=httpx.AsyncClient(trust_env=False, timeout=60),
    )


def test_a_real_model_answers_streams_and_is_observed(tmp_path: Path) -> None:
    asyncio.run(answer_and_observe(tmp_path))


async def answer_and_observe(tmp_path: Path) -> None:
    async with keeper_of(LlamaRuntime(), tmp_path) as keeper:
        await keeper.start(REPLICA, f.target())
        async with await ready(keeper) as client:
            assert await keeper.is_idle(REPLICA)
            answer = await client.chat.completions.create(
                model="smol", messages=ASKED, max_tokens=6, temperature=0
            )
            assert answer.model == "smol"
            assert answer.usage is not None
            assert answer.usage.completion_tokens == 6
            text = answer.choices[0].message.content
            stream = await client.chat.completions.create(
                model="smol", messages=ASKED, max_tokens=400, temperature=0, stream=True,
                stream_options={"include_usage": True}, extra_body={"ignore_eos": True},
            )  # fmt: skip
            said, busy, tokens = "", None, 0
            async for chunk in stream:
                if busy is None:
                    busy = not await keeper.is_idle(REPLICA)
                said += "".join(c.delta.content or "" for c in chunk.choices)
                tokens = chunk.usage.completion_tokens if chunk.usage else tokens
            assert said.startswith(text)
            assert busy
            assert tokens == 400
            await keeper.read_work(REPLICA)
            assert keeper.work(REPLICA).tokens_out_total >= 400
        await keeper.stop(REPLICA, grace_ms=5_000)
        assert keeper.address(REPLICA) is None


def test_weights_that_are_none_end_with_the_servers_reason(tmp_path: Path) -> None:
    asyncio.run(fail_to_serve(tmp_path))


async def fail_to_serve(tmp_path: Path) -> None:
    weights = tmp_path / "broken.gguf"
    weights.write_bytes(b"GGUF and then nothing of the kind")
    async with keeper_of(LlamaRuntime(), tmp_path) as keeper:
        await keeper.start(REPLICA, f.target(artifact=f"file:{weights}"))
        async with asyncio.timeout(60):
            while keeper.is_alive(REPLICA):
                await asyncio.sleep(0.05)
        reason = keeper.bury(REPLICA)
        assert "status 1" in reason
        assert "broken.gguf" in reason
        assert "Traceback" not in reason


def test_any_server_runs_by_its_command(tmp_path: Path) -> None:
    asyncio.run(run_a_command(tmp_path))


async def run_a_command(tmp_path: Path) -> None:
    """Our own simulated server, but as a stranger's program."""
    runtime = CommandRuntime(
        f"{sys.executable} -m agents.runtimes.simulated_server --port {{port}} --variant {{model}}"
    )
    target = f.target()
    target = replace(target, variant=replace(target.variant, artifact="hf:org/model"))
    async with keeper_of(runtime, tmp_path) as keeper:
        await keeper.start(REPLICA, target)
        async with await ready(keeper) as client:
            models = await client.models.list()
            assert [m.id for m in models.data] == ["org/model"]
            answer = await client.chat.completions.create(model="x", messages=ASKED, max_tokens=3)
            assert len((answer.choices[0].message.content or "").split()) == 3
        await keeper.read_work(REPLICA)
        assert keeper.work(REPLICA).tokens_out_total == 3
        record = json.loads(next((tmp_path / "run").glob("*.json")).read_bytes())
        assert record["name"] == f"replica/{REPLICA}"
