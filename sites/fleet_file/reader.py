"""YAML text to nodes that know their place: the only file that touches the YAML library.

Decides what YAML a fleet file may use: plain scalars after YAML 1.2 (so Norway's ``NO`` stays a
string), no anchors, aliases, merges or tags, no key twice, at most `DEPTH_MAX` levels and
`BYTES_MAX` bytes. What the nodes mean is left to the documents.

The parser is PyYAML because it brings libyaml, which reads a fleet of a hundred thousand links in
seconds. Only its events are used: what a scalar means is `resolve_scalar`'s, not YAML 1.1's. Where
PyYAML was built without libyaml its own slow parser stands in: the same nodes and places (but for
an empty value in braces), faults in other words. What one reads and the other refuses is odd: tabs
between words, "?" and "a:}" in brackets, unknown directives, escaped halves of a surrogate pair.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sites.fleet_file.faults import Fault, FleetFileError

BYTES_MAX = 8 * 1024 * 1024
DEPTH_MAX = 32
FILES_MAX = 2_000

_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_VERSIONS = (None, (1, 2))
# What YAML forbids, a byte order mark after the start, and what ends a line for YAML 1.1 alone: the
# line of a place must be the one an editor shows.
_REFUSED = re.compile(
    r"[^\t\n\r -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}\Z")
_NUMBER = re.compile(
    r"[-+]?(?:\.[0-9]{1,30}|[0-9]{1,30}(?:\.[0-9]{0,30})?)(?:[eE][-+]?[0-9]{1,3})?\Z"
)
_SPECIAL = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
}


class Place(NamedTuple):
    """Where something stands in a file; line and column count from 1."""

    file: str
    line: int
    column: int

    def fault(self, message: str) -> Fault:
        """A fault at this place."""
        return Fault(file=self.file, line=self.line, column=self.column, message=message)


# Where a value stands: line and column, those of its key (0 where it has none), and the spots of
# what is below it, by key or in order. A large fleet has millions: plain tuples cost least.
_Spot = tuple[int, int, int, int, Any]


@dataclass(slots=True)
class Node:
    """A value of a file, and where it and everything below it stands.

    `value` is plain: a scalar, or lists and dicts of such.
    """

    file: str
    value: Any
    spot: _Spot

    @property
    def place(self) -> Place:
        """Where the value stands."""
        return Place(self.file, self.spot[0], self.spot[1])

    def get(self, *path: str | int) -> Node | None:
        """The node at `path` below this one, if there is one."""
        value, spot = self.value, self.spot
        for step in path:
            if isinstance(value, dict):
                found = step in value
            else:
                found = isinstance(value, list) and step in range(len(value))
            if not found:
                return None
            value, spot = value[step], spot[4][step]
        return Node(self.file, value, spot)

    def items(self) -> Iterator[Node]:
        """The nodes of a list; none if this is no list."""
        if isinstance(self.value, list):
            for value, spot in zip(self.value, self.spot[4], strict=True):
                yield Node(self.file, value, spot)

    def nearest(self, *path: str | int) -> Place:
        """The place of the deepest node on `path` that exists."""
        for length in range(len(path), 0, -1):
            found = self.get(*path[:length])
            if found is not None:
                return found.place
        return self.place

    def key_place(self, *path: str | int) -> Place:
        """The place of the key that `path` ends in, else of the deepest node on it."""
        node = self.get(*path)
        if node is None or not node.spot[2]:
            return self.nearest(*path)
        return Place(self.file, node.spot[2], node.spot[3])


def find_files(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """The fleet files that `paths` (files or folders, searched to the bottom) stand for, sorted.

    Raises FleetFileError for a path that does not exist or a folder without YAML files.
    """
    found: dict[Path, None] = {}
    faults: list[Fault] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(
                one
                for one in path.rglob("*")
                if one.suffix in (".yaml", ".yml")
                and not any(part.startswith(".") for part in one.relative_to(path).parts)
            )
            if not inside:
                faults.append(_whole(path, "no .yaml file in this folder"))
            if len(inside) > FILES_MAX:
                faults.append(_whole(path, f"{len(inside)} files, limit {FILES_MAX}"))
            found.update(dict.fromkeys(inside[:FILES_MAX]))
        elif path.is_file():
            found[path] = None
        elif path.exists():  # a pipe would be waited on for ever
            faults.append(_whole(path, "neither a file nor a folder"))
        else:
            faults.append(_whole(path, "no such file or folder"))
    if faults:
        raise FleetFileError(faults)
    return tuple(found)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """The documents of a file; `complete` is False where something stopped the reading."""

    documents: list[Node]
    complete: bool


_NOTHING = Reading(documents=[], complete=False)


def read_file(path: Path, faults: list[Fault]) -> Reading:
    """The documents of one file; what cannot be read is added to `faults`."""
    try:
        size = path.stat().st_size
        if size > BYTES_MAX:
            faults.append(_whole(path, f"{size} bytes, limit {BYTES_MAX} bytes; split the file"))
            return _NOTHING
        content = path.read_bytes()
    except OSError as error:
        faults.append(_whole(path, f"cannot be read: {error.strerror or error}"))
        return _NOTHING
    return read_bytes(content, file=str(path), faults=faults)


def read_bytes(content: bytes, *, file: str, faults: list[Fault]) -> Reading:
    """The documents of a file's `content`; what cannot be read is added to `faults`."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode()
        place = _place_at(before, len(before), file=file)
        faults.append(place.fault(f"byte 0x{error.object[error.start]:02x} is not UTF-8"))
        return _NOTHING
    builder = _Builder(file=file, faults=faults)
    stopped = _parse(text, builder)
    if stopped is not None:
        faults.append(stopped)
    return Reading(documents=builder.documents(), complete=stopped is None)


