"""Program ``python -m agents.main``: one site's agent from its command line to its exit code.

Decides how the parts are wired and what a person reads when they cannot be: one line on stderr and
exit code 1 (64 for a wrong command line). SIGTERM lets go of the site's gateway and model servers
and leaves them serving; with ``--stop-on-exit`` it ends them.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog

from agents.core import AgentCore, CoreConfig
from agents.credentials import (
    SiteCredentials,
    gateway_identity,
    read_credential,
    require_identity,
    site_identity,
)
from agents.effects import World
from agents.envelope import public_key_from_pem
from agents.gateway.facts import GatewayPaths, GatewayTuning
from agents.gateway.process import Gateway
from agents.lock import StateLock
from agents.log_tail import LogTail
from agents.processes import ProcessTable
from agents.record_pump import PumpConfig, RecordPump
from agents.replicas import ReplicaKeeper
from agents.runtimes.base import Runtime
from agents.runtimes.command import CommandRuntime
from agents.runtimes.llama import LlamaRuntime
from agents.runtimes.simulated import SimulatedRuntime
from agents.site_gateway import SiteGateway
from agents.site_view import Identity
from agents.spool import Spool
from agents.store import AgentStore
from agents.uplink import Uplink, UplinkConfig, new_instance_id
from sites.clock import SystemClock
from sites.errors import FatalError, HinterlandError
from sites.telemetry import PoolInventory
from sites.units import require_id

EXIT_FAULT = 1
EXIT_USAGE = 64


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; the exit code returns."""
    options = parse(arguments)
    _configure_log(options.log_level)
    try:
        asyncio.run(serve(options))
    except HinterlandError as fault:
        sys.stderr.write(f'agent of site "{options.site}": {fault}\n')
        return EXIT_FAULT
    except OSError as fault:  # the edge: a folder or file of the site that cannot be used
        what = f"{fault.filename}: {fault.strerror}" if fault.filename else str(fault)
        sys.stderr.write(f'agent of site "{options.site}": {what}\n')
        return EXIT_FAULT
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; exits with 64 if it is wrong."""
    parser = _Parser(prog="agents.main", description="One Hinterland site's agent.")
    parser.add_argument("--site", required=True, help="id of the site in the fleet file")
    parser.add_argument("--state-dir", required=True, type=Path)
    parser.add_argument("--control", required=True, help="control plane as host:port")
    parser.add_argument("--pki-dir", required=True, type=Path)
    parser.add_argument("--runtime", choices=("llama", "command", "simulated"), default="llama")
    parser.add_argument("--command", default="", help="server command of --runtime command")
    parser.add_argument("--health-path", default="/health")
    parser.add_argument("--metrics-path", default="/metrics")
    parser.add_argument("--threads", type=int, default=1, help="per replica of --runtime llama")
    parser.add_argument("--speed", type=float, default=1.0, help="of --runtime simulated")
    parser.add_argument(
        "--inventory",
        action="append",
        default=[],
        metavar="POOL:ACCELERATOR:COUNT",
        help="hardware found here; assignments wanting more are refused",
    )
    parser.add_argument("--heartbeat-ms", type=int, default=200)
    parser.add_argument("--health-interval-ms", type=int, default=200, help="of other gateways")
    parser.add_argument("--gateway-workers", type=int, default=1)
    parser.add_argument("--envoy", default=None, help="Envoy program instead of the packaged one")
    parser.add_argument("--stop-on-exit", action="store_true")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning"))
    options = parser.parse_args(arguments)
    for name in ("threads", "speed", "heartbeat_ms", "health_interval_ms", "gateway_workers"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} must be above 0")
    if options.runtime == "command" and not options.command:
        parser.error("--runtime command needs --command")
    return options


async def serve(options: argparse.Namespace) -> None:
    """Wire the agent and run it. Raises HinterlandError with the line to show."""
    require_id(options.site, field="--site")
    clock = SystemClock()
    state = options.state_dir.resolve()
    _make_folder(state)
    with StateLock(state / "agent.lock"):
        credentials = SiteCredentials(folder=options.pki_dir.resolve())
        core, hello_of = _core(options, state=state, credentials=credentials, clock=clock)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        uplink = Uplink(
            UplinkConfig(control_address=options.control, credentials=credentials),
            clock=clock,
            jitter=random.Random(hello_of.instance_id).random,
            hello=core.hello,
        )
        try:
            await core.resume()
        except BaseException:
            await core.leave()
            raise
        await core.run(uplink, stop)


def _core(
    options: argparse.Namespace,
    *,
    state: Path,
    credentials: SiteCredentials,
    clock: SystemClock,
) -> tuple[AgentCore, Identity]:
    for path in (credentials.agent_cert, credentials.agent_key, credentials.gateway_cert):
        read_credential(path)
    require_identity(credentials.agent_cert, site_identity(options.site))
    require_identity(credentials.gateway_cert, gateway_identity(options.site))
    processes = ProcessTable(state / "run", clock=clock)
    processes.adopt()
    paths = GatewayPaths(folder=state / "gateway", credentials=credentials)
    gateway = SiteGateway(
        Gateway(
            paths,
            site_id=options.site,
            processes=processes,
            clock=clock,
            workers=options.gateway_workers,
            program=options.envoy,
        ),
        paths=paths,
        tuning=GatewayTuning(health_interval_ms=options.health_interval_ms),
    )
    identity = Identity(
        site_id=options.site,
        instance_id=new_instance_id(clock, pid=os.getpid()),
        inventory=tuple(_pool(text) for text in options.inventory),
    )
    world = World(
        clock=clock,
        store=AgentStore(state),
        keeper=ReplicaKeeper(
            _runtime(options), processes=processes, logs=state / "replicas", clock=clock
        ),
        gateway=gateway,
        pump=RecordPump(
            PumpConfig(),
            site_id=options.site,
            agent_identity=site_identity(options.site),
            spool=Spool(state / "spool.sqlite"),
            tail=LogTail(paths.access_log),
            clock=clock,
        ),
        processes=processes,
    )
    config = CoreConfig(heartbeat_ms=options.heartbeat_ms, stop_on_exit=options.stop_on_exit)
    key = public_key_from_pem(read_credential(credentials.assignment_key))
    return AgentCore(config, identity=identity, world=world, assignment_key=key), identity


def _runtime(options: argparse.Namespace) -> Runtime:
    if options.runtime == "llama":
        return LlamaRuntime(threads=options.threads)
    if options.runtime == "simulated":
        return SimulatedRuntime(speed=options.speed)
    return CommandRuntime(
        options.command, health_path=options.health_path, metrics_path=options.metrics_path
    )


def _pool(text: str) -> PoolInventory:
    pool_id, _, rest = text.partition(":")
    accelerator, _, count = rest.rpartition(":")
    if not (pool_id and accelerator and count.isdigit()):
        raise FatalError(f"--inventory {text!r}: must be POOL:ACCELERATOR:COUNT")
    return PoolInventory(pool_id=pool_id, accelerator=accelerator, count=int(count))


def _make_folder(state: Path) -> None:
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as fault:
        raise FatalError(f"--state-dir {state}: {fault.strerror}") from fault


def _configure_log(level: str) -> None:
    """One JSON object per line on stderr; no request content ever gets here."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(sort_keys=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )


if __name__ == "__main__":
    sys.exit(main())
