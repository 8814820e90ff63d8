"""How the CLI shows things: tables for people, JSON, JSON lines or YAML for programs.

Decides form only. Results go to stdout; progress, notes and errors to stderr.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import click

FORMAT_VERSION = 1
FORMATS = ("table", "wide", "json", "jsonl", "yaml")


class ExitCode(IntEnum):
    """What the process says with its exit status."""

    OK = 0
    ERROR = 1
    CHANGES = 2
    INFEASIBLE = 3
    POLICY_DENIED = 4
    STALE = 5
    PARTIAL = 6
    USAGE = 64


class CliError(Exception):
    """A command ends with this exit code; `message` goes to stderr (empty: all was said)."""

    def __init__(self, code: ExitCode, message: str = "") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A table column: header, field of the row, whether it is a number, whether only in -o wide."""

    title: str
    field: str
    number: bool = False
    wide: bool = False


class Output:
    """Where and how results are written. `color` None: only on a terminal."""

    def __init__(
        self, *, form: str = "table", color: bool | None = None, quiet: bool = False
    ) -> None:
        self.form = form
        self.color = color
        self.quiet = quiet

    @property
    def for_people(self) -> bool:
        """Whether text is wanted (else data)."""
        return self.form in ("table", "wide")

    @property
    def live(self) -> bool:
        """Whether progress may be drawn: stderr is a terminal and nobody asked for quiet."""
        return sys.stderr.isatty() and not self.quiet

    def line(self, text: str = "", *, style: str = "") -> None:
        """One line of the result, for people."""
        click.echo(self.styled(text, style), color=self.color)

    def styled(self, text: str, style: str) -> str:
        """Text in a colour by name (``green``, ``red``, ``yellow``, ``bold``, ``dim``)."""
        if style in ("bold", "dim"):
            return click.style(text, bold=style == "bold" or None, dim=style == "dim" or None)
        return click.style(text, fg=style) if style else text

    def note(self, text: str) -> None:
        """Something a person may like to know; stderr, silenced by --quiet."""
        if not self.quiet:
            click.echo(text, err=True, color=self.color)

    def error(self, text: str) -> None:
        """Why the command failed; stderr, never silenced."""
        head = self.styled("error: ", "red")
        click.echo(head + text, err=True, color=self.color)

    def data(self, kind: str, value: Mapping[str, Any]) -> None:
        """One result as data in the chosen form (JSON where people's text was chosen)."""
        document = {"format_version": FORMAT_VERSION, "kind": kind, **value}
        if self.form == "yaml":
            click.echo("\n".join(yaml_lines(document)))
        else:
            indent = None if self.form == "jsonl" else 2
            click.echo(json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False))

    def rows(
        self,
        kind: str,
        rows: Sequence[Mapping[str, Any]],
        columns: Sequence[Column],
        *,
        empty: str = "",
    ) -> None:
        """A list: a table for people, ``{"items": [...]}`` or one line per item for programs."""
        if self.form == "jsonl":
            for row in rows:
                item = {"format_version": FORMAT_VERSION, "kind": kind, **row}
                click.echo(json.dumps(item, ensure_ascii=False, allow_nan=False))
        elif not self.for_people:
            self.data(kind, {"items": list(rows)})
        elif rows:
            shown = [c for c in columns if self.form == "wide" or not c.wide]
            for text in table(rows, shown):
                self.line(text)
        elif empty:
            self.note(empty)


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> Iterator[str]:
    """Lines of a plain table: upper-case headers, two spaces between, numbers to the right."""
    cells = [[_cell(row.get(c.field)) for c in columns] for row in rows]
    lines = [[c.title.upper() for c in columns], *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        padded = (
            text.rjust(width) if column.number else text.ljust(width)
            for text, width, column in zip(line, widths, columns, strict=True)
        )
        yield "  ".join(padded).rstrip()


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, list | tuple):
        return ",".join(str(v) for v in value) or "-"
    return str(value)


def yaml_lines(value: Any, indent: str = "") -> Iterator[str]:
    """Block YAML of plain JSON values; every string is quoted, so no reader can misread one."""
    items: Iterable[tuple[str, Any]]
    if isinstance(value, Mapping):
        items = ((f"{json.dumps(str(k), ensure_ascii=False)}:", v) for k, v in value.items())
    else:
        items = (("-", v) for v in value)
    for head, one in items:
        if isinstance(one, Mapping | list | tuple) and one:
            yield f"{indent}{head}"
            yield from yaml_lines(one, indent + "  ")
        else:
            yield f"{indent}{head} {json.dumps(one, ensure_ascii=False, allow_nan=False)}"


def power(watts: float) -> str:
    """Watts as people read them: ``950 W``, ``14.2 kW``, ``3.72 MW``."""
    if abs(watts) >= 999_500:
        return f"{watts / 1e6:.2f} MW"
    return f"{watts / 1e3:.1f} kW" if abs(watts) >= 999.5 else f"{watts:.0f} W"


def count(value: float) -> str:
    """A rate or count as people read it: ``7``, ``2.5k``, ``1.2M``."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:.1f}M"
    return f"{value / 1e3:.1f}k" if abs(value) >= 1e3 else f"{value:.3g}"


def money(value: float, unit: str = "/h") -> str:
    """Dollars as people read them: ``$1,744/h``; cents below 100."""
    digits = 0 if abs(value) >= 100 else 2 if abs(value) >= 0.1 else 4
    sign = "-" if value < 0 else ""
    return f"{sign}${abs(value):,.{digits}f}{unit}"
