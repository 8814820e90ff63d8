"""Fleet files: YAML in, one `FleetDescription` out, or every fault at once with its place.

The YAML, validation and unit libraries are used in this package and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sites.fleet_file.build import Entry, FleetDescription, build
from sites.fleet_file.check import check
from sites.fleet_file.faults import Fault, FleetFileError
from sites.fleet_file.reader import Reading, find_files, read_bytes, read_file
from sites.fleet_file.references import check_references
from sites.fleet_file.schema import explain, json_schema

__all__ = [
    "Fault",
    "FleetDescription",
    "FleetFileError",
    "explain",
    "find_files",
    "json_schema",
    "load_bytes",
    "load_fleet",
]


def load_fleet(paths: str | Path | Iterable[str | Path]) -> FleetDescription:
    """Read fleet files (or folders of them, searched to the bottom) into one description.

    Raises FleetFileError with every fault found, each with file, line and column.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    files = find_files(tuple(Path(one) for one in given))
    faults: list[Fault] = []
    readings = [read_file(path, faults) for path in files]
    return _describe(readings, faults, shown=", ".join(str(one) for one in given) or "(no file)")


def load_bytes(content: bytes, *, file: str = "<fleet>") -> FleetDescription:
    """Read one fleet file's content. Raises FleetFileError with every fault found."""
    faults: list[Fault] = []
    return _describe([read_bytes(content, file=file, faults=faults)], faults, shown=file)


def _describe(readings: list[Reading], faults: list[Fault], *, shown: str) -> FleetDescription:
    nodes = [node for one in readings for node in one.documents if node.value is not None]
    entries = [Entry(node=node, document=check(node, faults)) for node in nodes]
    if not entries and not faults:
        faults.append(
            Fault(file=shown, line=0, column=0, message="empty fleet: no document; describe a Site")
        )
    if all(one.complete for one in readings):  # what a broken file would declare is unknown
        check_references(entries, faults)
    description = build(entries, faults)
    if description is None:
        raise FleetFileError(faults)
    return description
