"""The public reference data as rows, read once. Knows file names and columns, nothing of fleets."""

from __future__ import annotations

import csv
import gzip
import io
import os
from functools import cache
from pathlib import Path

import numpy as np

Row = dict[str, str]


@cache
def rows(data: Path, name: str) -> tuple[Row, ...]:
    """All rows of a CSV file (gzipped or not) below the data folder."""
    raw = (data / name).read_bytes()
    text = (gzip.decompress(raw) if name.endswith(".gz") else raw).decode("utf-8")
    return tuple(csv.DictReader(io.StringIO(text, newline="")))


def one(data: Path, name: str, *, column: str, value: str) -> Row:
    """The only row whose `column` says `value`."""
    found = [row for row in rows(data, name) if row[column] == value]
    if len(found) != 1:
        raise LookupError(f"{name}: {len(found)} rows whose {column} is {value!r}, not one")
    return found[0]


@cache
def hourly(data: Path, name: str) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """A wide hourly table: its UTC stamps and a column per zone (NaN where a value is missing)."""
    raw = gzip.decompress((data / name).read_bytes()).decode("utf-8")
    lines = csv.reader(io.StringIO(raw, newline=""))
    zones = next(lines)[1:]
    stamps, values = [], []
    for line in lines:
        stamps.append(line[0])
        values.append([float(cell) if cell else np.nan for cell in line[1:]])
    table = np.array(values)
    return tuple(stamps), {zone: table[:, at] for at, zone in enumerate(zones)}


def data_folder() -> Path:
    """Folder of the public reference data. Raises SystemExit with a sentence where it is unset."""
    where = os.environ.get("HINTERLAND_DATA", "")
    if not where:
        raise SystemExit("set HINTERLAND_DATA to the folder of the public reference data")
    return Path(where).resolve()
