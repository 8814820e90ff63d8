"""The stage of the drills: a small fleet of real processes, its operator, clients, and a knife.

Decides when the fleet counts as at rest and what every drill has to show in the end; what a drill
breaks, and what else must then be true, is the drill's. Model servers are simulated, so that two
cores carry it; control plane, agents, Ray and Envoys are the real ones.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from agents.processes import ProcessRecord, package_env
from benchmarks.fleets import fast_demo
from scheduler.demo.clients import Answer, Caller, Tally, Traffic, tally
from scheduler.demo.operator import Operator
from scheduler.embedded import SERVER, EmbeddedFleet, agent_name
from scheduler.fleet_problem import read_problem
from scheduler.ledger import LedgerReader
from scheduler.view import FleetView, SiteView
from sites.clock import SystemClock
from sites.hub_messages import ConnectionState
from sites.telemetry import ReplicaState

REQUESTS_PER_S = 10.0
PATIENCE_S = 90.0
HANDED_OVER_MS = 20_000
"""By when agents have handed over what they recorded."""
PORTS = {"127.0.0.1:181": "127.0.0.1:311", "127.0.0.1:182": "127.0.0.1:312"}
PORTS["127.0.0.1:183"] = "127.0.0.1:313"
GATEWAY = "gateway"
SLOW_MS = 3_000
"""Answers that took longer are shown with a drill's figures."""


class Seen:
    """What the clients of one drill saw; read after the traffic has ended."""

    answers: tuple[Answer, ...] = ()

    @property
    def tally(self) -> Tally:
        """The sum of it."""
        return tally(self.answers)


