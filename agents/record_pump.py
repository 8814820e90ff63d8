"""Moves execution records: gateway log -> spool -> control plane, and forgets what is acknowledged.

Decides when to read, rotate and send (again). What a line means is `agents.gateway.access_log`'s,
durability is `agents.spool`'s. While the spool or its disk is full the log is read no further, so
nothing in it is lost. What the gateway could not even write to its log becomes one record that says
so: an audit over that time is then known to be incomplete.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, fields, replace
from typing import Any

import structlog

from agents.frames import MAX_RECORDS_PER_BATCH, RecordBatch
from agents.gateway.access_log import LogContext, parse_lines
from agents.log_tail import LogTail
from agents.ports import GatewayPort, UplinkPort
from agents.spool import Spool
from sites.assignment import SiteAssignment
from sites.clock import Clock
from sites.errors import RetryableError
from sites.execution import ExecutionRecord

_log = structlog.get_logger(__name__)

BATCH_BYTES = 1024 * 1024
TEXT_CHARACTERS_MAX = 512
"""Longer text in a record (a client chose it) is replaced by its SHA-256."""

_READS_PER_TURN = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class PumpConfig:
    """Paces in ms. Lines that come within `linger_ms` of new routes count as the old routes'.

    What was sent goes out again when no acknowledgement got further for `resend_ms`, or for
    `gap_ms` and the control plane repeats itself: then it left something out.
    """

    turn_ms: int = 50
    resend_ms: int = 5_000
    gap_ms: int = 500
    linger_ms: int = 200
    batch_records: int = 1_000

    def __post_init__(self) -> None:
        assert 0 < self.batch_records <= MAX_RECORDS_PER_BATCH


class RecordPump:
    """The records of one site. Used from one event loop."""

    def __init__(
        self,
        config: PumpConfig,
        *,
        site_id: str,
        agent_identity: str,
        spool: Spool,
        tail: LogTail,
        clock: Clock,
    ) -> None:
        self._config = config
        self._site_id = site_id
        self._agent_identity = agent_identity
        self._spool = spool
        self._tail = tail
        self._clock = clock
        self._context: LogContext | None = None
        self._next: tuple[LogContext, int] | None = None
        self._sent_sequence = spool.acked_sequence()
        self._progress_at_ms = 0
        self._acked_sequence = self._sent_sequence
        self._last_sequence = spool.last_sequence()
        self._was_connected = False
        self._bad_lines = 0
        self._fault = ""
        self._failed_writes = self._accounted = spool.failed_writes()
        self._sound_at_ms = clock.wall_ms()

    @property
    def last_sequence(self) -> int:
        """Newest record in the spool, -1 if there never was one."""
        return self._last_sequence

    @property
    def pending(self) -> int:
        """Records the control plane has not acknowledged, one that is due for a loss included."""
        is_due = self._failed_writes > self._accounted
        return self._last_sequence - self._acked_sequence + is_due

    def faults(self) -> tuple[str, ...]:
        """What does not work at this moment, for the heartbeat."""
        bad = f"{self._bad_lines} lines of the gateway's log are no records"
        return (*([self._fault] if self._fault else []), *([bad] if self._bad_lines else []))

    def use(self, assignment: SiteAssignment) -> None:
        """Read the log's lines by this assignment, as soon as those before it have come in."""
        context = LogContext(assignment=assignment, agent_identity=self._agent_identity)
        if self._context is None:
            self._context = context
        else:
            self._next = (context, self._clock.monotonic_ms() + self._config.linger_ms)

    async def run(self, uplink: UplinkPort, gateway: GatewayPort) -> None:
        """Until cancelled. Raises FatalError if the spool is damaged."""
        self._tail.restore()
        while True:
            await self.turn(uplink, gateway)
            await self._clock.sleep_ms(self._config.turn_ms)

    async def turn(self, uplink: UplinkPort, gateway: GatewayPort) -> None:
        """Read what is new, then send what is due."""
        try:
            if self._tail.is_rotation_due():
                await self._rotate(gateway)
            await self._read()
            await self._account(gateway.failed_log_writes())
            self._fault = ""
        except RetryableError as fault:
            if str(fault) != self._fault:
                _log.warning("records wait", reason=str(fault))
            self._fault = str(fault)
        self._send(uplink)

    async def acknowledge(self, sequence: int) -> None:
        """The control plane holds everything up to `sequence`."""
        if sequence > self._last_sequence:
            _log.warning("the ledger knows more records than this spool gave", sequence=sequence)
        try:
            await asyncio.to_thread(self._spool.acknowledge, sequence)
        except RetryableError as fault:
            self._fault = str(fault)
            return
        self._last_sequence = await asyncio.to_thread(self._spool.last_sequence)
        now_ms = self._clock.monotonic_ms()
        if sequence > self._acked_sequence:
            self._acked_sequence = sequence
            self._sent_sequence = max(self._sent_sequence, sequence)
            self._progress_at_ms = now_ms
        elif now_ms - self._progress_at_ms >= self._config.gap_ms:
            self._sent_sequence = self._acked_sequence

    def close(self) -> None:
        """Close the spool; everything is durable already."""
        self._spool.close()

    async def _rotate(self, gateway: GatewayPort) -> None:
        self._tail.rotate()
        try:
            await gateway.reopen_access_log()
        except RetryableError:
            self._tail.restore()
            raise

    async def _read(self) -> None:
        for _ in range(_READS_PER_TURN):
            if self._context is None:
                return
            is_late = self._next is not None and self._clock.monotonic_ms() >= self._next[1]
            read = self._tail.read(self._spool.position())
            if read.position == self._spool.position():
                await self._follow_rotation()
                if is_late and self._next is not None:
                    self._context, self._next = self._next[0], None
                return
            parsed = parse_lines(read.lines, context=self._context)
            for bad in parsed.faults:
                self._bad_lines += 1
                _log.warning("log line is no record", reason=bad.reason, start=bad.line_start)
            records = tuple(bounded(r) for r in parsed.records)
            self._last_sequence = await asyncio.to_thread(
                self._spool.append, records, position=read.position
            )

    async def _account(self, failed_writes: int) -> None:
        """Leave a record of what the gateway's log lost since the last one."""
        if failed_writes < 0:
            return
        if failed_writes < self._accounted:
            self._accounted = 0  # a new gateway counts from nothing
        self._failed_writes = failed_writes
        now_ms = self._clock.wall_ms()
        if failed_writes > self._accounted and self._context is not None:
            record = self._context.unrecorded(
                failed_writes - self._accounted, between_ms=(self._sound_at_ms, now_ms)
            )
            self._last_sequence = await asyncio.to_thread(
                self._spool.append,
                (record,),
                position=self._spool.position(),
                failed_writes=failed_writes,
            )
            self._accounted = failed_writes
            _log.warning("records were lost", reason=record.reason)
        self._sound_at_ms = now_ms

    async def _follow_rotation(self) -> None:
        position = self._spool.position()
        following = self._tail.next_file(position)
        if following is not None:
            await asyncio.to_thread(self._spool.append, (), position=following)
            position = following
        self._tail.drop_rotated(position)

    def _send(self, uplink: UplinkPort) -> None:
        """Send on; everything unacknowledged again on a new stream or when nothing gets further.

        Sending more counts for nothing there: under steady traffic there is always more to send.
        """
        now_ms = self._clock.monotonic_ms()
        is_overdue = now_ms - self._progress_at_ms >= self._config.resend_ms
        if uplink.connected != self._was_connected or is_overdue:
            self._was_connected = uplink.connected
            self._sent_sequence = self._acked_sequence
        while uplink.connected:
            batch = self._spool.batch(
                after=max(self._sent_sequence, self._acked_sequence),
                records_max=self._config.batch_records,
                bytes_max=BATCH_BYTES,
            )
            if batch is None:
                return
            frame = RecordBatch(
                site_id=self._site_id,
                first_sequence=batch.first_sequence,
                records=batch.records,
            )
            if not uplink.send(frame):
                return
            if self._sent_sequence <= self._acked_sequence:
                self._progress_at_ms = now_ms
            self._sent_sequence = batch.first_sequence + len(batch.records) - 1


def bounded(record: ExecutionRecord) -> ExecutionRecord:
    """The record with every overlong text replaced by ``sha256:`` and its digest."""
    long: dict[str, Any] = {}
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, str) and len(value) > TEXT_CHARACTERS_MAX:
            long[field.name] = "sha256:" + hashlib.sha256(value.encode()).hexdigest()
    return replace(record, **long) if long else record
