"""The options every command takes, before or after its name, and what they come to.

Decides how the global options combine; what a command does with them is the command's.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import rich_click

from scheduler.cli.output import FORMATS, Output

DEFAULT_STATE_DIR = Path(".hinterland")
SECONDS_MAX = 315_360_000


@dataclass
class Session:
    """What one run of the command was asked for. `state_dir` is where a server keeps its state."""

    out: Output = field(default_factory=Output)
    state_dir: Path = DEFAULT_STATE_DIR
    no_input: bool = False
    debug: bool = False

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask before a change; raises UsageError where nobody can answer and --yes is not given."""
        if yes:
            return
        if self.no_input or not sys.stdin.isatty():
            raise click.UsageError("this changes the fleet: confirm it with --yes")
        click.confirm(question, abort=True, err=True)


pass_session = click.make_pass_decorator(Session, ensure=True)


class GivenPath(click.Path):
    """A path somebody gave: not the empty text of an unset variable, which would mean here."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(path_type=Path, **settings)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if str(value) == "":
            self.fail("is empty; name a file or folder", param, ctx)
        return super().convert(value, param, ctx)


class Seconds(click.FloatRange):
    """A time in seconds that a clock can count: finite, 0 to 10 years."""

    name = "seconds"

    def __init__(self, *, min_open: bool = False) -> None:
        super().__init__(min=0, min_open=min_open, max=SECONDS_MAX)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):  # every comparison with NaN fails, so no range refuses it
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds


def _set_form(session: Session, value: str) -> None:
    session.out.form = value


def _set_no_color(session: Session, value: bool | str) -> None:
    if value:  # NO_COLOR counts when set to anything but the empty string (no-color.org)
        session.out.color = False


def _set_quiet(session: Session, value: bool) -> None:
    session.out.quiet = session.out.quiet or value


def _set_no_input(session: Session, value: bool) -> None:
    session.no_input = session.no_input or value


def _set_context(session: Session, value: Path) -> None:
    session.state_dir = value


def _set_debug(session: Session, value: bool) -> None:
    session.debug = session.debug or value


def _option(*names: str, store: Callable[[Session, Any], None], **settings: Any) -> click.Option:
    def callback(context: click.Context, _: click.Parameter, value: Any) -> None:
        if value is not None:
            store(context.ensure_object(Session), value)

    return rich_click.RichOption(names, callback=callback, expose_value=False, **settings)


def global_options() -> list[click.Parameter]:
    """Fresh copies of the options every command takes."""
    context_dir = GivenPath(file_okay=False)
    return [
        _option(
            "-o",
            "--output",
            store=_set_form,
            type=click.Choice(FORMATS),
            help="Form of the result.  [default: table]",
        ),
        _option(
            "--context",
            store=_set_context,
            type=context_dir,
            metavar="DIR",
            envvar="HINTERLAND_CONTEXT",
            help=f"State folder of the server to talk to.  [default: {DEFAULT_STATE_DIR}]",
        ),
        _option("--no-color", store=_set_no_color, is_flag=True, help="Plain text (or NO_COLOR)."),
        _option("--no-color-env", store=_set_no_color, envvar="NO_COLOR", hidden=True),
        _option("--quiet", store=_set_quiet, is_flag=True, help="No notes and no progress."),
        _option("--no-input", store=_set_no_input, is_flag=True, help="Never ask."),
        _option("--debug", store=_set_debug, is_flag=True, hidden=True),
    ]


class Command(rich_click.RichCommand):
    """A command that takes the global options too."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params += global_options()


class Group(rich_click.RichGroup):
    """A family of commands; its members take the global options."""

    command_class = Command

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params += global_options()


Group.group_class = Group
