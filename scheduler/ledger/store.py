"""The one writer of the ledger: what `append` returned is on disk, signed, and never changes.

Decides nothing about what is worth recording. An append is one SQLite transaction (WAL,
synchronous=FULL) that holds the entries, their tree nodes and the signed head over them, so a crash
leaves either all of it or none. Opening re-hashes the tail and checks the newest head; the verifier
re-hashes everything.
"""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from scheduler.ledger import merkle
from scheduler.ledger.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint, verifier_key
from scheduler.ledger.reading import (
    DATABASE_FILE,
    FORMAT_VERSION,
    HEAD_FILE,
    SCHEMA,
    TILE_LEVELS,
    Entry,
    EntryRef,
    LedgerReader,
    leaf_data,
)
from scheduler.ledger.records import RECORD_KIND, read_record
from sites.clock import Clock
from sites.digest import canonical_json
from sites.errors import FatalError, RefusedError, RetryableError

__all__ = ["Entry", "EntryRef", "Ledger", "LedgerReader"]

KEY_FILE = "checkpoint.key"
LOCK_FILE = "writer.lock"
_TAIL = 4_096
_KIND = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,63}\Z")
_NEWEST_REPLACED_WITHIN_MS = 1_000


class Ledger:
    """Append-only log in `directory`, made on first use. One writer; methods are thread-safe."""

    def __init__(self, directory: Path, *, clock: Clock, origin: str = "hinterland/ledger") -> None:
        """Open or create; raises FatalError when locked by another process, edited or torn."""
        self._directory = directory
        self._clock = clock
        self._mutex = threading.Lock()
        self._published_ms = 0
        self._connection: sqlite3.Connection | None = None
        self.fault = ""
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = _lock(directory)
        except OSError as fault:
            raise FatalError(f"ledger {directory}: {fault.strerror}; make it writable") from fault
        try:
            self._open(origin)
        except (sqlite3.Error, OSError, FatalError) as fault:
            self._release()
            told = fault.strerror if isinstance(fault, OSError) else fault
            raise FatalError(f"ledger {directory}: {told}") from fault

    def _open(self, origin: str) -> None:
        self._key = _signing_key(self._directory / KEY_FILE)
        self._connection = self._db = _connect(self._directory / DATABASE_FILE)
        self.read = LedgerReader(self._db)
        self._origin = self._describe(self._db, origin)
        self._frontier = merkle.frontier_of(self.read.node, self.read.size())
        self._check_open()

    def _release(self) -> None:
        if self._connection is not None:
            self._connection.close()
        os.close(self._lock)

    def close(self) -> None:
        """Publish the newest head, then release the lock."""
        with self._mutex:
            self._publish_head(force=True)
            self._release()

    @property
    def verifier_key(self) -> str:
        """Public key text auditors check checkpoints with."""
        return verifier_key(self._origin, self._key.public_key())

    def size(self) -> int:
        """Number of entries."""
        return self._frontier.size

    def checkpoint(self) -> Checkpoint:
        """The signed head over everything appended so far."""
        with self._mutex:
            return self._sign(self._frontier)

    def acked(self, site_id: str) -> int:
        """Newest record sequence held of a site's agent, -1 if none."""
        with self._mutex:
            return self.read.acked(site_id)

    def append(self, kind: str, payload: Any) -> EntryRef:
        """Append one entry, durable on return. `payload`: bytes as they are, or a fact.

        Raises RetryableError when the disk is full or failing; then nothing was appended.
        """
        if not _KIND.match(kind):
            raise RefusedError(f"ledger: {kind!r} is not an entry kind; use letters, digits, . _")
        data = payload if isinstance(payload, bytes) else _canonical(kind, payload)
        try:
            data.decode()
        except UnicodeDecodeError as fault:
            raise RefusedError(f"ledger: a {kind} payload is not UTF-8 text") from fault
        with self._mutex:
            return self._commit([(kind, data, None)])[0]

    def append_records(self, site_id: str, payloads: Sequence[bytes]) -> int:
        """Append execution records as their agent wrote them; returns the newest sequence held.

        Records already held are skipped (their bytes must be equal, else RefusedError); at a gap
        the rest is left out, and the returned sequence tells the agent where to go on. Raises
        RefusedError for bytes that are no canonical record of this site, RetryableError as
        `append`.
        """
        with self._mutex:
            held = self.read.acked(site_id)
            fresh: list[tuple[str, bytes, tuple[str, int] | None]] = []
            for payload in payloads:
                sequence = read_record(payload, site_id=site_id)
                if sequence <= held - len(fresh):
                    self._require_same(site_id, sequence, payload)
                elif sequence == held + 1:
                    fresh.append((RECORD_KIND, payload, (site_id, sequence)))
                    held = sequence
                elif sequence > held + 1:
                    break
                else:
                    raise RefusedError(f"record {sequence} of {site_id}: twice in one batch")
            if fresh:
                self._commit(fresh)
            return held

    def _require_same(self, site_id: str, sequence: int, payload: bytes) -> None:
        if self.read.record_payload(site_id, sequence) != payload:
            raise RefusedError(
                f"record {sequence} of {site_id}: differs from the one already in the ledger; "
                "a record never changes: look for two agents of one site, or a spool reset"
            )

    def _commit(self, items: list[tuple[str, bytes, tuple[str, int] | None]]) -> list[EntryRef]:
        now_ms = self._clock.wall_ms()
        try:
            self._db.execute("BEGIN IMMEDIATE")
            frontier, refs = self._insert(items, now_ms)
            head = self._sign(frontier)
            self._db.execute(
                "DELETE FROM checkpoints WHERE at_ms > ? AND size = (SELECT max(size) FROM "
                "checkpoints) AND size > 1",
                (now_ms - _NEWEST_REPLACED_WITHIN_MS,),
            )
            self._db.execute(
                "INSERT INTO checkpoints VALUES (?, ?, ?, ?)",
                (head.size, head.root, head.note, now_ms),
            )
            self._db.execute("COMMIT")
        except sqlite3.Error as fault:
            self._undo()
            raise RetryableError(
                f"ledger {self._directory}: {fault}; nothing was recorded: free disk space "
                "or mend the disk"
            ) from fault
        self._frontier = frontier
        self._publish_head()
        return refs

    def _insert(
        self, items: list[tuple[str, bytes, tuple[str, int] | None]], now_ms: int
    ) -> tuple[merkle.Frontier, list[EntryRef]]:
        frontier, refs = self._frontier, []
        for kind, payload, record in items:
            index = frontier.size
            leaf = merkle.leaf_hash(leaf_data(kind=kind, at_ms=now_ms, payload=payload))
            self._db.execute(
                "INSERT INTO entries VALUES (?, ?, ?, ?, ?)", (index, kind, now_ms, payload, leaf)
            )
            if record is not None:
                self._db.execute("INSERT INTO records VALUES (?, ?, ?)", (*record, index))
            frontier = frontier.append(leaf)
            self._store_nodes(frontier.size)
            refs.append(EntryRef(index=index, leaf_hash=leaf.hex()))
        return frontier, refs

    def _store_nodes(self, size: int) -> None:
        level = TILE_LEVELS
        while size % (1 << level) == 0:
            index = (size >> level) - 1
            first, last = index << TILE_LEVELS, (index + 1) << TILE_LEVELS
            hashes = [self.read.node(level - TILE_LEVELS, i) for i in range(first, last)]
            while len(hashes) > 1:
                pairs = zip(hashes[::2], hashes[1::2], strict=True)
                hashes = [merkle.node_hash(left, right) for left, right in pairs]
            self._db.execute("INSERT INTO nodes VALUES (?, ?, ?)", (level, index, hashes[0]))
            level += TILE_LEVELS

    def _undo(self) -> None:
        """Back to what the disk holds: after a failed COMMIT only the database knows."""
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            self._frontier = merkle.frontier_of(self.read.node, self.read.size())
        except sqlite3.Error as fault:
            raise FatalError(f"ledger {self._directory}: {fault}; restart on a sound disk") from (
                fault
            )

    def _sign(self, frontier: merkle.Frontier) -> Checkpoint:
        return sign_checkpoint(
            origin=self._origin, size=frontier.size, root=frontier.root(), key=self._key
        )

    def _publish_head(self, *, force: bool = False) -> None:
        """Keep the newest head beside the database too, so an older copy put back is noticed."""
        now_ms = self._clock.wall_ms()
        if not force and now_ms - self._published_ms < _NEWEST_REPLACED_WITHIN_MS:
            return
        try:
            write_atomically(self._directory / HEAD_FILE, self._sign(self._frontier).note.encode())
        except OSError as fault:  # the entries are durable already; shown in `fault`, tried again
            self.fault = f"ledger {self._directory}: {HEAD_FILE} not written: {fault.strerror}"
            return
        self.fault = ""
        self._published_ms = now_ms

    def _describe(self, db: sqlite3.Connection, origin: str) -> str:
        """Write (first time) or check what the database says of itself; returns its origin."""
        if not self.read.meta("format_version"):
            if (self._directory / HEAD_FILE).exists():
                raise FatalError("its database is gone or empty but its checkpoint is not")
            key = verifier_key(origin, self._key.public_key())
            facts = (("format_version", FORMAT_VERSION), ("origin", origin), ("verifier_key", key))
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT INTO meta VALUES (?, ?)", facts)
            db.execute("COMMIT")
        if self.read.meta("format_version") != FORMAT_VERSION:
            raise FatalError(
                f"format {self.read.meta('format_version')}, this program reads {FORMAT_VERSION}"
            )
        known = self.read.meta("origin")
        if self.read.verifier_key != verifier_key(known, self._key.public_key()):
            raise FatalError(f"{KEY_FILE} is not the key its checkpoints are signed with")
        return known

    def _check_open(self) -> None:
        size = self._frontier.size
        try:
            heads = [head for head in [self.read.checkpoint()] if head is not None]
            path = self._directory / HEAD_FILE
            if path.is_file():
                heads.append(open_checkpoint(path.read_text(), verifier=self.read.verifier_key))
        except RefusedError as fault:
            raise FatalError(str(fault)) from fault
        if size and not heads:
            raise FatalError(f"{size} entries without a checkpoint; it was edited")
        for head in heads:
            if head.size > size:
                raise FatalError(
                    f"holds {size} entries, its checkpoint says {head.size}; it was cut or "
                    "an old copy put back: restore the newest backup"
                )
            if self.read.root(head.size) != head.root:
                raise FatalError(f"its first {head.size} entries are not the signed ones")
        for entry in self.read.entries(start=max(0, size - _TAIL)):
            data = leaf_data(kind=entry.kind, at_ms=entry.at_ms, payload=entry.payload)
            if merkle.leaf_hash(data) != entry.leaf_hash:
                raise FatalError(f"entry {entry.index} does not match its hash")


def _canonical(kind: str, payload: Any) -> bytes:
    try:
        return canonical_json(payload)
    except ValueError as fault:  # a number or text RFC 8785 cannot write
        raise RefusedError(f"ledger: a {kind} payload has no canonical form: {fault}") from fault


def _lock(directory: Path) -> int:
    handle = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as fault:
        os.close(handle)
        raise FatalError(
            f"ledger {directory}: another process is writing it; stop that server first"
        ) from fault
    return handle


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.executescript(SCHEMA)
    return connection


def _signing_key(path: Path) -> Ed25519PrivateKey:
    if not path.exists():
        write_atomically(path, Ed25519PrivateKey.generate().private_bytes_raw().hex().encode())
    try:
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text()))
    except ValueError as fault:
        raise FatalError(f"{path.name} is damaged; restore it from a backup") from fault


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file (mode 0600) so that a crash leaves the old one or the new one, whole."""
    temporary = path.with_name(path.name + ".new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
