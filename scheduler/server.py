"""A whole control plane, wired: authority, ledger, front door, hubs, solver, control loop, API.

Decides the order in which parts start and stop, and nothing else. What cannot be started ends the
start with one error; a part that fails later ends the server the same way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI

from agents.envelope import sign_assignment
from optimizer.problem import Problem
from scheduler.api.app import ApiParts, create_app
from scheduler.api.server import ApiAddress, new_token, serve_api
from scheduler.board import Board
from scheduler.config import ServerConfig
from scheduler.cycle import Cycle
from scheduler.driver import Driver, DriverConfig, Inbox
from scheduler.events import Alert, Started
from scheduler.fleet_problem import read_problem
from scheduler.front_door import FrontDoor, FrontDoorConfig
from scheduler.hub_keeper import HubKeeper
from scheduler.hubs import LocalHubs
from scheduler.ledger import Ledger
from scheduler.ledger.store import write_atomically
from scheduler.pki import Authority
from scheduler.ray_hubs import RayHubs, RayHubsConfig
from scheduler.recovery import recover
from scheduler.solver_pool import SolverPool, SolverPoolConfig
from scheduler.state import CycleConfig, Keys
from sites.assignment import SiteAssignment
from sites.clock import Clock
from sites.errors import FatalError, RetryableError
from sites.hub import HubConfig

RENEWAL_CHECK_MS = 60_000
HUBS_RETRY_MS = 5_000


class Admission:
    """Issues what sites and tenants need before an assignment can name them."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._pseudonym_keys: dict[str, str] = {}
        self.keys = Keys(api_key_jwks=authority.api_key_jwks, pseudonym_keys=self._pseudonym_keys)

    def admit(self, problem: Problem) -> None:
        """Make (or renew) certificates per site and a pseudonym key per tenant of a problem."""
        for site in problem.fleet.sites:
            self._authority.site_credentials(site.site_id)
        for tenant in problem.tenants:
            key = self._authority.pseudonym_key(tenant.tenant_id)
            self._pseudonym_keys[tenant.tenant_id] = key


