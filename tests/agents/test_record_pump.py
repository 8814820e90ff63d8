"""From the gateway's log to the control plane: everything arrives, in order, whatever fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents import log_tail
from agents.frames import MAX_RECORD_BYTES, RecordBatch
from agents.log_tail import LogTail
from agents.memory_ports import MemoryGateway, MemoryUplink
from agents.record_pump import PumpConfig, RecordPump, bounded
from agents.spool import Spool
from sites.clock import ManualClock
from sites.digest import canonical_json
from sites.errors import RetryableError
from tests.agents import site_facts as f

CONFIG = PumpConfig(batch_records=10)


def line(number: int, **more: object) -> bytes:
    """An ingress line of a request for an unknown model, as the gateway writes it."""
    fields = {
        "hop": "ingress",
        "start_ms": "1000",
        "duration_ms": 1,
        "status": 404,
        "details": "direct_response",
        "flags": "-",
        "route": "unknown",
        "request_id": f"r{number}",
        "attempt": "1",
        "tenant": "nobody",
    }
    return json.dumps(fields | more).encode() + b"\n"


class Pump:
    """A pump over a log file, and the control plane's side of it."""

    def __init__(self, folder: Path, *, records_max: int = 1_000) -> None:
        self.folder = folder
        self.log = folder / "access.jsonl"
        self.clock = ManualClock()
        self.gateway, self.uplink = MemoryGateway(), MemoryUplink()
        self.records_max = records_max
        self.received: dict[int, str] = {}
        self.open()

    def open(self) -> None:
        self.spool = Spool(self.folder / "spool.sqlite", records_max=self.records_max)
        self.pump = RecordPump(
            CONFIG,
            site_id=f.SITE,
            agent_identity="spiffe://hinterland/site/bruges",
            spool=self.spool,
            tail=LogTail(self.log),
            clock=self.clock,
        )
        self.pump.use(f.assignment())

    def write(self, *lines: bytes) -> None:
        with self.log.open("ab") as log:
            log.write(b"".join(lines))

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            asyncio.run(self.pump.turn(self.uplink, self.gateway))

    def receive(self, *, ack: bool = True) -> list[str]:
        new = []
        while not self.uplink.sent.empty():
            batch = self.uplink.sent.get_nowait()
            assert isinstance(batch, RecordBatch)
            for number, content in enumerate(batch.records, start=batch.first_sequence):
                request_id = json.loads(content)["request_id"]
                assert json.loads(content)["sequence"] == number
                assert self.received.setdefault(number, request_id) == request_id
                new.append(request_id)
        if ack and self.received:
            asyncio.run(self.pump.acknowledge(max(self.received)))
        return new


@pytest.fixture
def pump(tmp_path: Path) -> Iterator[Pump]:
    made = Pump(tmp_path)
    yield made
    made.pump.close()


def test_lines_become_records_that_are_sent_once_and_forgotten_when_acknowledged(
    pump: Pump,
) -> None:
    pump.write(*(line(n) for n in range(25)))
    pump.turn()
    assert pump.receive() == [f"r{n}" for n in range(25)]
    pump.turn(3)
    assert pump.receive() == []
    assert pump.pump.pending == 0
    assert pump.spool.batch(after=-1, records_max=9, bytes_max=9) is None


def test_unacknowledged_records_are_sent_again_after_a_while_and_on_a_new_stream(
    pump: Pump,
) -> None:
    pump.write(line(0), line(1))
    pump.turn()
    assert pump.receive(ack=False) == ["r0", "r1"]
    pump.turn()
    assert pump.receive(ack=False) == []
    pump.clock.advance_ms(CONFIG.resend_ms)
    pump.turn()
    assert pump.receive(ack=False) == ["r0", "r1"]
    pump.uplink.connected = False
    pump.turn()
    pump.uplink.connected = True
    pump.turn()
    assert pump.receive() == ["r0", "r1"]


