"""An agent's memory across restarts: the accepted assignment, the applied one, wanted replicas.

Decides nothing but durability: a write is on disk, file and folder, before it returns, and replaces
the old content whole or not at all. Content that does not read back stops the agent: state is
never silently reset.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sites.digest import canonical_json
from sites.errors import FatalError, InvalidFactError, RetryableError
from sites.plain import from_plain

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Applied:
    """The rank whose routes the gateway runs, and the digest of that assignment."""

    epoch: int
    version: int
    assignment_digest: str
    envelope: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """How many replicas steps have asked for so far, per group id; the next replica's number."""

    replicas: tuple[tuple[str, int], ...]
    next_replica: int


class AgentStore:
    """``assignment.json`` (accepted envelope), ``applied.json``, ``wanted.json`` of one agent."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        state_dir.mkdir(parents=True, exist_ok=True)

    def save_accepted(self, envelope: bytes) -> None:
        """Keep the signed envelope as it came."""
        write_atomically(self._state_dir / "assignment.json", envelope)

    def accepted(self) -> bytes | None:
        """The last accepted envelope, None on a fresh site."""
        return _read(self._state_dir / "assignment.json")

    def save_applied(
        self, *, rank: tuple[int, int], assignment_digest: str, envelope: bytes
    ) -> None:
        """Record that the gateway runs this assignment's routes."""
        applied = Applied(
            epoch=rank[0],
            version=rank[1],
            assignment_digest=assignment_digest,
            envelope=envelope.decode(),
        )
        write_atomically(self._state_dir / "applied.json", canonical_json(applied))

    def applied(self) -> Applied | None:
        """What was last applied, None if nothing ever was. Raises FatalError if unreadable."""
        return _read_fact(self._state_dir / "applied.json", Applied)

    def save_wanted(self, replicas: Mapping[str, int], *, next_replica: int) -> None:
        """Record the replicas wanted now."""
        wanted = Wanted(replicas=tuple(sorted(replicas.items())), next_replica=next_replica)
        write_atomically(self._state_dir / "wanted.json", canonical_json(wanted))

    def wanted(self) -> Wanted | None:
        """The replicas last wanted, None on a fresh site. Raises FatalError if unreadable."""
        return _read_fact(self._state_dir / "wanted.json", Wanted)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` whole (mode 0600): temporary file, fsync, rename, fsync of the folder.

    Raises RetryableError if the disk is full, FatalError for any other fault of the disk; the old
    content is then untouched.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        # assignments carry the tenants' pseudonym keys: for this user's eyes alone
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as fault:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if fault.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RetryableError(f"{path}: the disk is full; free some space") from fault
        raise FatalError(f"{path}: cannot be written: {fault.strerror}") from fault


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as fault:
        raise FatalError(f"{path}: cannot be read: {fault.strerror}") from fault


def _read_fact(path: Path, cls: type[T]) -> T | None:
    content = _read(path)
    if content is None:
        return None
    try:
        return from_plain(cls, json.loads(content))
    except (ValueError, RecursionError, InvalidFactError) as fault:
        raise FatalError(
            f"{path}: damaged ({fault}); restore it, or remove the site's state folder to have "
            "the control plane start the site anew"
        ) from fault
