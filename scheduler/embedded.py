"""A whole fleet on this machine: the server and one agent per site, as processes this one owns.

Decides the order of starting and stopping, nothing about placement. `hinterland up` and the demo
stand on it; in production a service manager owns these processes instead. Whatever an earlier run
left behind in the same state folder is ended before anything starts.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from agents.processes import ProcessRecord, ProcessTable, package_env, require_port_free, running_in
from sites.clock import Clock
from sites.errors import FatalError, HinterlandError, RetryableError
from sites.fleet import SiteGateway

SERVER = "server"
SERVER_GRACE_MS = 20_000
AGENT_GRACE_MS = 20_000
CHILD_GRACE_MS = 3_000
LOCK_FILE = "up.lock"
POLL_MS = 100

Progress = Callable[[str], None]


class EmbeddedFleet:
    """Owner of the processes under `state_dir`; one instance per state folder at a time."""

    def __init__(
        self,
        *,
        state_dir: Path,
        fleet_dir: Path,
        site_ids: tuple[str, ...],
        clock: Clock,
        runtime: str = "llama",
        server_options: tuple[str, ...] = (),
        agent_options: tuple[str, ...] = (),
        gateways: tuple[tuple[str, SiteGateway], ...] = (),
    ) -> None:
        """`gateways`: by site id, the addresses that must be free before anything starts."""
        self.state_dir = state_dir.resolve()
        self.site_ids = tuple(sorted(site_ids))
        self._fleet_dir = fleet_dir.resolve()
        self._clock = clock
        self._runtime = runtime
        self._server_options = server_options
        self._agent_options = agent_options
        self._gateways = gateways
        self._lock = -1
        self._table = ProcessTable(self.state_dir / "run", clock=clock)

    async def start(self, progress: Progress) -> None:
        """End leftovers, start the server, then every agent.

        Raises FatalError when the state folder is in use, a gateway's port is taken, or one of
        them ends before it is ready; what was started is stopped.
        """
        self._lock = _lock(self.state_dir)
        try:
            await self._end_leftovers(progress)
            self._require_ports()
            progress("starting the control plane (Ray takes a few seconds)")
            await self.start_server()
            for site_id in self.site_ids:
                progress(f"starting the agent of {site_id}")
                self.start_site(site_id)
        except (HinterlandError, OSError):
            await self.stop()
            raise

    def _require_ports(self) -> None:
        for site_id, gateway in self._gateways:
            purpose = f'gateway of site "{site_id}"'
            require_port_free(gateway.client_address, purpose=f"{purpose}: client listener")
            require_port_free(gateway.peer_address, purpose=f"{purpose}: peer listener")

    async def start_server(self) -> None:
        """Start the control plane, first or again, and wait until it is ready.

        Raises FatalError if it ends before that, or is not ready in time.
        """
        self._ready_path().unlink(missing_ok=True)
        self._table.spawn(
            SERVER,
            argv=(
                sys.executable,
                "-m",
                "scheduler.main",
                "--state-dir",
                str(self.state_dir),
                "--fleet",
                str(self._fleet_dir),
                *self._server_options,
            ),
            log_path=self.state_dir / "logs" / "server.log",
            env=package_env(),
        )
        await self.until(self._ready_path().exists, what="the server to be ready", timeout_s=90)

    def _ready_path(self) -> Path:
        return self.state_dir / "server" / "api.json"

    def start_site(self, site_id: str) -> None:
        """Start the agent of a site; it starts (or adopts) its gateway and model servers itself."""
        self._table.spawn(
            agent_name(site_id),
            argv=(
                sys.executable,
                "-m",
                "agents.main",
                "--site",
                site_id,
                "--state-dir",
                str(self.site_dir(site_id)),
                "--control",
                self._control_address(),
                "--pki-dir",
                str(self.state_dir / "pki" / "sites" / site_id),
                "--runtime",
                self._runtime,
                "--stop-on-exit",
                *self._agent_options,
            ),
            log_path=self.state_dir / "logs" / f"agent-{site_id}.log",
            env=package_env(),
        )

    def _control_address(self) -> str:
        return (self.state_dir / "server" / "front_door.address").read_text().strip()

    def site_dir(self, site_id: str) -> Path:
        """State folder of a site's agent."""
        return self.state_dir / "sites" / site_id

    def site_processes(self, site_id: str) -> tuple[ProcessRecord, ...]:
        """Agent, gateway and model servers of a site that run now."""
        children = running_in(self.site_dir(site_id) / "run")
        agent = self._table.get(agent_name(site_id))
        alive = self._table.is_alive(agent_name(site_id))
        return (*((agent,) if agent is not None and alive else ()), *children)

    def kill_site(self, site_id: str) -> tuple[ProcessRecord, ...]:
        """SIGKILL a site's agent, gateway and model servers at once; return what was killed."""
        victims = self.site_processes(site_id)
        for record in victims:
            _kill(record, signal.SIGKILL)
        return victims

    def process(self, name: str) -> ProcessRecord:
        """The record of the server or of an agent; raises KeyError if it was not started."""
        record = self._table.get(name)
        if record is None:
            raise KeyError(name)
        return record

    def dead_process(self) -> str:
        """One line on the first process of ours that ended by itself; empty while all run."""
        for record in self._table.records():
            if not self._table.is_alive(record.name):
                said = self._table.log_tail(record.name, lines=1)
                return f"{record.name} ended: {said or 'no output'} (log: {record.log_path})"
        return ""

    def forget_site(self, site_id: str) -> None:
        """Drop the record of a killed agent, so that it may be started again."""
        self.forget(agent_name(site_id))

    def forget(self, name: str) -> None:
        """Drop the record of a process of ours that was ended, so that it may be started again."""
        if self._table.get(name) is not None:
            self._table.forget(name)

    async def until(self, done: Callable[[], bool], *, what: str, timeout_s: float) -> None:
        """Wait for `done`. Raises FatalError if a process of ours ends or the time is up."""
        for _ in range(max(1, int(timeout_s * 1_000 / POLL_MS))):
            if done():
                return
            dead = self.dead_process()
            if dead:
                raise FatalError(f"while waiting for {what}: {dead}")
            await self._clock.sleep_ms(POLL_MS)
        raise FatalError(
            f"{what}: not within {timeout_s:g} s; see the logs in {self.state_dir / 'logs'}"
        )

    async def stop(self) -> tuple[str, ...]:
        """Stop agents (with what they run), then the server; return what still runs (nothing).

        Does nothing unless `start` got hold of the state folder: what runs there is another's.
        """
        if self._lock < 0:
            return ()
        left = await self._stop_all()
        os.close(self._lock)
        self._lock = -1
        return left

    async def _stop_all(self) -> tuple[str, ...]:
        for site_id in self.site_ids:
            agent = self._table.get(agent_name(site_id))
            if agent is not None and self._table.is_alive(agent.name):
                _kill(agent, signal.SIGTERM)
        for record in self._table.records():
            if record.name != SERVER:
                await self._table.stop(record.name, grace_ms=AGENT_GRACE_MS)
        for site_id in self.site_ids:
            await self._stop_children(site_id)
        await self._table.stop(SERVER, grace_ms=SERVER_GRACE_MS)
        return self.still_running()

    async def _stop_children(self, site_id: str) -> None:
        """An agent that was killed leaves its gateway and model servers serving."""
        children = ProcessTable(self.site_dir(site_id) / "run", clock=self._clock)
        for record in children.adopt():
            await children.stop(record.name, grace_ms=CHILD_GRACE_MS)

    def still_running(self) -> tuple[str, ...]:
        """Names of every process of this state folder that is alive."""
        ours = [r.name for r in self._table.records() if self._table.is_alive(r.name)]
        theirs = [
            f"{site_id}: {record.name}"
            for site_id in self.site_ids
            for record in running_in(self.site_dir(site_id) / "run")
        ]
        return (*ours, *theirs)

    async def _end_leftovers(self, progress: Progress) -> None:
        self._table.adopt()
        left = self.still_running()
        if left:
            progress(f"ending what an earlier run left: {', '.join(left)}")
            still = await self._stop_all()
            if still:
                raise RetryableError(f"{', '.join(still)} cannot be ended; end them by hand")


def _lock(state_dir: Path) -> int:
    """Hold a state folder for this process; raises FatalError while another one does."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        handle = os.open(state_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as fault:
        raise FatalError(f"state folder {state_dir}: {fault.strerror}") from fault
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as fault:
        os.close(handle)
        raise FatalError(
            f"state folder {state_dir}: another fleet runs in it; stop that one first or name "
            "another folder with --context"
        ) from fault
    return handle


def agent_name(site_id: str) -> str:
    """Name of a site's agent in the process table."""
    return f"agent/{site_id}"


def _kill(record: ProcessRecord, number: signal.Signals) -> None:
    try:
        os.killpg(record.pid, number)
    except ProcessLookupError:
        return  # ended between the look and the signal: what was wanted
