"""Hubs in Ray actors. Owns the Ray driver's process; every request to it has a timeout.

Decides when the hubs count as lost: a late, broken or negative answer. Whoever owns this host
starts it again and rebuilds the hubs; nothing here retries a request, since its effects may have
happened. Ray itself is started at most `start_attempts` times per start (its own start limit can
strike on a busy machine).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from scheduler.hubs import HubsLostError, grouped
from sites.hub import HubConfig
from sites.hub_messages import HubEffect, HubEvent

_HOST_MODULE = "scheduler.ray_host"


@dataclass(frozen=True, kw_only=True, slots=True)
class RayHubsConfig:
    """Bounds of Ray. `hubs_per_actor` 0: by the size of the fleet. `log_path` collects what Ray's
    driver prints.
    """

    log_path: Path
    hubs_per_actor: int = 0
    call_timeout_ms: int = 2_000
    start_timeout_ms: int = 60_000
    start_attempts: int = 2
    stop_timeout_ms: int = 10_000


class RayHubs:
    """A `HubHost` whose hubs are Ray actors."""

    def __init__(self, config: RayHubsConfig, *, hubs: HubConfig) -> None:
        self._config = config
        self._hubs = hubs
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ray-hubs")
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._temp_dir = ""

    @property
    def pid(self) -> int | None:
        """Process id of Ray's driver while it runs."""
        return self._process.pid if self._process is not None else None

    async def start(self, site_ids: tuple[str, ...]) -> None:
        """Start Ray if it does not run, then fresh hubs. Raises HubsLostError if that fails."""
        groups = grouped(site_ids, hubs_per_actor=self._config.hubs_per_actor)
        if self._process is None:
            await self._run(self._start_process)
        seconds = self._config.start_timeout_ms / 1_000
        await self._ask("start", groups, self._hubs, timeout_s=seconds)

    async def handle(
        self, batch: tuple[tuple[str, HubEvent], ...], now_ms: int
    ) -> tuple[HubEffect, ...]:
        effects = await self._ask(
            "handle", batch, now_ms, timeout_s=self._config.call_timeout_ms / 1_000
        )
        assert isinstance(effects, tuple)
        return effects

    async def stop(self) -> None:
        await self._run(self._stop_process, self._config.stop_timeout_ms / 1_000)

    async def _run(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def _ask(self, verb: str, *arguments: Any, timeout_s: float) -> Any:
        request = (verb, *arguments, timeout_s)
        # Ray's own timeout answers first, unless its driver hangs as a whole.
        verdict, value = await self._run(self._exchange, request, timeout_s + 1.0)
        if verdict == "ok":
            return value
        await self._run(self._stop_process, 0.0)  # a host that lost hubs is not trusted again
        raise HubsLostError(f"hubs: {value}")

    def _exchange(self, request: tuple[Any, ...], timeout_s: float) -> tuple[str, Any]:
        if self._connection is None:
            return ("lost", "Ray does not run")
        try:
            self._connection.send(request)
            if not self._connection.poll(timeout_s):
                return ("lost", f"Ray's driver gave no answer within {timeout_s:g} s")
            verdict, value = self._connection.recv()
        except (OSError, EOFError):
            return ("lost", "Ray's driver process ended")
        return (str(verdict), value)

    def _start_process(self) -> None:
        for _ in range(self._config.start_attempts):
            self._spawn()
            assert self._connection is not None
            try:
                if self._connection.poll(self._config.start_timeout_ms / 1_000):
                    self._connection.recv()
                    return
            except (OSError, EOFError):
                pass  # it ended: its log says why, the next attempt or the error below follows
            self._stop_process(0.0)
        raise HubsLostError(
            f"Ray did not start within {self._config.start_timeout_ms} ms in "
            f"{self._config.start_attempts} attempts; see {self._config.log_path}"
        )

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        # Ray keeps Unix sockets there: their paths must be short, so not below the state folder.
        self._temp_dir = tempfile.mkdtemp(prefix="hlray")
        with theirs, self._config.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", _HOST_MODULE, str(theirs.fileno()), self._temp_dir],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | _ray_environment(),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self._connection = Connection(ours.detach())

    def _stop_process(self, patience_s: float) -> None:
        """Close the socket (the driver then ends Ray), insist after `patience_s`, clean up."""
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
            process.wait()
        _end_session(process.pid)
        shutil.rmtree(self._temp_dir, ignore_errors=True)


def _end_session(session_id: int) -> None:
    """Kill what is left of the driver's process group (Ray's daemons, workers)."""
    try:
        os.killpg(session_id, signal.SIGKILL)
    except ProcessLookupError:
        return


def _ray_environment() -> dict[str, str]:
    """Settings Ray takes from its environment alone: authentication on, reports home off."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    }
