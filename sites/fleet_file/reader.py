"""YAML text to nodes that know their place: the only file that touches the YAML library.

Decides what YAML a fleet file may use: plain scalars after YAML 1.2 (so Norway's ``NO`` stays a
string), no anchors, aliases, merges or tags, no key twice, at most `DEPTH_MAX` levels and
`BYTES_MAX` bytes. What the nodes mean is left to the documents.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError

from sites.fleet_file.faults import Fault, FleetFileError

BYTES_MAX = 8 * 1024 * 1024
DEPTH_MAX = 32
FILES_MAX = 2_000

_INTEGER = re.compile(r"[-+]?[0-9]{1,18}\Z")
_FLOAT = re.compile(
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where something stands in a file; line and column count from 1."""

    file: str
    line: int
    column: int

    def fault(self, message: str) -> Fault:
        """A fault at this place."""
        return Fault(file=self.file, line=self.line, column=self.column, message=message)


@dataclass(kw_only=True, slots=True)
class Node:
    """A scalar (`value`), a list of nodes or a mapping of nodes, and where it stands.

    `key_places` holds where each key of a mapping stands.
    """

    place: Place
    value: Any
    key_places: dict[str, Place] = field(default_factory=dict)

    def plain(self) -> Any:
        """The value without places: dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def get(self, *path: str | int) -> Node | None:
        """The node at `path` below this one, if there is one."""
        node: Node | None = self
        for step in path:
            if node is None:
                return None
            if isinstance(node.value, dict):
                node = node.value.get(step)
            elif isinstance(node.value, list) and isinstance(step, int):
                node = node.value[step] if 0 <= step < len(node.value) else None
            else:
                return None
        return node

    def nearest(self, *path: str | int) -> Place:
        """The place of the deepest node on `path` that exists."""
        for length in range(len(path), -1, -1):
            found = self.get(*path[:length])
            if found is not None:
                return found.place
        return self.place

    def key_place(self, *path: str | int) -> Place:
        """The place of the key that `path` ends in, else of the deepest node on it."""
        parent = self.get(*path[:-1])
        key = path[-1] if path else ""
        if parent is not None and isinstance(key, str) and key in parent.key_places:
            return parent.key_places[key]
        return self.nearest(*path)


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
        before = content[: error.start]
        column = error.start - before.rfind(b"\n")
        place = Place(file=file, line=before.count(b"\n") + 1, column=column)
        faults.append(place.fault(f"byte 0x{content[error.start]:02x} is not UTF-8"))
        return _NOTHING
    builder = _Builder(file=file, faults=faults)
    stopped = _parse(text, builder)
    if stopped is not None:
        faults.append(stopped)
    return Reading(documents=builder.documents, complete=stopped is None)


def _parse(text: str, builder: _Builder) -> Fault | None:
    """Feed the parser's events to the builder; the fault that stopped it, if one did."""
    file = builder.file
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            stopped = builder.take(event)
            if stopped is not None:
                return stopped
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        place = Place(file=file, line=line, column=column)
        return place.fault(f"not YAML: {_one_line(error.problem or error.context)}")
    except ReaderError as error:
        return _at_offset(text, error, file=file)
    except (
        YAMLError,
        ValueError,
        ArithmeticError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        # The parser lets a few foreign errors through, e.g. for an escape beyond Unicode; whatever
        # stopped it stands after the last event it produced.
        return builder.last.fault(f"not YAML: {_one_line(str(error))}")
    return None


def _at_offset(text: str, error: ReaderError, *, file: str) -> Fault:
    offset = error.position if isinstance(error.position, int) else 0
    before = text[:offset]
    place = Place(file=file, line=before.count("\n") + 1, column=offset - before.rfind("\n"))
    return place.fault(f"character {_one_line(repr(error.character))} is not allowed in YAML")


def _one_line(text: str | None) -> str:
    return " ".join((text or "cannot be parsed").split())[:200]


def _whole(path: Path, message: str) -> Fault:
    return Fault(file=str(path), line=0, column=0, message=message)


@dataclass(slots=True)
class _Open:
    """A collection being filled; `key` is the mapping key that waits for its value."""

    node: Node
    key: str | None = None
    key_place: Place | None = None
    expects_value: bool = False


class _Builder:
    """Parser events in, nodes out, without recursion."""

    def __init__(self, *, file: str, faults: list[Fault]) -> None:
        self.file = file
        self.faults = faults
        self.documents: list[Node] = []
        self.last = Place(file=file, line=1, column=1)
        self._open: list[_Open] = []

    def take(self, event: Any) -> Fault | None:
        """Consume one event; a fault when nothing after it can be understood."""
        mark = event.start_mark
        place = Place(file=self.file, line=mark.line + 1, column=mark.column + 1)
        self.last = place
        kind = type(event).__name__
        self._refuse_features(event, place, kind)
        if kind == "ScalarEvent":
            self._scalar(event, place)
        elif kind == "AliasEvent":
            self._add(Node(place=place, value=None))
        elif kind in ("MappingStartEvent", "SequenceStartEvent"):
            if len(self._open) >= DEPTH_MAX:
                return place.fault(f"nested over {DEPTH_MAX} levels deep")
            node = Node(place=place, value={} if kind == "MappingStartEvent" else [])
            self._open.append(_Open(node))
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            self._add(self._open.pop().node)
        return None

    def _refuse_features(self, event: Any, place: Place, kind: str) -> None:
        if kind == "AliasEvent":
            self.faults.append(place.fault(f"alias *{event.anchor}: write the value out instead"))
            return
        if kind == "DocumentStartEvent":
            if event.tags or event.version not in (None, (1, 2), [1, 2]):
                self.faults.append(place.fault("%YAML and %TAG directives are not used here"))
            return
        if getattr(event, "anchor", None):
            self.faults.append(place.fault(f"anchor &{event.anchor}: fleet files use no anchors"))
        tag = getattr(event, "tag", None)
        if tag:
            self.faults.append(place.fault(f"tag {tag}: fleet files use no tags"))

    def _scalar(self, event: Any, place: Place) -> None:
        frame = self._open[-1] if self._open else None
        if frame is not None and isinstance(frame.node.value, dict) and not frame.expects_value:
            frame.key, frame.key_place, frame.expects_value = event.value, place, True
            if event.value == "<<" and event.style is None:
                self.faults.append(place.fault("merge key <<: write the fields out instead"))
            return
        self._add(
            Node(place=place, value=event.value if event.style else resolve_scalar(event.value))
        )

    def _add(self, node: Node) -> None:
        if not self._open:
            self.documents.append(node)
            return
        frame = self._open[-1]
        if isinstance(frame.node.value, list):
            frame.node.value.append(node)
        elif not frame.expects_value:
            self.faults.append(node.place.fault("a key must be plain text"))
            frame.key, frame.key_place, frame.expects_value = None, node.place, True
        else:
            self._put(frame, node)

    def _put(self, frame: _Open, node: Node) -> None:
        key, place = frame.key, frame.key_place or node.place
        frame.key, frame.key_place, frame.expects_value = None, None, False
        if key is None:
            return
        first = frame.node.key_places.get(key)
        if first is not None:
            self.faults.append(
                place.fault(f'"{key[:80]}" is given twice; first in line {first.line}')
            )
            return
        frame.node.value[key] = node
        frame.node.key_places[key] = place


def resolve_scalar(text: str) -> Any:
    """A plain scalar after the YAML 1.2 core schema (octal and hex forms left out)."""
    if text in _SPECIAL:
        return _SPECIAL[text]
    if _INTEGER.match(text):
        return int(text)
    if _FLOAT.match(text):
        return float(text)
    return text
