"""CSV tables read cell by cell: every fault with its place, and none half-imported.

Decides when a cell is no number and when a table is no table; what the cells mean is left to the
importers.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from sites.errors import RefusedError
from sites.fleet_file.faults import Fault

SHOWN_FAULTS = 200
ROWS_MAX = 1_000_000


class MeasurementFileError(RefusedError):
    """Tables of measurements that hold none; `faults` lists everything found, in file order."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = tuple(sorted(set(faults)))
        lines = [str(fault) for fault in self.faults[:SHOWN_FAULTS]]
        if len(self.faults) > SHOWN_FAULTS:
            lines.append(f"{SHOWN_FAULTS} of {len(self.faults)} faults shown")
        super().__init__("\n".join(lines))


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of a table. Reading a bad cell notes the fault and answers 1 or None."""

    file: str
    line: int
    cells: dict[str, str]
    columns: dict[str, int]
    faults: list[Fault] = field(compare=False)

    def fault(self, column: str, message: str) -> None:
        """Note what is wrong with the cell of a column (counted from 1)."""
        place = self.columns.get(column, 0)
        self.faults.append(
            Fault(file=self.file, line=self.line, column=place, message=f"{column}: {message}")
        )

    def text(self, column: str) -> str:
        """The cell's text; empty is a fault."""
        value = self.cells.get(column, "").strip()
        if not value:
            self.fault(column, "is empty; give a name")
        return value or "unknown"

    def maybe(self, column: str) -> float | None:
        """The cell's number, above 0 and finite, or None where it is blank."""
        value = self.cells.get(column, "").strip()
        if not value:
            return None
        try:
            number = float(value)
        except ValueError:
            self.fault(column, f"{value[:40]!r} is not a number")
            return None
        if not (math.isfinite(number) and number > 0):
            self.fault(column, f"{value[:40]} must be finite and above 0")
            return None
        return number

    def number(self, column: str) -> float:
        """The cell's number; blank is a fault."""
        value = self.maybe(column)
        if value is None and not self.cells.get(column, "").strip():
            self.fault(column, "is empty; give a number above 0")
        return 1.0 if value is None else value

    def count(self, column: str) -> int:
        """The cell's whole number from 1 to 4096."""
        number = self.number(column)
        if number != round(number) or number > 4096:
            self.fault(column, f"{number:g} is not a whole number from 1 to 4096")
            return 1
        return int(number)


def header_of(content: bytes) -> tuple[str, ...]:
    """The column names of a table; empty if its first line is no text."""
    try:
        first = content.split(b"\n", 1)[0].decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        return ()
    return tuple(name.strip() for name in next(csv.reader([first]), []))


def rows(content: bytes, *, file: str, faults: list[Fault]) -> Iterator[Row]:
    """Every line of a table below its header; a line of another length is a fault."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        faults.append(Fault(file=file, line=line, column=1, message="is not UTF-8 text"))
        return
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    names: list[str] = []
    places: dict[str, int] = {}
    try:
        for cells in reader:
            if not names:
                names = [name.strip() for name in cells]
                places = {name: i + 1 for i, name in enumerate(names)}
            elif cells and reader.line_num <= ROWS_MAX:
                if len(cells) != len(names):
                    message = f"has {len(cells)} cells, the header {len(names)}"
                    faults.append(Fault(file=file, line=reader.line_num, column=1, message=message))
                    continue
                yield Row(
                    file=file,
                    line=reader.line_num,
                    cells=dict(zip(names, cells, strict=True)),
                    columns=places,
                    faults=faults,
                )
    except csv.Error as error:
        faults.append(Fault(file=file, line=reader.line_num, column=1, message=f"no CSV: {error}"))