def _parse(text: str, builder: _Builder) -> Fault | None:
    """Feed the parser's events to the builder; the fault that stopped it, if one did."""
    refused = _REFUSED.search(text)
    if refused is not None:
        place = _place_at(text, refused.start(), file=builder.file)
        return place.fault(f"character U+{ord(refused[0]):04X} is not allowed in a fleet file")
    event = None
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            stopped = builder.take(event)
            if stopped is not None:
                return stopped
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = _place_at(text, mark.index if mark else 0, file=builder.file)
        return place.fault(f"not YAML: {_one_line(error.problem or error.context)}")
    except (
        yaml.YAMLError,
        ValueError,
        ArithmeticError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        # The parser in Python lets a few foreign errors through, e.g. for an escape beyond
        # Unicode; whatever stopped it stands after the last event it produced.
        place = builder.place(event) if event else _place_at(text, 0, file=builder.file)
        return place.fault(f"not YAML: {_one_line(str(error))}")
    return None


def _place_at(text: str, offset: int, *, file: str) -> Place:
    """The place of the character at `offset`, or of the text's end."""
    lines = f"{text[:offset]}|".splitlines()
    return Place(file, len(lines), len(lines[-1]))


def _one_line(text: str | None) -> str:
    return " ".join((text or "cannot be parsed").split())[:200]


def _whole(path: Path, message: str) -> Fault:
    return Fault(file=str(path), line=0, column=0, message=message)


@dataclass(slots=True)
class _Open:
    """A list or mapping being filled; `key` (with its place) waits for its value."""

    value: Any
    spots: Any
    key: tuple[str, int, int] | None = None


_NO_KEY = ("", 0, 0)
"""Waits for the value of a key that was refused."""


class _Builder:
    """Parser events in, nodes out, without recursion."""

    def __init__(self, *, file: str, faults: list[Fault]) -> None:
        self.file = file
        self.faults = faults
        self._documents = _Open([], [])
        self._open = [self._documents]

    def documents(self) -> list[Node]:
        """What was read; a document cut short is left out."""
        whole = self._documents
        pairs = list(zip(whole.value, whole.spots, strict=True))
        return [Node(self.file, *one) for one in (pairs if len(self._open) == 1 else pairs[:-1])]

    def take(self, event: Any) -> Fault | None:
        """Consume one event; a fault when nothing after it can be understood."""
        kind = type(event)
        if kind is yaml.ScalarEvent:
            self._scalar(event)
        elif kind is yaml.MappingStartEvent:
            return self._start(event, {}, {})
        elif kind is yaml.SequenceStartEvent:
            return self._start(event, [], [])
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            self._open.pop()
        elif kind is yaml.AliasEvent:
            self._fault(event, f"alias *{event.anchor}: write the value out instead")
            self._add(event, None)
        elif kind is yaml.DocumentStartEvent and (event.tags or event.version not in _VERSIONS):
            self._fault(event, "%YAML and %TAG directives are not used here")
        return None

    def _scalar(self, event: Any) -> None:
        if event.anchor or event.tag:
            self._refuse_features(event)
        frame = self._open[-1]
        text, plain = event.value, not event.style
        if frame.key is not None or type(frame.value) is list:
            self._add(event, resolve_scalar(text) if plain else text)
            return
        mark = event.start_mark
        frame.key = (text, mark.line + 1, mark.column + 1)
        if plain and text == "<<":
            self._fault(event, "merge key <<: write the fields out instead")

    def _start(self, event: Any, value: Any, spots: Any) -> Fault | None:
        if event.anchor or event.tag:
            self._refuse_features(event)
        if len(self._open) > DEPTH_MAX:
            return self.place(event).fault(f"nested over {DEPTH_MAX} levels deep")
        self._add(event, value, spots)
        self._open.append(_Open(value, spots))
        return None

    def _add(self, event: Any, value: Any, below: Any = None) -> None:
        mark, frame = event.start_mark, self._open[-1]
        if type(frame.value) is list:
            frame.value.append(value)
            frame.spots.append((mark.line + 1, mark.column + 1, 0, 0, below))
            return
        key = frame.key
        if key is None:
            self._fault(event, "a key must be plain text")
            frame.key = _NO_KEY
            return
        frame.key = None
        if key is _NO_KEY:
            return
        text, line, column = key
        if text in frame.value:
            first = frame.spots[text][2]
            place = Place(self.file, line, column)
            self.faults.append(place.fault(f'"{text[:80]}" is given twice; first in line {first}'))
            return
        frame.value[text] = value
        frame.spots[text] = (mark.line + 1, mark.column + 1, line, column, below)

    def _refuse_features(self, event: Any) -> None:
        if event.anchor:
            self._fault(event, f"anchor &{event.anchor}: fleet files use no anchors")
        if event.tag:
            self._fault(event, f"tag {event.tag}: fleet files use no tags")

    def place(self, event: Any) -> Place:
        """Where an event stands."""
        return Place(self.file, event.start_mark.line + 1, event.start_mark.column + 1)

    def _fault(self, event: Any, message: str) -> None:
        self.faults.append(self.place(event).fault(message))


def resolve_scalar(text: str) -> Any:
    """A plain scalar after the YAML 1.2 core schema (octal and hex forms left out)."""
    if text in _SPECIAL:
        return _SPECIAL[text]
    if not _NUMBER.match(text):
        return text
    return int(text) if _INTEGER.match(text) else float(text)
