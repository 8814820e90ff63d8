"""One canonical text and one digest for every fact.

Canonical JSON is RFC 8785 (through the `rfc8785` library); the digest is its SHA-256. Two equal
facts have one digest, whatever process, hash seed or machine computed it.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
from collections.abc import Mapping
from typing import Any

import rfc8785


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
    return rfc8785.dumps(to_plain(value))


def digest(value: Any) -> str:
    """Return ``sha256:`` and the hex SHA-256 of the fact's canonical JSON."""
    return "sha256:" + hashlib.sha256(canonical_json(value)).hexdigest()
