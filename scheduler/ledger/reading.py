"""Questions to the ledger's database that change nothing: entries, heads, proofs.

`LedgerReader` may run beside the one writer (SQLite's WAL lets it), in any process. The table
layout is written down here once; `store` creates and fills it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from scheduler.ledger import merkle
from scheduler.ledger.checkpoint import Checkpoint, open_checkpoint
from sites.errors import FatalError, RefusedError

DATABASE_FILE = "ledger.sqlite"
HEAD_FILE = "checkpoint"
FORMAT_VERSION = "1"
TILE_LEVELS = 8
"""Only every eighth level of complete subtrees is stored: one hash per 256 entries."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (
  idx INTEGER PRIMARY KEY, kind TEXT NOT NULL, at_ms INTEGER NOT NULL,
  payload BLOB NOT NULL, leaf_hash BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS entries_by_kind ON entries (kind, idx);
CREATE TABLE IF NOT EXISTS nodes (
  level INTEGER NOT NULL, idx INTEGER NOT NULL, hash BLOB NOT NULL,
  PRIMARY KEY (level, idx)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (
  site_id TEXT NOT NULL, sequence INTEGER NOT NULL, idx INTEGER NOT NULL,
  PRIMARY KEY (site_id, sequence)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS checkpoints (
  size INTEGER PRIMARY KEY, root BLOB NOT NULL, note TEXT NOT NULL, at_ms INTEGER NOT NULL);
"""

_PAGE = 2_048


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One ledger entry. `payload` is exactly what was handed in; `at_ms` wall time of the write."""

    index: int
    kind: str
    at_ms: int
    payload: bytes
    leaf_hash: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class EntryRef:
    """Where an entry lies; `leaf_hash` in hex."""

    index: int
    leaf_hash: str


def leaf_data(*, kind: str, at_ms: int, payload: bytes) -> bytes:
    """The bytes an entry's leaf hash covers: ``kind SP at_ms LF payload``."""
    return f"{kind} {at_ms}\n".encode() + payload


class LedgerReader:
    """Read access to one ledger database."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    @classmethod
    def open(cls, directory: Path) -> LedgerReader:
        """Open the ledger in `directory` read-only; raises FatalError if there is none."""
        path = directory / DATABASE_FILE
        if not path.is_file():
            raise FatalError(f"ledger {directory}: no {DATABASE_FILE}; has a server run there?")
        try:
            connection = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=10, check_same_thread=False
            )
            reader = cls(connection)
            reader.meta("origin")
        except sqlite3.Error as fault:
            raise FatalError(f"ledger {directory}: cannot be read: {fault}") from fault
        return reader

    def close(self) -> None:
        """Release the database."""
        self._db.close()

    def __enter__(self) -> LedgerReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def meta(self, name: str) -> str:
        """A fact of the log itself (``origin``, ``verifier_key``, ``format_version``)."""
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return "" if row is None else str(row[0])

    @property
    def verifier_key(self) -> str:
        """The public key (C2SP text) the log's checkpoints are signed with."""
        return self.meta("verifier_key")

    def size(self) -> int:
        """Number of entries; raises FatalError where an entry is missing in between."""
        count, low, high = self._db.execute(
            "SELECT count(*), coalesce(min(idx), 0), coalesce(max(idx), -1) FROM entries"
        ).fetchone()
        if low != 0 or high + 1 != count:
            raise FatalError(f"{count} entries but the last index is {high}; it was edited")
        return int(count)

    def entries(self, *, kind: str = "", start: int = 0, end: int | None = None) -> Iterator[Entry]:
        """Entries with start <= index < end in order, of one kind if given; read page by page."""
        where = "idx >= ? AND idx < ?" + (" AND kind = ?" if kind else "")
        query = (
            "SELECT idx, kind, at_ms, payload, leaf_hash FROM entries "
            f"WHERE {where} ORDER BY idx LIMIT {_PAGE}"
        )
        stop = 1 << 62 if end is None else end
        while True:
            values = (start, stop, kind) if kind else (start, stop)
            rows = self._db.execute(query, values).fetchall()
            for row in rows:
                yield Entry(
                    index=row[0], kind=row[1], at_ms=row[2], payload=row[3], leaf_hash=row[4]
                )
            if len(rows) < _PAGE:
                return
            start = rows[-1][0] + 1

    def entry(self, index: int) -> Entry:
        """The entry at `index`; raises RefusedError if there is none."""
        for one in self.entries(start=index, end=index + 1):
            return one
        raise RefusedError(f"ledger: no entry {index}; it holds {self.size()}")

    def newest(self, kind: str) -> Entry | None:
        """The last entry of that kind."""
        row = self._db.execute("SELECT max(idx) FROM entries WHERE kind = ?", (kind,)).fetchone()
        return None if row[0] is None else self.entry(int(row[0]))

    def kinds(self) -> dict[str, int]:
        """How many entries there are of each kind."""
        rows = self._db.execute("SELECT kind, count(*) FROM entries GROUP BY kind ORDER BY kind")
        return {str(kind): int(count) for kind, count in rows}

    def checkpoint(self) -> Checkpoint | None:
        """The newest signed head, its signature checked."""
        row = self._db.execute("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1").fetchone()
        return None if row is None else open_checkpoint(row[0], verifier=self.verifier_key)

    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Every kept signed head, oldest first."""
        rows = self._db.execute("SELECT note FROM checkpoints ORDER BY size").fetchall()
        return tuple(open_checkpoint(row[0], verifier=self.verifier_key) for row in rows)

    def acked(self, site_id: str) -> int:
        """The newest record sequence held of a site's agent, -1 if none."""
        row = self._db.execute(
            "SELECT max(sequence) FROM records WHERE site_id = ?", (site_id,)
        ).fetchone()
        return -1 if row[0] is None else int(row[0])

    def acked_by_site(self) -> dict[str, int]:
        """`acked` of every site that ever sent a record."""
        rows = self._db.execute(
            "SELECT site_id, max(sequence) FROM records GROUP BY site_id ORDER BY site_id"
        )
        return {str(site): int(sequence) for site, sequence in rows}

    def record_payload(self, site_id: str, sequence: int) -> bytes:
        """The bytes held for one record of a site's agent."""
        row = self._db.execute(
            "SELECT e.payload FROM records r JOIN entries e ON e.idx = r.idx "
            "WHERE r.site_id = ? AND r.sequence = ?",
            (site_id, sequence),
        ).fetchone()
        if row is None:
            raise FatalError(f"record {sequence} of {site_id} is missing; it was edited")
        return bytes(row[0])

    def node(self, level: int, index: int) -> bytes:
        """Hash of a complete subtree (a `merkle.NodeReader`); folds at most 256 stored hashes."""
        base = level - level % TILE_LEVELS
        first, last = index << (level - base), (index + 1) << (level - base)
        if base == 0:
            query = "SELECT leaf_hash FROM entries WHERE idx >= ? AND idx < ? ORDER BY idx"
            rows = self._db.execute(query, (first, last)).fetchall()
        else:
            query = "SELECT hash FROM nodes WHERE level = ? AND idx >= ? AND idx < ? ORDER BY idx"
            rows = self._db.execute(query, (base, first, last)).fetchall()
        hashes = [bytes(row[0]) for row in rows]
        if len(hashes) != last - first:
            raise FatalError(f"tree node {level}/{index} is incomplete; it was edited")
        while len(hashes) > 1:
            pairs = zip(hashes[::2], hashes[1::2], strict=True)
            hashes = [merkle.node_hash(left, right) for left, right in pairs]
        return hashes[0]

    def root(self, size: int) -> bytes:
        """Merkle tree hash of the first `size` entries."""
        return merkle.root_of(self.node, size)

    def inclusion_proof(self, *, index: int, size: int) -> tuple[bytes, ...]:
        """Proof that entry `index` is in the tree of `size` entries."""
        if not 0 <= index < size <= self.size():
            raise RefusedError(f"ledger: no entry {index} in a tree of {size}")
        return merkle.inclusion_proof(self.node, index=index, size=size)

    def consistency_proof(self, *, first: int, second: int) -> tuple[bytes, ...]:
        """Proof that the tree of `second` entries extends the one of `first`."""
        if not 0 <= first <= second <= self.size():
            raise RefusedError(f"ledger: no trees of {first} and {second} entries, {first} first")
        return merkle.consistency_proof(self.node, first=first, second=second)
