"""One canonical text and one digest for every fact.

Canonical JSON is RFC 8785 (through the `rfc8785` library); the digest is its SHA-256. Two equal
facts have one digest, whatever process, hash seed or machine computed it.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring
from typing import Any

import rfc8785

from sites.plain import INTEGER_MAX


def to_plain(value: Any) -> Any:
    """Turn a fact (nested dataclasses, enums, tuples, frozensets) into plain JSON values.

    Sets are written sorted. Raises TypeError for a value no fact may hold.
    """
    if isinstance(value, enum.Enum):
        return value.value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: to_plain(getattr(value, f.name))
            for f in dataclasses.fields(value)
            if f.compare  # caches derived from the other fields are not part of the fact
        }
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, frozenset | set):
        return sorted(to_plain(v) for v in value)
    if isinstance(value, tuple | list):
        return [to_plain(v) for v in value]
    raise TypeError(f"{type(value).__name__} cannot be part of a fact")


def canonical_json(value: Any) -> bytes:
    """Return the RFC 8785 canonical JSON of a fact or plain value."""
    parts: list[str] = []
    _write(value, parts.append)
    try:
        return "".join(parts).encode()
    except UnicodeEncodeError:  # half a surrogate pair: the library says what is wrong
        return rfc8785.dumps(to_plain(value))


def digest(value: Any) -> str:
    """Return ``sha256:`` and the hex SHA-256 of the fact's canonical JSON."""
    return "sha256:" + hashlib.sha256(canonical_json(value)).hexdigest()


def _write(value: Any, put: Callable[[str], None]) -> None:
    """Write what facts mostly hold at once, and leave the rest to the library, byte for byte alike.

    The library takes seconds for a fleet of a thousand sites.
    """
    kind = type(value)
    if kind is str:
        put(encode_basestring(value))
    elif kind is float:
        put(_number(value))
    elif kind is int and -INTEGER_MAX <= value <= INTEGER_MAX:
        put(str(value))
    elif value is None:
        put("null")
    elif kind is bool:
        put("true" if value else "false")
    elif kind is tuple or kind is list:
        before = "["
        for one in value:
            put(before)
            _write(one, put)
            before = ","
        put("]" if value else "[]")
    elif isinstance(value, enum.Enum):
        _write(value.value, put)
    elif dataclasses.is_dataclass(kind):
        for before, name in _keys(kind):
            put(before)
            _write(getattr(value, name), put)
        put("}" if _keys(kind) else "{}")
    else:
        put(rfc8785.dumps(to_plain(value)).decode())


def _number(value: float) -> str:
    """As RFC 8785 has it. Both notations have the same digits and part ways in exponents only."""
    if value == 0:
        return "0"  # of either sign
    text = repr(value)
    if "e" in text or "n" in text:
        return rfc8785.dumps(value).decode()
    return text.removesuffix(".0")


@functools.cache
def _keys(kind: type[Any]) -> tuple[tuple[str, str], ...]:
    """(what stands before a field's value, its name) for each field of a fact, sorted by name."""
    names = sorted(f.name for f in dataclasses.fields(kind) if f.compare)
    starts = ("{" if at == 0 else "," for at in range(len(names)))
    return tuple((f'{start}"{name}":', name) for start, name in zip(starts, names, strict=True))
