"""The control plane's process: command line in, exit code out.

    python -m scheduler.main --state-dir DIR --fleet DIR [--control-port N] [--api-port N] ...

Decides what a person sees of a failure: one line, exit code 1 (2 never: that means "changes").
SIGTERM and SIGINT stop cleanly; agents and gateways go on serving without it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog

from scheduler.config import ServerConfig
from scheduler.server import server_of
from sites.clock import Clock, SystemClock
from sites.errors import HinterlandError

USAGE_ERROR = 64


async def serve(config: ServerConfig, *, clock: Clock, stop: asyncio.Event) -> None:
    """Run a control plane until `stop`. Raises HinterlandError for anything that prevents it."""
    async with server_of(config, clock=clock) as server:
        await server.run(stop)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, serve, and map every operating fault to one line on standard error."""
    config = _config(arguments)
    _log_to_stderr()
    try:
        asyncio.run(_serve_until_signalled(config))
    except (HinterlandError, OSError) as fault:  # OSError: a disk or address no part mapped
        sys.stderr.write(f"error: {fault}\n")
        return 1
    return 0


async def _serve_until_signalled(config: ServerConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(config, clock=SystemClock(), stop=stop)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(USAGE_ERROR, f"error: {message}; see --help\n")


def _config(arguments: Sequence[str] | None) -> ServerConfig:
    parser = _Parser(prog="hinterland server", description="Run the control plane.")
    parser.add_argument("--state-dir", type=Path, required=True, help="where everything is kept")
    parser.add_argument("--fleet", type=Path, required=True, action="append", help="fleet files")
    parser.add_argument("--host", default="127.0.0.1", help="address agents dial")
    parser.add_argument("--control-port", type=int, default=0, help="gRPC port (0: as last time)")
    parser.add_argument("--api-port", type=int, default=0, help="operator API port (0: any)")
    parser.add_argument("--hubs-per-actor", type=int, default=0, help="0: by fleet size")
    parser.add_argument("--tick-ms", type=int, default=100)
    parser.add_argument("--stale-after-ms", type=int, default=1_000)
    parser.add_argument("--unreachable-after-ms", type=int, default=3_000)
    parser.add_argument("--lost-after-ms", type=int, default=5_000)
    parser.add_argument("--no-auto-replan", action="store_true", help="reroute only")
    given = parser.parse_args(arguments)
    try:
        return ServerConfig(
            state_dir=given.state_dir.resolve(),
            fleet_paths=tuple(p.resolve() for p in given.fleet),
            host=given.host,
            control_port=given.control_port,
            api_port=given.api_port,
            hubs_per_actor=given.hubs_per_actor,
            tick_ms=given.tick_ms,
            stale_after_ms=given.stale_after_ms,
            unreachable_after_ms=given.unreachable_after_ms,
            lost_after_ms=given.lost_after_ms,
            auto_replan=not given.no_auto_replan,
        )
    except HinterlandError as fault:
        parser.exit(USAGE_ERROR, f"error: {fault}\n")
        raise  # unreachable: exit raised


def _log_to_stderr() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


if __name__ == "__main__":
    sys.exit(main())
