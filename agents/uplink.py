"""The agent's one connection to the control plane: dials out, over mTLS, again and again.

Decides when to dial (exponential backoff with jitter), and what of the outgoing frames survives a
broken stream: answers (step results, verdicts) do, until they have been on a healthy stream for
`retain_ms`; of observations only the newest matters; record batches are the spool's to send again.
What frames mean is the agent core's. Losing the control plane stops nothing at the site.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import grpc
import grpc.aio
import structlog

from agents.codec import CONNECT_METHOD, SERVICE_NAME, decode_control, encode_agent
from agents.credentials import CONTROL_SERVER_NAME, SiteCredentials, read_credential
from agents.frames import MAX_MESSAGE_BYTES, ControlFact, Drain, RecordBatch
from sites.clock import Clock
from sites.errors import FatalError, InvalidFactError
from sites.steps import AssignmentVerdict, StepResult
from sites.telemetry import Hello, SiteObservation

_log = structlog.get_logger(__name__)

Outgoing = SiteObservation | StepResult | AssignmentVerdict | RecordBatch


@dataclass(frozen=True, kw_only=True, slots=True)
class UplinkConfig:
    """Whom to dial (``host:port``), with which keys, and how patiently."""

    control_address: str
    credentials: SiteCredentials
    backoff_first_ms: int = 100
    backoff_most_ms: int = 5_000
    connect_timeout_ms: int = 5_000
    keepalive_ms: int = 10_000
    keepalive_timeout_ms: int = 5_000
    inbound_frames: int = 256
    answers: int = 256
    batches: int = 4
    retain_ms: int = 30_000


@dataclass(kw_only=True, slots=True)
class _Answer:
    """A result or verdict; `sent_at_ms` (monotonic) is None until this stream has taken it."""

    data: bytes
    sent_at_ms: int | None = None


def new_instance_id(clock: Clock, *, pid: int) -> str:
    """Name of one start of an agent; a later start sorts after an earlier one as text."""
    return f"{clock.wall_ms():015d}-{pid}"


def backoff_ms(config: UplinkConfig, *, failures: int, jitter: float) -> int:
    """How long to wait before dialling again: doubling from the first to the most, times a factor
    between 1/2 and 1 (`jitter` in [0, 1)), so that a fleet that lost its control plane does not
    return in step.
    """
    doubled = config.backoff_first_ms * 2 ** min(failures, 20)
    return int(min(doubled, config.backoff_most_ms) * (0.5 + jitter / 2))


class Uplink:
    """Owns the stream. Used from one event loop; `inbound` hands over control frames in order."""

    def __init__(
        self,
        config: UplinkConfig,
        *,
        clock: Clock,
        jitter: Callable[[], float],
        hello: Callable[[], Hello],
    ) -> None:
        """`jitter` draws from [0, 1); `hello` describes the site at the moment of dialling."""
        self._config = config
        self._clock = clock
        self._jitter = jitter
        self._hello = hello
        self.inbound: asyncio.Queue[ControlFact] = asyncio.Queue(config.inbound_frames)
        self.connected = False
        self.last_error = ""
        self._was_ever_connected = False
        self._was_refused = False
        self._answers: dict[int, _Answer] = {}
        self._numbers = itertools.count()
        self._observation: bytes | None = None
        self._batches: list[bytes] = []
        self._wake = asyncio.Event()

    def send(self, fact: Outgoing) -> bool:
        """Hand over a frame; False if it will not be sent (a record batch while disconnected or
        over the limit). Never blocks. Raises InvalidFactError for a frame over 4 MiB.
        """
        data = encode_agent(fact)
        if isinstance(fact, SiteObservation):
            self._observation = data
        elif isinstance(fact, RecordBatch):
            if not self.connected or len(self._batches) >= self._config.batches:
                return False
            self._batches.append(data)
        else:
            self._answers[next(self._numbers)] = _Answer(data=data)
            if len(self._answers) > self._config.answers:
                del self._answers[next(iter(self._answers))]
        self._wake.set()
        return True

    async def run(self, stop: asyncio.Event) -> None:
        """Keep a stream open until `stop`. Raises FatalError if the site's keys are unreadable at
        first; later that is one more reason to dial again, for the site goes on serving.
        """
        failures = 0
        stopped = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                self._forget_stream_state()
                session = asyncio.create_task(self._session())
                await asyncio.wait({session, stopped}, return_when=asyncio.FIRST_COMPLETED)
                was_connected = self.connected
                self.connected = False
                delay_ms = await self._end_of(session)
                if stop.is_set():
                    return
                failures = 0 if was_connected and not self._was_refused else failures + 1
                delay_ms = max(
                    delay_ms,
                    backoff_ms(self._config, failures=failures, jitter=self._jitter()),
                )
                await self._wait(delay_ms, stopped)
        finally:
            stopped.cancel()
            await asyncio.gather(stopped, return_exceptions=True)

    async def _end_of(self, session: asyncio.Task[int]) -> int:
        """Settle an ended (or no longer wanted) session; returns ms the peer asked to wait."""
        session.cancel()
        self._was_refused = False
        try:
            return await session
        except asyncio.CancelledError:
            return 0
        except grpc.aio.AioRpcError as fault:
            self._was_refused = fault.code() is grpc.StatusCode.PERMISSION_DENIED
            self._note(f"{fault.code().name}: {fault.details()}")
        except FatalError as fault:
            if not self._was_ever_connected:
                raise
            self._note(str(fault))
        except (TimeoutError, InvalidFactError) as fault:
            self._note(str(fault) or "the control plane did not answer in time")
        except asyncio.InvalidStateError:  # gRPC's word for a write on a stream the peer has ended
            self._note("the control plane ended the stream")
        return 0

    def _note(self, error: str) -> None:
        if error != self.last_error:
            _log.warning("uplink down", control=self._config.control_address, reason=error)
        self.last_error = error

    async def _wait(self, delay_ms: int, stopped: asyncio.Task[bool]) -> None:
        nap = asyncio.create_task(self._clock.sleep_ms(delay_ms))
        await asyncio.wait({nap, stopped}, return_when=asyncio.FIRST_COMPLETED)
        nap.cancel()
        await asyncio.gather(nap, return_exceptions=True)

    def _forget_stream_state(self) -> None:
        for answer in self._answers.values():
            answer.sent_at_ms = None
        self._batches.clear()

    async def _session(self) -> int:
        """One stream, from dialling to its end; returns ms to wait before the next."""
        async with self._channel() as channel:
            connect: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
                f"/{SERVICE_NAME}/{CONNECT_METHOD}"
            )
            call = connect()
            try:
                async with asyncio.timeout(self._config.connect_timeout_ms / 1_000):
                    await call.write(encode_agent(self._hello()))
                    await call.initial_metadata()
                self.connected = self._was_ever_connected = True
                self.last_error = ""
                _log.info("uplink open", control=self._config.control_address)
                return await self._pump(call)
            finally:
                call.cancel()

    async def _pump(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> int:
        reader = asyncio.create_task(self._read(call))
        writer = asyncio.create_task(self._write(call))
        try:
            done, _ = await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
            for task in (reader, writer):  # the reader knows why a stream ended
                if task in done:
                    task.result()
            return reader.result() if reader in done else 0
        finally:
            reader.cancel()
            writer.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)

    async def _read(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> int:
        while isinstance(data := await call.read(), bytes):
            fact = decode_control(data)
            if isinstance(fact, Drain):
                _log.info("uplink drained", reason=fact.reason)
                return fact.reconnect_after_ms
            await self.inbound.put(fact)
        return 0

    async def _write(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
        self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            for answer in list(self._answers.values()):
                if answer.sent_at_ms is None:
                    await call.write(answer.data)
                    answer.sent_at_ms = self._clock.monotonic_ms()
            self._forget_settled_answers()
            while self._batches:
                await call.write(self._batches[0])
                del self._batches[:1]
            if self._observation is not None:
                newest, self._observation = self._observation, None
                await call.write(newest)

    def _forget_settled_answers(self) -> None:
        horizon_ms = self._clock.monotonic_ms() - self._config.retain_ms
        self._answers = {
            number: answer
            for number, answer in self._answers.items()
            if answer.sent_at_ms is None or answer.sent_at_ms > horizon_ms
        }

    def _channel(self) -> grpc.aio.Channel:
        files = self._config.credentials
        try:
            credentials = grpc.ssl_channel_credentials(
                root_certificates=read_credential(files.ca_cert),
                private_key=read_credential(files.agent_key),
                certificate_chain=read_credential(files.agent_cert),
            )
        except ValueError as fault:
            raise FatalError(f"credentials in {files.folder}: {fault}") from fault
        return grpc.aio.secure_channel(
            self._config.control_address,
            credentials,
            options=[
                ("grpc.ssl_target_name_override", CONTROL_SERVER_NAME),
                ("grpc.use_local_subchannel_pool", 1),  # a fresh dial each time, keys read anew
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                ("grpc.keepalive_time_ms", self._config.keepalive_ms),
                ("grpc.keepalive_timeout_ms", self._config.keepalive_timeout_ms),
                ("grpc.http2.max_pings_without_data", 0),
            ],
        )
