"""The ledger's one writer: durable, gap-free, and it notices what was done to its files."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_builders import as_bytes, fill, open_ledger, record

from scheduler.ledger import LedgerReader, merkle
from scheduler.ledger.records import read_record
from sites.clock import ManualClock
from sites.digest import canonical_json
from sites.errors import FatalError, RefusedError, RetryableError


def test_payload_bytes_come_back_unchanged(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    first = ledger.append("Note", b'{ "spaces":  "kept" }')
    second = ledger.append("Note", {"b": 1.0, "a": "x"})
    ledger.close()
    with LedgerReader.open(tmp_path) as reader:
        assert reader.entry(first.index).payload == b'{ "spaces":  "kept" }'
        assert reader.entry(second.index).payload == b'{"a":"x","b":1}'
        assert reader.entry(1).leaf_hash.hex() == second.leaf_hash
        assert reader.kinds() == {"Note": 2}


def test_reopened_ledger_goes_on_where_it_ended(tmp_path: Path) -> None:
    fill(tmp_path, records=300)
    ledger = open_ledger(tmp_path)
    before = ledger.checkpoint()
    assert ledger.append("Note", {}).index == 301
    assert ledger.append_records("rix-1", as_bytes(record(299), record(300))) == 300
    after = ledger.checkpoint()
    proof = ledger.read.consistency_proof(first=before.size, second=after.size)
    ledger.close()
    assert merkle.verify_consistency(
        first=before.size,
        second=after.size,
        first_root=before.root,
        second_root=after.root,
        proof=proof,
    )


def test_proofs_hold_across_stored_tiles(tmp_path: Path) -> None:
    fill(tmp_path, records=700)
    with LedgerReader.open(tmp_path) as reader:
        head = reader.checkpoint()
        assert head is not None and head.size == 701
        assert reader.root(head.size) == head.root
        for index in (0, 255, 256, 511, 512, 700):
            assert merkle.verify_inclusion(
                reader.entry(index).leaf_hash,
                index=index,
                size=head.size,
                proof=reader.inclusion_proof(index=index, size=head.size),
                root=head.root,
            )


@given(st.lists(st.lists(st.integers(0, 12), max_size=8), max_size=8))
@settings(max_examples=60, deadline=None)
def test_records_never_gap_nor_repeat(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]]
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    ledger = open_ledger(folder)
    held = -1
    for batch in batches:
        ordered = sorted(set(batch))
        reported = ledger.append_records("rix-1", as_bytes(*(record(i) for i in ordered)))
        for sequence in ordered:
            held += sequence == held + 1
        assert reported == held == ledger.acked("rix-1")
    ledger.close()
    with LedgerReader.open(folder) as reader:
        payloads = [entry.payload for entry in reader.entries(kind="ExecutionRecord")]
    assert payloads == as_bytes(*(record(i) for i in range(held + 1)))
    shutil.rmtree(folder)


def test_a_record_never_changes(tmp_path: Path) -> None:
    fill(tmp_path)
    ledger = open_ledger(tmp_path)
    size = ledger.size()
    with pytest.raises(RefusedError, match=r"record 3 of rix-1: differs from the one already"):
        ledger.append_records("rix-1", as_bytes(record(3, tokens_out=21)))
    assert ledger.size() == size
    ledger.close()


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        (b"\xff", "not canonical JSON"),
        (b"[" * 50_000, "not canonical JSON"),
        (b"{}", "missing"),
        (b"[]", "not an object"),
        (b" " + canonical_json(record(0)), "not in canonical JSON"),
        (canonical_json(record(0)).replace(b'":1.5,', b'":NaN,'), "NaN is no JSON number"),
        (canonical_json(record(0)).replace(b'":1.5,', b'":1.50,'), "number 1.50 is not written"),
        (canonical_json(record(0)).replace(b'":1.5,', b'":15e-1,'), "number 15e-1 is not written"),
        (canonical_json(record(0)).replace(b'":1.5,', b'":-0,'), "number -0 is not written"),
        (canonical_json(record(0)).replace(b'":1.5,', b'":2.0,'), "number 2.0 is not written"),
        (canonical_json(record(0)).replace(b"request-0", b"request-\\u0030"), "in canonical"),
        (canonical_json(record(0, agent_site_id="osl-1")), "claims to be of osl-1"),
        (canonical_json(record(0, reason="x" * 70_000)), "limit 65536"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path: Path, payload: bytes, complaint: str) -> None:
    ledger = open_ledger(tmp_path)
    with pytest.raises(RefusedError, match=complaint):
        ledger.append_records("rix-1", [payload])
    assert ledger.size() == 0
    ledger.close()


@given(
    st.text(max_size=30),
    st.floats(min_value=0, allow_nan=False, allow_infinity=False),
    st.integers(-(2**53) + 1, 2**53 - 1),
)
def test_every_record_an_agent_can_write_is_taken(
    text: str, energy_j: float, ended_at_ms: int
) -> None:
    written = record(3, reason=text, energy_j_estimated=energy_j, ended_at_ms=ended_at_ms)
    assert read_record(canonical_json(written), site_id="rix-1") == 3


def test_second_writer_is_refused_and_readers_are_not(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.append("Note", {})
    with pytest.raises(FatalError, match="another process is writing it"):
        open_ledger(tmp_path)
    with LedgerReader.open(tmp_path) as reader:
        assert reader.size() == 1
    ledger.close()


def _edit(folder: Path, statement: str) -> None:
    db = sqlite3.connect(folder / "ledger.sqlite")
    db.execute(statement)
    db.commit()
    db.close()


@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        ("UPDATE entries SET payload = x'7b7d' WHERE idx = 7", "entry 7 does not match its hash"),
        ("UPDATE entries SET at_ms = at_ms + 1 WHERE idx = 7", "entry 7 does not match its hash"),
        ("UPDATE entries SET leaf_hash = zeroblob(32) WHERE idx = 7", "not the signed ones"),
        ("DELETE FROM entries WHERE idx = 7", "it was edited"),
        ("DELETE FROM entries WHERE idx >= 15", "its checkpoint says 21"),
        ("DELETE FROM checkpoints", ""),
        ("UPDATE checkpoints SET note = replace(note, '21', '20')", "checkpoint"),
    ],
)
def test_an_edited_database_does_not_open(tmp_path: Path, statement: str, complaint: str) -> None:
    fill(tmp_path)
    _edit(tmp_path, statement)
    if not complaint:  # the head beside the database still covers everything
        open_ledger(tmp_path).close()
        return
    with pytest.raises(FatalError, match=complaint):
        open_ledger(tmp_path)


def test_an_older_copy_put_back_does_not_open(tmp_path: Path) -> None:
    fill(tmp_path / "ledger")
    shutil.copy(tmp_path / "ledger" / "ledger.sqlite", tmp_path / "old")
    ledger = open_ledger(tmp_path / "ledger", ManualClock(start_ms=9_000))
    ledger.append("Note", {})
    ledger.close()
    shutil.copy(tmp_path / "old", tmp_path / "ledger" / "ledger.sqlite")
    with pytest.raises(FatalError, match="holds 21 entries, its checkpoint says 22"):
        open_ledger(tmp_path / "ledger")


def test_a_full_disk_appends_nothing_and_says_so(tmp_path: Path) -> None:
    fill(tmp_path)
    ledger = open_ledger(tmp_path)
    pages = int(ledger._db.execute("PRAGMA page_count").fetchone()[0])
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own "disk full"
    size, head = ledger.size(), ledger.checkpoint()
    with pytest.raises(RetryableError, match="full; nothing was recorded"):
        ledger.append("Note", {"big": "x" * 100_000})
    with pytest.raises(RetryableError, match="full"):
        ledger.append_records("rix-1", as_bytes(*(record(i) for i in range(20, 400))))
    assert (ledger.size(), ledger.checkpoint()) == (size, head)
    ledger._db.execute("PRAGMA max_page_count = 100000")
    assert ledger.append_records("rix-1", as_bytes(record(20))) == 20
    ledger.close()
    open_ledger(tmp_path).close()


_WRITER = """
import sys
from pathlib import Path
sys.path[:0] = [{builders!r}, {root!r}]
from log_builders import as_bytes, record
from scheduler.ledger import Ledger
from sites.clock import SystemClock
ledger = Ledger(Path({folder!r}), clock=SystemClock())
sequence = ledger.acked("rix-1") + 1
for start in range(sequence, sequence + 10_000, 7):
    held = ledger.append_records("rix-1", as_bytes(*(record(start + i) for i in range(7))))
    print(held, flush=True)
"""


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    builders = Path(__file__).parent
    root = builders.parents[2]
    acked = -1
    for wait_for in (1, 5, 23):
        script = _WRITER.format(builders=str(builders), root=str(root), folder=str(tmp_path))
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            for _ in range(wait_for):
                acked = int(child.stdout.readline())
            os.kill(child.pid, signal.SIGKILL)
            for line in child.stdout.read().splitlines():
                acked = int(line)
        ledger = open_ledger(tmp_path)
        assert ledger.acked("rix-1") >= acked
        assert ledger.size() == ledger.acked("rix-1") + 1
        ledger.close()
