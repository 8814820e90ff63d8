"""An operator at the keyboard of one running fleet: commands, the API's view, clients with keys.

Used by the demo, by drills and by benchmarks; decides nothing about the fleet.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from agents.processes import package_env
from scheduler.cli.client import connected
from scheduler.demo.clients import Caller
from scheduler.view import Drill, FleetView
from sites.clock import Clock
from sites.errors import FatalError
from sites.hub_messages import ConnectionState
from sites.plain import from_plain
from sites.residency import may_transit

COMMAND_TIMEOUT_S = 120
POLL_MS = 100


class Operator:
    """Talks to the server whose state lies in `state_dir`."""

    def __init__(self, *, state_dir: Path, clock: Clock) -> None:
        self._state_dir = state_dir
        self._clock = clock

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``hinterland`` with these arguments, as a user would; its exit code is not judged."""
        head = [sys.executable, "-m", "scheduler.cli", "--context", str(self._state_dir)]
        return subprocess.run(
            [*head, *arguments],
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
            env=package_env(),
        )

    def must(self, *arguments: str) -> str:
        """Standard output of a command that has to end well; raises FatalError if it does not."""
        done = self.command(*arguments)
        if done.returncode:
            raise FatalError(f"hinterland {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def view(self) -> FleetView:
        """The fleet as the server knows it."""
        with connected(self._state_dir) as api:
            return api.state()

    def drill(self, site_id: str) -> Drill:
        """What losing the site now would do."""
        with connected(self._state_dir) as api:
            return from_plain(Drill, api.get(f"/v1/sites/{site_id}/drill"))

    def until(self, done: Callable[[FleetView], bool], *, what: str, timeout_s: float) -> FleetView:
        """Wait for a view that is `done`; raises FatalError when the time is up."""
        for _ in range(int(timeout_s * 1_000 / POLL_MS)):
            view = self.view()
            if done(view):
                return view
            self._clock.block_ms(POLL_MS)
        raise FatalError(f"{what}: not within {timeout_s:g} s")

    def until_connected(self, *, timeout_s: float = 30) -> None:
        """Wait until every site's agent is connected."""
        self.until(
            lambda view: all(s.state is ConnectionState.CONNECTED for s in view.sites),
            what="every agent to connect",
            timeout_s=timeout_s,
        )

    def api_key(self, tenant_id: str) -> str:
        """A fresh API key of a tenant."""
        said = self.must("token", "create", "--tenant", tenant_id, "-o", "json")
        return str(json.loads(said)["token"])

    def callers(self, *, rate_factor: float = 1.0) -> tuple[Caller, ...]:
        """One caller per traffic class, entering where the class's clients lawfully may."""
        problem = self.view().problem
        keys = {t.tenant_id: self.api_key(t.tenant_id) for t in problem.tenants}
        markets = {m.market_id: m for m in problem.fleet.markets}
        callers = []
        for one in problem.classes:
            policy = problem.residency(one.residency_policy_id)
            gateways = tuple(
                site.gateway.client_address
                for access in markets[one.market_id].by_distance()
                if (site := problem.fleet.site(access.site_id)).gateway is not None
                and may_transit(policy, country=site.country)
            )
            callers.append(
                Caller(
                    market_id=one.market_id,
                    tenant_id=one.tenant_id,
                    service_id=one.service_id,
                    api_key=keys[one.tenant_id],
                    gateways=gateways,
                    requests_per_s=problem.rate_rps(one) * rate_factor,
                )
            )
        return tuple(callers)
