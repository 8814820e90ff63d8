"""Commands that run processes: a whole fleet on this machine, the server, an agent, the demo."""

from __future__ import annotations

import asyncio
import importlib.util
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scheduler.cli.output import CliError, ExitCode
from scheduler.cli.session import Command, GivenPath, Session, pass_session

if TYPE_CHECKING:
    from scheduler.embedded import EmbeddedFleet

DEMO_FLEET = Path(__file__).resolve().parents[2] / "deploy" / "examples" / "demo"
RUNTIMES = ("llama", "simulated")
WATCH_MS = 500

FLEET = click.option(
    "-f",
    "--fleet",
    "fleet_dir",
    type=GivenPath(exists=True),
    default=DEMO_FLEET,
    help="Fleet files.  [default: the demo fleet]",
)
RUNTIME = click.option(
    "--runtime",
    type=click.Choice(RUNTIMES),
    default="llama",
    show_default=True,
    help="What answers at the sites: real model servers or simulated ones.",
)


@click.command(cls=Command)
@FLEET
@RUNTIME
@pass_session
def up(session: Session, fleet_dir: Path, *, runtime: str) -> None:
    """Run a whole fleet on this machine until interrupted: server, agents, gateways, models."""
    from sites.clock import SystemClock

    clock = SystemClock()
    with _terminated_like_interrupted():
        fleet = _embedded(fleet_dir, state_dir=session.state_dir, runtime=runtime)
        try:
            asyncio.run(fleet.start(session.out.note))
            session.out.note(f"the fleet is up; state in {fleet.state_dir}")
            session.out.note(f"try: hinterland --context {session.state_dir} plan --out my.plan")
            while not (dead := fleet.dead_process()):
                clock.block_ms(WATCH_MS)
            raise CliError(ExitCode.ERROR, dead)
        except KeyboardInterrupt:
            session.out.note("stopping the fleet")
        finally:
            left = asyncio.run(fleet.stop())
        if left:
            raise CliError(ExitCode.ERROR, f"still running: {', '.join(left)}; end them by hand")


@click.command(cls=Command)
@FLEET
@RUNTIME
@click.option("--keep", is_flag=True, help="Keep the state folder (given with --context).")
@pass_session
def demo(session: Session, fleet_dir: Path, *, runtime: str, keep: bool) -> None:
    """Plan, apply, serve real traffic, lose a site, bring it back, audit; then stop everything."""
    if importlib.util.find_spec("openai") is None:
        raise CliError(
            ExitCode.ERROR, "the demo's clients need the openai package; install hinterland[demo]"
        )
    from scheduler.demo.story import tell
    from sites.clock import SystemClock

    with _terminated_like_interrupted(), _state_folder(session, keep=keep) as state_dir:
        fleet = _embedded(fleet_dir, state_dir=state_dir, runtime=runtime)
        if not tell(fleet=fleet, out=session.out, clock=SystemClock()):
            raise CliError(ExitCode.ERROR, "the demo did not go as it should; see above")


@click.command(
    cls=Command, context_settings={"ignore_unknown_options": True}, add_help_option=False
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@pass_session
def server(session: Session, arguments: tuple[str, ...]) -> None:
    """Run the control plane alone (`hinterland server --help` lists its options)."""
    from scheduler.main import main

    _exit_with(main(_with_state_dir(session, arguments)))


@click.command(
    cls=Command, context_settings={"ignore_unknown_options": True}, add_help_option=False
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def agent(arguments: tuple[str, ...]) -> None:
    """Run one site's agent (`hinterland agent --help` lists its options)."""
    from agents.main import main

    _exit_with(main(arguments))


def _exit_with(code: int) -> None:
    if code:
        raise CliError(ExitCode(code))


def _with_state_dir(session: Session, arguments: tuple[str, ...]) -> tuple[str, ...]:
    if any(a.startswith("--state-dir") or a in ("-h", "--help") for a in arguments):
        return arguments
    return ("--state-dir", str(session.state_dir), *arguments)


def _embedded(fleet_dir: Path, *, state_dir: Path, runtime: str) -> EmbeddedFleet:
    from scheduler.embedded import EmbeddedFleet
    from scheduler.fleet_problem import read_problem
    from sites.clock import SystemClock

    problem = read_problem((fleet_dir,))
    homeless = sorted(s.site_id for s in problem.fleet.sites if s.gateway is None)
    if homeless:
        raise CliError(
            ExitCode.ERROR,
            f"{fleet_dir}: no gateway address for {', '.join(homeless)}; give each Site "
            "spec.gateway.client and spec.gateway.peer on this machine",
        )
    return EmbeddedFleet(
        state_dir=state_dir,
        fleet_dir=fleet_dir,
        site_ids=tuple(s.site_id for s in problem.fleet.sites),
        clock=SystemClock(),
        runtime=runtime,
        gateways=tuple((s.site_id, s.gateway) for s in problem.fleet.sites if s.gateway),
    )


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM ends these commands as Ctrl-C does: everything started is stopped."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _state_folder(session: Session, *, keep: bool) -> Iterator[Path]:
    if keep:
        yield session.state_dir
        return
    with tempfile.TemporaryDirectory(prefix="hinterland-demo-") as folder:
        yield Path(folder)
