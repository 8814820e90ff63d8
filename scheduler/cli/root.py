"""The command tree, and the one place where failures become messages and exit codes.

A refusal, an operating fault and a programmer's mistake each end in one message; no traceback is
shown unless --debug asks for it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Sequence

import click
import rich_click

from scheduler.cli.output import CliError, ExitCode
from scheduler.cli.session import Group, Session
from sites.errors import HinterlandError, RefusedError

COMMANDS = {
    "validate": "scheduler.cli.files:validate",
    "schema": "scheduler.cli.files:schema",
    "explain": "scheduler.cli.files:explain",
    "plan": "scheduler.cli.plan:plan",
    "show": "scheduler.cli.plan:show",
    "diff": "scheduler.cli.plan:diff",
    "points": "scheduler.cli.points:points",
    "apply": "scheduler.cli.rollout:apply",
    "rollout": "scheduler.cli.rollout:rollout",
    "get": "scheduler.cli.fleet:get",
    "describe": "scheduler.cli.fleet:describe",
    "site": "scheduler.cli.failover:site",
    "failover": "scheduler.cli.failover:failover",
    "audit": "scheduler.cli.audit:audit",
    "token": "scheduler.cli.token:token",
    "up": "scheduler.cli.run:up",
    "server": "scheduler.cli.run:server",
    "agent": "scheduler.cli.run:agent",
    "demo": "scheduler.cli.run:demo",
}
"""Command name -> where it lives; looked up only when it is called or listed."""


class Root(Group):
    """The top of the tree; loads a command's module when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, where in COMMANDS.items() if _exists(where)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        where = COMMANDS.get(cmd_name, "")
        if not where or not _exists(where):
            return None
        module, _, name = where.partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command), f"{where} is a command"
        return command


def _exists(where: str) -> bool:
    return importlib.util.find_spec(where.partition(":")[0]) is not None


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hinterland", prog_name="hinterland")
def cli() -> None:
    """Decide which site runs which model, carry it out, and show where data was processed.

    Exit codes: 0 all well; 1 error; 2 there are changes (with --detailed-exitcode); 3 infeasible;
    4 a policy forbids it; 5 the plan is stale; 6 partly applied; 64 wrong usage.
    """


def run(arguments: Sequence[str]) -> int:
    """Run the command line; returns its exit code and prints every failure as one message."""
    session = Session()
    try:
        code = cli.main(list(arguments), "hinterland", standalone_mode=False, obj=session)
    except CliError as fault:
        if str(fault):
            session.out.error(str(fault))
        return int(fault.code)
    except click.UsageError as fault:
        fault.show()
        return int(ExitCode.USAGE)
    except click.ClickException as fault:
        session.out.error(fault.format_message())
        return int(ExitCode.ERROR)
    except (click.Abort, KeyboardInterrupt):
        session.out.error("stopped; what was already sent to the server goes on there")
        return 130
    except HinterlandError as fault:
        return _refused(session, fault)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output went away; nobody is left to tell
        return 141
    except OSError as fault:
        session.out.error(f"{fault.filename or 'system'}: {fault.strerror or fault}")
        return int(ExitCode.ERROR)
    except Exception as fault:  # noqa: BLE001 - the edge: a mistake of ours ends in one line too
        _mistake(session, fault)
        return int(ExitCode.ERROR)
    return code if isinstance(code, int) else 0


def _refused(session: Session, fault: HinterlandError) -> int:
    from scheduler.plan_file import StalePlanError

    text = str(fault)
    if ": error: " in text:  # faults of fleet files carry their own place and mark
        click.echo(text, err=True, color=session.out.color)
    else:
        session.out.error(text)
    if isinstance(fault, RefusedError):
        for violation in fault.violations:
            session.out.error(violation.message())
    return int(ExitCode.STALE if isinstance(fault, StalePlanError) else ExitCode.ERROR)


def _mistake(session: Session, fault: Exception) -> None:
    session.out.error(
        f"internal error: {type(fault).__name__}: {fault}; nothing more was done. Run again with "
        "--debug for details and report it"
    )
    if session.debug:
        traceback.print_exception(fault, file=sys.stderr)


rich_click.rich_click.COMMAND_GROUPS = {
    "hinterland": [
        {"name": "Fleet files", "commands": ["validate", "schema", "explain", "points"]},
        {"name": "Plans", "commands": ["plan", "show", "diff", "apply", "rollout"]},
        {"name": "Fleet", "commands": ["get", "describe", "site", "failover"]},
        {"name": "Evidence and access", "commands": ["audit", "token"]},
        {"name": "Processes", "commands": ["up", "server", "agent", "demo"]},
    ]
}