@dataclass(kw_only=True, slots=True)
class Server:
    """The running parts of a control plane."""

    config: ServerConfig
    clock: Clock
    authority: Authority
    board: Board
    front_door: FrontDoor
    solver: SolverPool
    ray_hubs: RayHubs
    driver: Driver
    started: Started

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop`; whatever part ends first with an error ends the server with it."""
        app = create_app(
            ApiParts(
                control=self.driver,
                keys=self.authority,
                ledger_dir=self.config.ledger_dir,
                pki_dir=self.config.pki_dir,
                clock=self.clock,
                token=(token := new_token()),
            )
        )
        address = ApiAddress(
            server_dir=self.config.server_dir, port=self.config.api_port, token=token
        )
        await self.front_door.start()
        write_atomically(
            self.config.address_path, f"{self.config.host}:{self.front_door.port}\n".encode()
        )
        parts = [
            asyncio.create_task(self.driver.run(self.started, stop), name="control loop"),
            asyncio.create_task(self._serve_api(app, address, stop), name="operator API"),
            asyncio.create_task(self._renew(stop), name="certificate renewal"),
            asyncio.create_task(self._warm_solver(), name="solver"),
        ]
        try:
            await _until_first_fault(parts, stop)
        finally:
            stop.set()
            await self.front_door.stop()
            await asyncio.gather(*parts, return_exceptions=True)
            await self.solver.stop()

    async def _serve_api(self, app: FastAPI, address: ApiAddress, stop: asyncio.Event) -> None:
        """The API opens once the hubs run: its file says that the server is ready."""
        running = asyncio.create_task(self.driver.running.wait())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for task in (running, stopped):
            task.cancel()
        if not stop.is_set():
            await serve_api(app, address, stop)

    async def _renew(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self._renew_once()
            except RetryableError as fault:  # what is in use lasts for half its life yet
                self.board.post_alert(Alert(text=f"certificates not renewed: {fault}"))
            try:
                async with asyncio.timeout(RENEWAL_CHECK_MS / 1_000):
                    await stop.wait()
            except TimeoutError:
                continue

    async def _renew_once(self) -> None:
        self.front_door.rotate(await asyncio.to_thread(self.authority.control_identity))
        for site_id in self.driver.site_ids:
            await asyncio.to_thread(self.authority.site_credentials, site_id)

    async def _warm_solver(self) -> None:
        try:
            await self.solver.warm_up()
        except RetryableError as fault:  # the first solve tries again
            self.board.post_alert(Alert(text=str(fault)))


@asynccontextmanager
async def server_of(config: ServerConfig, *, clock: Clock) -> AsyncIterator[Server]:
    """Read the fleet files, open the state folder, wire a server. Raises RefusedError with every
    fault of the files, FatalError for anything that cannot be opened.
    """
    problem = read_problem(config.fleet_paths)
    try:
        config.server_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as fault:
        raise FatalError(f"state folder {config.state_dir}: {fault.strerror}") from fault
    authority = Authority(config.pki_dir, clock=clock)
    ledger = Ledger(config.ledger_dir, clock=clock)
    try:
        epoch, snapshot = recover(ledger.read)
        started = Started(epoch=epoch, problem=problem, snapshot=snapshot)
        yield _wire(config, started, clock=clock, authority=authority, ledger=ledger)
    finally:
        ledger.close()


def _wire(
    config: ServerConfig, started: Started, *, clock: Clock, authority: Authority, ledger: Ledger
) -> Server:
    board, inbox = Board(), Inbox()
    ray_hubs, keeper = _hubs(config, started.epoch, board=board, clock=clock)
    cycle, admission = _cycle(config, started, authority)
    solver = SolverPool(SolverPoolConfig(log_path=config.server_dir / "solver.log"))

    def knows_site(site_id: str) -> bool:
        return driver.knows_site(site_id)

    def sign(assignment: SiteAssignment) -> bytes:
        return sign_assignment(assignment, key=authority.assignment_key)

    door = FrontDoor(
        config=FrontDoorConfig(host=config.host, port=_control_port(config)),
        identity=authority.control_identity(),
        knows_site=knows_site,
        inbox=inbox,
        clock=clock,
    )
    driver = Driver(
        cycle=cycle,
        hubs=keeper,
        board=board,
        ledger=ledger,
        solver=solver,
        inbox=inbox,
        send=door.send,
        close_site=door.close_site,
        sign=sign,
        admit=admission.admit,
        clock=clock,
        config=DriverConfig(tick_ms=config.tick_ms),
    )
    return Server(
        config=config,
        clock=clock,
        authority=authority,
        board=board,
        front_door=door,
        solver=solver,
        ray_hubs=ray_hubs,
        driver=driver,
        started=started,
    )


def _hubs(
    config: ServerConfig, epoch: int, *, board: Board, clock: Clock
) -> tuple[RayHubs, HubKeeper]:
    hub_config = HubConfig(
        epoch=epoch,
        stale_after_ms=config.stale_after_ms,
        unreachable_after_ms=config.unreachable_after_ms,
    )
    ray_config = RayHubsConfig(
        log_path=config.server_dir / "ray.log", hubs_per_actor=config.hubs_per_actor
    )
    ray_hubs = RayHubs(ray_config, hubs=hub_config)
    keeper = HubKeeper(
        hubs=ray_hubs,
        spare=LocalHubs(hub_config),
        clock=clock,
        retry_ms=HUBS_RETRY_MS,
        tell=lambda text: board.post_alert(Alert(text=text)),
    )
    return ray_hubs, keeper


def _cycle(config: ServerConfig, started: Started, authority: Authority) -> tuple[Cycle, Admission]:
    admission = Admission(authority)
    admission.admit(started.problem)
    for known in (started.snapshot.previous, started.snapshot.accepted):
        if known is not None:
            admission.admit(known.problem)
    cycle_config = CycleConfig(lost_after_ms=config.lost_after_ms, auto_replan=config.auto_replan)
    return Cycle(started, config=cycle_config, keys=admission.keys), admission


def _control_port(config: ServerConfig) -> int:
    """The port asked for, else that of the last run, else 0 (any)."""
    if config.control_port or not config.address_path.is_file():
        return config.control_port
    _, _, port = config.address_path.read_text(encoding="ascii").strip().rpartition(":")
    return int(port) if port.isdigit() and int(port) <= 65_535 else 0


async def _until_first_fault(parts: list[asyncio.Task[None]], stop: asyncio.Event) -> None:
    """Until `stop`, or a part fails (then raise its fault)."""
    stopped = asyncio.create_task(stop.wait())
    pending: set[asyncio.Task[Any]] = {stopped, *parts}
    try:
        while not stop.is_set():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        stopped.cancel()
        await asyncio.gather(stopped, return_exceptions=True)
