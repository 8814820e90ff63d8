"""Reads a growing log file line by line from a remembered position, across rotations.

Decides which bytes are complete lines not yet read, and when a rotation is due. What lines mean and
the durability of the position belong to `agents.gateway.access_log` and `agents.spool`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agents.spool import LogPosition
from sites.errors import RetryableError

READ_BYTES = 256 * 1024
"""Read at a time; a line longer than this is handed over in pieces, as lines that do not parse."""

ROTATE_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Lines:
    """Complete lines without their line ends, and the position after them."""

    lines: tuple[bytes, ...]
    position: LogPosition


class LogTail:
    """One log file ``x`` and, while it is being finished, its rotated predecessor ``x.1``.

    Whoever rotates renames ``x`` to ``x.1`` and has the writer open ``x`` again. Every method
    raises RetryableError if the disk does not let it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rotated = path.with_name(path.name + ".1")

    def read(self, position: LogPosition) -> Lines:
        """What follows `position`; no lines if there is nothing whole to read yet."""
        with self._mapped():
            current = self._path.stat().st_ino if self._path.exists() else 0
            # A position in neither file is an unread pair: the older one comes first.
            is_past_rotated = current != 0 and position.inode == current
            if self._rotated.exists() and not is_past_rotated:
                inode = self._rotated.stat().st_ino
                return self._read_file(self._rotated, self._from(position, inode))
            if current:
                return self._read_file(self._path, self._from(position, current))
        return Lines(lines=(), position=position)

    def _from(self, position: LogPosition, inode: int) -> LogPosition:
        return position if position.inode == inode else LogPosition(inode=inode, offset=0)

    def _read_file(self, path: Path, start: LogPosition) -> Lines:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < start.offset:
                start = LogPosition(inode=start.inode, offset=0)  # cut from outside: read anew
            file.seek(start.offset)
            data = file.read(READ_BYTES)
        end = data.rfind(b"\n") + 1
        if end == 0 and len(data) == READ_BYTES:
            end = len(data)
        lines = tuple(line for line in data[:end].split(b"\n") if line)
        position = LogPosition(inode=start.inode, offset=start.offset + end)
        return Lines(lines=lines, position=position)

    def is_rotation_due(self) -> bool:
        """Whether the log has outgrown `ROTATE_BYTES` and no older one is still being read."""
        with self._mapped():
            return (
                not self._rotated.exists()
                and self._path.exists()
                and self._path.stat().st_size > ROTATE_BYTES
            )

    def rotate(self) -> None:
        """Move the log aside; its writer keeps writing there until it reopens ``x``."""
        with self._mapped():
            self._path.rename(self._rotated)

    def restore(self) -> None:
        """Undo a rotation that ended halfway: moved aside, but the writer was never told."""
        with self._mapped():
            if self._rotated.exists() and not self._path.exists():
                self._rotated.rename(self._path)

    def next_file(self, position: LogPosition) -> LogPosition | None:
        """Where to go on once the rotated log is read to its end and a new one exists, else None.

        Make the returned position durable, then call `drop_rotated`.
        """
        with self._mapped():
            if not (self._rotated.exists() and self._path.exists()):
                return None
            old = self._rotated.stat()
            if old.st_ino != position.inode or old.st_size > position.offset:
                return None
            return LogPosition(inode=self._path.stat().st_ino, offset=0)

    def drop_rotated(self, position: LogPosition) -> None:
        """Delete the rotated log once `position` lies in its successor."""
        with self._mapped():
            if self._rotated.exists() and self._rotated.stat().st_ino != position.inode:
                self._rotated.unlink()

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except OSError as fault:
            raise RetryableError(f"log {self._path}: {fault.strerror}") from fault
