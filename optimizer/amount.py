"""How one number is changed by a what-if: set, added to, taken from, or scaled.

Decides what ``+500 kW``, ``-2``, ``+20%``, ``x2`` and ``= 2 MW`` mean for a value. Units and ranges
are the fleet file's; what the value belongs to is `whatif`'s.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sites.errors import RefusedError
from sites.fleet_file.value import read_value
from sites.units import WHOLE_BP

_SCALE = re.compile(r"[x×*]\s*(?P<factor>[0-9]{1,9}(?:\.[0-9]{0,9})?)\Z")
_PERCENT = re.compile(r"(?P<sign>[-+])\s*(?P<percent>[0-9]{1,9}(?:\.[0-9]{0,9})?)\s*%\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Amount:
    """A change of a number: times `factor`, or, where `sign` says so, by or to what `text` says.

    `sign` is ``+`` (add), ``-`` (take), ``=`` (set) or ``x`` (scale).
    """

    sign: str
    text: str = ""
    factor: float = 1.0

    def applied(self, old: Any, *, path: str) -> Any:
        """The new value of a field of the fleet files, `old` being its fact's.

        Tuples (hour by hour) change at each hour; whole numbers stay whole. Raises RefusedError.
        """
        if self.sign == "=":
            return _read(path, "null" if self.text == "none" else self.text)
        if old is None:
            raise RefusedError("there is none to change; set one with = and its value")
        if self.sign == "x":
            return _each(old, lambda one: one * self.factor)
        more = _read(path, self.text)
        step = more[0] if isinstance(more, tuple) else more
        if isinstance(step, bool | str) or not isinstance(step, int | float):
            raise RefusedError(f'"{self.text}" cannot be added; set it with =')
        return _each(old, lambda one: one + (step if self.sign == "+" else -step))


def _read(path: str, text: str) -> Any:
    value = read_value(path, text)
    in_parts = value is not None and path.endswith(".maxShed")
    return round(value * WHOLE_BP) if in_parts else value


def _each(old: Any, change: Any) -> Any:
    if isinstance(old, tuple):
        return tuple(_tidy(change(one)) for one in old)
    if isinstance(old, bool | str):
        raise RefusedError("is not a number; set it with =")
    new = _tidy(change(old))
    if isinstance(old, int):
        if new != round(new):
            raise RefusedError(f"{old} would become {new:g}, which is not a whole number")
        return round(new)
    return new


def _tidy(value: float) -> float:
    """Without the last bits that arithmetic leaves, so that +10% and then -10 kW read cleanly."""
    return float(f"{value:.14g}")


def read_amount(text: str) -> Amount:
    """``+500 kW``, ``-2``, ``+20%``, ``x2``, ``= 2 MW`` or ``2 MW`` (set). Raises RefusedError."""
    if match := _SCALE.match(text):
        return Amount(sign="x", factor=float(match["factor"]))
    if match := _PERCENT.match(text):
        part = float(match["percent"]) / 100
        return Amount(sign="x", factor=1 + part if match["sign"] == "+" else max(0.0, 1 - part))
    if not text:
        raise RefusedError("by how much? write e.g. +20%, x2, = 5, or +5 with the unit")
    sign = text[0] if text[0] in "+-=" else "="
    return Amount(sign=sign, text=text[text[0] in "+-=" :].strip())