def test_steady_traffic_does_not_hide_that_a_batch_was_left_out(pump: Pump) -> None:
    pump.write(line(0))
    pump.turn()
    assert pump.receive(ack=False) == ["r0"]
    pump.received.clear()  # the control plane was too busy for that batch
    for number in range(1, 1 + CONFIG.resend_ms // 1_000):
        pump.clock.advance_ms(1_000)
        pump.write(line(number))
        pump.turn()
    assert pump.receive(ack=False)[-6:] == [f"r{n}" for n in range(6)]


def test_an_acknowledgement_that_repeats_itself_has_the_rest_sent_again(pump: Pump) -> None:
    pump.write(line(0))
    pump.turn()
    assert pump.receive() == ["r0"]
    pump.write(line(1), line(2))
    pump.turn()
    assert pump.receive(ack=False) == ["r1", "r2"]
    asyncio.run(pump.pump.acknowledge(0))  # it crossed the batch on its way
    pump.turn()
    assert pump.receive(ack=False) == []
    pump.clock.advance_ms(CONFIG.gap_ms)
    asyncio.run(pump.pump.acknowledge(0))
    pump.turn()
    assert pump.receive() == ["r1", "r2"]


def test_without_a_control_plane_records_wait_on_disk_across_restarts(pump: Pump) -> None:
    pump.uplink.connected = False
    pump.write(line(0))
    pump.turn()
    pump.pump.close()
    pump.open()
    pump.write(line(1))
    pump.uplink.connected = True
    pump.turn(2)
    assert pump.receive() == ["r0", "r1"]


def test_a_full_spool_reads_no_further_and_loses_nothing(tmp_path: Path) -> None:
    pump = Pump(tmp_path, records_max=3)
    pump.write(line(0), line(1))
    pump.turn()
    pump.write(line(2), line(3))
    pump.turn()
    assert "limit 3" in pump.pump.faults()[0]
    pump.receive()
    pump.turn()
    assert pump.receive() == ["r2", "r3"]
    assert pump.pump.faults() == ()
    pump.pump.close()


def test_lines_that_are_no_records_are_counted_and_passed(pump: Pump) -> None:
    pump.write(b"garbage\n", line(0), b'{"hop":"serving"}\n', line(1))
    pump.turn()
    assert pump.receive() == ["r0", "r1"]
    assert pump.pump.faults() == ("2 lines of the gateway's log are no records",)


def test_a_client_cannot_stuff_a_record_until_it_fits_no_frame(pump: Pump) -> None:
    stuffed = bounded(f.record("x" * 60_000))
    assert stuffed.request_id.startswith("sha256:")
    assert len(canonical_json(stuffed)) < MAX_RECORD_BYTES
    assert bounded(f.RECORD) == f.RECORD
    pump.write(line(0, request_id="y" * 60_000), line(1))
    pump.turn()
    assert len(pump.receive()) == 2


def test_the_log_is_rotated_without_losing_a_line(
    pump: Pump, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_tail, "ROTATE_BYTES", 1_000)
    seen: list[str] = []
    for number in range(40):
        pump.write(line(number))
        pump.turn(2)
        seen += pump.receive()
    pump.turn(3)
    seen += pump.receive()
    assert seen == [f"r{n}" for n in range(40)]
    assert pump.log.stat().st_size < 2_000


def test_a_rotation_the_gateway_never_heard_of_is_undone(
    pump: Pump, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_tail, "ROTATE_BYTES", 100)
    pump.gateway.log_fault = RetryableError("admin port does not answer")
    pump.write(line(0))
    pump.turn()
    assert pump.log.exists()
    assert pump.pump.faults() == ("admin port does not answer",)
    pump.gateway.log_fault = None
    pump.turn(2)
    assert pump.receive() == ["r0"]


def test_what_the_gateway_could_not_log_becomes_one_record_that_says_so(pump: Pump) -> None:
    pump.write(line(0))
    pump.turn()
    assert pump.pump.pending == 1
    pump.gateway.failed_writes = 3
    pump.spool.limit_size(pages=1)  # the same disk: its spool takes nothing either
    pump.turn()
    assert pump.pump.pending == 2, "the loss is known though nothing could be written"
    pump.spool.limit_size(pages=1_000)
    pump.turn(3)
    batch = pump.spool.batch(after=0, records_max=9, bytes_max=10**6)
    assert batch is not None
    told = [json.loads(content) for content in batch.records]
    assert [(one["sequence"], one["decision"]) for one in told] == [(1, "unrecorded")]
    assert told[0]["reason"].startswith("3 writes of the gateway's log failed")
    assert told[0]["serving_site_id"] == ""
    assert pump.pump.pending == 2
    pump.pump.close()
    pump.open()
    pump.turn(2)
    assert pump.pump.last_sequence == 1, "a restarted agent does not tell of it again"
    pump.gateway.failed_writes = -1  # a new gateway nobody has asked yet
    pump.turn()
    assert pump.pump.last_sequence == 1
    pump.gateway.failed_writes = 1
    pump.turn(2)
    assert pump.pump.last_sequence == 2
