"""A helper process that answers requests over an inherited socket, and can be lost.

Owns the process from start to end; decides nothing about what is asked or what a loss means. The
helper's module takes the socket's file descriptor as its first argument, sends one message when it
is ready, and ends when the socket closes, so it never outlives its owner for long.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sites.errors import RetryableError

NICENESS = 5
"""Of helpers that work things out: below the control loop, which shares the machine and must keep
hearing heartbeats.
"""

_KILL_S = 10.0
"""How long the kernel may take to end a helper that was sent SIGKILL."""


class ChildLostError(RetryableError):
    """The helper ended, hung or did not start; what it was doing may or may not have happened."""


class Child:
    """One helper process at a time. Blocking; used from one thread."""

    def __init__(
        self, module: str, *, log_path: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """`environment` None: the owner's. `log_path` collects all the helper prints."""
        self._module = module
        self._log_path = log_path
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    @property
    def pid(self) -> int | None:
        """Process id, None while there is none."""
        return self._process.pid if self._process is not None else None

    def start(self, *arguments: str, timeout_s: float) -> None:
        """Start it and wait until it is ready. Raises ChildLostError if it does not get there."""
        assert self._process is None, "one helper at a time"
        ours, theirs = socket.socketpair()
        with theirs, self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module, str(theirs.fileno()), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self._connection = Connection(ours.detach())
        try:
            self._receive(timeout_s)
        except ChildLostError:
            self.stop(patience_s=0.0)
            raise

    def ask(self, request: tuple[Any, ...], *, timeout_s: float) -> Any:
        """Send a request, return the answer. After ChildLostError the helper is gone."""
        try:
            if self._connection is None:
                raise ChildLostError(f"{self._module}: not running")
            self._connection.send(request)
            return self._receive(timeout_s)
        except OSError as fault:
            self.stop(patience_s=0.0)
            raise ChildLostError(f"{self._module}: its process ended") from fault
        except ChildLostError:
            self.stop(patience_s=0.0)
            raise

    def kill(self) -> None:
        """End it at once from any thread; a pending `ask` then raises ChildLostError."""
        process = self._process
        if process is not None:
            process.kill()

    def stop(self, *, patience_s: float) -> None:
        """Close the socket, wait for the end, then kill it and all it started. Safe to repeat."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # then it is the kernel's to end
                process.wait(_KILL_S)
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def _receive(self, timeout_s: float) -> Any:
        assert self._connection is not None
        try:
            if not self._connection.poll(timeout_s):
                raise ChildLostError(f"{self._module}: no answer within {timeout_s:g} s")
            return self._connection.recv()
        except (EOFError, ConnectionResetError) as fault:
            raise ChildLostError(
                f"{self._module}: its process ended; see {self._log_path}"
            ) from fault