class Stage:
    """One running fleet and everything a drill does to it."""

    def __init__(self, folder: Path) -> None:
        self.clock = SystemClock()
        self._refuse_dir = folder / "refuse"
        self._refuse_dir.mkdir()
        self._folder = folder
        self.fleet_dir = _fleet_files(folder)
        problem = read_problem((self.fleet_dir,))
        self.site_ids = tuple(sorted(s.site_id for s in problem.fleet.sites))
        self.fleet = EmbeddedFleet(
            state_dir=folder / "state",
            fleet_dir=self.fleet_dir,
            site_ids=self.site_ids,
            clock=self.clock,
            runtime="command",
            agent_options=("--command", _launcher(folder, refuse=self._refuse_dir)),
        )
        self.operator = Operator(state_dir=self.fleet.state_dir, clock=self.clock)
        self._callers: tuple[Caller, ...] = ()

    # Raising and striking the fleet.

    def start(self) -> None:
        """Start it, plan, apply."""
        asyncio.run(self.fleet.start(lambda _: None))
        self.operator.until_connected(timeout_s=PATIENCE_S)
        self.operator.must("apply", str(self.plan(self.fleet_dir)), "--yes")
        planned = sum(c.requests_per_s for c in self.operator.callers())
        self._callers = self.operator.callers(rate_factor=REQUESTS_PER_S / planned)

    def stop(self) -> tuple[str, ...]:
        """Stop everything; names what still runs."""
        return asyncio.run(self.fleet.stop())

    # Looking.

    def view(self) -> FleetView:
        """The fleet as the control plane knows it."""
        return self.operator.view()

    def site(self, site_id: str) -> SiteView:
        """One site of the view."""
        return next(s for s in self.view().sites if s.site_id == site_id)

    def until(self, done: Callable[[FleetView], bool], *, what: str) -> FleetView:
        """Wait for a view that is `done`."""
        return self.operator.until(done, what=what, timeout_s=PATIENCE_S)

    def settle(self) -> FleetView:
        """Wait until desired equals observed everywhere and nothing is under way."""
        return self.until(is_at_rest, what="the fleet to be at rest")

    def processes(self, site_id: str) -> dict[str, ProcessRecord]:
        """What runs at a site, by name; the agent's is ``agent``."""
        named = {r.name: r for r in self.fleet.site_processes(site_id)}
        agent = named.pop(agent_name(site_id), None)
        return named | ({"agent": agent} if agent is not None else {})

    def children_pids(self, site_id: str) -> dict[str, int]:
        """Process ids of a site's gateway and model servers, by name."""
        return {n: r.pid for n, r in self.processes(site_id).items() if n != "agent"}

    def busiest(self, answers: tuple[Answer, ...]) -> str:
        """The site that answered most."""
        counts = dict(tally(answers).by_site)
        return max(sorted(counts), key=lambda s: counts[s])

    def held_records(self) -> Counter[str]:
        """Records in the ledger per site; the ledger refuses a gap, so this is the newest + 1."""
        with LedgerReader.open(self.fleet.state_dir / "ledger") as reader:
            return Counter({s: n + 1 for s, n in reader.acked_by_site().items()})

    # Doing.

    def command(self, *arguments: str) -> tuple[int, str]:
        """Run ``hinterland``; exit code, and both of its outputs."""
        done = self.operator.command(*arguments)
        return done.returncode, done.stdout + done.stderr

    @contextmanager
    def begun(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """A ``hinterland`` command that is under way."""
        head = [sys.executable, "-m", "scheduler.cli", "--context", str(self.fleet.state_dir)]
        with subprocess.Popen(
            [*head, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | package_env(),
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def plan(self, fleet_dir: Path) -> Path:
        """Plan for these fleet files; returns where the plan was saved."""
        path = self._folder / f"{fleet_dir.name}.plan"
        self.operator.must("plan", "-f", str(fleet_dir), "--out", str(path))
        return path

    def wider_fleet(self) -> Path:
        """The same fleet, asked to keep two replicas at osl-1 and at rix-1."""
        target = self._folder / "wider"
        if not target.exists():
            shutil.copytree(self.fleet_dir, target)
            _set_bounds(target, {"osl-1": 2, "rix-1": 2, "waw-1": 1})
        return target

    @contextmanager
    def refusing(self, site_id: str) -> Iterator[None]:
        """New model servers of that site end as soon as they start."""
        marker = self._refuse_dir / site_id
        marker.touch()
        try:
            yield
        finally:
            marker.unlink()

    def wait(self, seconds: float) -> None:
        """Let traffic flow."""
        self.clock.block_ms(int(seconds * 1_000))

    @contextmanager
    def traffic(self) -> Iterator[Seen]:
        """Clients ask all the while; not one request may fail."""
        seen = Seen()
        running = Traffic(self._callers, clock=self.clock, threads_per_caller=2)
        running.start()
        try:
            self.wait(1.0)
            yield seen
        finally:
            seen.answers = running.stop()
        print(seen.tally, *(a for a in seen.answers if a.total_ms > SLOW_MS), sep="\n")
        failed = [a for a in seen.answers if not a.ok]
        assert len(seen.answers) > 10, "there was traffic"
        assert not failed, f"{len(failed)} of {len(seen.answers)} requests failed: {failed[:3]}"

    def kill(self, record: ProcessRecord, number: signal.Signals = signal.SIGKILL) -> None:
        """Signal one process and nothing else of the site."""
        os.kill(record.pid, number)
        if number is signal.SIGKILL:
            _wait_gone(record.pid)

    def restart_agent(self, site_id: str) -> None:
        """Start the agent of a site again."""
        self.fleet.forget_site(site_id)
        self.fleet.start_site(site_id)

    def kill_server(self) -> None:
        """SIGKILL the control plane; what it left must end by itself."""
        pid = self.fleet.process(SERVER).pid
        helpers = psutil.Process(pid).children(recursive=True)
        os.kill(pid, signal.SIGKILL)
        _wait_gone(pid)
        _, alive = psutil.wait_procs(helpers, timeout=30)
        assert not alive, f"a killed control plane left {[p.name() for p in alive]} running"
        self.fleet.forget(SERVER)

    def start_server(self) -> None:
        """Start the control plane again on what the killed one left."""
        asyncio.run(self.fleet.start_server())

    def ray_head(self) -> list[psutil.Process]:
        """The processes of this control plane's Ray head."""
        server = psutil.Process(self.fleet.process(SERVER).pid)
        return [p for p in server.children(recursive=True) if p.name() in ("gcs_server", "raylet")]

    # Judging.

    def require_complete_audit(self) -> None:
        """Every tenant's audit is complete and without breach, and the ledger verifies. What agents
        have not handed over yet, an audit rightly misses: that is waited for.
        """
        for tenant in self.view().problem.tenants:
            until_ms = self.clock.monotonic_ms() + HANDED_OVER_MS
            while True:
                code, said = self.command(
                    "audit", "residency", "--tenant", tenant.tenant_id, "-o", "json"
                )
                if code == 0 or self.clock.monotonic_ms() >= until_ms:
                    break
            assert code == 0, said
        code, said = self.command("audit", "verify")
        assert code == 0, said

    def serving_records(self) -> int:
        """Attempts the ledger holds that were served."""
        with LedgerReader.open(self.fleet.state_dir / "ledger") as reader:
            return sum(
                _is_served(json.loads(e.payload)) for e in reader.entries(kind="ExecutionRecord")
            )


def is_at_rest(view: FleetView) -> bool:
    """Everybody connected and healthy, nothing under way, ranks and ready replicas as desired."""
    if view.rollout_receipt_id or view.solving or any(s.lost for s in view.sites):
        return False
    return view.plan is not None and all(_is_as_wanted(s, view) for s in view.sites)


def _is_as_wanted(site: SiteView, view: FleetView) -> bool:
    seen, wanted = site.observation, site.assignment
    if seen is None or wanted is None or site.state is not ConnectionState.CONNECTED:
        return False
    ready: dict[str, int] = {}
    for one in seen.replicas:
        if one.state is not ReplicaState.READY:
            return False
        ready[one.group.group_id] = ready.get(one.group.group_id, 0) + 1
    targets = {t.group.group_id: t.replicas for t in wanted.groups if t.replicas}
    peers_fine = all(p.healthy for p in seen.gateway.peers)
    rank = (seen.epoch, seen.version)
    return ready == targets and seen.gateway.live and peers_fine and rank == wanted.rank


def _is_served(record: dict[str, Any]) -> bool:
    return record["decision"] == "served"


def _fleet_files(folder: Path) -> Path:
    """The demo fleet with fast serving points on ports of its own."""
    target = fast_demo(folder)
    path = target / "sites.yaml"
    text = path.read_text()
    for demo, drill in PORTS.items():
        assert demo in text, f"{path.name} no longer says {demo}"
        text = text.replace(demo, drill)
    path.write_text(text)
    _set_bounds(target, {"osl-1": 1, "rix-1": 1, "waw-1": 1})
    return target


def _set_bounds(fleet_dir: Path, fewest: dict[str, int]) -> None:
    """Ask for so many replicas per site, so that a drill knows what stands where."""
    path = fleet_dir / "models.yaml"
    bounds = "".join(
        f"    - {{site: {s}, variant: smollm2-135m-q4, fewest: {n}}}\n" for s, n in fewest.items()
    )
    text, count = re.subn(
        r"(  replicaBounds:\n)(?:    - .*\n)+", rf"\g<1>{bounds}", path.read_text()
    )
    assert count == 1, f"{path.name} states no replica bounds any more"
    path.write_text(text)


def _launcher(folder: Path, *, refuse: Path) -> str:
    """Command template of a simulated model server that a site can be made to refuse."""
    script = folder / "launch.sh"
    script.write_text(
        f"""#!/bin/sh
# The agent tells every child where its record lies: sites/<site>/run/<name>.json
site=$(basename "$(dirname "$(dirname "$HINTERLAND_PROCESS")")")
if [ -e "{refuse}/$site" ]; then
  echo "no licence for this model server" >&2
  exit 3
fi
exec {sys.executable} -m agents.runtimes.simulated_server "$@"
"""
    )
    pace = "--ttft-ms 20 --tpot-ms 2 --decode-tok-s 20000 --start-ms 500"
    return (
        f"sh {script} --host {{host}} --port {{port}} --variant {{variant}} "
        f"--concurrency {{concurrency}} {pace}"
    )


def _wait_gone(pid: int) -> None:
    """Until the process has ended (a zombie has: its parent may not have looked yet)."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return
    except ChildProcessError:
        pass  # not a child of ours, or its end was noted already
    clock = SystemClock()
    for _ in range(1_000):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        clock.block_ms(10)
    raise AssertionError(f"pid {pid} does not end")
