"""Clients of the demo: the `openai` library streaming chat answers from the sites' gateways.

A client knows the gateways of its market, nearest first, and goes to the next one when the nearest
cannot be reached or answers 5xx, as an SDK behind anycast or DNS failover would. What is counted is
the request, not the attempt. This module measures; what the figures mean is the story's to say.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import httpx
import openai

from sites.clock import Clock

PROMPTS = (
    "In one sentence, why do lakes freeze from the top?",
    "Name three rivers of Europe.",
    "Write a haiku about a lighthouse.",
    "What is the capital of Latvia?",
)
RETRYABLE_STATUS_MIN = 500
RESULTS_MAX = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """One population of clients: who they are, what they ask for, where they enter, how often."""

    market_id: str
    tenant_id: str
    service_id: str
    api_key: str = field(repr=False)
    gateways: tuple[str, ...]
    requests_per_s: float
    residency_header: str = ""
    max_tokens: int = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One request as its client saw it. `status` 200 means the whole stream arrived."""

    caller: Caller
    status: int
    serving_site: str
    variant: str
    started_ms: int
    ttft_ms: int
    total_ms: int
    gateways_tried: int
    tokens: int
    detail: str = ""

    @property
    def ok(self) -> bool:
        """Whether the client got its answer."""
        return self.status == 200


def ask(caller: Caller, *, prompt: str, clock: Clock, timeout_s: float = 30.0) -> Answer:
    """Send one streaming chat request, going on to the next gateway when one fails.

    Never raises for anything a gateway or the network can do; the answer says what happened.
    """
    started_ms = clock.monotonic_ms()
    status, detail = 0, "no gateway"
    for tried, gateway in enumerate(caller.gateways, start=1):
        client = openai.OpenAI(
            base_url=f"http://{gateway}/v1",
            api_key=caller.api_key,
            max_retries=0,
            timeout=timeout_s,
        )
        try:
            with client:
                return _stream(
                    client, caller, prompt=prompt, clock=clock, started_ms=started_ms, tried=tried
                )
        except openai.APIStatusError as refused:
            status, detail = refused.status_code, _error_text(refused)
            if status < RETRYABLE_STATUS_MIN:
                break
        except (openai.APIError, httpx.HTTPError) as failed:  # refused, reset, timed out
            status, detail = 0, f"{type(failed).__name__}: {failed}"
    return Answer(
        caller=caller,
        status=status,
        serving_site="",
        variant="",
        started_ms=started_ms,
        ttft_ms=-1,
        total_ms=clock.monotonic_ms() - started_ms,
        gateways_tried=len(caller.gateways),
        tokens=0,
        detail=detail,
    )


def _stream(
    client: openai.OpenAI,
    caller: Caller,
    *,
    prompt: str,
    clock: Clock,
    started_ms: int,
    tried: int,
) -> Answer:
    headers = {"x-hinterland-residency": caller.residency_header} if caller.residency_header else {}
    ttft_ms, tokens, finished = -1, 0, False
    raw = client.chat.completions.with_raw_response.create(
        model=caller.service_id,
        messages=[{"role": "user", "content": prompt}],
        max_tokens=caller.max_tokens,
        stream=True,
        extra_headers=headers,
    )
    for chunk in raw.parse():
        if ttft_ms < 0:
            ttft_ms = clock.monotonic_ms() - started_ms
        for choice in chunk.choices:
            tokens += bool(choice.delta.content)
            finished = finished or choice.finish_reason is not None
    site = raw.headers.get("x-hinterland-site", "")
    variant = raw.headers.get("x-hinterland-variant", "")
    total_ms = clock.monotonic_ms() - started_ms
    return Answer(
        caller=caller,
        status=200 if finished else 0,
        serving_site=site,
        variant=variant,
        started_ms=started_ms,
        ttft_ms=ttft_ms,
        total_ms=total_ms,
        gateways_tried=tried,
        tokens=tokens,
        detail="" if finished else "the stream ended early",
    )


def _error_text(refused: openai.APIStatusError) -> str:
    body = refused.body
    if isinstance(body, dict):
        return str(body.get("message") or body)
    return str(refused)


class Traffic:
    """Callers sending at their rates, each from threads of its own, until stopped.

    Open loop per caller up to `threads_per_caller` requests at once; a caller that is slower than
    its rate asks less often, it never queues without bound.
    """

    def __init__(
        self,
        callers: Iterable[Caller],
        *,
        clock: Clock,
        threads_per_caller: int = 2,
        on_answer: Callable[[Answer], None] | None = None,
    ) -> None:
        self._callers = tuple(callers)
        self._clock = clock
        self._threads_per_caller = threads_per_caller
        self._on_answer = on_answer
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._answers: list[Answer] = []
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin sending."""
        for caller in self._callers:
            for turn in range(self._threads_per_caller):
                thread = threading.Thread(target=self._send, args=(caller, turn), daemon=True)
                self._threads.append(thread)
                thread.start()

    def stop(self, *, timeout_s: float = 40.0) -> tuple[Answer, ...]:
        """Stop sending, wait for what is under way, return every answer in order of its start."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout_s)
        return self.answers()

    def answers(self) -> tuple[Answer, ...]:
        """Answers so far, in order of their start."""
        with self._lock:
            return tuple(sorted(self._answers, key=lambda a: a.started_ms))

    def _send(self, caller: Caller, turn: int) -> None:
        pause_s = self._threads_per_caller / caller.requests_per_s
        self._stop.wait(pause_s * (turn + 1) / self._threads_per_caller)
        for number in range(RESULTS_MAX):
            if self._stop.is_set():
                return
            started_ms = self._clock.monotonic_ms()
            answer = ask(caller, prompt=PROMPTS[number % len(PROMPTS)], clock=self._clock)
            with self._lock:
                self._answers.append(answer)
            if self._on_answer is not None:
                self._on_answer(answer)
            spent_s = (self._clock.monotonic_ms() - started_ms) / 1_000
            self._stop.wait(max(0.0, pause_s - spent_s))


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """What a batch of answers came to. Times in ms; percentiles by nearest rank."""

    requests: int
    failed: int
    second_gateway: int
    by_site: tuple[tuple[str, int], ...]
    by_status: tuple[tuple[int, int], ...]
    ttft_ms_p50: int
    ttft_ms_p99: int
    longest_ms: int


def tally(answers: Iterable[Answer]) -> Tally:
    """Sum up answers; a batch of none is all zeros."""
    batch = tuple(answers)
    ttfts = sorted(a.ttft_ms for a in batch if a.ok)
    return Tally(
        requests=len(batch),
        failed=sum(not a.ok for a in batch),
        second_gateway=sum(a.ok and a.gateways_tried > 1 for a in batch),
        by_site=tuple(sorted(Counter(a.serving_site for a in batch if a.ok).items())),
        by_status=tuple(sorted(Counter(a.status for a in batch).items())),
        ttft_ms_p50=_percentile(ttfts, percent=50),
        ttft_ms_p99=_percentile(ttfts, percent=99),
        longest_ms=max((a.total_ms for a in batch), default=0),
    )


def _percentile(ordered: list[int], *, percent: int) -> int:
    if not ordered:
        return 0
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, rank - 1)]
