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
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scheduler.child import Child, ChildLostError
from scheduler.hubs import HubsLostError, grouped
from sites.hub import HubConfig
from sites.hub_messages import HubEffect, HubEvent


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
        self._child = Child(
            "scheduler.ray_host",
            log_path=config.log_path,
            environment=os.environ | _ray_environment(),
        )
        self._temp_dir = ""

    @property
    def pid(self) -> int | None:
        """Process id of Ray's driver while it runs."""
        return self._child.pid

    async def start(self, site_ids: tuple[str, ...]) -> None:
        """Start Ray if it does not run, then fresh hubs. Raises HubsLostError if that fails."""
        groups = grouped(site_ids, hubs_per_actor=self._config.hubs_per_actor)
        if self._child.pid is None:
            await self._run(self._start_ray)
        await self._ask("start", groups, self._hubs, timeout_ms=self._config.start_timeout_ms)

    async def handle(
        self, batch: tuple[tuple[str, HubEvent], ...], now_ms: int
    ) -> tuple[HubEffect, ...]:
        effects = await self._ask("handle", batch, now_ms, timeout_ms=self._config.call_timeout_ms)
        assert isinstance(effects, tuple)
        return effects

    async def stop(self) -> None:
        await self._run(self._stop_ray, self._config.stop_timeout_ms / 1_000)

    async def _run(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def _ask(self, verb: str, *arguments: Any, timeout_ms: int) -> Any:
        request = (verb, *arguments, timeout_ms / 1_000)
        verdict, value = await self._run(self._exchange, request, timeout_ms / 1_000)
        if verdict == "ok":
            return value
        raise HubsLostError(f"hubs: {value}")

    def _exchange(self, request: tuple[Any, ...], timeout_s: float) -> tuple[str, Any]:
        try:
            # Ray's own timeout answers first, unless its driver hangs as a whole.
            verdict, value = self._child.ask(request, timeout_s=timeout_s + 1.0)
        except ChildLostError as lost:
            verdict, value = "lost", str(lost)
        if verdict != "ok":
            self._stop_ray(0.0)  # a host that lost hubs is not trusted again
        return (verdict, value)

    def _start_ray(self) -> None:
        attempts = self._config.start_attempts
        for attempt in range(attempts):
            # Ray keeps Unix sockets there: their paths must be short, so not below the state folder
            self._temp_dir = tempfile.mkdtemp(prefix="hlray")
            try:
                self._child.start(self._temp_dir, timeout_s=self._config.start_timeout_ms / 1_000)
                return
            except ChildLostError as lost:
                self._stop_ray(0.0)
                if attempt + 1 == attempts:
                    raise HubsLostError(
                        f"Ray did not start in {attempts} attempts: {lost}; "
                        f"see {self._config.log_path}"
                    ) from lost

    def _stop_ray(self, patience_s: float) -> None:
        self._child.stop(patience_s=patience_s)
        if self._temp_dir:
            shutil.rmtree(self._temp_dir, ignore_errors=True)
            self._temp_dir = ""


def _ray_environment() -> dict[str, str]:
    """Settings Ray takes from its environment alone: authentication on, reports home off."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    }
