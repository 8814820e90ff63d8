"""Plain JSON values back into facts: the inverse of `sites.digest.to_plain`, strict and complete.

Used wherever a fact comes back from disk or the wire: plan files, ledger entries, assignments.
Unknown fields, missing fields and wrong types are refused, all at once; the types limit the depth.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
import types
import typing
from typing import Any, TypeVar

from sites.errors import InvalidFactError, RefusedError

T = TypeVar("T")

INTEGER_MAX = 2**53 - 1
"""Beyond it JSON numbers are not exact, so canonical JSON (RFC 8785, section 3.2.2.3) has none."""


def from_plain(cls: type[T], value: Any) -> T:
    """Build the fact `cls` from plain JSON values.

    Raises InvalidFactError naming every field that is unknown, missing or of the wrong type.
    """
    faults: list[str] = []
    fact = _build(cls, value, cls.__name__, faults)
    if faults:
        raise InvalidFactError("; ".join(faults))
    return typing.cast(T, fact)


@functools.cache
def _fields(cls: type[Any]) -> dict[str, tuple[Any, bool]]:
    """Field name -> (type, required) of the fields a fact is given (derived caches excluded)."""
    hints = typing.get_type_hints(cls)
    return {
        f.name: (
            hints[f.name],
            f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING,
        )
        for f in dataclasses.fields(cls)
        if f.init
    }


def _build(kind: Any, value: Any, where: str, faults: list[str]) -> Any:
    origin = typing.get_origin(kind)
    if origin is tuple:
        return _build_tuple(typing.get_args(kind), value, where, faults)
    if origin in (typing.Union, types.UnionType):
        return _build_union(typing.get_args(kind), value, where, faults)
    if dataclasses.is_dataclass(kind):
        return _build_fact(typing.cast("type[Any]", kind), value, where, faults)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        try:
            return kind(value)
        except ValueError:
            faults.append(f"{where}: {value!r} is not one of {', '.join(m.value for m in kind)}")
            return None
    return _build_scalar(kind, value, where, faults)


def _build_union(kinds: tuple[Any, ...], value: Any, where: str, faults: list[str]) -> Any:
    if value is None and types.NoneType in kinds:
        return None
    present = tuple(k for k in kinds if k is not types.NoneType)
    if len(present) == 1:
        return _build(present[0], value, where, faults)
    if isinstance(value, int) and float in present and int not in present:
        return _build_scalar(float, value, where, faults)
    if not isinstance(value, bool) and any(isinstance(value, k) for k in present):
        return _build_scalar(type(value), value, where, faults)
    faults.append(f"{where}: {value!r} has the wrong type")
    return None


def _build_tuple(args: tuple[Any, ...], value: Any, where: str, faults: list[str]) -> Any:
    if not isinstance(value, list | tuple):
        faults.append(f"{where}: {value!r} is not a list")
        return ()
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_build(args[0], v, f"{where}[{i}]", faults) for i, v in enumerate(value))
    if len(value) != len(args):
        faults.append(f"{where}: has {len(value)} items, must have {len(args)}")
        return ()
    return tuple(
        _build(a, v, f"{where}[{i}]", faults)
        for i, (a, v) in enumerate(zip(args, value, strict=True))
    )


def _build_fact(cls: type[Any], value: Any, where: str, faults: list[str]) -> Any:
    if not isinstance(value, dict):
        faults.append(f"{where}: {value!r} is not an object")
        return None
    fields: dict[str, tuple[Any, bool]] = _fields(cls)  # type: ignore[arg-type]
    before = len(faults)
    faults += [f"{where}.{name}: unknown field" for name in sorted(value.keys() - fields.keys())]
    faults += [
        f"{where}.{name}: missing"
        for name, (_, required) in fields.items()
        if required and name not in value
    ]
    given = {
        name: _build(kind, value[name], f"{where}.{name}", faults)
        for name, (kind, _) in fields.items()
        if name in value
    }
    if len(faults) > before:
        return None
    try:
        return cls(**given)
    except RefusedError as refused:
        faults.append(f"{where}: {refused}")
        return None


def _build_scalar(kind: Any, value: Any, where: str, faults: list[str]) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = _as_float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)  # canonical JSON writes 1.0 and 1 alike
    fault = _unwritable(value)
    if fault:
        faults.append(f"{where}: {fault}")
        return None
    if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    faults.append(f"{where}: {value!r} is not of type {kind.__name__}")
    return None


def _as_float(value: int) -> float:
    """Canonical JSON writes 1e20 without a point; what no float can hold is infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _unwritable(value: Any) -> str:
    """What keeps a scalar out of canonical JSON, which every fact has to have; "" if nothing."""
    if isinstance(value, int) and abs(value) > INTEGER_MAX:
        return f"an integer of {value.bit_length()} bits is beyond the limit of 53 bits"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value!r} is not a finite number"
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return "not Unicode text: it holds half a surrogate pair"
    return ""
