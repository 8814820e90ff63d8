"""Execution records on disk until the control plane has them: gap-free, exactly once, bounded.

Decides the sequence numbers. One SQLite transaction holds a group of records *and* how far the
gateway's log had been read to make them; so a kill at any point neither loses nor repeats a record.
What a log line means is `agents.gateway.access_log`'s; sending is the uplink's.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sites.digest import canonical_json
from sites.errors import FatalError, RetryableError
from sites.execution import ExecutionRecord

RECORDS_MAX = 1_000_000
"""Records kept at most (about 1 GB); beyond it the log is read no further until some are acked."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (sequence INTEGER PRIMARY KEY, content BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS progress (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  next_sequence INTEGER NOT NULL,
  acked_sequence INTEGER NOT NULL,
  log_inode INTEGER NOT NULL,
  log_offset INTEGER NOT NULL
) STRICT;
INSERT OR IGNORE INTO progress VALUES (1, 0, -1, 0, 0);
CREATE TABLE IF NOT EXISTS losses (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  failed_writes INTEGER NOT NULL
) STRICT;
INSERT OR IGNORE INTO losses VALUES (1, 0);
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class LogPosition:
    """Everything of the log file `inode` before byte `offset` is in the spool. inode 0: none."""

    inode: int = 0
    offset: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class SpooledBatch:
    """Consecutive records from `first_sequence` on, as the bytes the ledger will hash."""

    first_sequence: int
    records: tuple[bytes, ...]


class Spool:
    """One agent's records. Calls may come from any thread, one at a time."""

    def __init__(self, path: Path, *, records_max: int = RECORDS_MAX) -> None:
        """Open or create. Raises FatalError if the file is not a usable spool."""
        self._path = path
        self._records_max = records_max
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=5.0
            )
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA wal_autocheckpoint = 200")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as fault:
            raise FatalError(
                f"spool {path}: {fault}; restore it from a copy, or move it away to keep as "
                "evidence (its unacknowledged records would be missed)"
            ) from fault

    def limit_size(self, *, pages: int) -> None:
        """Let the file grow to so many pages of 4 096 bytes; then it counts as disk full."""
        with self._lock:
            self._db.execute(f"PRAGMA max_page_count = {pages:d}")

    def append(
        self,
        records: Sequence[ExecutionRecord],
        *,
        position: LogPosition,
        failed_writes: int | None = None,
    ) -> int:
        """Number the records, keep them and the position durably; the newest sequence returns.

        `failed_writes` of the gateway's log are accounted for by these records.

        Raises RetryableError, with nothing changed, while the spool or its disk is full.
        """
        with self._writing():
            first, acked = self._db.execute(
                "SELECT next_sequence, acked_sequence FROM progress"
            ).fetchone()
            pending = first - 1 - acked
            if records and pending + len(records) > self._records_max:
                raise RetryableError(
                    f"spool {self._path}: {pending} unacknowledged records, limit "
                    f"{self._records_max}; reconnect the control plane"
                )
            rows = (
                (first + i, canonical_json(replace(record, sequence=first + i)))
                for i, record in enumerate(records)
            )
            self._db.executemany("INSERT INTO records VALUES (?, ?)", rows)
            self._db.execute(
                "UPDATE progress SET next_sequence = ?, log_inode = ?, log_offset = ?",
                (first + len(records), position.inode, position.offset),
            )
            if failed_writes is not None:
                self._db.execute("UPDATE losses SET failed_writes = ?", (failed_writes,))
            return int(first) + len(records) - 1

    def batch(self, *, after: int, records_max: int, bytes_max: int) -> SpooledBatch | None:
        """The next records past sequence `after`, at least one if there is any; None if not."""
        with self._reading():
            rows = self._db.execute(
                "SELECT sequence, content FROM records WHERE sequence > ? ORDER BY sequence "
                "LIMIT ?",
                (after, records_max),
            ).fetchall()
        kept: list[bytes] = []
        size = 0
        for _, content in rows:
            size += len(content)
            if kept and size > bytes_max:
                break
            kept.append(content)
        if not kept:
            return None
        return SpooledBatch(first_sequence=rows[0][0], records=tuple(kept))

    def acknowledge(self, sequence: int) -> None:
        """The control plane holds everything up to `sequence`: drop it. Going back is ignored.

        A sequence never given here means that this spool is younger than the ledger (the site's
        disk was replaced): what is pending is numbered anew behind it, so nothing counts as held
        that is not. Raises RetryableError while the disk is full.
        """
        with self._writing():
            (last,) = self._db.execute("SELECT next_sequence - 1 FROM progress").fetchone()
            if sequence > last:
                self._number_after(sequence)
                return
            self._db.execute("DELETE FROM records WHERE sequence <= ?", (sequence,))
            self._db.execute(
                "UPDATE progress SET acked_sequence = max(acked_sequence, ?)", (sequence,)
            )

    def _number_after(self, sequence: int) -> None:
        pending = self._db.execute("SELECT content FROM records ORDER BY sequence").fetchall()
        self._db.execute("DELETE FROM records")
        self._db.executemany(
            "INSERT INTO records VALUES (?, ?)",
            (
                (number, canonical_json({**json.loads(content), "sequence": number}))
                for number, (content,) in enumerate(pending, start=sequence + 1)
            ),
        )
        self._db.execute(
            "UPDATE progress SET next_sequence = ?, acked_sequence = ?",
            (sequence + 1 + len(pending), sequence),
        )

    def last_sequence(self) -> int:
        """Newest sequence ever given, -1 if none."""
        return self._number("next_sequence") - 1

    def acked_sequence(self) -> int:
        """Newest acknowledged sequence, -1 if none."""
        return self._number("acked_sequence")

    def position(self) -> LogPosition:
        """How far the log has been read."""
        return LogPosition(inode=self._number("log_inode"), offset=self._number("log_offset"))

    def failed_writes(self) -> int:
        """Failed writes of the gateway's log that records here account for."""
        with self._reading():
            return int(self._db.execute("SELECT failed_writes FROM losses").fetchone()[0])

    def close(self) -> None:
        """Close the file; everything is durable already."""
        with self._lock:
            self._db.close()

    def _number(self, column: str) -> int:
        with self._reading():
            return int(self._db.execute(f"SELECT {column} FROM progress").fetchone()[0])

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.DatabaseError as fault:
                raise FatalError(f"spool {self._path}: cannot be read: {fault}") from fault

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """A transaction: committed and on disk at the end, or nothing of it happened."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except sqlite3.Error as fault:
                self._rollback()
                raise self._mapped(fault) from fault
            except BaseException:
                self._rollback()
                raise

    def _rollback(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _mapped(self, fault: sqlite3.Error) -> Exception:
        code = getattr(fault, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            return RetryableError(
                f"spool {self._path}: the disk is full; free some space (records wait in the "
                "gateway's log)"
            )
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return RetryableError(f"spool {self._path}: in use by another process")
        return FatalError(f"spool {self._path}: cannot be written: {fault}")
