"""Commands that look: get and describe. With a server they show *desired* beside *observed*.

Without one, ``-f`` shows what fleet files say. Nothing here decides or changes anything.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scheduler.cli import fleet_rows
from scheduler.cli.client import connected
from scheduler.cli.output import CliError, ExitCode
from scheduler.cli.session import Command, GivenPath, Session, pass_session

if TYPE_CHECKING:
    from scheduler.view import FleetView

KINDS = ("sites", "models", "services", "routes", "tenants", "plans")
FILES = click.option(
    "-f",
    "--file",
    "paths",
    multiple=True,
    type=GivenPath(),
    help="Show what fleet files say instead of a running fleet.",
)


def _view(session: Session, paths: tuple[Path, ...]) -> FleetView:
    if not paths:
        with connected(session.state_dir) as api:
            return api.state()
    from scheduler.fleet_problem import read_problem
    from scheduler.view import FleetView

    return FleetView(
        epoch=0,
        version=0,
        state_serial=0,
        problem=read_problem(paths),
        plan=None,
        plan_reason="",
        sites=(),
        receipts=(),
        rollout_receipt_id="",
        solving=False,
    )


@click.command(cls=Command)
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name", required=False, default="")
@FILES
@pass_session
def get(session: Session, kind: str, name: str, paths: tuple[Path, ...]) -> None:
    """List what the fleet has, or one item by name."""
    rows, columns = fleet_rows.LISTS[kind](_view(session, paths))
    if name:
        rows = [row for row in rows if row["name"] == name]
        if not rows:
            raise CliError(ExitCode.ERROR, f"{kind}: none is named {name!r}; see `get {kind}`")
    session.out.rows(kind, rows, columns, empty=f"no {kind}")


@click.command(cls=Command)
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name")
@FILES
@pass_session
def describe(session: Session, kind: str, name: str, paths: tuple[Path, ...]) -> None:
    """Show everything known of one item."""
    view = _view(session, paths)
    kind = kind if kind.endswith("s") else f"{kind}s"
    found = fleet_rows.details(view, kind=kind, name=name)
    if found is None:
        raise CliError(ExitCode.ERROR, f"{kind}: none is named {name!r}; see `get {kind}`")
    if session.out.for_people:
        for line in _outline(found):
            session.out.line(line)
    else:
        session.out.data(kind.removesuffix("s"), found)


def _outline(value: Any, indent: str = "") -> list[str]:
    """Nested values as indented ``name: value`` lines; short lists stay on one line."""
    lines: list[str] = []
    items = (
        value.items() if isinstance(value, dict) else ((f"[{i}]", v) for i, v in enumerate(value))
    )
    for name, one in items:
        flat = json.dumps(one, ensure_ascii=False)
        if one in (None, "", [], {}):
            continue
        if isinstance(one, str | int | float):
            lines.append(f"{indent}{name}: {one}")
        elif len(flat) <= 72 and not (isinstance(one, list) and isinstance(one[0], dict)):
            lines.append(f"{indent}{name}: {flat}")
        else:
            lines.append(f"{indent}{name}:")
            lines += _outline(one, indent + "  ")
    return lines
