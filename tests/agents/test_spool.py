"""The spool: nothing lost, nothing twice, no gap; whatever the moment it is killed at."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.log_tail import LogTail
from agents.processes import package_env
from agents.spool import LogPosition, Spool
from sites.errors import FatalError, RetryableError
from tests.agents import site_facts as f

ROOT = Path(__file__).resolve().parents[2]


def contents(spool: Spool, after: int = -1) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    while batch := spool.batch(after=after, records_max=7, bytes_max=10_000_000):
        assert batch.first_sequence == after + 1
        found += [json.loads(r) for r in batch.records]
        after += len(batch.records)
    return found


def test_records_are_numbered_without_gaps_across_restarts(tmp_path: Path) -> None:
    for start in (0, 3, 6):
        spool = Spool(tmp_path / "spool.sqlite")
        records = [f.record(str(start + i)) for i in range(3)]
        last = spool.append(records, position=LogPosition(inode=1, offset=start))
        assert last == start + 2
        assert spool.position() == LogPosition(inode=1, offset=start)
        spool.close()
    spool = Spool(tmp_path / "spool.sqlite")
    found = contents(spool)
    assert [r["sequence"] for r in found] == list(range(9))
    assert [r["request_id"] for r in found] == [str(i) for i in range(9)]
    spool.close()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 30)), max_size=20))
def test_only_acknowledged_records_are_dropped(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[int, int]]
) -> None:
    spool = Spool(tmp_path_factory.mktemp("spool") / "spool.sqlite")
    names = iter(range(1_000))
    pending: list[str] = []
    last, acked = -1, -1
    for count, ack in moves:
        new = [str(next(names)) for _ in range(count)]
        spool.append([f.record(name) for name in new], position=LogPosition())
        pending += new
        last += count
        spool.acknowledge(ack)
        if ack > last:  # never given here: a younger spool than the ledger's; nothing is dropped
            last, acked = ack + len(pending), ack
        else:
            pending = pending[max(0, ack - acked) :]
            acked = max(acked, ack)
        assert (spool.last_sequence(), spool.acked_sequence()) == (last, acked)
        found = contents(spool, acked)
        assert [r["sequence"] for r in found] == list(range(acked + 1, last + 1))
        assert [r["request_id"] for r in found] == pending
    spool.close()


def test_a_full_spool_takes_nothing_and_the_log_position_stays(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.sqlite", records_max=5)
    spool.append([f.record("x")] * 4, position=LogPosition(inode=1, offset=40))
    with pytest.raises(RetryableError, match="4 unacknowledged records, limit 5"):
        spool.append([f.record("y")] * 2, position=LogPosition(inode=1, offset=60))
    assert spool.position() == LogPosition(inode=1, offset=40)
    spool.acknowledge(0)
    assert spool.append([f.record("y")] * 2, position=LogPosition(inode=1, offset=60)) == 5
    spool.close()


def test_a_full_disk_takes_nothing_and_says_so(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.sqlite")
    spool.limit_size(pages=20)
    written, position = 0, LogPosition()
    with pytest.raises(RetryableError, match="the disk is full"):
        for written in range(1_000):
            position = LogPosition(inode=1, offset=written)
            spool.append([f.record("x" * 500)], position=position)
    assert written > 0
    assert spool.position() == LogPosition(inode=1, offset=written - 1)
    assert len(contents(spool)) == written
    spool.limit_size(pages=10_000)
    spool.append([f.record("x" * 500)], position=position)
    assert [r["sequence"] for r in contents(spool)] == list(range(written + 1))
    spool.close()


def test_a_file_that_is_no_spool_stops_the_agent(tmp_path: Path) -> None:
    path = tmp_path / "spool.sqlite"
    path.write_bytes(b"not a database, whatever its name says" * 100)
    with pytest.raises(FatalError, match="spool"):
        Spool(path)
    assert path.read_bytes().startswith(b"not a database")


WRITER = """
import sys
from pathlib import Path
from agents.log_tail import LogTail
from agents.spool import Spool
from tests.agents import site_facts as f
folder = Path(sys.argv[1])
spool, tail = Spool(folder / "spool.sqlite"), LogTail(folder / "log")
while True:
    read = tail.read(spool.position())
    spool.append([f.record(line.decode()) for line in read.lines], position=read.position)
    print(spool.last_sequence(), flush=True)
"""


def test_kill_9_at_any_point_loses_and_repeats_nothing(tmp_path: Path) -> None:
    """A reader of a growing log is killed again and again, each time somewhere else."""
    log = (tmp_path / "log").open("ab", buffering=0)
    written = 0
    for round_ in range(12):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)],
            cwd=ROOT,
            env={**os.environ, **package_env()},
            stdout=subprocess.PIPE,
        )
        assert writer.stdout is not None
        for _ in range(3 + 5 * round_):
            log.write(b"".join(b"line-%d\n" % n for n in range(written, written + 40)))
            log.write(b"half")
            writer.stdout.readline()
            log.write(b"-%d\n" % (written + 40))
            written += 41
        writer.send_signal(signal.SIGKILL)
        writer.wait(10)
        writer.stdout.close()
    log.close()
    spool, tail = Spool(tmp_path / "spool.sqlite"), LogTail(tmp_path / "log")
    while (read := tail.read(spool.position())).lines:
        spool.append([f.record(b.decode()) for b in read.lines], position=read.position)
    found = contents(spool)
    assert [r["sequence"] for r in found] == list(range(written))
    expected = (tmp_path / "log").read_text().splitlines()
    assert [r["request_id"] for r in found] == expected
    spool.close()
