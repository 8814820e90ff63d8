"""Constants and guards for quantities. A unit ends every name; a guard names the field it refused.

Facts call these in ``__post_init__``; nothing here converts units (the fleet-file reader does
that).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from sites.errors import InvalidFactError

WHOLE_BP = 10_000
"""Basis points of a whole: traffic shares are integers that sum to exactly this."""

MS_PER_S = 1_000
S_PER_H = 3_600.0
W_PER_KW = 1_000.0
BITS_PER_BYTE = 8
BYTES_PER_GB = 1e9
HOURS_PER_DAY = 24

_IDENTIFIER = re.compile(r"[a-z0-9](?:[a-z0-9._/:@+-]{0,198}[a-z0-9])?\Z")
_COUNTRY = re.compile(r"[A-Z]{2}\Z")


def require_id(value: str, *, field: str) -> None:
    """Refuse an identifier that is empty, over 200 characters or not lower-case ASCII."""
    if not _IDENTIFIER.match(value):
        raise InvalidFactError(
            f"{field}: {value!r} is not an identifier; use 1-200 of a-z 0-9 . _ / : @ + -, "
            "starting and ending with a letter or digit"
        )


def require_country(value: str, *, field: str) -> None:
    """Refuse anything but an ISO 3166-1 alpha-2 code in capitals."""
    if not _COUNTRY.match(value):
        raise InvalidFactError(f"{field}: {value!r} is not an ISO 3166-1 alpha-2 country code")


def require_nonnegative(value: float, *, field: str) -> None:
    """Refuse negative, infinite and NaN quantities."""
    if not (math.isfinite(value) and value >= 0):
        raise InvalidFactError(f"{field}: {value!r} must be finite and at least 0")


def require_positive(value: float, *, field: str) -> None:
    """Refuse zero, negative, infinite and NaN quantities."""
    if not (math.isfinite(value) and value > 0):
        raise InvalidFactError(f"{field}: {value!r} must be finite and above 0")


def require_between(value: float, *, low: float, high: float, field: str) -> None:
    """Refuse a quantity outside the closed interval [low, high]."""
    if not (math.isfinite(value) and low <= value <= high):
        raise InvalidFactError(f"{field}: {value!r} must lie between {low:g} and {high:g}")


def require_unique(ids: Iterable[str], *, field: str) -> None:
    """Refuse two facts of one identifier."""
    seen: set[str] = set()
    for one in ids:
        if one in seen:
            raise InvalidFactError(f"{field}: {one!r} is given twice; give each its own name")
        seen.add(one)
